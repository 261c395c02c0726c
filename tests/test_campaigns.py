"""Campaigns as rows: creating, editing, pausing, resuming, cancelling, reading."""

from __future__ import annotations

import math
import re
import traceback
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import partial

import pytest

from mailing import campaigns, db, messages, runs
from mailing.campaigns import CampaignRow
from mailing.errors import Conflict, InvalidInput, NotFound
from tests.builders import (
    HOUR,
    a_campaign,
    an_open_campaign,
    audited,
    before_revision,
    claim,
    kept,
    ledger,
    now,
    outcome_of,
    some_clients,
    states,
)
from tests.waiting import in_a_thread, wait_until, waiting_for_locks

SECRET = "A most secret text. "


def row_of(connection, campaign_id):
    return connection.execute("SELECT * FROM campaigns WHERE id = %s", (campaign_id,)).fetchone()


def a_campaign_that_is(connection, status, **changes):
    """A campaign that came into its status as it would: opened, closed, or by a press of a button."""
    if status == "scheduled":
        return a_campaign(connection, **changes)
    campaign_id, _ = an_open_campaign(connection, clients=0 if status == "finished" else 3, **changes)
    if status == "finished":
        runs.close(connection, campaign_id)
    elif status != "running":
        {"paused": campaigns.pause, "cancelled": campaigns.cancel}[status](connection, campaign_id, actor="setup")
    assert row_of(connection, campaign_id)["status"] == status
    connection.execute("DELETE FROM audit_log")
    return campaign_id


# Values


def test_a_campaign_is_created_as_it_was_asked_for(connection):
    connection.execute("INSERT INTO gateways (name) VALUES ('other')")
    connection.execute("INSERT INTO tags (name) VALUES ('art'), ('vip')")
    campaign_id = a_campaign(
        connection, name="Spring", filter_tags=("vip", "art"), filter_operator_codes=["903"], audience="live",
        on_doubt="resend", local_from=time(22), local_to=time(6, 30), messages_per_second=2.5, gateway="other",
    )  # fmt: skip
    row = row_of(connection, campaign_id)
    assert (row["name"], row["text"], row["filter_tags"], row["filter_operator_codes"]) == (
        "Spring", "Hello", ["art", "vip"], ["903"],
    )  # fmt: skip
    assert (row["audience"], row["on_doubt"], row["gateway"]) == ("live", "resend", "other")
    assert (row["local_from"], row["local_to"], row["messages_per_second"]) == (time(22), time(6, 30), Decimal("2.5"))
    assert (row["status"], row["revision"], row["wake_at"], row["opened_at"]) == ("scheduled", 1, None, None)


