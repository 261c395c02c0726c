"""The client import, as PostgreSQL sees it."""

import csv
import json
import logging
import re
import threading
from pathlib import Path

import pytest

from mailing import client_import, db
from mailing.client_file import wrong_tag
from mailing.client_import import ImportFigures, import_clients
from mailing.errors import InvalidInput

DATA = Path(__file__).parents[1] / "include" / "data"
HEADER = "phone_number,tags,timezone\n"


@pytest.fixture
def a_list(tmp_path):
    """A function: rows → the path of a client list that holds them."""

    def write(*rows, name="list.csv"):
        path = tmp_path / name
        path.write_text(HEADER + "".join(f"{row}\n" for row in rows), encoding="utf-8")
        return path

    return write


def stored(connection):
    """All clients: phone number → (zone, tags)."""
    rows = connection.execute(
        "SELECT c.phone_number, c.timezone, array(SELECT t.name FROM client_tags ct JOIN tags t ON t.id = ct.tag_id"
        " WHERE ct.client_id = c.id ORDER BY t.name) AS tags FROM clients c"
    )
    return {row["phone_number"]: (row["timezone"], *row["tags"]) for row in rows}


def row_versions(connection):
    """Where every row of the three tables lies, who wrote it and who locked it: changes with any write."""
    return [
        connection.execute(f"SELECT ctid, xmin, xmax FROM {table} ORDER BY ctid").fetchall()  # noqa: S608
        for table in ("clients", "client_tags", "tags")
    ]


def figures(**counts):
    """Figures that are 0 but for `counts`."""
    zeros = dict.fromkeys(("rows", "clients", "inserted", "updated", "unchanged", "repeated_phone", "normalised"), 0)
    return ImportFigures(**{**zeros, "rejected": {}, "reject_file": None, **counts})


def rejects_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestOurOwnClientList:
    """`include/data/clients.csv`, whose right figures stand beside it."""

    expected = json.loads((DATA / "clients.expected.json").read_text())

    def test_imports_to_exactly_its_expected_figures_and_again_without_writing_anything(self, connection, tmp_path):
        rejects = tmp_path / "rejects.csv"
        same = {
            "rows": self.expected["rows"],
            "clients": self.expected["clients"],
            "repeated_phone": self.expected["repeated_phone"],
            "normalised": self.expected["normalised"],
            "rejected": self.expected["rejected"],
            "reject_file": rejects,
        }

        first = import_clients(connection, DATA / "clients.csv", rejects)
        before = row_versions(connection)
        second = import_clients(connection, DATA / "clients.csv", rejects)

        assert first == figures(inserted=self.expected["clients"], **same)
        assert second == figures(unchanged=self.expected["clients"], **same)
        assert row_versions(connection) == before
        assert len(rejects_of(rejects)) == sum(self.expected["rejected"].values())

    def test_has_the_expected_zones_and_audiences(self, connection, tmp_path):
        import_clients(connection, DATA / "clients.csv", tmp_path / "rejects.csv")

        found = stored(connection)
        zones = [zone for zone, *_ in found.values()]
        assert {zone: zones.count(zone) for zone in set(zones)} == self.expected["by_zone"]
        art = [number for number, (_, *tags) in found.items() if "art" in tags and number[1:4] == "103"]
        both = [number for number, (_, *tags) in found.items() if {"sport", "music"} <= set(tags)]
        assert len(art) == self.expected["audience_art_and_103"]
        assert len(both) == self.expected["audience_sport_and_music_any_code"]

    def test_names_each_rejected_row_by_its_line(self, connection, tmp_path):
        import_clients(connection, DATA / "clients.csv", tmp_path / "rejects.csv")

        with (DATA / "clients.csv").open(encoding="utf-8-sig", newline="") as file:
            lines = file.read().splitlines()
        for reject in rejects_of(tmp_path / "rejects.csv"):
            assert reject["value"] in lines[int(reject["line_number"]) - 1]


def test_a_later_row_for_the_same_phone_wins_however_it_is_written(connection, a_list):
    source = a_list("79001234567,a;b,UTC", "79001234568,,", "8 900 123-45-67,c,Europe/Samara", "79001234568,,")

    assert import_clients(connection, source) == figures(rows=4, clients=2, inserted=2, repeated_phone=2, normalised=1)
    assert stored(connection) == {"79001234567": ("Europe/Samara", "c"), "79001234568": ("UTC",)}


def test_tags_of_rows_that_lost_or_were_rejected_are_not_created(connection, a_list):
    import_clients(connection, a_list("79001234567,lost,", "79001234567,kept,", "79001234568,rejected,Mars"))

    assert [row["name"] for row in connection.execute("SELECT name FROM tags")] == ["kept"]


