"""The ledger's rules, statement by statement."""

from __future__ import annotations

from datetime import time, timedelta

import pytest

from mailing import campaigns, db, messages, runs, verdicts
from mailing.errors import NotFound
from mailing.local_hours import Span, spans
from mailing.messages import Outcome
from mailing.models import MESSAGE_STATES
from tests import builders
from tests.builders import (
    HOUR,
    a_campaign,
    an_open_campaign,
    change,
    evidence,
    kept,
    ledger,
    let_leases_run_out,
    now,
    outcome_of,
    put_into,
    some_clients,
    states,
    terms_of,
)
from tests.waiting import in_a_thread, wait_until, waiting_for_locks

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def opened(connection):
    """An open campaign of ten clients: its id and its one batch."""
    campaign_id, [number] = an_open_campaign(connection, clients=10)
    return campaign_id, messages.batch(connection, campaign_id, number)


def lease_on(connection, campaign_id):
    return messages.take_lease(connection, campaign_id, 1, "test")


def claim(connection, opened, token, limit=100, **more):
    return builders.claim(connection, opened[0], token, limit=limit, **more)


def record(connection, opened, token, claims, state, **more):
    return messages.record(connection, opened[0], token, [Outcome(c.id, c.attempts, state, **more) for c in claims])


def test_a_claim_takes_due_messages_by_id_and_says_what_to_post(connection, opened):
    claims = claim(connection, opened, lease_on(connection, opened[0]), limit=3)

    assert [c.id for c in claims] == [row["id"] for row in ledger(connection, opened[0])[:3]]
    assert {(c.text, c.attempts) for c in claims} == {("Hello", 1)}
    assert all(c.phone_number.startswith("7103") for c in claims)
    assert all(3_500 < c.left_s <= 3_600 for c in claims)
    assert states(connection, opened[0]) == {"sending": 3, "pending": 7}


def test_what_is_claimed_is_claimed_once(connection, opened):
    first, second = lease_on(connection, opened[0]), lease_on(connection, opened[0])
    assert len(claim(connection, opened, first, limit=6)) == 6
    assert len(claim(connection, opened, second)) == 4
    assert claim(connection, opened, first) == []


def test_a_claim_needs_a_live_lease(connection, opened):
    token = lease_on(connection, opened[0])
    connection.execute("UPDATE leases SET expires_at = now() - interval '1 second'")
    assert claim(connection, opened, token) == []
    assert messages.renew_lease(connection, token) is None
    assert claim(connection, opened, token=12_345) == []


@pytest.mark.parametrize(
    "change",
    [
        "sending_start = now() + interval '1 second'",
        "sending_start = now() - interval '1 hour', sending_stop = now()",
        "status = 'paused'",
        "status = 'cancelled'",
        "status = 'finished', finished_at = now()",
    ],
)
def test_no_claim_outside_the_window_or_while_the_campaign_does_not_run(connection, opened, change):
    token = lease_on(connection, opened[0])
    connection.execute(f"UPDATE campaigns SET {change}")  # noqa: S608
    assert claim(connection, opened, token) == []
    assert states(connection, opened[0]) == {"pending": 10}


def test_no_claim_in_the_last_call_before_the_stop(connection, opened):
    token = lease_on(connection, opened[0])
    connection.execute("UPDATE campaigns SET sending_stop = now() + interval '20 seconds'")
    assert claim(connection, opened, token, last_call_s=30) == []
    assert len(claim(connection, opened, token, last_call_s=1)) == 10


def test_no_claim_before_a_message_is_due(connection, opened):
    connection.execute("UPDATE messages SET not_before = now() + interval '1 minute' WHERE id % 2 = 0")
    assert len(claim(connection, opened, lease_on(connection, opened[0]))) == 5


def test_an_outcome_is_written_only_for_the_token_and_attempt_it_is_about(connection, opened):
    token = lease_on(connection, opened[0])
    claims = claim(connection, opened, token)

    assert record(connection, opened, token + 1, claims, "failed", reason="http_400") == 0
    stale = [Outcome(c.id, c.attempts + 1, "failed", reason="http_400") for c in claims]
    assert messages.record(connection, opened[0], token, stale) == 0
    assert states(connection, opened[0]) == {"sending": 10}
    assert record(connection, opened, token, claims, "sent") == 10
    assert record(connection, opened, token, claims, "failed", reason="http_400") == 0
    assert states(connection, opened[0]) == {"sent": 10}


