"""Reading and judging a client list: no database needed."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing.client_file import MAX_TAG, open_clients, own_tags, wrong_tag
from mailing.csv_rows import CHUNK, LINE_LIMIT, ROW_LINES
from mailing.errors import InvalidInput

HEADER = "phone_number,tags,timezone\n"
ZONES = {"UTC", "Europe/Samara"}


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A function: the content of a file → its good rows as (line, phone, zone, tags), and its rejects."""
    path = tmp_path_factory.mktemp("files") / "list.csv"

    def judge(content):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        good, rejects = [], []
        with open_clients(path) as file:
            for chunk in file.chunks(ZONES):
                good += chunk.clients
                rejects += [(r.line_number, r.field, r.value, r.reason) for r in chunk.rejects]
                assert chunk.rows == len(chunk.clients) + len(chunk.rejects)
        return good, rejects

    return judge


@pytest.mark.parametrize(
    "content",
    [
        "phone_number,tags,timezone\n79001234567,sport;art,Europe/Samara\n79001234568,,\n",
        "phone_number,tags,timezone\n79001234567,sport;art,Europe/Samara\n79001234568,,",
        "phone_number,tags,timezone\r\n79001234567,sport;art,Europe/Samara\r\n79001234568,,\r\n",
        "\ufeffphone_number,tags,timezone\n79001234567,sport;art,Europe/Samara\n79001234568,,\n",
        '"phone_number","tags","timezone"\n"79001234567","sport;art","Europe/Samara"\n79001234568,"",""\n',
        '\ufeff"phone_number",tags,timezone\r\n79001234567,sport;art,Europe/Samara\r\n79001234568,,\r\n',
        "timezone,phone_number,tags\nEurope/Samara,79001234567,sport;art\n,79001234568,\n",
        "phone_number,tags,timezone\n+7 (900) 123-45-67,art;sport;art,Europe/Samara\n89001234568,,UTC\n",
    ],
    ids=["plain", "no last newline", "CRLF", "BOM", "quoted", "BOM and CRLF", "columns turned", "other forms"],
)
def test_ways_of_writing_a_list_are_the_same_list(judge, content):
    assert judge(content) == (
        [(2, "79001234567", "Europe/Samara", "art;sport"), (3, "79001234568", "UTC", "")],
        [],
    )


def test_the_first_wrong_field_of_a_row_decides(judge):
    _, rejects = judge(HEADER + "1,a b,Mars\n79001234567,a b,Mars\n79001234567,art,Mars\n")

    assert rejects == [
        (2, "phone_number", "1", "is not a number of the form 7XXXXXXXXXX"),
        (3, "tags", "a b", "tag 'a b' has a character other than letters, digits, - and _"),
        (4, "timezone", "Mars", "is not the name of a time zone in the table timezones"),
    ]


@pytest.mark.parametrize("zone", ["europe/samara", "UTC ", "+04", "MSK+3", "NULL", "nan", "UTC\0"])
def test_a_zone_is_taken_by_its_exact_name_only(judge, zone):
    good, rejects = judge(f"{HEADER}79001234567,,{zone}\n")

    assert good == []
    assert [reject[:3] for reject in rejects] == [(2, "timezone", zone)]


@pytest.mark.parametrize("row", ["79001234567", "79001234567,art", "79001234567,art,UTC,", "79001234567,a,b,UTC", " "])
def test_a_row_of_another_shape_is_rejected_as_a_row(judge, row):
    good, rejects = judge(f"{HEADER}{row}\n79001234568,,\n")

    assert [line for line, *_ in good] == [3]
    assert rejects == [(2, "row", row, f"has {row.count(',') + 1} fields, wanted 3")]


def test_empty_lines_are_no_rows_but_count_as_lines(judge):
    good, rejects = judge(HEADER + "\n79001234567,,\n\r\n\nx,,\n")

    assert [line for line, *_ in good] == [3]
    assert [line for line, *_ in rejects] == [6]


def test_line_numbers_stay_true_behind_a_newline_in_quotes(judge):
    good, rejects = judge(HEADER + '79001234567,"art\nsport\n",UTC\n79001234568,,\nx,,\n')

    assert [line for line, *_ in good] == [5]
    assert [reject[:3] for reject in rejects] == [(2, "tags", "art\nsport\n"), (6, "phone_number", "x")]


@pytest.mark.parametrize("behind", [0, 1, ROW_LINES - 1, ROW_LINES, 3 * ROW_LINES])
def test_a_quote_that_is_never_closed_costs_its_own_row_only(judge, behind):
    rows = "".join(f"7900{number:07},,\n" for number in range(behind))
    good, rejects = judge(f'{HEADER}79990000000,,\n"79990000001,art,UTC\n{rows}')

    assert [line for line, *_ in good] == [2, *range(4, 4 + behind)]
    assert rejects == [(3, "row", '"79990000001,art,UTC', "its quotes do not match")]


@given(st.lists(st.sampled_from(['"79001234567,art,UTC', "79001234567,art,UTC", '"79001234567",art,UTC', ""])))
def test_rows_with_stray_quotes_never_take_good_rows_with_them(judge, lines):
    good, rejects = judge(HEADER + "\n".join(lines))

    stray = [number for number, line in enumerate(lines, start=2) if line.startswith('"') and line.count('"') == 1]
    fine = [number for number, line in enumerate(lines, start=2) if line and number not in stray]
    assert [line for line, *_ in rejects] == stray
    assert [line for line, *_ in good] == fine


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters='\r\n"'), max_size=20)))
def test_every_line_that_is_not_empty_is_either_a_client_or_a_reject(judge, lines):
    good, rejects = judge(HEADER + "\n".join(lines))

    found = sorted([line for line, *_ in good] + [line for line, *_ in rejects])
    assert found == [number for number, line in enumerate(lines, start=2) if line]


