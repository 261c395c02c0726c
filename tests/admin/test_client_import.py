"""The page where a file of clients is imported."""

from __future__ import annotations

import csv
import html
import json
import re

import pytest

from mailing import clients, gate, pool
from tests.admin.forms import COOKIE, send, text_of, token
from tests.builders import audited, kept

PAGE = "/admin/clients/import-file"
HEADER = "phone_number,tags,timezone\n"


def upload(caller, text, name="clients.csv"):
    content = text if isinstance(text, bytes) else text.encode()
    return send(caller, PAGE, files={"file": (name, content, "text/csv")})


def figure(page, words):
    """The number above these words."""
    return int(re.search(rf"([\d,]+) {words}", text_of(page))[1].replace(",", ""))


def rejects(page):
    """The reject file that the page offers."""
    found = re.search(r'<script type="application/json" id="rejects">(.*?)</script>', page.text, re.DOTALL)
    return list(csv.DictReader(json.loads(html.unescape(found[1])).splitlines()))


def test_the_form_says_what_it_wants(operator):
    page = operator.get(PAGE)

    assert page.status_code == 200
    assert "phone_number,tags,timezone" in text_of(page)
    assert 'enctype="multipart/form-data"' in page.text


def test_good_rows_are_imported_and_the_others_shown(connection, operator):
    page = upload(operator, HEADER + "79001234567,art;sport,Europe/Moscow\n12,,\n79001234568,a b,\n79001234567,,\n")

    assert page.status_code == 200
    assert [figure(page, words) for words in ("rows", "new clients", "gave way", "left out")] == [4, 1, 1, 2]
    assert "12 is not a number of the form 7XXXXXXXXXX" in text_of(page)
    assert [(row["line_number"], row["field"]) for row in rejects(page)] == [("3", "phone_number"), ("4", "tags")]
    assert [row["phone_number"] for row in clients.page(connection).items] == ["79001234567"]
    assert [entry[:2] for entry in audited(connection)] == [("operator", "import_clients")]


def test_a_third_import_at_a_time_is_told_to_come_again(connection, operator):
    with pool.at_length("import"), pool.at_length("import"):
        page = upload(operator, HEADER + "79001234567,,\n")

    assert (page.status_code, page.headers["retry-after"]) == (503, "5")
    assert "Nothing was imported: others are importing." in text_of(page)
    assert clients.page(connection).items == []


def test_the_first_hundred_are_shown_and_all_can_be_downloaded(operator):
    page = upload(operator, HEADER + "".join(f"{n},,\n" for n in range(1, 251)))

    assert page.text.count("<tr>") == 101
    assert "The first 100 of 250." in text_of(page)
    assert len(rejects(page)) == 250


def test_what_stands_in_a_file_shows_as_text(connection, operator):
    bad = "</script><script>alert(1)</script>"
    page = upload(operator, f"{HEADER}{bad},,\n=cmd(),,\n", name="<img src=x onerror=alert(1)>.csv")

    assert "<script>alert(1)" not in page.text
    assert "<img src=x" not in page.text
    assert [row["value"] for row in rejects(page)] == [bad, "'=cmd()"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "the file: is empty"), ("a,b\n1,2\n", "wanted the header phone_number,tags,timezone"),
     (HEADER.encode() + b"\xff,,\n", "is not UTF-8"), ("<script>alert(1)</script>\n1\n", "wanted the header")],
)  # fmt: skip
def test_a_file_of_another_kind_is_told_beside_the_field_and_nothing_is_written(connection, operator, text, said):
    before = kept(connection, "clients", "tags", "audit_log")
    page = upload(operator, text)

    assert page.status_code == 422
    assert said in html.unescape(page.text.partition('id="file-error"')[2].partition("</div>")[0])
    assert "<script>alert(1)" not in page.text
    assert "clients.csv: " not in page.text
    assert kept(connection, "clients", "tags", "audit_log") == before


def test_no_file_is_told(operator):
    page = send(operator, PAGE, {"file": "text"})

    assert (page.status_code, "Choose a file." in text_of(page)) == (422, True)


def test_a_viewer_may_not(connection, viewer):
    assert viewer.get(PAGE).status_code == 403
    assert upload(viewer, HEADER + "79001234567,,\n").status_code == 403
    assert clients.page(connection).items == []


def test_a_file_without_the_token_of_a_page_is_refused(connection, operator):
    files = {"file": ("c.csv", (HEADER + "79001234567,,\n").encode(), "text/csv")}

    assert operator.post(PAGE, files=files).status_code == 403
    assert operator.post(PAGE, files=files, headers={"X-CSRFToken": "forged"}).status_code == 403
    assert clients.page(connection).items == []


def test_a_file_is_taken_with_its_token_in_a_field_too_if_it_is_small(connection, operator):
    token(operator)
    field = {"csrftoken": operator._client.cookies[COOKIE]}
    files = {"file": ("c.csv", (HEADER + "79001234567,,\n").encode(), "text/csv")}
    assert operator.post(PAGE, data=field, files=files).status_code == 200

    large = {"file": ("c.csv", HEADER.encode() + b"79001234567,,\n" * (gate.MAX_BODY // 14), "text/csv")}
    assert operator.post(PAGE, data=field, files=large).status_code == 413
    assert operator.post(PAGE, files=large, headers=token(operator)).status_code == 200
