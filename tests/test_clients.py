"""Clients as rows: what may be written, and lists of them."""

from __future__ import annotations

import threading

import pytest

from mailing import clients, db, messages, runs
from mailing.clients import Wanted
from mailing.errors import Conflict, InvalidInput, NotFound
from tests.builders import a_campaign, audited, claim, kept, ledger, some_clients

NUMBER = "79001234567"


def make(connection, phone_number=NUMBER, **more):
    return clients.create(connection, phone_number, actor="ann", **more)


def edit(connection, client_id, **changes):
    return clients.edit(connection, client_id, actor="ann", **changes)


def walk(connection, wanted=None, *, limit=3, **more):
    """All items of a list, page after page."""
    items, cursor = [], None
    while True:
        found = clients.page(connection, wanted or Wanted(), cursor=cursor, limit=limit, **more)
        items += found.items
        cursor = found.next_cursor
        if cursor is None:
            return items
        assert len(found.items) == limit


class TestCreate:
    @pytest.mark.parametrize("written", [NUMBER, "+7 (900) 123-45-67", "8 900 123 45 67"])
    def test_a_number_is_kept_in_one_form_however_it_is_written(self, connection, written):
        made = make(connection, written)

        assert (made.phone_number, made.mobile_operator_code) == (NUMBER, "900")
        assert clients.find(connection, "8-900-123-45-67") == clients.get(connection, made.id) == made

    def test_tags_come_sorted_and_once_after_the_operator_code_which_is_not_stored(self, connection):
        made = make(connection, tags=["sport", "900", "Art", "sport", "ärt"])

        assert made.tags == ["900", "Art", "sport", "ärt"]
        names = [row["name"] for row in connection.execute("SELECT name FROM tags ORDER BY id")]
        assert sorted(names) == ["Art", "sport", "ärt"]

    def test_a_known_tag_is_used_and_not_created_again(self, connection):
        made = make(connection, tags=["art"])
        tag = connection.execute("SELECT id FROM tags").fetchall()

        assert make(connection, "79001234568", tags=["art"]).tags == made.tags
        assert connection.execute("SELECT id FROM tags").fetchall() == tag

    @pytest.mark.parametrize(
        "written", ["", "9001234567", "7900123456", "790012345678", "٧٩٠٠١٢٣٤٥٦٧", "7900\0", "x\ud800"]
    )
    def test_what_is_no_number_is_refused_without_being_told(self, connection, written):
        with pytest.raises(InvalidInput) as refused:
            make(connection, written)

        assert str(refused.value) == "new client: phone_number: wanted a number of the form 7XXXXXXXXXX"
        assert refused.value.fields == ("phone_number",)

    @pytest.mark.parametrize("tag", ["901", "", "a b", "a;b", "a\0", "\ud800", "x" * 201])
    def test_what_cannot_be_a_tag_is_refused_and_named(self, connection, tag):
        before = kept(connection, "clients", "tags", "client_tags", "audit_log")
        with pytest.raises(InvalidInput, match="new client: tags: tag ") as refused:
            make(connection, tags=["art", tag])

        assert refused.value.fields == ("tags",)
        assert kept(connection, "clients", "tags", "client_tags", "audit_log") == before

    @pytest.mark.parametrize("zone", ["", "Mars", "europe/moscow"])
    def test_an_unknown_time_zone_is_refused_and_named(self, connection, zone):
        with pytest.raises(
            InvalidInput, match=f"timezone: wanted the name of a time zone, .*, got '{zone}'"
        ) as refused:
            make(connection, timezone=zone)

        assert refused.value.fields == ("timezone",)

    def test_a_taken_number_is_a_conflict_that_does_not_say_it(self, connection):
        make(connection)
        with pytest.raises(Conflict, match="new client: phone_number: there is a client with this number") as refused:
            make(connection, "8 900 123-45-67")

        assert NUMBER not in repr(refused.value)
        assert refused.value.__suppress_context__

    def test_nothing_is_committed_for_the_caller(self, connection):
        with db.connect() as other:
            make(other, tags=["art"])
            other.rollback()

        assert walk(connection) == []