def test_dead_claims_become_unknown_and_their_late_word_still_settles_them(connection, opened):
    token = lease_on(connection, opened[0])
    claims = claim(connection, opened, token, limit=4)
    connection.execute("UPDATE leases SET expires_at = now() - interval '1 second'")

    assert messages.recover_claims(connection, *opened) == 4
    assert states(connection, opened[0]) == {"unknown": 4, "pending": 6}
    assert record(connection, opened, token, claims[:1], "sent") == 1
    assert record(connection, opened, token, claims[1:2], "failed", reason="http_400") == 1
    assert record(connection, opened, token, claims[2:3], "pending", wait_s=0) == 0
    assert states(connection, opened[0]) == {"sent": 1, "failed": 1, "unknown": 2, "pending": 6}


def test_a_late_word_cannot_undo_a_newer_claim(connection, opened):
    connection.execute("UPDATE campaigns SET on_doubt = 'resend'")
    old = lease_on(connection, opened[0])
    claims = claim(connection, opened, old, limit=1)
    connection.execute("UPDATE leases SET expires_at = now() - interval '1 second'")
    messages.recover_claims(connection, *opened)
    new = lease_on(connection, opened[0])
    again = claim(connection, opened, new, limit=1)

    assert [c.id for c in again] == [c.id for c in claims]
    assert record(connection, opened, old, claims, "failed", reason="http_400") == 0
    assert record(connection, opened, new, again, "sent") == 1


def test_a_late_word_settles_a_row_that_waits_to_be_sent_again(connection, opened):
    connection.execute("UPDATE campaigns SET on_doubt = 'resend'")
    token = lease_on(connection, opened[0])
    claims = claim(connection, opened, token, limit=1)
    connection.execute("UPDATE leases SET expires_at = now() - interval '1 second'")
    messages.recover_claims(connection, *opened)
    assert states(connection, opened[0]) == {"pending": 10}
    assert record(connection, opened, token, claims, "sent") == 1
    assert states(connection, opened[0]) == {"sent": 1, "pending": 9}


def test_live_claims_are_left_alone(connection, opened):
    claim(connection, opened, lease_on(connection, opened[0]))
    assert messages.recover_claims(connection, *opened) == 0


@pytest.mark.parametrize(("on_doubt", "state"), [("hold", "unknown"), ("resend", "pending")])
def test_doubt_is_the_campaigns_policy_to_resolve(connection, opened, on_doubt, state):
    connection.execute("UPDATE campaigns SET on_doubt = %s", (on_doubt,))
    token = lease_on(connection, opened[0])
    claims = claim(connection, opened, token, limit=1)

    record(connection, opened, token, claims, "unknown", reason="no_answer", wait_s=60, error="TimeoutError")

    [row, *_] = ledger(connection, opened[0])
    [attempt] = evidence(connection, opened[0])
    assert (row["state"], row["reason"]) == (attempt["state"], attempt["reason"]) == (state, "no_answer")
    assert attempt["error"] == "TimeoutError"
    assert (row["not_before"] is not None) == (state == "pending")


def test_the_evidence_of_a_bad_attempt_outlives_the_good_one(connection, opened):
    token = lease_on(connection, opened[0])
    bad = claim(connection, opened, token, limit=1)
    reply = {"status_code": 503, "error": "http_503", "reply": "busy\x00" + "x" * 2_000, "duration_ms": 12}
    record(connection, opened, token, bad, "pending", reason="http_503", wait_s=0, **reply)
    good = claim(connection, opened, token, limit=1)

    record(connection, opened, token, good, "sent", age_s=2)

    [row, *_] = ledger(connection, opened[0])
    assert (row["state"], row["attempts"]) == ("sent", 2)
    assert timedelta(seconds=1.9) < now() - row["sent_at"] < timedelta(seconds=10)
    [attempt] = messages.attempts(connection, row["id"])
    assert (attempt.attempt, attempt.state, attempt.status_code, attempt.duration_ms) == (1, "pending", 503, 12)
    assert attempt.reply.startswith("busy\N{REPLACEMENT CHARACTER}x")
    assert len(attempt.reply) == 1_024


def test_an_attempt_that_does_not_count_is_not_counted(connection, opened):
    token = lease_on(connection, opened[0])
    claims = claim(connection, opened, token, limit=1)
    record(connection, opened, token, claims, "pending", reason="http_401", wait_s=0, burn=False)
    assert ledger(connection, opened[0])[0]["attempts"] == 0


def test_claims_whose_answer_was_lost_go_back_as_if_they_had_never_been(connection, opened):
    campaign_id, batch = opened
    token = lease_on(connection, campaign_id)
    known, *lost = claim(connection, opened, token, limit=3)

    assert messages.return_unposted(connection, campaign_id, token, batch, [known.id]) == len(lost) == 2
    assert states(connection, campaign_id) == {"sending": 1, "pending": 9}
    assert {row["attempts"] for row in ledger(connection, campaign_id) if row["state"] == "pending"} == {0}


