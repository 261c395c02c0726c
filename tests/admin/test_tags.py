"""The pages of tags."""

from __future__ import annotations

import pytest

from mailing import tags
from tests.admin.forms import act, act_on, links, send, text_of
from tests.builders import a_campaign, kept

LIST = "/admin/tags/list"


def make(connection, *names):
    return [tags.create(connection, name, actor="ann").id for name in names]


def names(connection):
    return [row["name"] for row in tags.page(connection).items]


def test_no_tag_is_an_invitation_to_create_one(operator):
    page = operator.get(LIST)

    assert "There is no tag yet: create one, or import clients who have some." in text_of(page)
    assert links(page, "New tag")[0].startswith("/admin/tags/create")


def test_tags_are_listed_by_name_and_found_by_a_part_of_it(connection, viewer):
    make(connection, "sport", "Art", "party", "50_50")
    shown = text_of(viewer.get(LIST))

    assert shown.index("50_50") < shown.index("Art") < shown.index("party") < shown.index("sport")
    found = text_of(viewer.get(f"{LIST}?part=ART"))
    assert "Art" in found
    assert "party" in found
    assert "sport" not in found
    assert "Nothing matches." in text_of(viewer.get(f"{LIST}?part=0%25"))


def test_a_tag_is_created_renamed_and_deleted(connection, operator, admin):
    assert send(operator, "/admin/tags/create", {"name": "art"}).status_code == 303
    [tag] = tags.page(connection).items
    assert send(operator, f"/admin/tags/edit?pk={tag['id']}", {"name": "arts"}).status_code == 303
    assert names(connection) == ["arts"]
    page = admin.get(f"/admin/tags/detail?pk={tag['id']}")
    assert links(page, "Clients with this tag") == ["/admin/clients/list?tag=arts"]

    assert act_on(admin, "tags", "delete", tag["id"]).status_code == 200
    assert names(connection) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "This field is required."), ("a b", "Wanted 1 to 200 letters"), ("900", "Three digits are an operator code"),
     ("art", "There is a tag 'art' already"), ("<script>alert(1)</script>", "Wanted 1 to 200 letters")],
)  # fmt: skip
def test_what_is_wrong_is_told_beside_the_name_which_is_kept_as_text(connection, operator, name, said):
    make(connection, "art")
    before = kept(connection, "tags", "audit_log")
    page = send(operator, "/admin/tags/create", {"name": name})

    assert page.status_code == 422
    assert said in text_of(page)
    assert 'id="name-error"' in page.text
    assert "<script>alert(1)" not in page.text
    assert kept(connection, "tags", "audit_log") == before


def test_a_tag_that_a_campaign_needs_stays_and_with_it_all_that_were_to_go(connection, operator, admin):
    needed, other = make(connection, "art", "other")
    a_campaign(connection, filter_tags=["art"])

    answer = act(admin, "tags", "delete", [other, needed])
    assert (answer.status_code, "art" in answer.json()["msg"]) == (400, True)
    assert names(connection) == ["art", "other"]
    page = send(operator, f"/admin/tags/edit?pk={needed}", {"name": "arts"})
    assert (page.status_code, names(connection)) == (422, ["art", "other"])


def test_only_operators_write_and_only_admins_delete(connection, viewer, operator):
    [tag] = make(connection, "art")

    assert viewer.get(LIST).status_code == 200
    assert viewer.get("/admin/tags/create").status_code == 403
    assert send(viewer, "/admin/tags/create", {"name": "x"}).status_code == 403
    assert send(viewer, f"/admin/tags/edit?pk={tag}", {"name": "x"}).status_code == 403
    assert act_on(operator, "tags", "delete", tag).status_code == 403
    assert act(operator, "tags", "delete", [tag]).status_code == 403
    assert names(connection) == ["art"]


def test_a_form_without_the_token_of_a_page_is_refused(connection, operator):
    assert operator.post("/admin/tags/create", data={"name": "x"}).status_code == 403
    assert names(connection) == []