def test_a_later_import_replaces_tags_and_zone_and_leaves_the_others_alone(connection, a_list):
    numbers = [f"7900123456{last}" for last in range(6)]
    import_clients(connection, a_list(*[f"{number},a;b,Europe/Samara" for number in numbers]))

    second = a_list(
        f"{numbers[0]},b;a;a,Europe/Samara",
        f"{numbers[1]},b;c,Europe/Samara",
        f"{numbers[2]},,Europe/Samara",
        f"{numbers[3]},a;b,",
        f"{numbers[4]},c,Asia/Omsk",
        "79990000000,c,UTC",
    )
    assert import_clients(connection, second) == figures(rows=6, clients=6, inserted=1, updated=4, unchanged=1)
    assert stored(connection) == {
        numbers[0]: ("Europe/Samara", "a", "b"),
        numbers[1]: ("Europe/Samara", "b", "c"),
        numbers[2]: ("Europe/Samara",),
        numbers[3]: ("UTC", "a", "b"),
        numbers[4]: ("Asia/Omsk", "c"),
        numbers[5]: ("Europe/Samara", "a", "b"),
        "79990000000": ("UTC", "c"),
    }
    assert import_clients(connection, second) == figures(rows=6, clients=6, unchanged=6)


def test_a_client_keeps_its_id_through_an_import(connection, a_list):
    import_clients(connection, a_list("79001234567,a,"))
    before = connection.execute("SELECT id, created FROM clients").fetchall()

    import_clients(connection, a_list("79001234567,b,Asia/Omsk"))

    assert connection.execute("SELECT id, created FROM clients").fetchall() == before


def test_an_exported_list_with_its_operator_codes_among_the_tags_changes_nothing(connection, a_list):
    import_clients(connection, a_list("79001234567,art,UTC"))

    assert import_clients(connection, a_list("79001234567,900;art,UTC")) == figures(rows=1, clients=1, unchanged=1)


def test_rows_far_apart_in_a_file_are_all_written(connection, a_list):
    gap = "\n" * client_import.SLICE  # empty lines count, so the rows fall into several slices
    source = a_list("79001234567,a,", gap, "79001234568,a;b,", gap, "79001234567,b,")

    assert import_clients(connection, source) == figures(rows=3, clients=2, inserted=2, repeated_phone=1)
    assert stored(connection) == {"79001234567": ("UTC", "b"), "79001234568": ("UTC", "a", "b")}


def test_one_transaction_can_import_two_files(connection, a_list):
    with connection.transaction():
        import_clients(connection, a_list("79001234567,a,", name="one.csv"))
        import_clients(connection, a_list("79001234568,b,", name="two.csv"))

    assert stored(connection) == {"79001234567": ("UTC", "a"), "79001234568": ("UTC", "b")}


def test_a_list_of_no_rows_imports_nothing(connection, a_list):
    assert import_clients(connection, a_list()) == figures()


def test_a_list_of_wrong_rows_only_imports_nothing_but_its_rejects(connection, a_list, tmp_path):
    assert import_clients(connection, a_list("x,,", "y,,")) == figures(
        rows=2, rejected={"phone_number": 2}, reject_file=tmp_path / "list.rejects.csv"
    )


def test_every_letter_and_odd_tag_that_we_take_postgresql_takes_too(connection, a_list):
    letters = [chr(code) for code in range(0x110000) if wrong_tag(chr(code)) == ""]
    tags = [*letters, "null", "NULL", "-", "__", "x" * 200, "00", "0000"]

    rows = [f"7900{start:07},{';'.join(tags[start : start + 10_000])}," for start in range(0, len(tags), 10_000)]

    assert import_clients(connection, a_list(*rows)).inserted == len(rows)
    assert set(tags) == {row["name"] for row in connection.execute("SELECT name FROM tags")}