WRONG_VALUES = [
    ({"text": ""}, "text: wanted 1 to 255 characters, got text=0 characters"),
    ({"text": SECRET * 20}, "text: wanted 1 to 255 characters, got text=400 characters"),
    ({"text": None}, "text: null value"),
    ({"text": "nul\x00"}, "NUL"),
    ({"name": ""}, "name: wanted 1 to 200 characters, or none, got name="),
    ({"name": "n" * 201}, "name: wanted 1 to 200 characters, or none, got name=nnn"),
    ({"sending_start": now() + 30 * HOUR}, "sending_stop: wanted a moment after sending_start"),
    ({"sending_start": datetime(1999, 12, 31, tzinfo=UTC)}, "wanted moments from the years 2000 to 9998"),
    ({"sending_stop": datetime(9999, 1, 1, tzinfo=UTC)}, "wanted moments from the years 2000 to 9998"),
    ({"sending_start": datetime(2020, 1, 1)}, "sending_start: wanted a moment with a time zone, got 2020-01-01"),
    ({"sending_stop": datetime(2040, 1, 1)}, "sending_stop: wanted a moment with a time zone, got 2040-01-01"),
    ({"sending_stop": "2040-01-01T00:00:00Z"}, "sending_stop: wanted a moment with a time zone, got 2040-01-01T"),
    ({"sending_stop": None}, "sending_stop: wanted a moment with a time zone, got None"),
    (
        {"sending_start": datetime(2026, 1, 1, tzinfo=UTC), "sending_stop": datetime(2026, 1, 2, tzinfo=UTC)},
        "sending_stop: wanted a moment to come, got 2026-01-02 00:00:00",
    ),
    ({"filter_tags": ["nobody"]}, "filter_tags: wanted names of existing tags, got .*'nobody'.*no such tag: nobody"),
    ({"filter_operator_codes": ["1030"]}, "filter_operator_codes: wanted codes of three digits, got .*1030"),
    ({"filter_operator_codes": ["10x"]}, "filter_operator_codes: wanted codes of three digits, got .*10x"),
    ({"audience": "all"}, "audience: wanted snapshot or live, got audience=all"),
    ({"on_doubt": "guess"}, "on_doubt: wanted hold or resend, got on_doubt=guess"),
    ({"gateway": "nowhere"}, "gateway: wanted the name of an existing gateway, got gateway=nowhere"),
    ({"local_from": time(10)}, "local_from, local_to: wanted both ends of the local hours, or neither, got .*=10:00"),
    ({"local_to": time(10)}, "local_from, local_to: wanted both ends of the local hours, or neither, got .*=10:00"),
    (
        {"local_from": time(10), "local_to": time(10)},
        "local_from, local_to: wanted two different times, got local_from=10:00:00, local_to=10:00:00",
    ),
    ({"local_from": "noon", "local_to": time(10)}, "invalid input syntax for type time"),
    ({"messages_per_second": 0}, "messages_per_second: wanted a number above 0, or none, got messages_per_second=0"),
    ({"messages_per_second": -1}, "messages_per_second: wanted a number above 0, or none, got messages_per_second=-1"),
    ({"messages_per_second": 0.0001}, "messages_per_second: wanted a number above 0, or none"),
    ({"messages_per_second": math.nan}, "messages_per_second: wanted a number above 0, or none, got .*nan"),
    ({"messages_per_second": math.inf}, "numeric field overflow"),
    (
        {"messages_per_second": True},
        'column "messages_per_second" is of type numeric but expression is of type boolean',
    ),
    ({"text": "\ud800"}, "wanted text that is Unicode, got surrogates not allowed"),
    (
        {"local_from": time(8), "local_to": "24:00"},
        "local_from, local_to: wanted times before 24:00 .midnight is 00:00.",
    ),
    ({"messages_per_second": "fast"}, "invalid input syntax for type numeric"),
]


def write(connection, campaign_id, changes):
    """Edit the campaign; None: create one."""
    if campaign_id is None:
        values = {"text": "Hi", "sending_start": now(), "sending_stop": now() + HOUR}
        campaigns.create(connection, **(values | changes))
    else:
        campaigns.edit(connection, campaign_id, actor="anna", **changes)


@pytest.mark.parametrize("way", ["create", "edit"])
@pytest.mark.parametrize(("changes", "message"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_what_was_wanted_and_nothing_is_written(connection, changes, message, way):
    campaign_id = a_campaign(connection) if way == "edit" else None
    before = kept(connection)

    with pytest.raises(InvalidInput, match=message) as caught:
        write(connection, campaign_id, changes)

    assert str(caught.value).startswith(f"campaign {campaign_id}: " if campaign_id else "new campaign: ")
    assert kept(connection) == before
    # Whoever logs the error logs its traceback, and with it what PostgreSQL said of the row.
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_value_leaves_the_transaction_of_its_caller_usable(connection):
    with connection.transaction():
        good = a_campaign(connection)
        with pytest.raises(InvalidInput):
            campaigns.edit(connection, good, actor="anna", text="", name="Other")
        campaigns.edit(connection, good, actor="anna", name="Spring")
    assert (row_of(connection, good)["text"], row_of(connection, good)["name"]) == ("Hello", "Spring")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"txt": "x", "status": "running"}, "status, txt: wanted some of name, text, sending_start"),
        ({"revision": 7}, "revision: wanted some of name"),
        ({"id": 7, "text": "Other"}, "id: wanted some of name"),
    ],
)
def test_what_nobody_may_edit_is_named_and_nothing_is_written(connection, changes, message):
    campaign_id = a_campaign(connection)
    before = kept(connection)
    with pytest.raises(InvalidInput, match=f"campaign {campaign_id}: {message}"):
        campaigns.edit(connection, campaign_id, actor="anna", **changes)
    assert kept(connection) == before


# Buttons