class TestEdit:
    def test_only_what_is_given_changes(self, connection):
        made = make(connection, tags=["art"], timezone="Asia/Omsk")

        assert edit(connection, made.id, timezone="UTC").tags == ["900", "art"]
        assert edit(connection, made.id, tags=["sport", "new"]).timezone == "UTC"
        changed = edit(connection, made.id, phone_number="8 901 123 45 67")
        assert (changed.id, changed.created) == (made.id, made.created)
        assert (changed.phone_number, changed.tags) == ("79011234567", ["901", "new", "sport"])
        assert edit(connection, made.id, tags=[]).tags == ["901"]

    def test_the_operator_code_among_the_tags_is_that_of_the_new_number(self, connection):
        made = make(connection)

        assert edit(connection, made.id, phone_number="79011234567", tags=["901"]).tags == ["901"]
        with pytest.raises(InvalidInput, match="tag '902' is an operator code"):
            edit(connection, made.id, phone_number=NUMBER, tags=["902"])

    def test_the_operator_code_that_it_had_may_come_back_among_the_tags(self, connection):
        made = make(connection, tags=["art"])

        assert edit(connection, made.id, phone_number="79011234567", tags=made.tags).tags == ["901", "art"]
        with pytest.raises(InvalidInput, match="tag '900' is an operator code"):
            edit(connection, made.id, tags=made.tags)

    def test_the_same_again_writes_nothing(self, connection):
        made = make(connection, tags=["art"])
        before = kept(connection, "clients", "client_tags", "tags", "audit_log")

        assert edit(connection, made.id, phone_number=NUMBER, tags=["900", "art"], timezone="UTC") == made
        assert edit(connection, made.id) == made
        after = kept(connection, "clients", "client_tags", "tags", "audit_log")
        assert {t: [r["xmin"] for r in rows] for t, rows in after.items()} == {
            t: [r["xmin"] for r in rows] for t, rows in before.items()
        }

    def test_a_refused_edit_leaves_the_client_as_it_was(self, connection):
        make(connection, "79001234568")
        made = make(connection, tags=["art"])

        for changes in (
            {"phone_number": "79001234568"},
            {"phone_number": "1"},
            {"timezone": "Mars"},
            {"tags": ["901"]},
        ):
            with pytest.raises((Conflict, InvalidInput), match=f"client {made.id}: {next(iter(changes))}: "):
                edit(connection, made.id, **changes)
        assert clients.get(connection, made.id) == made

    def test_two_editors_at_once_leave_the_tags_of_one(self, database, connection):
        made = make(connection, tags=["old"])
        wanted = {"a": ["a1", "a2", "both"], "b": ["b1", "b2", "both"]}
        start = threading.Barrier(2)

        def run(name):
            for _ in range(10):
                start.wait()
                with db.transaction() as own:
                    edit(own, made.id, tags=wanted[name])

        threads = [threading.Thread(target=run, args=[name]) for name in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert clients.get(connection, made.id).tags[1:] in wanted.values()


def test_a_client_that_is_not_there_is_not_found(connection):
    for call in (
        lambda: clients.get(connection, 7),
        lambda: edit(connection, 7, timezone="UTC"),
        lambda: clients.delete(connection, 7, actor="ann"),
    ):
        with pytest.raises(NotFound, match="client 7: there is no such client"):
            call()
    with pytest.raises(NotFound, match="there is no client with this number") as refused:
        clients.find(connection, NUMBER)
    assert NUMBER not in str(refused.value)


def test_every_write_is_in_the_audit_log_without_a_phone_number(connection):
    made = make(connection, tags=["art"])
    edit(connection, made.id, phone_number="79001234568", tags=[])
    clients.delete(connection, made.id, actor="bob")

    assert audited(connection) == [
        ("ann", "create_client", None, None, {"client_id": made.id}),
        ("ann", "edit_client", None, None, {"client_id": made.id, "changed": ["phone_number", "tags"]}),
        ("bob", "delete_client", None, None, {"client_id": made.id}),
    ]


class TestCampaigns:
    """What a write to a client means for campaigns."""

    def test_who_is_tagged_anew_stays_in_an_audience_that_is_taken_and_joins_none(self, connection):
        inside = make(connection, tags=["art"])
        outside = make(connection, "79001234568")
        campaign_id = a_campaign(connection, filter_tags=["art"])
        runs.select_audience(connection, campaign_id, batch_size=10)

        edit(connection, inside.id, tags=[])
        edit(connection, outside.id, tags=["art"])

        assert [(row["client_id"], row["state"]) for row in ledger(connection, campaign_id)] == [(inside.id, "pending")]

    def test_a_deleted_client_is_excluded_at_the_claim_and_stays_in_the_ledger(self, connection):
        gone, stays = make(connection), make(connection, "79001234568")
        campaign_id = a_campaign(connection)
        runs.select_audience(connection, campaign_id, batch_size=10)
        clients.delete(connection, gone.id, actor="ann")

        granted = claim(connection, campaign_id, messages.take_lease(connection, campaign_id, 1, "test"))

        assert [each.client_id for each in granted] == [stays.id]
        states = {row["client_id"]: (row["state"], row["reason"]) for row in ledger(connection, campaign_id)}
        assert states[gone.id] == ("excluded", "client_deleted")

    def test_a_message_goes_to_the_number_that_the_client_has_when_it_is_claimed(self, connection):
        made = make(connection)
        campaign_id = a_campaign(connection)
        runs.select_audience(connection, campaign_id, batch_size=10)
        edit(connection, made.id, phone_number="79991234567")

        granted = claim(connection, campaign_id, messages.take_lease(connection, campaign_id, 1, "test"))

        assert [each.phone_number for each in granted] == ["79991234567"]


class TestPage:
    @pytest.mark.parametrize("sort", ["id", "-id", "phone_number", "-phone_number"])
    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_every_client_comes_once_in_either_direction(self, connection, sort, limit):
        numbers = [
            "79990000003",
            "79000000001",
            "79990000001",
            "79000000009",
            "79500000005",
            "79990000002",
            "79000000000",
        ]
        for number in numbers:
            make(connection, number)

        found = [item["phone_number"] for item in walk(connection, sort=sort, limit=limit)]

        expected = sorted(numbers) if "phone" in sort else numbers
        assert found == (expected[::-1] if sort.startswith("-") else expected)

    def test_items_are_as_get_has_them(self, connection):
        made = make(connection, tags=["b", "A"], timezone="Asia/Omsk")

        assert clients.ClientRow(**walk(connection)[0]) == made

    @pytest.mark.parametrize("sort", ["id", "-id", "phone_number", "-phone_number"])
    def test_filters_choose_and_are_paged(self, connection, sort):
        art_900 = some_clients(connection, 7, code="900", tags=("art",))
        both_901 = some_clients(connection, 7, code="901", tags=("art", "sport"))
        plain_901 = some_clients(connection, 7, code="901")
        in_omsk = both_901[::2] + plain_901[::2]
        connection.execute("UPDATE clients SET timezone = 'Asia/Omsk' WHERE id = ANY (%s)", (in_omsk,))

        for wanted, expected in (
            ({"tag": "art"}, art_900 + both_901),
            ({"tag": "901"}, both_901 + plain_901),
            ({"operator_code": "900"}, art_900),
            ({"tag": "art", "operator_code": "901"}, both_901),
            ({"tag": "900", "operator_code": "901"}, []),
            ({"tag": "nobody"}, []),
            ({"timezone": "Asia/Omsk"}, in_omsk),
            ({"timezone": "Asia/Omsk", "tag": "sport"}, both_901[::2]),
            ({"phone_prefix": "7901"}, both_901 + plain_901),
            ({"phone_prefix": "790"}, art_900 + both_901 + plain_901),
        ):
            found = [item["id"] for item in walk(connection, Wanted(**wanted), sort=sort)]
            assert found == sorted(expected, reverse=sort.startswith("-")), wanted

    @pytest.mark.parametrize("prefix", ["", "8", "79001234", "7x", "٧", "7\n"])
    def test_a_prefix_of_more_than_seven_digits_is_refused(self, connection, prefix):
        with pytest.raises(InvalidInput, match="phone_prefix: wanted 1 to 7 digits") as refused:
            clients.page(connection, Wanted(phone_prefix=prefix))
        assert refused.value.fields == ("phone_prefix",)

    @pytest.mark.parametrize(("prefix", "last"), [("79", "79999999999"), ("7999999", "79999999999")])
    def test_a_prefix_of_nines_holds_its_last_number(self, connection, prefix, last):
        make(connection, last)

        assert len(walk(connection, Wanted(phone_prefix=prefix))) == 1

    @pytest.mark.parametrize("sort", ["phone_number", "-phone_number"])
    def test_a_cursor_by_phone_number_holds_seven_of_its_digits_at_most(self, connection, sort):
        some_clients(connection, 5, code="900")

        cursor = clients.page(connection, sort=sort, limit=2).next_cursor

        last = clients.page(connection, sort=sort, limit=2).items[-1]
        assert cursor.startswith(f"{sort}.{last['phone_number'][:7]}.{last['id']}.")
        assert last["phone_number"][1:] not in cursor

    @pytest.mark.parametrize("sort", ["phone_number", "-phone_number"])
    @pytest.mark.parametrize("number", [None, "79500000000", "79000000999", "79000000000"])
    def test_none_is_left_out_where_the_last_client_of_a_page_is_gone_or_has_another_number(
        self, connection, sort, number
    ):
        ids = some_clients(connection, 5, code="900")
        ids = ids if sort == "phone_number" else ids[::-1]
        first = clients.page(connection, sort=sort, limit=2)
        if number is None:
            clients.delete(connection, ids[1], actor="ann")
        else:
            edit(connection, ids[1], phone_number=number)

        rest = clients.page(connection, sort=sort, cursor=first.next_cursor, limit=9)

        assert set(ids[2:]) <= {item["id"] for item in rest.items}

    def test_a_cursor_of_another_sort_or_of_none_is_refused(self, connection):
        some_clients(connection, 3)
        cursors = {
            sort: clients.page(connection, sort=sort, limit=1).next_cursor for sort in ("id", "-id", "phone_number")
        }
        for sort, cursor in (
            ("-id", cursors["id"]),
            ("id", cursors["-id"]),
            ("id", cursors["phone_number"]),
            ("phone_number", cursors["id"]),
            ("-phone_number", cursors["phone_number"]),
            ("phone_number", ""),
            ("phone_number", "phone_number.7900.1.1"),
            ("phone_number", "phone_number.7900000.1"),
            ("phone_number", "phone_number.7900000." + "9" * 40 + ".1"),
            ("id", "é"),
        ):
            with pytest.raises(InvalidInput, match=f"cursor: wanted a next_cursor of this list, sorted by {sort}"):
                clients.page(connection, sort=sort, cursor=cursor)

    def test_a_sort_that_is_none_is_refused(self, connection):
        for sort in ("", "timezone", "--id"):
            with pytest.raises(InvalidInput, match="sort"):
                clients.page(connection, sort=sort)


class TestTagsOfMany:
    def test_they_get_tags_beside_those_they_have_and_it_is_kept(self, connection):
        first, second = make(connection, tags=["art"]).id, make(connection, "79001234568").id

        assert clients.tag(connection, [second, first, 999], ["new", "art"], actor="ann") == 2
        assert [clients.get(connection, id_).tags[1:] for id_ in (first, second)] == [["art", "new"]] * 2
        assert clients.tag(connection, [first], ["art"], actor="ann") == 0
        assert clients.untag(connection, [first, second], ["art", "none"], actor="bob") == 2
        assert [clients.get(connection, id_).tags[1:] for id_ in (first, second)] == [["new"]] * 2
        tagged = {"client_ids": [first, second, 999], "tags": ["art", "new"], "changed": 2}
        untagged = {"client_ids": [first, second], "tags": ["art", "none"], "changed": 2}
        assert audited(connection)[2:] == [
            ("ann", "tag_clients", None, None, tagged), ("bob", "untag_clients", None, None, untagged),
        ]  # fmt: skip

    @pytest.mark.parametrize("mark", [clients.tag, clients.untag])
    @pytest.mark.parametrize("tags", [[], ["a b"], ["900"], ["art", "a;b"]])
    def test_what_cannot_be_a_tag_changes_nobody(self, connection, mark, tags):
        client_id = make(connection, tags=["art"]).id
        before = kept(connection, "clients", "tags", "client_tags", "audit_log")
        with pytest.raises(InvalidInput, match="1 clients: tags: ") as refused:
            mark(connection, [client_id], tags, actor="ann")

        assert refused.value.fields == ("tags",)
        assert kept(connection, "clients", "tags", "client_tags", "audit_log") == before
