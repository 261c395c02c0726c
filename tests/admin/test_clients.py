"""The pages of clients."""

from __future__ import annotations

import csv
import re

import pytest

from mailing import clients
from tests.admin.forms import act, act_on, links, send, text_of
from tests.builders import audited, kept, some_clients

LIST = "/admin/clients/list"
GOOD = {"phone_number": "+7 900 123-45-67", "tags": ["art", "sport"], "timezone": "Europe/Moscow"}


def make(connection, phone_number, *tags):
    return clients.create(connection, phone_number, tags=tags, actor="ann").id


def numbers(answer):
    """The numbers that a list shows, in its order."""
    return re.findall(r"\b7\d{10}\b", text_of(answer))


class TestList:
    def test_no_client_is_an_invitation_to_import_some(self, operator):
        page = operator.get(LIST)

        assert "There is no client yet: import a file of them, or create one." in text_of(page)
        assert links(page, "Import a file") == ["/admin/clients/import-file"]

    def test_pages_follow_each_other_and_lead_back(self, connection, viewer):
        some_clients(connection, 60)
        first = viewer.get(LIST)
        second = viewer.get(links(first, "Next")[0])
        third = viewer.get(links(second, "Next")[0])

        shown = [numbers(page) for page in (first, second, third)]
        assert [len(page) for page in shown] == [25, 25, 10]
        assert sum(shown, []) == sorted(sum(shown, []), reverse=True)
        assert links(third, "Next") == []
        assert numbers(viewer.get(links(third, "Previous")[0])) == shown[1]
        assert numbers(viewer.get(links(third, "First")[0])) == shown[0]
        assert "60 clients" in text_of(first)

    def test_it_is_narrowed_by_tag_code_prefix_and_zone(self, connection, viewer):
        for number, tag in (("79001234567", "art"), ("79101234567", "art"), ("79001234568", "sport")):
            make(connection, number, tag)

        assert numbers(viewer.get(f"{LIST}?tag=art&sort=phone_number__asc")) == ["79001234567", "79101234567"]
        assert numbers(viewer.get(f"{LIST}?tag=910")) == ["79101234567"]
        assert numbers(viewer.get(f"{LIST}?tag=art&phone=7900")) == ["79001234567"]
        assert numbers(viewer.get(f"{LIST}?zone=UTC&sort=phone_number__desc"))[0] == "79101234567"
        assert "Nothing matches." in text_of(viewer.get(f"{LIST}?zone=Europe/Paris"))

    @pytest.mark.parametrize("query", ["phone=79001234567", "phone=9", "phone=x", "page=x", "page=e30"])
    def test_a_wrong_question_is_told_in_the_page(self, connection, viewer, query):
        make(connection, "79001234567")
        page = viewer.get(f"{LIST}?{query}")

        assert page.status_code == 200
        assert "wanted" in text_of(page)
        assert numbers(page) == []

    def test_tags_and_zones_show_as_text(self, connection, viewer):
        page = viewer.get(f'{LIST}?tag=<script>alert(1)</script>&zone="><img src=x onerror=alert(1)>')

        assert "<script>alert(1)" not in page.text
        assert "<img src=x" not in page.text

    def test_a_viewer_sees_no_button_that_it_may_not_press(self, connection, viewer):
        make(connection, "79001234567")
        page = viewer.get(LIST)

        for name in ("Import a file", "New client", "Add tags", "Take tags off", "Edit", "Delete"):
            assert name not in text_of(page)
            assert f'aria-label="{name}"' not in page.text

    def test_a_whole_number_is_found_by_a_form_that_keeps_it_out_of_addresses(self, connection, viewer):
        client_id = make(connection, "79001234567")
        found = send(viewer, "/admin/clients/find", {"number": "8 900 123-45-67"})
        none = send(viewer, "/admin/clients/find", {"number": "79001234568"})

        assert found.status_code == 303
        assert found.headers["location"].endswith(f"/admin/clients/detail?pk={client_id}")
        assert none.headers["location"].endswith("/admin/clients/list")
        assert "There is no client with this number." in text_of(viewer.get(LIST))
        assert send(viewer, "/admin/clients/find", {"number": "12"}).status_code == 303
        assert "no phone number" in text_of(viewer.get(LIST))