BUTTONS = {"pause": campaigns.pause, "resume": campaigns.resume, "cancel": campaigns.cancel}
DECISIONS = BUTTONS | {"edit": partial(campaigns.edit, name="Spring")}
SAME, REFUSED = "nothing changes", "refused"


@pytest.mark.parametrize(
    ("status", "action", "then"),
    [
        ("scheduled", "pause", "paused"),
        ("scheduled", "resume", SAME),
        ("scheduled", "cancel", "cancelled"),
        ("running", "pause", "paused"),
        ("running", "resume", SAME),
        ("running", "cancel", "cancelled"),
        ("paused", "pause", SAME),
        ("paused", "resume", "running"),
        ("paused", "cancel", "cancelled"),
        ("cancelled", "pause", REFUSED),
        ("cancelled", "resume", REFUSED),
        ("cancelled", "cancel", SAME),
        ("finished", "pause", REFUSED),
        ("finished", "resume", REFUSED),
        ("finished", "cancel", REFUSED),
    ],
)
def test_a_button_does_what_the_status_allows_and_nothing_else(connection, status, action, then):
    campaign_id = a_campaign_that_is(connection, status)
    before, row = kept(connection), row_of(connection, campaign_id)

    if then == REFUSED:
        wanted = " or ".join(campaigns.TRANSITIONS[action][1])
        with pytest.raises(Conflict, match=f"^campaign {campaign_id}: {action}: wanted {wanted}, it is {status}$"):
            BUTTONS[action](connection, campaign_id, actor="anna")
    else:
        BUTTONS[action](connection, campaign_id, actor="anna")

    if then in (SAME, REFUSED):
        assert kept(connection) == before
        return
    after = row_of(connection, campaign_id)
    assert after["status"] == then
    assert (after["finished_at"] is not None) == (then == "cancelled")
    assert {name for name in row if row[name] != after[name]} <= {"status", "finished_at", "updated"}
    assert kept(connection, "messages") == {"messages": before["messages"]}
    assert audited(connection) == [("anna", action, campaign_id, None, None)]


def test_a_campaign_that_was_never_opened_is_scheduled_when_it_is_resumed(connection):
    campaign_id = a_campaign(connection, sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR)
    campaigns.pause(connection, campaign_id, actor="anna")
    campaigns.resume(connection, campaign_id, actor="boris")
    assert row_of(connection, campaign_id)["status"] == "scheduled"
    assert audited(connection) == [
        ("anna", "pause", campaign_id, None, None), ("boris", "resume", campaign_id, None, None)
    ]  # fmt: skip


def test_resuming_after_the_window_is_refused(connection):
    campaign_id = a_campaign_that_is(connection, "paused")
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    stop, before = row_of(connection, campaign_id)["sending_stop"], kept(connection)
    closed = re.escape(f"campaign {campaign_id}: resume: its window closed at {stop}")
    with pytest.raises(Conflict, match=f"^{closed}$"):
        campaigns.resume(connection, campaign_id, actor="anna")
    assert kept(connection) == before


@pytest.mark.parametrize("action", DECISIONS)
def test_a_campaign_that_is_not_there_is_named(connection, action):
    with pytest.raises(NotFound, match="^campaign 99: there is no such campaign$"):
        DECISIONS[action](connection, 99, actor="anna")
    assert audited(connection) == []


@pytest.mark.parametrize("actor", ["", "   ", "a" * 201])
@pytest.mark.parametrize("action", DECISIONS)
def test_nobody_decides_without_a_name(connection, action, actor):
    campaign_id = a_campaign(connection)
    before = kept(connection)
    with pytest.raises(InvalidInput, match=f"^campaign {campaign_id}: actor: wanted the name of who decides, of 1 to"):
        DECISIONS[action](connection, campaign_id, actor=actor)
    assert kept(connection) == before


def test_a_button_that_two_press_at_once_is_pressed_once(connection):
    campaign_id = a_campaign_that_is(connection, "running")

    def pause(actor):
        with db.transaction() as own:
            campaigns.pause(own, campaign_id, actor=actor)

    with db.connect() as holder:
        holder.execute("SELECT FROM campaigns FOR NO KEY UPDATE")
        with in_a_thread(lambda: pause("anna")), in_a_thread(lambda: pause("boris")):
            wait_until(lambda: waiting_for_locks(connection) == 2)
            holder.rollback()

    assert len(audited(connection)) == 1
    assert row_of(connection, campaign_id)["status"] == "paused"