def test_the_outlook_says_what_is_left_and_when(connection, opened):
    campaign_id, batch = opened
    mine, other = lease_on(connection, campaign_id), lease_on(connection, campaign_id)
    claim(connection, opened, other, limit=4)
    connection.execute("UPDATE messages SET not_before = now() + interval '1 minute' WHERE state = 'pending'")

    look = messages.outlook(connection, campaign_id, mine, 1, batch)

    assert (look.status, look.pending, look.sending) == ("running", 6, 4)
    assert 59 < look.due_s <= 60
    assert 29 < look.lease_s <= 30


def test_a_batch_is_labelled_by_where_it_stands_in_the_campaign(connection):
    campaign_id, numbers = an_open_campaign(connection, clients=2_500, batch_size=1_000)
    labels = [messages.batch(connection, campaign_id, number).label for number in numbers]
    assert labels == ["messages 1–1,000", "messages 1,001–2,000", "messages 2,001–2,500"]


def test_a_lease_on_a_campaign_that_is_not_there_is_refused(connection):
    with pytest.raises(NotFound, match="campaign 99: there is no such campaign"):
        messages.take_lease(connection, 99, 1, "test")


def test_sending_updates_stay_inside_their_page(connection):
    """No index may hold a column that changes while sending: every update of an open page is then HOT."""
    columns = {
        row["attname"]
        for row in connection.execute(
            "SELECT DISTINCT a.attname FROM pg_index i JOIN pg_attribute a"
            " ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) WHERE i.indrelid = 'messages'::regclass"
        )
    }
    assert columns == {"id", "campaign_id", "client_id"}
    partial = connection.execute(
        "SELECT count(*) AS n FROM pg_index WHERE indrelid = 'messages'::regclass AND indpred IS NOT NULL"
    ).fetchone()
    assert partial["n"] == 0


def test_a_claim_reads_no_more_than_it_takes_though_statistics_know_nothing(connection):
    campaign_id, [number] = an_open_campaign(connection, clients=5_000)
    batch = messages.batch(connection, campaign_id, number)
    token = lease_on(connection, campaign_id)
    messages.plan_for_sending(connection)
    parameters = {
        "campaign_id": campaign_id, "token": token, "from_id": batch.first_id, "last_id": batch.last_id,
        "limit": 50, "last_call_s": 0.0, "gateway": "default", "is_paced": False, "is_probe": False,
        "local_from": None, "local_to": None, "zones": None, "opens_at": None, "closes_at": None,
    }  # fmt: skip
    [plan] = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + messages.SQL["claim_messages"], parameters)
    assert 0 < max(rows_read(plan["QUERY PLAN"][0]["Plan"])) <= 50
    assert campaigns.progress(connection, campaign_id).sending == 50


def rows_read(node):
    yield node["Actual Rows"] * node["Actual Loops"]
    for child in node.get("Plans", []):
        yield from rows_read(child)


# What a task believes must be so in the rows


@pytest.mark.parametrize(
    ("breaker", "is_probe", "claimed"),
    [("closed", False, 10), ("open", False, 0), ("half_open", False, 0), ("open", True, 0), ("half_open", True, 10),
     ("closed", True, 10)],
)  # fmt: skip
def test_while_the_breaker_is_not_closed_only_the_one_who_probes_claims(connection, opened, breaker, is_probe, claimed):
    token = lease_on(connection, opened[0])
    change(connection, "gateways", f"breaker_state = '{breaker}', breaker_probe_at = now()")
    assert len(claim(connection, opened, token, is_probe=is_probe)) == claimed
    assert states(connection, opened[0]) == ({"sending": 10} if claimed else {"pending": 10})


@pytest.mark.parametrize(
    ("table", "assignment"),
    [
        ("gateways", "messages_per_second = 5"),
        ("campaigns", "messages_per_second = 5"),
        ("campaigns", "gateway = 'other'"),
        ("campaigns", "local_from = '00:00', local_to = '23:59'"),
    ],
)
def test_terms_that_are_no_longer_true_get_nothing_until_they_are_read_anew(connection, opened, table, assignment):
    connection.execute("INSERT INTO gateways (name) VALUES ('other')")
    token = lease_on(connection, opened[0])
    old = messages.renew_lease(connection, token)
    change(connection, table, assignment)

    assert claim(connection, opened, token, terms=old) == []

    new = messages.renew_lease(connection, token)
    zones = {"UTC": Span(now() - HOUR, now() + HOUR)}
    assert len(claim(connection, opened, token, terms=new, zones=zones)) == 10


