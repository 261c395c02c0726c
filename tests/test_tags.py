"""Tags as rows: their names, and the campaigns that hold on to them."""

from __future__ import annotations

import pytest

from mailing import campaigns, tags
from mailing.errors import Conflict, InvalidInput, NotFound
from tests.builders import a_campaign, audited, kept, some_clients


def make(connection, name="art"):
    return tags.create(connection, name, actor="ann")


def names_of(connection):
    return [item["name"] for item in tags.page(connection).items]


class TestNames:
    @pytest.mark.parametrize("name", ["art", "Ärt", "искусство", "艺术", "0", "1000", "00", "_-", "x" * 200])
    def test_letters_of_any_script_digits_and_two_signs_make_a_name(self, connection, name):
        made = make(connection, name)

        assert tags.get(connection, made.id) == made
        assert made.name == name

    @pytest.mark.parametrize("name", ["", " ", "a b", "a;b", "a,b", "a\n", "x" * 201])
    def test_anything_else_is_refused(self, connection, name):
        tag = make(connection)

        for call in (lambda: make(connection, name), lambda: tags.rename(connection, tag.id, name, actor="ann")):
            with pytest.raises(InvalidInput, match="name: wanted 1 to 200 letters, digits, - or _, got") as refused:
                call()
            assert refused.value.fields == ("name",)
        assert names_of(connection) == ["art"]

    @pytest.mark.parametrize("name", ["000", "900"])
    def test_three_digits_are_an_operator_code_and_no_tag(self, connection, name):
        for call in (lambda: make(connection, name), lambda: tags.ensure(connection, [name])):
            with pytest.raises(InvalidInput, match="name: three digits are an operator code"):
                call()

    def test_a_name_is_taken_once_and_its_letters_count_as_they_are(self, connection):
        make(connection)
        other = make(connection, "Art")

        with pytest.raises(Conflict, match="new tag: name: there is a tag 'art' already"):
            make(connection)
        with pytest.raises(Conflict, match=f"tag {other.id}: name: there is a tag 'art' already"):
            tags.rename(connection, other.id, "art", actor="ann")


def test_ensuring_creates_what_is_missing_and_leaves_the_rest(connection):
    make(connection)
    before = kept(connection, "tags")["tags"]

    tags.ensure(connection, ["new", "art", "new"])

    assert kept(connection, "tags")["tags"][: len(before)] == before
    assert names_of(connection) == ["art", "new"]


class TestFilters:
    @pytest.mark.parametrize(
        "change",
        [
            lambda connection, tag_id: tags.rename(connection, tag_id, "other", actor="ann"),
            lambda connection, tag_id: tags.delete(connection, tag_id, actor="ann"),
        ],
        ids=["rename", "delete"],
    )
    def test_a_tag_that_a_live_campaign_s_filter_names_stays_as_it_is(self, connection, change):
        tag = make(connection)
        campaign_id = a_campaign(connection, filter_tags=["art"])

        with pytest.raises(Conflict, match=f"campaign {campaign_id}"):
            change(connection, tag.id)
        assert tags.get(connection, tag.id) == tag

        campaigns.cancel(connection, campaign_id, actor="ann")
        change(connection, tag.id)

    def test_a_renamed_tag_keeps_its_clients_and_a_deleted_one_leaves_them(self, connection):
        (client_id,) = some_clients(connection, 1, tags=("art",))
        (tag_id,) = [item["id"] for item in tags.page(connection).items]
        tags.rename(connection, tag_id, "arts", actor="ann")
        assert connection.execute("SELECT * FROM client_tags").fetchall() == [
            {"client_id": client_id, "tag_id": tag_id}
        ]

        tags.delete(connection, tag_id, actor="ann")

        assert connection.execute("SELECT count(*) FROM client_tags").fetchone() == {"count": 0}
        assert connection.execute("SELECT id FROM clients").fetchall() == [{"id": client_id}]


def test_a_tag_that_is_not_there_is_not_found(connection):
    for call in (
        lambda: tags.get(connection, 7),
        lambda: tags.rename(connection, 7, "art", actor="ann"),
        lambda: tags.delete(connection, 7, actor="ann"),
    ):
        with pytest.raises(NotFound, match="tag 7: there is no such tag"):
            call()


def test_every_write_is_in_the_audit_log_and_a_refused_one_is_not(connection):
    tag = make(connection)
    tags.rename(connection, tag.id, "arts", actor="bob")
    with pytest.raises(Conflict):
        make(connection, "arts")
    tags.delete(connection, tag.id, actor="ann")

    assert audited(connection) == [
        ("ann", "create_tag", None, None, {"tag_id": tag.id}),
        ("bob", "rename_tag", None, None, {"tag_id": tag.id}),
        ("ann", "delete_tag", None, None, {"tag_id": tag.id}),
    ]


@pytest.mark.parametrize("sort", ["id", "-id", "name", "-name"])
@pytest.mark.parametrize("limit", [1, 2, 5, 6])
def test_pages_hold_every_tag_once_in_either_direction(connection, sort, limit):
    names = ["d", "a", "c", "e", "b"]
    for name in names:
        make(connection, name)

    found, cursor = [], None
    while True:
        page = tags.page(connection, sort=sort, cursor=cursor, limit=limit)
        found += [item["name"] for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    expected = sorted(names) if "name" in sort else names
    assert found == (expected[::-1] if sort.startswith("-") else expected)