class TestForms:
    def test_a_client_is_created_edited_and_deleted(self, connection, operator, admin):
        assert send(operator, "/admin/clients/create", GOOD).status_code == 303
        [row] = clients.page(connection).items
        assert (row["phone_number"], row["tags"], row["timezone"]) == (
            "79001234567", ["900", "art", "sport"], "Europe/Moscow",
        )  # fmt: skip

        changed = GOOD | {"phone_number": "79101234567", "tags": ["art"], "timezone": ""}
        assert send(operator, f"/admin/clients/edit?pk={row['id']}", changed).status_code == 303
        assert clients.get(connection, row["id"]).tags == ["910", "art"]
        assert clients.get(connection, row["id"]).timezone == "UTC"

        assert act_on(admin, "clients", "delete", row["id"]).status_code == 200
        assert clients.page(connection).items == []
        assert [entry[:2] for entry in audited(connection)] == [
            ("operator", "create_client"), ("operator", "edit_client"), ("admin", "delete_client"),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "field", "said"),
        [
            ({"phone_number": "12"}, "phone_number", "Wanted a number of the form 7XXXXXXXXXX"),
            ({"phone_number": ""}, "phone_number", "This field is required."),
            ({"phone_number": "79000000000"}, "phone_number", "There is a client with this number already"),
            ({"tags": ["a b"]}, "tags", "Tag 'a b' has a character other than letters"),
            ({"timezone": "Moon"}, "timezone", "Wanted the name of a time zone"),
        ],
    )
    def test_what_is_wrong_is_told_beside_the_field_and_what_was_typed_is_kept(
        self, connection, operator, change, field, said
    ):
        make(connection, "79000000000")
        before = kept(connection, "clients", "tags", "client_tags", "audit_log")
        page = send(operator, "/admin/clients/create", GOOD | change)

        assert page.status_code == 422
        assert said in page.text.partition(f'id="{field}-error"')[2].partition("</div>")[0].replace("&#39;", "'")
        assert "Europe/Moscow" in page.text or "Moon" in page.text
        assert "sport" in page.text or "a b" in page.text
        assert kept(connection, "clients", "tags", "client_tags", "audit_log") == before

    def test_what_was_typed_shows_as_text(self, operator):
        page = send(
            operator, "/admin/clients/create", GOOD | {"tags": ["<b>x"], "timezone": '"><script>alert(1)</script>'}
        )

        assert page.status_code == 422
        assert "<b>x" not in page.text
        assert "<script>alert(1)" not in page.text

    def test_the_form_of_an_edit_leaves_the_operator_code_out(self, connection, operator):
        client_id = make(connection, "79001234567", "art")
        page = operator.get(f"/admin/clients/edit?pk={client_id}")

        assert '<option selected="selected">art</option>' in page.text
        assert '<option selected="selected">900</option>' not in page.text

    @pytest.mark.parametrize("pk", ["0", "99", "x", "9" * 30, ""])
    def test_a_client_that_is_not_there_is_404(self, viewer, pk):
        assert viewer.get(f"/admin/clients/detail?pk={pk}").status_code == 404

    def test_only_operators_write_and_only_admins_delete(self, connection, viewer, operator):
        client_id = make(connection, "79001234567", "art")
        before = kept(connection, "clients", "tags", "client_tags", "audit_log")

        assert viewer.get("/admin/clients/create").status_code == 403
        assert send(viewer, "/admin/clients/create", GOOD).status_code == 403
        assert send(viewer, f"/admin/clients/edit?pk={client_id}", GOOD).status_code == 403
        assert act(viewer, "clients", "tag", [client_id], tags="x").status_code == 403
        assert act(viewer, "clients", "untag", [client_id], tags="art").status_code == 403
        assert act(viewer, "clients", "delete", [client_id]).status_code == 403
        assert act(operator, "clients", "delete", [client_id]).status_code == 403
        assert act_on(operator, "clients", "delete", client_id).status_code == 403
        assert kept(connection, "clients", "tags", "client_tags", "audit_log") == before

    def test_a_form_without_the_token_of_a_page_is_refused(self, connection, operator):
        for path in ("/admin/clients/create", "/admin/clients/find", "/admin/_api/clients/action?name=tag&pks=1"):
            assert operator.post(path, data=GOOD).status_code == 403
            assert operator.post(path, data=GOOD, headers={"X-CSRFToken": "forged"}).status_code == 403
        assert clients.page(connection).items == []

    def test_the_librarys_own_import_is_closed(self, operator):
        answer = send(operator, "/admin/_api/clients/import", {"format": "csv"})

        assert answer.status_code in (400, 403)