@pytest.mark.parametrize(
    "assignment", ["local_to = '13:00'", "local_from = '08:00'", "local_from = NULL, local_to = NULL"]
)
def test_local_hours_that_were_changed_get_nothing_until_they_are_read_anew(connection, opened, assignment):
    change(connection, "campaigns", "local_from = '09:00', local_to = '12:00'")
    token = lease_on(connection, opened[0])
    zones = {"UTC": Span(now() - HOUR, now() + HOUR)}
    old = messages.renew_lease(connection, token)
    change(connection, "campaigns", assignment)
    assert claim(connection, opened, token, terms=old, zones=zones) == []
    new = messages.renew_lease(connection, token)
    assert len(claim(connection, opened, token, terms=new, zones=zones)) == 10


def test_who_keeps_to_a_limit_that_was_taken_off_claims_all_the_same(connection, opened):
    change(connection, "gateways", "messages_per_second = 5")
    token = lease_on(connection, opened[0])
    old = messages.renew_lease(connection, token)
    assert old.is_paced
    change(connection, "gateways", "messages_per_second = NULL")
    assert len(claim(connection, opened, token, terms=old)) == 10


def test_a_lease_says_on_what_terms_to_send(connection, opened):
    change(connection, "campaigns", "local_from = '22:00', local_to = '06:00', messages_per_second = 5")
    change(connection, "gateways", "timeout_s = 3, requests_in_flight = 7, repeat_codes = '{12}', token_warning_s = 60")
    terms = terms_of(connection, opened[0])
    assert (terms.gateway, terms.connection_id, terms.endpoint) == terms.route == (
        "default", "mailing_gateway", "/v1/send/{id}"
    )  # fmt: skip
    assert (terms.timeout_s, terms.requests_in_flight, terms.repeat_codes, terms.token_warning_s) == (3.0, 7, [12], 60)
    assert (terms.is_paced, terms.status, terms.breaker_state, terms.breaker_changed_s) == (
        True,
        "running",
        "closed",
        None,
    )
    assert (terms.local_hours.start, terms.local_hours.end) == (time(22), time(6))


# Local hours


@pytest.fixture
def with_hours(connection, opened):
    """The campaign has local hours; which ones does not matter, for the claim is told what they are in each zone."""
    change(connection, "campaigns", "local_from = '09:00', local_to = '21:00'")
    return opened


def around_now(opens, closes):
    """A span from and to so many seconds from now."""
    return Span(now() + opens * SECOND, now() + closes * SECOND)


@pytest.mark.parametrize(
    ("zones", "claimed"),
    [
        ({"UTC": (-3600, 3600)}, 10),
        ({"UTC": (-3600, 25)}, 10),
        ({"UTC": (-3600, 8)}, 0),  # the request might begin after it has closed
        ({"UTC": (60, 3600)}, 0),
        ({"UTC": (-7200, -3600)}, 0),  # as of an hour ago
        ({"Asia/Tokyo": (-3600, 3600)}, 0),
        ({}, 0),
        (None, 0),
    ],
)
def test_a_claim_keeps_to_the_local_hours_of_each_client(connection, with_hours, zones, claimed):
    zones = None if zones is None else {zone: around_now(*ends) for zone, ends in zones.items()}
    token = lease_on(connection, with_hours[0])
    assert len(claim(connection, with_hours, token, zones=zones, last_call_s=10)) == claimed


def test_each_client_has_the_hours_of_its_own_zone(connection, with_hours):
    connection.execute("UPDATE clients SET timezone = 'Asia/Tokyo' WHERE id % 2 = 0")
    zones = {"UTC": around_now(-60, 60), "Asia/Tokyo": around_now(60, 3600)}
    claims = claim(connection, with_hours, lease_on(connection, with_hours[0]), zones=zones)
    assert [c.client_id % 2 for c in claims] == [1] * 5


def test_a_claim_says_until_when_its_request_must_have_begun(connection, with_hours):
    connection.execute("UPDATE clients SET timezone = 'Asia/Tokyo' WHERE id % 2 = 0")
    zones = {"UTC": around_now(-60, 60), "Asia/Tokyo": around_now(-60, 7200)}
    claims = claim(connection, with_hours, lease_on(connection, with_hours[0]), zones=zones)
    assert all(3_500 < c.left_s <= 3_600 for c in claims)
    assert all(50 < c.begin_s <= 60 for c in claims if c.client_id % 2)
    assert all(c.begin_s == c.left_s for c in claims if not c.client_id % 2)  # the stop comes first


