"""The sender against a real ledger and a real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from local.settings import free_port
from mailing import db, messages
from mailing.errors import NotFound
from mailing.sender import BatchSender, Stopped
from tests.builders import an_open_campaign, evidence, ledger, let_probe, now, states
from tests.conftest import ROOT, point_gateway_to


def send(campaign_id, number=1):
    return asyncio.run(BatchSender(campaign_id, number).run())


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def in_a_thread(work):
    """Run `work` beside the test; its error, if any, is raised at the end."""
    errors = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield errors
    thread.join(60)
    assert not thread.is_alive()


def test_every_message_of_a_batch_is_posted_once_and_recorded_as_sent(connection, gateway):
    campaign_id, [batch] = an_open_campaign(connection, clients=1_000)

    result = send(campaign_id, batch)

    assert states(connection, campaign_id) == {"sent": 1_000}
    assert gateway.counts() == {row["id"]: 1 for row in ledger(connection, campaign_id)}
    assert result.counts == {"sent": 1_000}
    assert result.wake_in_s is None
    assert connection.execute("SELECT * FROM leases").fetchall() == []


def test_a_sent_message_says_when_with_which_revision_and_after_how_many_attempts(connection, gateway):
    before = now()
    campaign_id, [batch] = an_open_campaign(connection, clients=1)

    send(campaign_id, batch)

    [row] = ledger(connection, campaign_id)
    assert before <= row["claimed_at"] <= row["sent_at"] <= now()
    assert (row["revision"], row["attempts"], row["reason"]) == (1, 1, None)
    assert evidence(connection, campaign_id) == []


def test_two_senders_share_a_batch_without_a_double(connection, gateway):
    gateway.set(latency={"kind": "uniform", "low": 0.0, "high": 0.02})
    campaign_id, [batch] = an_open_campaign(connection, clients=600)

    async def both():
        return await asyncio.gather(BatchSender(campaign_id, batch).run(), BatchSender(campaign_id, batch).run())

    first, second = asyncio.run(both())

    assert states(connection, campaign_id) == {"sent": 600}
    assert set(gateway.counts().values()) == {1}
    assert first.counts["sent"] > 0
    assert second.counts["sent"] > 0


@pytest.mark.parametrize(
    ("kind", "state", "reason", "status_code"),
    [
        ("400", "failed", "http_400", 400),
        ("404", "failed", "http_404", 404),
        ("code_nonzero", "failed", "code_1", 200),
        ("429", "pending", "http_429", 429),
        ("500", "pending", "http_500", 500),
        ("503", "pending", "http_503", 503),
        ("502", "unknown", "http_502", 502),
        ("504", "unknown", "http_504", 504),
        ("not_json", "unknown", "reply_not_json", 200),
        ("empty", "unknown", "reply_not_json", 200),
        ("truncated", "unknown", "connection_lost", 200),
        ("drop_before_read", "unknown", "connection_lost", None),
        ("drop_after_read", "unknown", "connection_lost", None),
    ],
)
def test_a_bad_reply_decides_the_state_and_leaves_its_evidence(connection, gateway, kind, state, reason, status_code):
    gateway.set(shares={kind: 1.0}, retry_after=60)
    campaign_id, [batch] = an_open_campaign(connection, clients=1)

    result = send(campaign_id, batch)

    [row] = ledger(connection, campaign_id)
    attempt = evidence(connection, campaign_id)[0]
    assert (row["state"], row["reason"]) == (attempt["state"], attempt["reason"]) == (state, reason)
    assert (attempt["message_id"], attempt["attempt"], attempt["status_code"]) == (row["id"], 1, status_code)
    assert attempt["error"]
    assert row["created"] <= attempt["ended_at"] <= now()
    assert attempt["duration_ms"] >= 0
    assert (row["not_before"] is not None) == (state == "pending")
    assert (result.wake_in_s is not None) == (state == "pending")


def test_a_reply_of_another_content_type_still_counts(connection, gateway):
    gateway.set(shares={"wrong_content_type": 1.0})
    campaign_id, [batch] = an_open_campaign(connection, clients=3)

    send(campaign_id, batch)

    assert states(connection, campaign_id) == {"sent": 3}


def test_retry_after_is_honoured(connection, gateway):
    gateway.set(shares={"429": 1.0}, retry_after=120)
    campaign_id, [batch] = an_open_campaign(connection, clients=1)

    result = send(campaign_id, batch)

    [row] = ledger(connection, campaign_id)
    [attempt] = evidence(connection, campaign_id)
    assert timedelta(seconds=119) < row["not_before"] - attempt["ended_at"] < timedelta(seconds=123)
    assert 110 < result.wake_in_s < 123


def test_a_message_that_was_put_off_is_sent_with_the_same_id_once_it_is_due(connection, gateway):
    gateway.set(shares={"500": 1.0})
    campaign_id, [batch] = an_open_campaign(connection, clients=5)
    with in_a_thread(lambda: send(campaign_id, batch)):
        wait_until(lambda: gateway.stats()["received"] >= 5)
        gateway.set(shares={})

    assert states(connection, campaign_id) == {"sent": 5}
    assert set(gateway.counts().values()) == {1}
    assert all(row["attempts"] >= 2 for row in ledger(connection, campaign_id))
    assert {attempt["status_code"] for attempt in evidence(connection, campaign_id)} == {500}


def test_a_refused_token_burns_no_attempt_and_stops_the_claims(connection, gateway):
    gateway.set(token_expired=True)
    campaign_id, [batch] = an_open_campaign(connection, clients=500)

    result = send(campaign_id, batch)

    rows = ledger(connection, campaign_id)
    assert {row["state"] for row in rows} == {"pending"}
    assert {row["attempts"] for row in rows} == {0}
    assert gateway.stats()["received"] <= 100  # the requests in flight when the first refusal came
    assert result.wake_in_s is not None


def test_a_mended_token_is_taken_up_by_the_next_run(connection, gateway, monkeypatch):
    gateway.set(token_expired=True)
    campaign_id, [batch] = an_open_campaign(connection, clients=20)
    send(campaign_id, batch)
    point_gateway_to(monkeypatch, gateway.url, gateway.token())
    connection.execute("UPDATE messages SET not_before = NULL")
    let_probe(connection)

    send(campaign_id, batch)

    assert states(connection, campaign_id) == {"sent": 20}
    assert set(gateway.counts().values()) == {1}


def test_a_gateway_that_is_not_there_is_safe_to_repeat(connection, gateway, monkeypatch):
    point_gateway_to(monkeypatch, f"http://127.0.0.1:{free_port()}", gateway.token())
    campaign_id, [batch] = an_open_campaign(connection, clients=1)
    sender = BatchSender(campaign_id, batch)

    with in_a_thread(lambda: asyncio.run(sender.run())) as errors:
        wait_until(lambda: evidence(connection, campaign_id))
        sender.stop()

    [row] = ledger(connection, campaign_id)
    assert (row["state"], row["reason"]) == ("pending", "not_reached")
    assert [type(error) for error in errors] in ([], [Stopped])


def test_no_answer_in_time_is_in_doubt(connection, gateway):
    connection.execute("UPDATE gateways SET timeout_s = 0.2")
    gateway.set(latency={"kind": "fixed", "seconds": 5})
    campaign_id, [batch] = an_open_campaign(connection, clients=3)

    send(campaign_id, batch)

    assert states(connection, campaign_id) == {"unknown": 3}
    assert {row["reason"] for row in ledger(connection, campaign_id)} == {"no_answer"}


def test_in_doubt_is_sent_again_with_the_same_id_where_the_campaign_says_so(connection, gateway):
    gateway.set(shares={"drop_after_read": 1.0})
    campaign_id, [batch] = an_open_campaign(connection, clients=2, on_doubt="resend")
    with in_a_thread(lambda: send(campaign_id, batch)):
        wait_until(lambda: gateway.stats()["accepted"] >= 2)
        gateway.set(shares={})

    assert states(connection, campaign_id) == {"sent": 2}
    ids = [row["id"] for row in ledger(connection, campaign_id)]
    assert all(gateway.counts()[message_id] >= 2 for message_id in ids)


def test_nothing_leaves_before_the_start(connection, gateway):
    campaign_id, [batch] = an_open_campaign(connection, clients=5)
    connection.execute("UPDATE campaigns SET sending_start = now() + interval '10 minutes'")

    result = send(campaign_id, batch)

    assert 590 < result.wake_in_s <= 600
    assert states(connection, campaign_id) == {"pending": 5}
    assert gateway.stats()["received"] == 0


@pytest.mark.parametrize("status", ["paused", "cancelled", "scheduled"])
def test_nothing_leaves_while_the_campaign_is_not_running(connection, gateway, status):
    campaign_id, [batch] = an_open_campaign(connection, clients=5)
    connection.execute("UPDATE campaigns SET status = %s", (status,))

    result = send(campaign_id, batch)

    assert status in result.said
    assert gateway.stats()["received"] == 0


def test_the_stop_comes_in_mid_send_and_nothing_leaves_after_it(connection, gateway):
    connection.execute("UPDATE gateways SET requests_in_flight = 5")
    gateway.set(latency={"kind": "fixed", "seconds": 0.1})
    campaign_id, [batch] = an_open_campaign(connection, clients=2_000, sending_stop=now() + timedelta(seconds=4))

    result = send(campaign_id, batch)

    [stop] = connection.execute("SELECT sending_stop FROM campaigns").fetchone().values()
    assert "window" in result.said
    assert max(gateway.arrivals()) < stop.timestamp()
    counts = states(connection, campaign_id)
    assert counts["sent"] == gateway.stats()["accepted"]
    assert counts["sent"] + counts["pending"] == 2_000


def test_a_request_does_not_outlive_the_window(connection, gateway):
    gateway.set(latency={"kind": "fixed", "seconds": 30})
    campaign_id, [batch] = an_open_campaign(connection, clients=1, sending_stop=now() + timedelta(seconds=3))

    send(campaign_id, batch)

    [row] = ledger(connection, campaign_id)
    assert (row["state"], row["reason"]) == ("unknown", "no_answer")
    [attempt] = evidence(connection, campaign_id)
    assert attempt["duration_ms"] < 3_000


def test_a_client_that_was_deleted_before_the_claim_is_excluded(connection, gateway):
    campaign_id, [batch] = an_open_campaign(connection, clients=3)
    connection.execute("DELETE FROM clients WHERE id = (SELECT min(id) FROM clients)")

    send(campaign_id, batch)

    assert states(connection, campaign_id) == {"excluded": 1, "sent": 2}
    assert [row["reason"] for row in ledger(connection, campaign_id)] == ["client_deleted", None, None]


def test_told_to_stop_it_records_what_is_in_flight_and_leaves_the_rest(connection, gateway):
    connection.execute("UPDATE gateways SET requests_in_flight = 4")
    gateway.set(latency={"kind": "fixed", "seconds": 0.2})
    campaign_id, [batch] = an_open_campaign(connection, clients=500)
    sender = BatchSender(campaign_id, batch)

    with in_a_thread(lambda: asyncio.run(sender.run())) as errors:
        wait_until(lambda: gateway.stats()["received"] > 0)
        sender.stop()

    assert [type(error) for error in errors] == [Stopped]
    counts = states(connection, campaign_id)
    assert counts["sent"] == gateway.stats()["accepted"] > 0
    assert counts["sent"] + counts["pending"] == 500


def test_a_killed_senders_claims_become_unknown_and_its_retry_sends_the_rest(connection, gateway):
    connection.execute("UPDATE gateways SET requests_in_flight = 10")
    gateway.set(latency={"kind": "fixed", "seconds": 0.3})
    campaign_id, [batch] = an_open_campaign(connection, clients=200)
    code = "import asyncio; from mailing.sender import BatchSender; asyncio.run(BatchSender({}, {}).run())"
    process = subprocess.Popen(
        [sys.executable, "-c", code.format(campaign_id, batch)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/plugins"},
        start_new_session=True,
    )
    wait_until(lambda: gateway.stats()["received"] > 20, 60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    gateway.set(latency={"kind": "fixed", "seconds": 0})

    # While its lease is alive nobody can know that it is dead: its claims are left alone.
    result = send(campaign_id, batch)
    claimed = states(connection, campaign_id).get("sending", 0)
    assert result.wake_in_s is not None
    assert 0 < claimed <= 20  # twice the requests in flight

    connection.execute("UPDATE leases SET expires_at = now()")
    send(campaign_id, batch)

    counts = states(connection, campaign_id)
    assert counts == {"sent": 200 - claimed, "unknown": claimed}
    assert max(gateway.counts().values()) == 1
    unknown = [row for row in ledger(connection, campaign_id) if row["state"] == "unknown"]
    assert {row["reason"] for row in unknown} == {"task_died"}


def test_outcomes_survive_a_database_that_goes_away_for_a_moment(connection, gateway):
    gateway.set(latency={"kind": "fixed", "seconds": 0.3})
    connection.execute("UPDATE gateways SET requests_in_flight = 20")
    campaign_id, [batch] = an_open_campaign(connection, clients=100)

    with in_a_thread(lambda: send(campaign_id, batch)):
        wait_until(lambda: gateway.stats()["received"] >= 20)
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    assert states(connection, campaign_id) == {"sent": 100}
    assert set(gateway.counts().values()) == {1}


@pytest.mark.parametrize(
    ("connection_json", "said"),
    [
        (None, "connection mailing_gateway: is not defined"),
        ('{"conn_type": "http", "host": "127.0.0.1"}', "password: wanted the gateway's bearer token, got none"),
        ('{"conn_type": "http", "password": "x"}', "host, schema: wanted http or https and the gateway's host"),
        ('{"conn_type": "http", "host": "ftp://x", "password": "x"}', "host, schema: wanted http or https"),
        ('{"conn_type": "http", "host": "u:p@x", "password": "x"}', "without a user"),
    ],
)
@pytest.mark.usefixtures("airflow_db")
def test_a_connection_that_cannot_be_used_is_named_and_tried_again_once_it_may_be_mended(
    connection, gateway, monkeypatch, connection_json, said
):
    good = os.environ["AIRFLOW_CONN_MAILING_GATEWAY"]
    if connection_json:
        monkeypatch.setenv("AIRFLOW_CONN_MAILING_GATEWAY", connection_json)
    else:
        monkeypatch.delenv("AIRFLOW_CONN_MAILING_GATEWAY")
    campaign_id, [batch] = an_open_campaign(connection, clients=1)

    result = send(campaign_id, batch)

    assert said in result.said
    assert result.wait.for_gateway
    assert states(connection, campaign_id) == {"pending": 1}
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_GATEWAY", good)
    let_probe(connection)
    send(campaign_id, batch)
    assert states(connection, campaign_id) == {"sent": 1}


def test_a_wait_ends_with_the_window_at_the_latest(connection, gateway):
    gateway.set(shares={"503": 1.0}, retry_after=86_400)
    campaign_id, [batch] = an_open_campaign(connection, clients=1, sending_stop=now() + timedelta(seconds=60))
    assert 50 < send(campaign_id, batch).wake_in_s < 65


def test_names_that_never_resolve_to_a_listener_are_safe_to_repeat(connection, gateway, monkeypatch):
    """Two addresses, both dead, and a proxy that refuses: none of them lets a request leave."""
    port = free_port()
    for base, extra in (
        (f"http://localhost:{port}", None),
        (gateway.url, {"proxy": f"http://127.0.0.1:{port}"}),
    ):
        host, base_port = base.removeprefix("http://").split(":")
        mended = {"conn_type": "http", "host": host, "port": int(base_port), "password": "x", "extra": extra or {}}
        monkeypatch.setenv("AIRFLOW_CONN_MAILING_GATEWAY", json.dumps(mended))
        campaign_id, [batch] = an_open_campaign(connection, clients=1)
        sender = BatchSender(campaign_id, batch)
        with in_a_thread(lambda sender=sender: asyncio.run(sender.run())):
            wait_until(lambda campaign_id=campaign_id: evidence(connection, campaign_id))
            sender.stop()
        assert {row["reason"] for row in ledger(connection, campaign_id)} <= {"not_reached", None}
        assert "unknown" not in states(connection, campaign_id)


def test_a_refusal_that_is_about_one_message_does_not_hold_up_the_others(connection, gateway):
    """After a refusal the next run probes with another message."""
    gateway.set(token_expired=True)
    connection.execute("UPDATE gateways SET requests_in_flight = 4")
    campaign_id, [batch] = an_open_campaign(connection, clients=10)
    send(campaign_id, batch)
    gateway.set(token_expired=False)
    let_probe(connection)
    refused = states(connection, campaign_id)["pending"] - due(connection)

    result = send(campaign_id, batch)

    assert 1 <= refused < 10
    assert states(connection, campaign_id) == {"sent": 10 - refused, "pending": refused}
    assert 15 < result.wake_in_s <= 30


def due(connection):
    return connection.execute("SELECT count(*) AS n FROM messages WHERE not_before IS NULL").fetchone()["n"]


def test_rows_that_somebody_else_holds_are_waited_for_without_haste(connection, gateway, database):
    campaign_id, [batch] = an_open_campaign(connection, clients=1)
    with db.connect() as other:
        other.execute("SELECT * FROM messages FOR UPDATE")
        before = transactions(connection)
        with in_a_thread(lambda: send(campaign_id, batch)):
            time.sleep(2)  # the span that is looked at
            during = transactions(connection) - before
            other.rollback()
    assert during < 40
    assert states(connection, campaign_id) == {"sent": 1}


def transactions(connection):
    connection.execute("SELECT pg_stat_clear_snapshot()")
    row = connection.execute(
        "SELECT xact_commit AS n FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return row["n"]


def test_claims_that_landed_after_their_connection_was_lost_are_posted_after_all(connection, gateway):
    """As after a COMMIT that the server was still working on when the socket died."""
    gateway.set(latency={"kind": "fixed", "seconds": 1.0})
    connection.execute("UPDATE gateways SET requests_in_flight = 1")
    campaign_id, [batch] = an_open_campaign(connection, clients=4)
    with in_a_thread(lambda: send(campaign_id, batch)):
        wait_until(lambda: gateway.stats()["received"] >= 1)
        connection.execute(
            "UPDATE messages SET state = 'sending', attempts = 1, revision = 1, claimed_at = now(),"
            " token = (SELECT token FROM leases) WHERE id = (SELECT max(id) FROM messages)"
        )
    assert states(connection, campaign_id) == {"sent": 4}
    assert set(gateway.counts().values()) == {1}


def test_a_gateway_that_falls_silent_puts_few_in_doubt_and_the_rest_is_sent_when_it_is_back(connection, gateway):
    gateway.set(latency={"kind": "fixed", "seconds": 0.05})
    campaign_id, [batch] = an_open_campaign(connection, clients=2_000)
    results = []
    with in_a_thread(lambda: results.append(send(campaign_id, batch))):
        wait_until(lambda: gateway.stats()["accepted"] >= 200)
        gateway.set(outage=True)

    assert results[0].said == "the gateway is left alone (connection_lost)"
    assert results[0].wait.for_gateway
    doubtful = states(connection, campaign_id)["unknown"]
    assert 0 < doubtful <= 200  # at most twice the requests in flight

    for _ in range(3):  # whoever comes finds the breaker open, and whoever may probe knocks before it risks a message
        send(campaign_id, batch)
        let_probe(connection)
        send(campaign_id, batch)
    assert states(connection, campaign_id)["unknown"] == doubtful

    gateway.set(outage=False)
    let_probe(connection)
    send(campaign_id, batch)
    counts = states(connection, campaign_id)
    assert counts["sent"] + counts["unknown"] == 2_000
    assert max(gateway.counts().values()) == 1


def test_told_to_stop_it_does_not_wait_for_a_gateway_that_is_slow(connection, gateway):
    gateway.set(latency={"kind": "fixed", "seconds": 60})
    campaign_id, [batch] = an_open_campaign(connection, clients=50)
    sender = BatchSender(campaign_id, batch)
    with in_a_thread(lambda: asyncio.run(sender.run())) as errors:
        wait_until(lambda: gateway.stats()["received"] > 0)
        told = time.monotonic()
        sender.stop()
    assert time.monotonic() - told < 5  # when Airflow kills
    assert [type(error) for error in errors] == [Stopped]
    counts = states(connection, campaign_id)
    assert set(counts) == {"unknown", "pending"}
    assert counts["unknown"] == gateway.stats()["received"]


def test_a_batch_that_is_not_there_is_named(connection, gateway):
    with pytest.raises(NotFound, match="campaign 7: there is no batch 3"):
        send(7, 3)


def test_campaigns_on_one_gateway_share_its_requests_in_flight_and_so_do_the_tasks_of_each(connection, gateway):
    first, _ = an_open_campaign(connection, clients=1)
    second, _ = an_open_campaign(connection, clients=1)
    tokens = [messages.take_lease(connection, campaign_id, 1, "test") for campaign_id in (first, first, first, second)]

    terms = [messages.renew_lease(connection, token) for token in tokens]

    assert [(each.campaigns, each.siblings) for each in terms] == [(2, 3), (2, 3), (2, 3), (2, 1)]