class TestRejectFile:
    def test_stands_beside_the_source_with_line_field_value_and_reason(self, connection, a_list, tmp_path):
        source = a_list("79001234567,a b,", "79001234568,,", "79001234569", "79001234560,,Mars")

        result = import_clients(connection, source)

        assert result.reject_file == tmp_path / "list.rejects.csv"
        assert result.rejected == {"tags": 1, "row": 1, "timezone": 1}
        assert result.reject_file.read_bytes().decode() == (
            "line_number,field,value,reason\r\n"
            "2,tags,a b,\"tag 'a b' has a character other than letters, digits, - and _\"\r\n"
            '4,row,79001234569,"has 1 fields, wanted 3"\r\n'
            "5,timezone,Mars,is not the name of a time zone in the table timezones\r\n"
        )

    def test_is_replaced_by_the_next_run_and_removed_by_one_without_rejects(self, connection, a_list, tmp_path):
        rejects = tmp_path / "wrong.csv"
        import_clients(connection, a_list("x,,", "y,,"), rejects)
        import_clients(connection, a_list("z,,"), rejects)
        assert [reject["value"] for reject in rejects_of(rejects)] == ["z"]

        result = import_clients(connection, a_list("79001234567,,"), rejects)

        assert result.reject_file is None
        assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("+7 900 ABC", "'+7 900 ABC"),
            ("-2+cmd|' /C calc'!A0", "'-2+cmd|' /C calc'!A0"),
            ("x;=1+1", "x;'=1+1"),
            ("+7 (900) 123", "+7 (900) 123"),
            ("-", "-"),
            ("a=b", "a=b"),
            ("7900\0", "7900\\0"),
        ],
    )
    def test_holds_no_formula_but_phone_numbers_as_they_were(self, connection, a_list, value, written):
        result = import_clients(connection, a_list(f"{value},,"))

        assert [reject["value"] for reject in rejects_of(result.reject_file)] == [written]

    def test_is_for_the_same_eyes_as_the_source(self, connection, a_list):
        source = a_list("x,,")
        source.chmod(0o640)

        assert import_clients(connection, source).reject_file.stat().st_mode & 0o777 == 0o640

    def test_never_takes_the_place_of_another_file(self, connection, a_list, tmp_path):
        source, other = a_list("x,,"), tmp_path / "other.csv"
        other.write_text("mine\n")

        for path in (other, source, tmp_path, tmp_path / "nowhere" / "rejects.csv"):
            with pytest.raises(InvalidInput, match=re.escape(f"reject file {path}: ")):
                import_clients(connection, source, path)
        assert other.read_text() == "mine\n"


class TestNothingIsWritten:
    @pytest.mark.parametrize("content", ["", "a,b,c\n79001234567,,\n", "\0\0\0"], ids=["empty", "header", "binary"])
    def test_for_a_file_of_another_kind(self, connection, tmp_path, content):
        source = tmp_path / "list.csv"
        source.write_text(content)

        with pytest.raises(InvalidInput, match=r"list\.csv: .*wanted the header phone_number,tags,timezone"):
            import_clients(connection, source)
        assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]
        assert stored(connection) == {}

    @pytest.mark.parametrize("source", ["", ".", "/", "no/such.csv", "list\0.csv"])
    def test_for_a_path_that_is_no_file(self, connection, source):
        with pytest.raises(InvalidInput, match="wanted a CSV file"):
            import_clients(connection, source)

    def test_when_the_file_breaks_off_half_way_and_the_earlier_reject_file_stays(self, connection, tmp_path, a_list):
        import_clients(connection, a_list("old,,", "79990000000,a,"))
        rows = "x,,\n" + "".join(f"7900{number:07},new,\n" for number in range(60_000))
        (tmp_path / "list.csv").write_bytes((HEADER + rows).encode() + b"79001234567,\xff,\n")

        with pytest.raises(InvalidInput, match="line 60003: byte 0xff"):
            import_clients(connection, tmp_path / "list.csv")

        assert stored(connection) == {"79990000000": ("UTC", "a")}
        assert connection.execute("SELECT name FROM tags").fetchall() == [{"name": "a"}]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["list.csv", "list.rejects.csv"]
        assert [reject["value"] for reject in rejects_of(tmp_path / "list.rejects.csv")] == ["old"]

    def test_before_the_caller_commits(self, database, connection, a_list):
        with db.connect() as other:
            import_clients(other, a_list("79001234567,a,"))
            assert stored(connection) == {}
            other.rollback()

        assert stored(connection) == {}
        assert connection.execute("SELECT count(*) FROM tags").fetchone() == {"count": 0}


def test_two_imports_of_the_same_clients_in_opposite_order_both_finish(database, a_list):
    numbers = [f"7900{number:07}" for number in range(3_000)]
    sources = {
        "a": a_list(*[f"{number},a;x,Asia/Omsk" for number in numbers], name="a.csv"),
        "b": a_list(*[f"{number},b;x,UTC" for number in reversed(numbers)], name="b.csv"),
    }
    found, start = {}, threading.Barrier(2)

    def run(name):
        with db.transaction() as connection:
            start.wait()
            found[name] = import_clients(connection, sources[name])

    threads = [threading.Thread(target=run, args=[name]) for name in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted((result.inserted, result.updated) for result in found.values()) == [(0, 3_000), (3_000, 0)]
    with db.transaction() as connection:
        last = next(name for name, result in found.items() if result.updated)
        assert set(stored(connection).values()) == {{"a": ("Asia/Omsk", "a", "x"), "b": ("UTC", "b", "x")}[last]}


def test_logs_show_no_phone_number(connection, a_list, caplog):
    with caplog.at_level(logging.DEBUG, logger="mailing"):  # the demo, which another test runs, sets it higher
        import_clients(connection, a_list("79001234567,a,", "+7 (900) 123-45-68,a,", "7900123,,", "79001234569,a b,"))

    assert "rows=4" in caplog.text
    assert "900" not in caplog.text