def test_a_client_that_was_deleted_is_left_out_whatever_the_hour(connection, with_hours):
    connection.execute("DELETE FROM clients WHERE id % 2 = 0")
    claims = claim(connection, with_hours, lease_on(connection, with_hours[0]), zones={"UTC": around_now(60, 3600)})
    assert claims == []
    assert states(connection, with_hours[0]) == {"pending": 5, "excluded": 5}


def test_a_client_that_was_deleted_after_an_attempt_in_doubt_stays_in_doubt(connection, opened):
    change(connection, "campaigns", "on_doubt = 'resend'")
    token = lease_on(connection, opened[0])
    claims = claim(connection, opened, token, limit=1)
    record(connection, opened, token, claims, "unknown", reason="no_answer", wait_s=0)
    connection.execute("DELETE FROM clients")
    assert claim(connection, opened, token) == []
    [first, *rest] = ledger(connection, opened[0])
    assert (first["state"], first["reason"], first["attempts"]) == ("unknown", "client_deleted", 1)
    assert {row["state"] for row in rest} == {"excluded"}


def follow(connection, opened, zones):
    campaign_id, batch = opened
    return messages.follow_local_hours(connection, campaign_id, batch, terms_of(connection, campaign_id), zones)


def waits(connection, opened):
    """State, reason and seconds to wait of each message."""
    return [
        (row["state"], row["reason"], row["not_before"] and round((row["not_before"] - now()).total_seconds(), -1))
        for row in ledger(connection, opened[0])
    ]


def test_what_is_closed_waits_for_its_opening_and_what_is_open_does_not(connection, with_hours):
    connection.execute("UPDATE clients SET timezone = 'Asia/Tokyo' WHERE id % 2 = 0")
    zones = {"UTC": around_now(-60, 3600), "Asia/Tokyo": around_now(600, 3600)}

    assert follow(connection, with_hours, zones) == 5

    assert waits(connection, with_hours) == [("pending", None, None), ("pending", "local_hours", 600)] * 5
    assert follow(connection, with_hours, zones) == 0


@pytest.mark.parametrize(("beyond", "state"), [(-1, "pending"), (0, "expired"), (1, "expired")])
def test_what_opens_at_the_stop_or_later_expires(connection, with_hours, beyond, state):
    stop = connection.execute("SELECT sending_stop FROM campaigns").fetchone()["sending_stop"]
    opens_at = stop + beyond * SECOND
    follow(connection, with_hours, {"UTC": Span(opens_at, opens_at + HOUR)})
    rows = ledger(connection, with_hours[0])
    assert {(row["state"], row["reason"]) for row in rows} == {(state, "local_hours")}
    assert {row["not_before"] for row in rows} == {opens_at if state == "pending" else None}


def test_what_expires_after_an_attempt_in_doubt_stays_in_doubt(connection, with_hours):
    change(connection, "messages", "in_doubt = true WHERE id % 2 = 0")
    follow(connection, with_hours, {"UTC": around_now(7200, 10_800)})
    assert states(connection, with_hours[0]) == {"expired": 5, "unknown": 5}
    assert {row["reason"] for row in ledger(connection, with_hours[0])} == {"local_hours"}


@pytest.mark.parametrize(("opens", "waits_s"), [(300, 300), (900, 900), (-60, None)])
def test_what_waits_for_an_opening_waits_for_the_new_one_when_the_hours_are_changed(
    connection, with_hours, opens, waits_s
):
    follow(connection, with_hours, {"UTC": around_now(600, 3600)})
    assert follow(connection, with_hours, {"UTC": around_now(opens, 3600)}) == 10
    assert set(waits(connection, with_hours)) == {("pending", "local_hours" if waits_s else None, waits_s)}


def test_what_waits_for_an_opening_is_due_at_once_when_the_hours_are_removed(connection, with_hours):
    follow(connection, with_hours, {"UTC": around_now(600, 3600)})
    change(connection, "campaigns", "local_from = NULL, local_to = NULL")
    assert follow(connection, with_hours, None) == 10
    assert len(claim(connection, with_hours, lease_on(connection, with_hours[0]))) == 10


def test_a_later_stop_that_comes_while_a_task_expires_messages_brings_them_back(connection, with_hours):
    campaign_id, batch = with_hours
    terms, past_the_stop = terms_of(connection, campaign_id), {"UTC": around_now(3700, 9000)}

    def extend():
        with db.transaction() as own:
            campaigns.edit(own, campaign_id, actor="anna", sending_stop=now() + 5 * HOUR)

    with db.connect() as task:
        assert messages.follow_local_hours(task, campaign_id, batch, terms, past_the_stop) == 10
        with in_a_thread(extend):
            wait_until(lambda: waiting_for_locks(connection))
            task.commit()

    assert states(connection, campaign_id) == {"pending": 10}