def test_of_two_buttons_pressed_at_once_the_second_is_judged_by_what_the_first_made_of_it(connection):
    campaign_id = a_campaign_that_is(connection, "running")

    def pause():
        with db.transaction() as own:
            campaigns.pause(own, campaign_id, actor="boris")

    with db.connect() as other:
        campaigns.cancel(other, campaign_id, actor="anna")
        with in_a_thread(pause, may_raise=Conflict) as errors:
            wait_until(lambda: waiting_for_locks(connection))
            other.commit()

    assert [str(error) for error in errors] == [
        f"campaign {campaign_id}: pause: wanted scheduled or running, it is cancelled"
    ]
    assert audited(connection) == [("anna", "cancel", campaign_id, None, None)]


# Edits


def by_function(connection, campaign_id, **changes):
    campaigns.edit(connection, campaign_id, actor="anna", **changes)


def by_sql(connection, campaign_id, **changes):
    """As a person would in psql."""
    columns = ", ".join(f"{name} = %({name})s" for name in changes)
    connection.execute(f"UPDATE campaigns SET {columns} WHERE id = %(id)s", changes | {"id": campaign_id})  # noqa: S608


either_way = pytest.mark.parametrize("edit", [by_function, by_sql])


@either_way
def test_a_new_text_goes_to_who_was_not_claimed_yet_and_each_row_says_which_it_got(connection, edit):
    campaign_id, _ = an_open_campaign(connection, clients=5)
    token = messages.take_lease(connection, campaign_id, 1, "test")
    first = claim(connection, campaign_id, token, limit=2)
    messages.record(connection, campaign_id, token, [outcome_of(first[0], "sent")])

    edit(connection, campaign_id, text="Good evening")

    rest = claim(connection, campaign_id, token)
    messages.record(connection, campaign_id, token, [outcome_of(each, "sent") for each in [first[1], *rest]])
    assert ([c.text for c in first], [c.text for c in rest]) == (["Hello"] * 2, ["Good evening"] * 3)
    assert [row["revision"] for row in ledger(connection, campaign_id)] == [1, 1, 2, 2, 2]
    reported = connection.execute("SELECT text FROM reporting.message_outcomes ORDER BY message_id").fetchall()
    assert [row["text"] for row in reported] == ["Hello"] * 2 + ["Good evening"] * 3


@either_way
def test_what_counts_as_a_new_revision_is_kept_with_its_number(connection, edit):
    connection.execute("INSERT INTO tags (name) VALUES ('art')")
    campaign_id = a_campaign(connection)
    later = now() + 3 * HOUR
    for changes, revision in [
        ({"name": "Spring"}, 1),
        ({"text": "Hello"}, 1),  # the same
        ({"messages_per_second": 5, "local_from": time(9), "local_to": time(21), "on_doubt": "resend"}, 1),
        ({"text": "Other"}, 2),
        ({"filter_tags": ["art"], "filter_operator_codes": ["903"]}, 3),
        ({"filter_tags": ["art", "art"]}, 3),  # the same filter
        ({"sending_stop": later}, 4),
    ]:
        edit(connection, campaign_id, **changes)
        assert row_of(connection, campaign_id)["revision"] == revision, changes
    kept_revisions = connection.execute("SELECT * FROM campaign_revisions ORDER BY revision").fetchall()
    assert [row["text"] for row in kept_revisions] == ["Hello", "Other", "Other", "Other"]
    assert [row["filter_tags"] for row in kept_revisions] == [[], [], ["art"], ["art"]]
    assert kept_revisions[-1]["sending_stop"] == later


def test_an_edit_is_kept_with_who_made_it_and_what_changed_but_not_to_what(connection):
    campaign_id = a_campaign(connection)
    campaigns.edit(connection, campaign_id, actor="anna", text=SECRET, name="Spring")
    assert audited(connection) == [("anna", "edit", campaign_id, None, {"changed": ["name", "text"]})]


def test_an_edit_of_nothing_writes_nothing(connection):
    campaign_id = a_campaign(connection)
    before = kept(connection)
    campaigns.edit(connection, campaign_id, actor="anna")
    assert kept(connection) == before