def test_a_line_in_quotes_among_many_plain_ones_takes_no_other_out_of_its_place(judge):
    good, rejects = judge(
        HEADER
        + "".join(f"7900{number:07},a,\n" for number in range(CHUNK))
        + '"79010000000","b;a",\n\n79010000001,b,"UTC"\n'
        + "".join(f"7902{number:07},a\n" for number in range(2))
    )

    assert [line for line, *_ in good] == [*range(2, CHUNK + 3), CHUNK + 4]
    assert good[-2:] == [(CHUNK + 2, "79010000000", "UTC", "a;b"), (CHUNK + 4, "79010000001", "UTC", "b")]
    assert [reject[:2] for reject in rejects] == [(CHUNK + 5, "row"), (CHUNK + 6, "row")]


def test_a_carriage_return_within_a_row_is_rejected(judge):
    good, rejects = judge(HEADER + "79001234567,art\rsport,UTC\n79001234568,,\n")

    assert [line for line, *_ in good] == [3]
    assert rejects == [(2, "row", "79001234567,art\rsport,UTC", "has a carriage return within the line")]


def test_a_field_beyond_the_csv_limit_is_rejected_as_a_row(judge):
    good, rejects = judge(HEADER + f"79001234567,{'a;' * 70_000}a,UTC\n79001234568,,\n")

    assert [line for line, *_ in good] == [3]
    assert [(line, field, reason) for line, field, _, reason in rejects] == [(2, "row", "a field is too long")]


def test_more_rows_than_a_chunk_come_in_chunks_with_their_line_numbers(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(HEADER + "".join(f"7900{number:07},,\n" for number in range(CHUNK + 1)))

    with open_clients(path) as file:
        chunks = [(chunk.rows, chunk.clients[0][0]) for chunk in file.chunks(ZONES)]

    assert chunks == [(CHUNK, 2), (1, CHUNK + 2)]


@pytest.mark.parametrize(
    "name", ["a", "7", "-", "_", "1034", "10", "b2b", "new-client", "Новый", "日本", "a" * MAX_TAG]
)
def test_letters_of_any_script_digits_and_two_signs_make_a_tag(name):
    assert wrong_tag(name) == ""


@pytest.mark.parametrize(
    "name", ["", "a b", "a,b", "a.b", "a\0", "a\n", "'", "e\u0301", "١", "a" * (MAX_TAG + 1), "103"]
)
def test_anything_else_is_no_tag(name):
    assert wrong_tag(name) != ""


def listed(written):
    return written.split(";") if written else []


@pytest.mark.parametrize(
    ("written", "names"),
    [("", ""), ("b;a", "a;b"), ("a;a", "a"), ("900", ""), ("a;900", "a"), ("900;b;900;a", "a;b"), ("1900", "1900")],
)
def test_tags_come_sorted_and_once_and_without_the_client_s_own_operator_code(written, names):
    assert own_tags(listed(written), "900") == (listed(names), "")


@pytest.mark.parametrize("written", ["901", "a;901", ";", "a;", ";a", "a;;b", "a; b"])
def test_a_foreign_operator_code_and_an_empty_name_are_wrong_tags(written):
    names, wrong = own_tags(listed(written), "900")

    assert names == []
    assert wrong.startswith("tag ")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "is empty"),
        ("\ufeff", "is empty"),
        ("\n79001234567,,\n", "line 1 is ''"),
        ("phone,tags,timezone\n", "line 1 is 'phone,tags,timezone'"),
        ("phone_number;tags;timezone\n", "line 1 is 'phone_number;tags;timezone'"),
        ("phone_number,tags\n", "line 1 is 'phone_number,tags'"),
        ("phone_number,tags,tags\n", "line 1 is 'phone_number,tags,tags'"),
        ("phone_number,tags,timezone,name\n", "line 1 is 'phone_number,tags,timezone,name'"),
        ("phone_number,tags,timezone\r79001234567,,\r", "line 1 is 'phone_number,tags,timezone\\r###########,,"),
        ("79001234567,art,UTC\n", "line 1 is '###########,art,UTC'"),
        (b"\x89PNG\r\n\x1a\n", "line 1: byte 0x89 is not UTF-8"),
        (b"PK\x03\x04\x14\0\0", "line 1 is 'PK\\x03\\x04\\x14\\x00\\x00'"),
        (codecs.BOM_UTF16_LE + HEADER.encode("utf-16-le"), "line 1: byte 0xff is not UTF-8"),
        (bytes(LINE_LIMIT + 1), "line 1 is longer than 1,048,576 bytes"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_what_it_begins_with(judge, content, found):
    with pytest.raises(InvalidInput) as refused:
        judge(content)

    assert f"list.csv: {found}" in str(refused.value)


def test_a_list_with_a_header_and_no_rows_is_an_empty_list(judge):
    assert judge(HEADER) == ([], [])


def test_a_line_that_is_not_utf_8_is_named_without_its_phone_number(judge):
    with pytest.raises(InvalidInput, match=r"line 3: byte 0xcc is not UTF-8") as refused:
        judge(HEADER.encode() + b"79001234567,,\n79001234568,\xcc\xcb,\n")

    assert "79001234568" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_what_cannot_be_read_is_refused(tmp_path):
    for path, found in [(tmp_path, "is a directory"), (tmp_path / "no.csv", "cannot be read: No such file")]:
        with pytest.raises(InvalidInput, match=found), open_clients(path):
            pass