def test_hours_that_were_changed_since_a_task_learnt_of_them_change_nothing(connection, with_hours):
    """What it still believes would expire messages that the new hours let go."""
    campaign_id, batch = with_hours
    learnt = terms_of(connection, campaign_id)
    change(connection, "campaigns", "local_from = NULL, local_to = NULL")
    past_the_stop = {"UTC": around_now(7200, 9000)}
    assert messages.follow_local_hours(connection, campaign_id, batch, learnt, past_the_stop) == 0
    assert states(connection, campaign_id) == {"pending": 10}


def test_what_was_put_off_after_an_attempt_waits_for_both(connection, with_hours):
    """Rows 1 to 4: put off until before and until after the opening; the rest is not put off."""
    token = lease_on(connection, with_hours[0])
    claims = claim(connection, with_hours, token, limit=4, zones={"UTC": around_now(-60, 60)})
    for each, wait_s in zip(claims, (60, 60, 1200, 1200), strict=True):
        record(connection, with_hours, token, [each], "pending", reason="http_503", wait_s=wait_s)

    assert follow(connection, with_hours, {"UTC": around_now(600, 3600)}) == 8
    assert waits(connection, with_hours) == [
        *[("pending", "local_hours", 600)] * 2,
        *[("pending", "http_503", 1200)] * 2,
        *[("pending", "local_hours", 600)] * 6,
    ]

    assert follow(connection, with_hours, {"UTC": around_now(-60, 60)}) == 8
    assert waits(connection, with_hours)[2:4] == [("pending", "http_503", 1200)] * 2


@pytest.mark.parametrize("state", [state for state in MESSAGE_STATES if state != "pending"])
def test_local_hours_concern_only_what_is_pending(connection, with_hours, state):
    put_into(connection, state)
    before = kept(connection, "messages")
    assert follow(connection, with_hours, {"UTC": around_now(7200, 10_800)}) == 0
    assert kept(connection, "messages") == before


def test_one_who_tells_of_hours_and_one_who_follows_a_filter_do_not_wait_for_each_other(connection, with_hours):
    """The one holds the campaign and wants messages, the other holds messages and wants the campaign."""
    campaign_id, _ = with_hours
    opening = {"UTC": around_now(600, 7200)}
    connection.execute("UPDATE campaigns SET filter_operator_codes = '{999}'")
    with db.connect() as follower:
        follower.execute("UPDATE messages SET state = 'excluded', reason = 'filter' WHERE id % 2 = 0")
        connection.execute("SET lock_timeout = '2s'")
        with connection.transaction():
            assert follow(connection, with_hours, opening) == 5
        campaigns.pause(connection, campaign_id, actor="anna")
        follower.execute("UPDATE campaigns SET audience_stale = false")
        follower.rollback()
    assert follow(connection, with_hours, opening) == 5, "whom it passed over is told then"


def test_the_hours_of_a_batch_are_those_of_the_zones_of_whom_it_has_still_to_reach(connection, with_hours):
    connection.execute("UPDATE clients SET timezone = 'Asia/Tokyo' WHERE id % 2 = 0")
    connection.execute("UPDATE clients SET timezone = 'Europe/Berlin' WHERE id = (SELECT min(id) FROM clients)")
    token = lease_on(connection, with_hours[0])
    claims = claim(connection, with_hours, token, limit=1, zones={"Europe/Berlin": around_now(-60, 60)})
    assert len(claims) == 1

    at, zones = messages.zones_of_batch(connection, *with_hours)

    assert sorted(zones) == ["Asia/Tokyo", "UTC"]
    assert abs(at - now()) < 5 * SECOND