def test_a_campaign_that_waits_can_be_moved_and_its_dag_moves_with_it(connection):
    campaign_id = a_campaign(connection, sending_start=now() + 10 * HOUR, sending_stop=now() + 12 * HOUR)
    start, stop = now() + 2 * HOUR, now() + 4 * HOUR
    campaigns.edit(connection, campaign_id, actor="anna", sending_start=start, sending_stop=stop)
    [row] = campaigns.relevant(connection)
    assert CampaignRow.from_json(row).window == campaigns.Window(start, stop)
    assert row_of(connection, campaign_id)["wake_at"] is None


@pytest.mark.parametrize(
    "changes",
    [{"name": "Spring"}, {"text": "Other"}, {"sending_stop": now() + 9 * HOUR}, {"messages_per_second": None}],
)
def test_a_cancelled_campaign_stays_as_it_is(connection, changes):
    campaign_id = a_campaign_that_is(connection, "cancelled")
    before = kept(connection)
    with pytest.raises(Conflict, match=f"^campaign {campaign_id}: edit: wanted a campaign that is not cancelled$"):
        campaigns.edit(connection, campaign_id, actor="anna", **changes)
    assert kept(connection) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "Other"},
        {"filter_operator_codes": ["999"]},
        {"local_from": time(9), "local_to": time(21), "name": "Spring"},
        {"sending_start": now() - HOUR},
        {"text": "Other", "sending_stop": now() + timedelta(minutes=5)},  # not later than it was
    ],
)
def test_a_finished_campaign_is_edited_only_by_who_gives_it_more_time(connection, changes):
    campaign_id = a_campaign_that_is(connection, "finished")
    before = kept(connection)
    with pytest.raises(Conflict, match=f"^campaign {campaign_id}: edit: it is finished; wanted a later sending_stop"):
        campaigns.edit(connection, campaign_id, actor="anna", **changes)
    assert kept(connection) == before


def test_a_finished_campaign_can_be_given_a_name(connection):
    campaign_id = a_campaign_that_is(connection, "finished")
    campaigns.edit(connection, campaign_id, actor="anna", name="Spring")
    assert (row_of(connection, campaign_id)["name"], row_of(connection, campaign_id)["status"]) == (
        "Spring",
        "finished",
    )


def a_campaign_that_its_window_closed_on(connection, **changes):
    """Finished: one message sent, one in doubt, two expired."""
    campaign_id, _ = an_open_campaign(connection, clients=4, **changes)
    token = messages.take_lease(connection, campaign_id, 1, "test")
    taken, lost = claim(connection, campaign_id, token, limit=2)
    messages.record(connection, campaign_id, token, [outcome_of(taken, "sent"), outcome_of(lost, "unknown")])
    messages.release_lease(connection, token)
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    assert runs.close(connection, campaign_id).counts == {"audience": 4, "sent": 1, "unknown": 1, "expired": 2}
    return campaign_id


@either_way
def test_a_later_stop_opens_a_finished_campaign_again_for_what_had_expired(connection, edit):
    campaign_id = a_campaign_that_its_window_closed_on(connection)
    before = now()

    edit(connection, campaign_id, sending_stop=now() + HOUR)

    row = row_of(connection, campaign_id)
    assert (row["status"], row["finished_at"]) == ("running", None)
    assert before <= row["wake_at"] <= now()
    assert [(m["state"], m["reason"]) for m in ledger(connection, campaign_id)] == [
        ("sent", None), ("unknown", "test"), ("pending", None), ("pending", None)
    ]  # fmt: skip
    assert runs.select_audience(connection, campaign_id).batches == [1]
    assert len(claim(connection, campaign_id, messages.take_lease(connection, campaign_id, 1, "test"))) == 2


@either_way
@pytest.mark.parametrize(("audience", "status"), [("snapshot", "finished"), ("live", "running")])
def test_a_later_stop_opens_nothing_again_where_nothing_is_left_to_do(connection, edit, audience, status):
    campaign_id = a_campaign(connection, audience=audience)
    runs.select_audience(connection, campaign_id)
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    runs.close(connection, campaign_id)
    edit(connection, campaign_id, sending_stop=now() + HOUR)
    row = row_of(connection, campaign_id)
    assert row["status"] == status
    assert (row["finished_at"] is None) == (row["wake_at"] is not None) == (status == "running")


