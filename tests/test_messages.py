"""The ledger's rules, statement by statement."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailing import campaigns, messages
from mailing.errors import NotFound
from mailing.messages import Outcome
from tests import builders
from tests.builders import an_open_campaign, evidence, ledger, now, states


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