def test_from_clock_to_claim_local_hours_are_what_the_clients_walls_show(connection):
    """It is so late in Etc/GMT-3 (three hours east of UTC) that the hours are over; in Etc/GMT-1 they have begun."""
    for zone in ("Etc/GMT-1", "Etc/GMT-3"):
        ids = some_clients(connection, 3)
        connection.execute("UPDATE clients SET timezone = %s WHERE id = ANY (%s)", (zone, ids))
    there = now() + HOUR  # in Etc/GMT-1
    campaign_id = a_campaign(
        connection, local_from=(there - HOUR).time(), local_to=(there + HOUR).time(), sending_stop=now() + 48 * HOUR
    )
    runs.select_audience(connection, campaign_id)
    batch = messages.batch(connection, campaign_id, 1)
    at, names = messages.zones_of_batch(connection, campaign_id, batch)
    terms = terms_of(connection, campaign_id)
    zones = spans(terms.local_hours, names, at)

    messages.follow_local_hours(connection, campaign_id, batch, terms, zones)

    claims = builders.claim(connection, campaign_id, lease_on(connection, campaign_id), zones=zones)
    zone_of = {row["id"]: row["timezone"] for row in connection.execute("SELECT id, timezone FROM clients")}
    assert [zone_of[c.client_id] for c in claims] == ["Etc/GMT-1"] * 3
    assert 3_590 < claims[0].begin_s <= 3_600
    late = [row for row in ledger(connection, campaign_id) if zone_of[row["client_id"]] == "Etc/GMT-3"]
    assert {(row["state"], row["reason"]) for row in late} == {("pending", "local_hours")}
    assert all(abs(row["not_before"] - (now() + 21 * HOUR)) < MINUTE for row in late)


# The late word of a task that was presumed dead, after a person's verdict


@pytest.mark.parametrize(
    ("verdict", "word", "counts", "state", "reason"),
    [
        ("assume_sent", "sent", 0, "sent", "assumed_sent"),
        ("assume_sent", "failed", 0, "sent", "assumed_sent"),
        ("assume_sent", "pending", 0, "sent", "assumed_sent"),
        ("assume_sent", "unknown", 0, "sent", "assumed_sent"),
        ("give_up", "sent", 0, "failed", "given_up"),
        ("give_up", "failed", 0, "failed", "given_up"),
        ("give_up", "pending", 0, "failed", "given_up"),
        ("send_again", "sent", 1, "sent", None),
        ("send_again", "failed", 1, "failed", "test"),
        ("send_again", "pending", 0, "pending", None),
        ("send_again", "unknown", 0, "pending", None),
    ],
)
def test_a_late_word_settles_only_what_nobody_has_settled(connection, opened, verdict, word, counts, state, reason):
    token = lease_on(connection, opened[0])
    [claimed] = claim(connection, opened, token, limit=1)
    let_leases_run_out(connection)
    messages.recover_claims(connection, *opened)
    verdicts.settle(connection, claimed.id, verdict, actor="anna")

    assert messages.record(connection, opened[0], token, [outcome_of(claimed, word)]) == counts

    row = ledger(connection, opened[0])[0]
    assert (row["state"], row["reason"]) == (state, reason)
    assert len(evidence(connection, opened[0])) == 1 + (word == "failed") * counts


# Outcomes under a cancelled campaign, and evidence


@pytest.mark.parametrize("on_doubt", ["hold", "resend"])
@pytest.mark.parametrize(
    ("word", "was_in_doubt", "state", "reason"),
    [
        ("sent", False, "sent", None),
        ("sent", True, "sent", None),
        ("failed", False, "failed", "test"),
        ("unknown", False, "unknown", "test"),
        ("pending", False, "cancelled", "cancelled"),
        ("pending", True, "unknown", "cancelled"),
    ],
)
def test_what_is_in_flight_when_its_campaign_is_cancelled_is_recorded_and_never_tried_again(
    connection, opened, on_doubt, word, was_in_doubt, state, reason
):
    change(connection, "campaigns", f"on_doubt = '{on_doubt}'")
    token = lease_on(connection, opened[0])
    [claimed] = claim(connection, opened, token, limit=1)
    change(connection, "messages", f"in_doubt = {was_in_doubt} WHERE state = 'sending'")
    campaigns.cancel(connection, opened[0], actor="anna")

    assert messages.record(connection, opened[0], token, [outcome_of(claimed, word)]) == 1

    row = ledger(connection, opened[0])[0]
    assert (row["state"], row["reason"], row["not_before"]) == (state, reason, None)
    assert [(a["state"], a["reason"]) for a in evidence(connection, opened[0])] == (
        [] if word == "sent" else [(state, "test")]
    )


def test_what_was_never_posted_is_cancelled_with_its_campaign(connection, opened):
    token = lease_on(connection, opened[0])
    claim(connection, opened, token, limit=3)
    campaigns.cancel(connection, opened[0], actor="anna")
    assert messages.return_unposted(connection, opened[0], token, opened[1], known=[]) == 3
    first = ledger(connection, opened[0])[0]
    assert (first["state"], first["reason"], first["attempts"]) == ("cancelled", "cancelled", 0)