@either_way
def test_what_a_finished_campaign_is_opened_again_for_must_match_its_new_filter(connection, edit):
    """A new filter and a later stop in one edit: who had expired and does not match any more gets nothing."""
    campaign_id = a_campaign_that_its_window_closed_on(connection)
    some_clients(connection, 2, code="104")
    edit(connection, campaign_id, filter_operator_codes=["104"], sending_stop=now() + HOUR)

    runs.select_audience(connection, campaign_id)

    claims = claim(connection, campaign_id, messages.take_lease(connection, campaign_id, 1, "test"))
    assert {c.phone_number[1:4] for c in claims} <= {"104"}
    assert states(connection, campaign_id)["excluded"] == 2


@either_way
@pytest.mark.parametrize("what", ["stop", "hours"])
def test_what_had_expired_before_the_filter_was_edited_must_match_it_where_it_comes_back(connection, edit, what):
    campaign_id, _ = an_open_campaign(connection, clients=4, local_from=time(9), local_to=time(21))
    connection.execute("UPDATE messages SET state = 'expired', reason = 'local_hours' WHERE id % 2 = 0")
    edit(connection, campaign_id, filter_operator_codes=["104"])
    some_clients(connection, 1, code="104")
    runs.select_audience(connection, campaign_id)
    assert states(connection, campaign_id) == {"expired": 2, "excluded": 2, "pending": 1}

    if what == "stop":
        edit(connection, campaign_id, sending_stop=now() + 9 * HOUR)
    else:
        edit(connection, campaign_id, local_from=None, local_to=None)

    assert states(connection, campaign_id) == {"excluded": 4, "pending": 1}
    assert not row_of(connection, campaign_id)["audience_stale"]


@either_way
def test_what_comes_back_leaves_a_snapshot_otherwise_as_it_is(connection, edit):
    """Who is tagged anew stays in, or out; and what a person sends again goes, whatever the filter says."""
    campaign_id, _ = an_open_campaign(connection, clients=4, local_from=time(9), local_to=time(21))
    edit(connection, campaign_id, filter_operator_codes=["103", "104"])
    runs.select_audience(connection, campaign_id)
    connection.execute("UPDATE messages SET state = 'expired', reason = 'local_hours' WHERE id = 1")
    connection.execute("UPDATE clients SET phone_number = '7199' || right(phone_number, 7) WHERE id <= 2")
    some_clients(connection, 1, code="104")

    edit(connection, campaign_id, local_from=None, local_to=None)

    assert [row["state"] for row in ledger(connection, campaign_id)] == ["excluded", "pending", "pending", "pending"]
    runs.select_audience(connection, campaign_id)
    assert states(connection, campaign_id) == {"excluded": 1, "pending": 3}


@pytest.mark.parametrize("is_edited", [True, False])
def test_an_upgrade_knows_whose_filter_was_edited_since_they_opened(connection, database, is_edited):
    campaign_id = a_campaign(connection, filter_operator_codes=["104"])
    campaigns.edit(connection, campaign_id, actor="anna", filter_operator_codes=["103"])  # before it opened
    runs.select_audience(connection, campaign_id)
    with before_revision(database, "0009"):
        if is_edited:
            campaigns.edit(connection, campaign_id, actor="anna", filter_operator_codes=["104"])
        updated = row_of(connection, campaign_id)["updated"]

    row = row_of(connection, campaign_id)
    assert (row["refiltered"], row["mapped_at"]) == (is_edited, None)
    assert row["updated"] == updated  # for so long its messages are kept


@either_way
def test_what_had_expired_comes_back_as_it_is_where_the_filter_was_not_edited(connection, edit):
    """A snapshot is taken once: nobody is let in or left out by what became of clients since."""
    campaign_id = a_campaign_that_its_window_closed_on(connection)
    some_clients(connection, 2)
    edit(connection, campaign_id, sending_stop=now() + HOUR)
    assert not row_of(connection, campaign_id)["audience_stale"]
    runs.select_audience(connection, campaign_id)
    assert states(connection, campaign_id) == {"sent": 1, "unknown": 1, "pending": 2}