class TestTags:
    def test_many_get_tags_and_lose_them_at_once(self, connection, operator):
        first, second = make(connection, "79001234567", "art"), make(connection, "79001234568")

        answer = act(operator, "clients", "tag", [first, second], "?tag=art", tags="art, new")
        assert answer.json()["redirect"].endswith("/admin/clients/list?tag=art")
        assert "2 of 2 clients got a tag that they had not." in text_of(operator.get(LIST))
        assert [clients.get(connection, each).tags[1:] for each in (first, second)] == [["art", "new"]] * 2

        assert act(operator, "clients", "untag", [first, second], tags="new").status_code == 200
        assert [clients.get(connection, each).tags[1:] for each in (first, second)] == [["art"]] * 2
        assert [entry[:2] for entry in audited(connection)[2:]] == [
            ("operator", "tag_clients"), ("operator", "untag_clients"),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("tags", "said"), [("", "Type at least one tag"), ("900", "operator code"), ("<b>", "<b>")]
    )
    def test_a_wrong_tag_changes_nothing(self, connection, operator, tags, said):
        client_id = make(connection, "79001234567")
        before = kept(connection, "tags", "client_tags", "audit_log")
        answer = act(operator, "clients", "tag", [client_id], tags=tags)

        assert answer.status_code == 400
        assert said in answer.json()["msg"]
        assert kept(connection, "tags", "client_tags", "audit_log") == before

    def test_no_row_and_all_that_match_are_refused(self, connection, operator):
        make(connection, "79001234567")

        assert act(operator, "clients", "tag", [], tags="x").status_code == 400
        assert send(operator, "/admin/_api/clients/action?name=tag&all=1", {"tags": "x"}).status_code == 400
        assert act(operator, "clients", "tag", ["1 OR 1=1"], tags="x").status_code == 400


class TestExport:
    def test_a_file_of_all_that_match_can_be_imported_again(self, connection, viewer):
        make(connection, "79001234567", "art", "-x")
        make(connection, "79101234567", "sport")
        fields = ["phone_number", "tags", "timezone"]
        answer = act(viewer, "clients", "export", [], "?tag=art", scope="all", fields=fields)

        assert answer.headers["content-type"].startswith("text/csv")
        assert "clients.csv" in answer.headers["content-disposition"]
        assert list(csv.reader(answer.text.splitlines())) == [fields, ["79001234567", "'-x;art", "UTC"]]

    def test_all_rows_of_many_pages_are_in_it(self, connection, viewer):
        some_clients(connection, 2_500)
        answer = act(viewer, "clients", "export", [], scope="all")

        rows = list(csv.reader(answer.text.splitlines()))
        assert len({row[1] for row in rows[1:]}) == 2_500

    def test_the_page_or_the_chosen_rows_are_a_file_too(self, connection, viewer):
        ids = some_clients(connection, 30)

        assert len(act(viewer, "clients", "export", [], scope="page").text.splitlines()) == 26
        assert len(act(viewer, "clients", "export", ids[:3], scope="selected").text.splitlines()) == 4