def test_what_goes_back_to_a_cancelled_campaign_after_an_attempt_in_doubt_stays_in_doubt(connection, opened):
    change(connection, "campaigns", "on_doubt = 'resend'")
    token = lease_on(connection, opened[0])
    claims = claim(connection, opened, token, limit=1)
    record(connection, opened, token, claims, "unknown", reason="no_answer", wait_s=0)
    assert len(claim(connection, opened, token, limit=2)) == 2
    campaigns.cancel(connection, opened[0], actor="anna")
    assert messages.return_unposted(connection, opened[0], token, opened[1], known=[]) == 2
    assert [row["state"] for row in ledger(connection, opened[0])][:2] == ["unknown", "cancelled"]


@pytest.mark.parametrize("on_doubt", ["hold", "resend"])
def test_what_a_dead_task_held_of_a_cancelled_campaign_is_in_doubt(connection, opened, on_doubt):
    change(connection, "campaigns", f"on_doubt = '{on_doubt}'")
    claim(connection, opened, lease_on(connection, opened[0]), limit=2)
    campaigns.cancel(connection, opened[0], actor="anna")
    let_leases_run_out(connection)
    assert messages.recover_claims(connection, *opened) == 2
    assert states(connection, opened[0]) == {"unknown": 2, "pending": 8}


def test_every_attempt_that_did_not_go_well_leaves_its_evidence(connection, opened):
    change(connection, "campaigns", "on_doubt = 'resend'")
    token = lease_on(connection, opened[0])

    def attempt(state, reason, **more):
        [claimed] = claim(connection, opened, token, limit=1)
        outcome = outcome_of(claimed, state, reason, wait_s=0.0, **more)
        assert messages.record(connection, opened[0], token, [outcome]) == 1
        return claimed.id

    message_id = attempt("pending", "http_503", status_code=503, duration_ms=7, reply="busy", age_s=30)
    attempt("pending", "http_401", status_code=401, burn=False)
    attempt("unknown", "no_answer", error="TimeoutError")
    attempt("failed", "code_7", status_code=200, reply='{"code": 7}')

    history = messages.attempts(connection, message_id)
    assert [(a.attempt, a.state, a.reason, a.status_code) for a in history] == [
        (1, "pending", "http_503", 503), (2, "pending", "http_401", 401), (2, "pending", "no_answer", None),
        (3, "failed", "code_7", 200),
    ]  # fmt: skip
    assert (history[0].duration_ms, history[0].reply, history[2].error) == (7, "busy", "TimeoutError")
    assert timedelta(seconds=29) < now() - history[0].ended_at < timedelta(seconds=40)
    row = ledger(connection, opened[0])[0]
    assert (row["attempts"], row["state"], row["reason"], row["in_doubt"]) == (3, "failed", "code_7", True)


def test_a_dead_task_leaves_evidence_too(connection, opened):
    [claimed] = claim(connection, opened, lease_on(connection, opened[0]), limit=1)
    let_leases_run_out(connection)
    messages.recover_claims(connection, *opened)
    [attempt] = messages.attempts(connection, claimed.id)
    assert (attempt.attempt, attempt.state, attempt.reason, attempt.duration_ms) == (1, "unknown", "task_died", None)


def test_an_attempt_that_is_known_to_be_taken_ends_the_doubt(connection, opened):
    change(connection, "campaigns", "on_doubt = 'resend'")
    token = lease_on(connection, opened[0])
    record(
        connection, opened, token, claim(connection, opened, token, limit=1), "unknown", reason="no_answer", wait_s=0
    )
    assert ledger(connection, opened[0])[0]["in_doubt"]
    record(connection, opened, token, claim(connection, opened, token, limit=1), "sent")
    assert not ledger(connection, opened[0])[0]["in_doubt"]


def test_the_outlook_says_what_keeps_the_batch_from_being_sent(connection, opened):
    campaign_id, batch = opened
    token = lease_on(connection, campaign_id)
    probe_at = "now() + interval '90 seconds'"
    change(
        connection, "gateways", f"breaker_state = 'open', breaker_reason = 'http_401', breaker_probe_at = {probe_at}"
    )
    change(connection, "campaigns", "audience_stale = true, status = 'paused'")
    look = messages.outlook(connection, campaign_id, token, 1, batch, last_call_s=10)
    assert (look.status, look.audience_stale) == ("paused", True)
    assert (look.breaker_state, look.breaker_reason) == ("open", "http_401")
    assert 80 < look.breaker_probe_s <= 90
    assert 3_500 < look.closes_s <= 3_590
    row = connection.execute("SELECT updated FROM campaigns").fetchone()
    assert look.updated == row["updated"].timestamp()