@either_way
@pytest.mark.parametrize("status", ["running", "paused"])
def test_a_later_stop_brings_back_what_local_hours_had_put_past_the_old_one(connection, edit, status):
    campaign_id = a_campaign_that_is(connection, status, local_from=time(9), local_to=time(21))
    connection.execute("UPDATE messages SET state = 'expired', reason = 'local_hours' WHERE id % 2 = 0")

    edit(connection, campaign_id, sending_stop=now() + 9 * HOUR)

    assert states(connection, campaign_id) == {"pending": 3}
    assert {row["reason"] for row in ledger(connection, campaign_id)} == {None}
    row = row_of(connection, campaign_id)
    assert (row["status"], row["wake_at"] is not None) == (status, True)


@either_way
def test_new_local_hours_bring_back_what_the_old_ones_had_expired(connection, edit):
    campaign_id = a_campaign_that_is(connection, "running", local_from=time(9), local_to=time(21))
    connection.execute("UPDATE messages SET state = 'expired', reason = 'local_hours'")
    edit(connection, campaign_id, local_from=None, local_to=None)
    assert states(connection, campaign_id) == {"pending": 3}
    assert row_of(connection, campaign_id)["wake_at"] is not None


@either_way
@pytest.mark.parametrize("status", ["running", "paused"])
def test_a_later_stop_has_a_run_though_nothing_was_swept_up_behind_the_old_one(connection, edit, status):
    """Tasks end a moment before the stop; whoever extends it then finds all that is left still pending."""
    campaign_id = a_campaign_that_is(connection, status)
    connection.execute("UPDATE campaigns SET sending_stop = now() - interval '1 second'")
    edit(connection, campaign_id, sending_stop=now() + HOUR)
    assert row_of(connection, campaign_id)["wake_at"] is not None
    assert states(connection, campaign_id) == {"pending": 3}


@either_way
def test_a_later_stop_in_the_middle_of_the_window_needs_no_further_run(connection, edit):
    campaign_id = a_campaign_that_is(connection, "running")
    edit(connection, campaign_id, sending_stop=now() + 3 * HOUR)
    assert row_of(connection, campaign_id)["wake_at"] is None


@either_way
def test_an_earlier_stop_brings_nothing_back(connection, edit):
    campaign_id = a_campaign_that_is(connection, "running", local_from=time(9), local_to=time(21))
    connection.execute("UPDATE messages SET state = 'expired', reason = 'local_hours'")
    edit(connection, campaign_id, sending_stop=now() + timedelta(minutes=30))
    assert states(connection, campaign_id) == {"expired": 3}
    assert row_of(connection, campaign_id)["wake_at"] is None


# Reading


def test_only_window_relevant_campaigns_are_listed(connection):
    soon = a_campaign(connection, sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR)
    live = a_campaign(connection)
    just_over = a_campaign(connection, sending_start=now() - 5 * HOUR, sending_stop=now() - HOUR)
    day = timedelta(days=1)
    a_campaign(connection, sending_start=now() + 2 * day, sending_stop=now() + 3 * day)
    a_campaign(connection, sending_start=now() - 3 * day, sending_stop=now() - 2 * day)
    assert [row["id"] for row in campaigns.relevant(connection)] == [soon, live, just_over]


def test_progress_adds_up_and_says_what_keeps_a_campaign_from_sending(connection):
    campaign_id = a_campaign_that_its_window_closed_on(connection)
    progress = campaigns.progress(connection, campaign_id)
    assert (progress.standing, progress.audience) == ("finished", 4)
    assert progress.counts == {"audience": 4, "sent": 1, "unknown": 1, "expired": 2}
    assert progress.first_claimed_at <= progress.last_sent_at <= now()


@pytest.mark.parametrize(
    ("status", "breaker", "reason", "standing"),
    [
        ("running", "closed", None, "running"),
        ("running", "open", "not_reached", "running; waits for gateway default (not_reached)"),
        ("running", "half_open", "http_503", "running; waits for gateway default (http_503)"),
        ("running", "open", "http_401", "running; gateway default refuses the token of its connection"),
        ("running", "open", "http_403", "running; gateway default refuses the token of its connection"),
        ("paused", "open", "http_401", "paused"),
    ],
)
def test_a_campaign_that_waits_for_its_gateway_says_so(connection, status, breaker, reason, standing):
    campaign_id = a_campaign_that_is(connection, status)
    connection.execute(
        "UPDATE gateways SET breaker_state = %s, breaker_reason = %s, breaker_probe_at = now()", (breaker, reason)
    )
    assert campaigns.progress(connection, campaign_id).standing == standing
