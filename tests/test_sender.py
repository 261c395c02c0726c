"""The sender against a real ledger and a real HTTP server."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from bisect import bisect_left
from contextlib import contextmanager
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
import structlog
from structlog.testing import capture_logs

from local.settings import free_port
from local.simulator import running_simulator
from mailing import campaigns, db, gateways, messages, runs
from mailing.breaker import RAMP_FROM, TOLERANCE
from mailing.errors import NotFound
from mailing.exchange import HOURS_SLICE
from mailing.messages import RENEW_S
from mailing.sender import BatchSender, Stopped
from tests.builders import (
    a_campaign,
    an_open_campaign,
    evidence,
    ledger,
    let_probe,
    now,
    some_clients,
    states,
)
from tests.conftest import ROOT, point_gateway_to
from tests.waiting import in_a_thread, wait_until, waiting_for_locks

PAGE = 4_096


def send(campaign_id, number=1):
    return asyncio.run(BatchSender(campaign_id, number).run())


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

    with in_a_thread(lambda: asyncio.run(sender.run()), may_raise=Stopped) as errors:
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

    with in_a_thread(lambda: asyncio.run(sender.run()), may_raise=Stopped) as errors:
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


def test_outcomes_survive_a_server_that_takes_over_before_it_may_be_written_to(connection, gateway):
    gateway.set(latency={"kind": "fixed", "seconds": 0.3})
    connection.execute("UPDATE gateways SET requests_in_flight = 20")
    campaign_id, [batch] = an_open_campaign(connection, clients=100)
    database = connection.info.dbname

    with capture_logs() as logs, in_a_thread(lambda: send(campaign_id, batch)):
        wait_until(lambda: gateway.stats()["received"] >= 20)
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        wait_until(lambda: [line for line in logs if line.get("error") == "ReadOnlySqlTransaction"])
        connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")

    assert states(connection, campaign_id) == {"sent": 100}
    assert set(gateway.counts().values()) == {1}


def test_what_a_lost_host_has_locked_is_free_again_soon(connection, gateway, monkeypatch):
    """It says no more, not even goodbye: without a limit all that share its gateway would wait for two hours."""
    monkeypatch.setitem(db.SESSION, "idle_in_transaction_session_timeout", "500ms")
    campaign_id, [batch] = an_open_campaign(connection, clients=3, messages_per_second=1_000)
    with db.connect() as lost:
        lost.execute("SELECT FROM gateways FOR UPDATE")
        lost.execute("UPDATE messages SET attempts = attempts + 1")

        send(campaign_id, batch)

        assert states(connection, campaign_id) == {"sent": 3}
        assert {row["attempts"] for row in ledger(connection, campaign_id)} == {1}
        lost.close()


def with_extra(**extra):
    """A connection that is good but for its extra."""
    return json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": 9, "password": "x", "extra": extra})


@pytest.mark.parametrize(
    ("connection_json", "said"),
    [
        (None, "connection mailing_gateway: is not defined"),
        ('{"conn_type": "http", "host": "127.0.0.1"}', "password: wanted the gateway's bearer token, got none"),
        ('{"conn_type": "http", "host": "x", "password": "x\\n"}', "password: wanted .* without blanks or line ends"),
        (
            '{"conn_type": "http", "host": "x", "password": "x", "extra": {"X-A": "b\\nc"}}',
            "extra: 'X-A': wanted a header",
        ),
        ('{"conn_type": "http", "password": "x"}', "host, schema: wanted http or https and the gateway's host"),
        ('{"conn_type": "http", "host": "ftp://x", "password": "x"}', "host, schema: wanted http or https"),
        ('{"conn_type": "http", "host": "u:p@x", "password": "x"}', "without a user"),
        (with_extra(**{"X-A": 1}), "extra: 'X-A': wanted a header"),
        (with_extra(proxies={"http": "proxy:3128"}), "extra: proxy: wanted its http or https address"),
        (with_extra(proxy=3128), "extra: proxy: wanted its http or https address"),
        (
            with_extra(verify="/nowhere/ca.pem"),
            "extra: verify: /nowhere/ca.pem: No such file or directory; wanted true",
        ),
        (with_extra(verify=__file__), "extra: verify: .*test_sender.py: .*wanted true, false, or the path"),
        (with_extra(verify=1), "extra: verify: 1: wanted true, false, or the path"),
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

    assert re.search(said, result.said)
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
        (gateway.url, {"proxies": {"http": f"http://127.0.0.1:{port}", "https": "http://127.0.0.1:1"}}),
    ):
        host, base_port = base.removeprefix("http://").split(":")
        mended = {"conn_type": "http", "host": host, "port": int(base_port), "password": "x", "extra": extra or {}}
        monkeypatch.setenv("AIRFLOW_CONN_MAILING_GATEWAY", json.dumps(mended))
        campaign_id, [batch] = an_open_campaign(connection, clients=1)
        sender = BatchSender(campaign_id, batch)
        with in_a_thread(lambda sender=sender: asyncio.run(sender.run()), may_raise=Stopped):
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
    with in_a_thread(lambda: asyncio.run(sender.run()), may_raise=Stopped) as errors:
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


# What is changed while it sends


@contextmanager
def sending(campaign_id, number=1, *, is_probe=False):
    """A sender beside the block; its result is in the list after the block."""
    results = []
    sender = BatchSender(campaign_id, number, is_probe=is_probe)
    with in_a_thread(lambda: results.append(asyncio.run(sender.run()))):
        try:
            yield results
        except BaseException:
            sender.stop()
            raise


def posted(gateway):
    """Message ids (without 0, to which who probes knocks) with the moment of the first request for each."""
    return {id_: request["arrivals"][0] for id_, request in gateway.requests().items() if id_}


def most_within(moments, span_s=1.0):
    """How many there were in the fullest span of that length."""
    moments = sorted(moments)
    return max((bisect_left(moments, moment + span_s) - n for n, moment in enumerate(moments)), default=0)


def slowly(connection, gateway, in_flight=4, latency_s=0.05):
    """A gateway that takes so many at a time, and its time."""
    connection.execute("UPDATE gateways SET requests_in_flight = %s", (in_flight,))
    gateway.set(latency={"kind": "fixed", "seconds": latency_s})


def test_paused_in_mid_send_it_stops_and_resumed_it_sends_exactly_the_rest(connection, gateway):
    slowly(connection, gateway)
    campaign_id, _ = an_open_campaign(connection, clients=150)
    with sending(campaign_id) as results:
        wait_until(lambda: gateway.stats()["received"] >= 20)
        campaigns.pause(connection, campaign_id, actor="anna")
        paused_at = time.time()

    assert time.time() - paused_at < 5
    assert results[0].said == "the campaign is paused"
    assert results[0].wake_in_s > 3_000
    assert results[0].updated == runs.updated(connection, campaign_id)
    assert max(gateway.arrivals()) < paused_at + 1
    assert states(connection, campaign_id) == {"sent": (sent := len(posted(gateway))), "pending": 150 - sent}

    slowly(connection, gateway, in_flight=50)
    campaigns.resume(connection, campaign_id, actor="anna")
    send(campaign_id)
    assert states(connection, campaign_id) == {"sent": 150}
    assert gateway.counts() == {row["id"]: 1 for row in ledger(connection, campaign_id)}


def test_cancelled_in_mid_send_it_records_what_is_in_flight_and_sends_nothing_more(connection, gateway):
    slowly(connection, gateway, latency_s=0.2)
    campaign_id, _ = an_open_campaign(connection, clients=150)
    with sending(campaign_id) as results:
        wait_until(lambda: gateway.stats()["received"] >= 9)
        campaigns.cancel(connection, campaign_id, actor="anna")
        cancelled_at = time.time()

    assert (results[0].said, results[0].wait) == ("the campaign is cancelled", None)
    assert max(gateway.arrivals()) < cancelled_at + 1
    assert time.time() - cancelled_at < 5
    sent = len(posted(gateway))
    with connection.transaction():
        assert runs.close(connection, campaign_id).counts == {"audience": 150, "sent": sent, "cancelled": 150 - sent}


def test_a_text_that_is_edited_in_mid_send_goes_to_whom_was_not_claimed_yet(connection, gateway):
    slowly(connection, gateway)
    campaign_id, _ = an_open_campaign(connection, clients=80)
    with sending(campaign_id):
        wait_until(lambda: gateway.stats()["received"] >= 10)
        campaigns.edit(connection, campaign_id, actor="anna", text="Good evening")
        edited_at = now()

    rows = ledger(connection, campaign_id)
    assert {row["state"] for row in rows} == {"sent"}
    revisions = [row["revision"] for row in rows]
    assert revisions == sorted(revisions)
    assert set(revisions) == {1, 2}
    assert all(row["claimed_at"] < edited_at for row in rows if row["revision"] == 1)


def test_a_filter_that_is_narrowed_in_mid_send_is_followed_by_the_sender_itself(connection, gateway):
    slowly(connection, gateway)
    some_clients(connection, 60, tags=("art",))
    some_clients(connection, 60, code="104", tags=("sport",))
    campaign_id = a_campaign(connection)
    runs.select_audience(connection, campaign_id)
    with sending(campaign_id) as results:
        wait_until(lambda: gateway.stats()["received"] >= 10)
        campaigns.edit(connection, campaign_id, actor="anna", filter_operator_codes=["104"])
        edited_at = time.time()

    assert results[0].said == "nothing is left to send"
    rows = ledger(connection, campaign_id)
    sent_before = [row["id"] for row in rows[:60] if row["state"] == "sent"]
    assert 10 <= len(sent_before) < 60
    assert {(row["state"], row["reason"]) for row in rows[:60]} == {("sent", None), ("excluded", "filter")}
    assert {row["state"] for row in rows[60:]} == {"sent"}
    assert max(posted(gateway)[id_] for id_ in sent_before) < edited_at + 1


def test_a_campaign_that_is_given_another_gateway_in_mid_send_goes_on_there(connection, gateway, monkeypatch):
    slowly(connection, gateway)
    campaign_id, _ = an_open_campaign(connection, clients=100)
    with running_simulator(latency={"kind": "fixed", "seconds": 0}) as other:
        host, port = other.url.removeprefix("http://").split(":")
        settings = {"conn_type": "http", "host": host, "port": int(port), "schema": "http", "password": other.token()}
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(settings))
        connection.execute("INSERT INTO gateways (name, connection_id) VALUES ('other', 'other')")
        with sending(campaign_id) as results:
            wait_until(lambda: gateway.stats()["received"] >= 10)
            campaigns.edit(connection, campaign_id, actor="anna", gateway="other")
            edited_at = time.time()

        assert (results[0].said, results[0].wake_in_s) == ("the gateway was changed", 0.0)
        assert max(gateway.arrivals()) < edited_at + 1
        send(campaign_id)

        assert states(connection, campaign_id) == {"sent": 100}
        assert min(len(gateway.counts()), len(other.counts())) > 0
        both = [*gateway.counts().items(), *other.counts().items()]
        assert sorted(both) == [(row["id"], 1) for row in ledger(connection, campaign_id)]


def test_a_pause_holds_what_a_slow_gateway_had_kept_waiting(connection, gateway):
    """It was claimed ahead, to go as soon as a request is answered."""
    slowly(connection, gateway, in_flight=10, latency_s=4)
    campaign_id, _ = an_open_campaign(connection, clients=60)
    with sending(campaign_id) as results:
        wait_until(lambda: gateway.stats()["received"] >= 11)
        wait_until(lambda: states(connection, campaign_id).get("sending", 0) > 10)
        campaigns.pause(connection, campaign_id, actor="anna")
        paused_at = time.time()

    assert results[0].said == "the campaign is paused"
    assert max(gateway.arrivals()) < paused_at + 2.5
    posted_so_far = len(gateway.arrivals())
    assert states(connection, campaign_id) == {"sent": posted_so_far, "pending": 60 - posted_so_far}


def test_a_task_with_nothing_due_leaves_the_probe_to_those_who_have(connection, gateway):
    campaign_id, _ = an_open_campaign(connection, clients=5)
    connection.execute("UPDATE messages SET not_before = now() + interval '10 minutes'")
    open_breaker(connection)

    result = send(campaign_id)

    assert not result.wait.for_gateway
    assert 590 < result.wake_in_s <= 600
    row = connection.execute("SELECT breaker_state, breaker_probe_at <= now() AS is_due FROM gateways").fetchone()
    assert row == {"breaker_state": "open", "is_due": True}


# Local hours


def hours_in(zone, opens_in, closes_in):
    """Local hours that open and close in so many seconds on the walls of that zone."""
    wall = now().astimezone(ZoneInfo(zone))
    return (wall + timedelta(seconds=opens_in)).time(), (wall + timedelta(seconds=closes_in)).time()


def test_a_zone_that_closes_in_mid_send_gets_nothing_after_that_while_the_others_go_on(connection, gateway):
    slowly(connection, gateway, latency_s=0.08)
    campaign_id, _ = an_open_campaign(connection, clients=240)
    # An hour apart: where it closes in a moment in the first, it opened a moment ago in the second.
    connection.execute("UPDATE clients SET timezone = CASE id % 2 WHEN 0 THEN 'Etc/GMT-5' ELSE 'Etc/GMT-4' END")
    local_from, local_to = hours_in("Etc/GMT-5", -3601, 2)
    closes_at = time.time() + 2
    campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)

    result = send(campaign_id)

    assert result.said == "nothing is left to send"
    rows = ledger(connection, campaign_id)
    closing = [row for row in rows if row["client_id"] % 2 == 0]
    assert {row["state"] for row in rows if row not in closing} == {"sent"}
    # The next opening lies past the stop.
    assert {(row["state"], row["reason"]) for row in closing} == {("sent", None), ("expired", "local_hours")}
    assert max(posted(gateway)[row["id"]] for row in closing if row["state"] == "sent") < closes_at
    assert max(posted(gateway).values()) > closes_at


def test_a_zone_that_opens_in_a_moment_is_waited_for(connection, gateway):
    campaign_id, _ = an_open_campaign(connection, clients=5)
    local_from, local_to = hours_in("UTC", 1.5, 3600)
    opens_at = time.time() + 1.5
    campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)

    send(campaign_id)

    assert states(connection, campaign_id) == {"sent": 5}
    assert min(gateway.arrivals()) >= opens_at


def test_a_request_does_not_begin_after_local_hours_though_its_connection_comes_so_late(
    connection, gateway, monkeypatch
):
    """It was claimed in time; who connects slowly must not wake anybody."""
    campaign_id, _ = an_open_campaign(connection, clients=1, sending_stop=now() + timedelta(hours=48))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.create_connection(server.getsockname()):
        # One is in its queue: there is no room for another.
        point_gateway_to(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}", "token")
        local_from, local_to = hours_in("UTC", -3600, 2.5)
        closes_at = time.time() + 2.5
        campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)
        with sending(campaign_id):
            wait_until(lambda: "sending" in states(connection, campaign_id))
            wait_until(lambda: time.time() > closes_at)
            server.accept()  # now there is

    assert [row["reason"] for row in evidence(connection, campaign_id)] == ["not_reached"]
    assert states(connection, campaign_id) == {"pending": 1}


def test_a_zone_that_opens_later_is_left_for_later(connection, gateway):
    campaign_id, _ = an_open_campaign(connection, clients=5)
    local_from, local_to = hours_in("UTC", 600, 3600)
    campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)
    assert 590 < send(campaign_id).wake_in_s < 602
    assert {(row["state"], row["reason"]) for row in ledger(connection, campaign_id)} == {("pending", "local_hours")}
    assert gateway.arrivals() == []


@contextmanager
def held_up_in_telling(connection, which):
    """Whoever tells this message to wait (its number, from 0) does not get on until the connection given rolls back."""
    connection.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$"
    )
    row = connection.execute("SELECT id FROM messages ORDER BY id OFFSET %s LIMIT 1", (which,)).fetchone()
    connection.execute(
        "CREATE TRIGGER hold BEFORE UPDATE ON messages FOR EACH ROW"
        f" WHEN (NEW.id = {row['id']} AND NEW.reason = 'local_hours') EXECUTE FUNCTION hold()"
    )
    with db.connect() as other:
        other.execute("SELECT pg_advisory_xact_lock(7)")
        yield other


def test_a_large_batch_is_told_to_wait_slice_by_slice(connection, gateway):
    """So that whoever would pause the campaign waits for one of them."""
    campaign_id, _ = an_open_campaign(connection, clients=HOURS_SLICE + 1, batch_size=2 * HOURS_SLICE)
    local_from, local_to = hours_in("UTC", 600, 3600)
    campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)

    def told():
        return connection.execute("SELECT count(*) AS n FROM messages WHERE reason = 'local_hours'").fetchone()["n"]

    with held_up_in_telling(connection, HOURS_SLICE) as other, sending(campaign_id) as results:
        wait_until(lambda: waiting_for_locks(connection))
        assert told() == HOURS_SLICE
        other.rollback()

    assert told() == HOURS_SLICE + 1
    assert 580 < results[0].wake_in_s < 602


def test_a_task_that_is_told_to_end_leaves_what_was_not_told_yet(connection, gateway):
    campaign_id, _ = an_open_campaign(connection, clients=HOURS_SLICE + 1, batch_size=2 * HOURS_SLICE)
    local_from, local_to = hours_in("UTC", 600, 3600)
    campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)
    sender = BatchSender(campaign_id, 1)

    telling = in_a_thread(lambda: asyncio.run(sender.run()), may_raise=Stopped)
    with held_up_in_telling(connection, 0) as other, telling:
        wait_until(lambda: waiting_for_locks(connection))
        sender.stop()
        other.rollback()

    [row] = connection.execute("SELECT count(*) AS n FROM messages WHERE reason = 'local_hours'").fetchall()
    assert row["n"] == HOURS_SLICE
    assert states(connection, campaign_id) == {"pending": HOURS_SLICE + 1}
    assert connection.execute("SELECT * FROM leases").fetchall() == []


def test_hours_that_are_taken_away_in_the_middle_of_telling_cost_nobody_a_message(connection, gateway):
    """The task learns of it between two slices, for its lease is renewed there; what it had found is of before."""
    assert RENEW_S < 2.2  # so long the first slice takes
    campaign_id, _ = an_open_campaign(connection, clients=HOURS_SLICE + 1, batch_size=2 * HOURS_SLICE)
    stop = connection.execute("SELECT sending_stop FROM campaigns").fetchone()["sending_stop"]
    seconds = (stop - now()).total_seconds()
    local_from, local_to = hours_in("UTC", seconds + 60, seconds + 3600)  # nobody is awake before the stop
    campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)
    connection.execute(
        "CREATE FUNCTION take_away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF pg_trigger_depth() = 1 AND EXISTS (SELECT FROM messages WHERE reason = 'local_hours')"
        "  AND EXISTS (SELECT FROM campaigns WHERE local_from IS NOT NULL) THEN"
        "  PERFORM pg_sleep(2.2); UPDATE campaigns SET local_from = NULL, local_to = NULL;"
        " END IF; RETURN NULL; END $$"
    )
    connection.execute(
        "CREATE TRIGGER take_away AFTER UPDATE ON messages FOR EACH STATEMENT EXECUTE FUNCTION take_away()"
    )

    result = send(campaign_id)

    assert states(connection, campaign_id) == {"sent": HOURS_SLICE + 1}, result


def test_tasks_tell_their_batches_to_wait_one_after_the_other(connection, gateway):
    """So that whoever would pause the campaign gets a turn between them."""
    campaign_id, [first, second] = an_open_campaign(connection, clients=2, batch_size=1)
    local_from, local_to = hours_in("UTC", 600, 3600)
    campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)

    def told():
        return [row["reason"] for row in ledger(connection, campaign_id)]

    with held_up_in_telling(connection, 0) as other, sending(campaign_id, first):
        wait_until(lambda: waiting_for_locks(connection) == 1)
        with sending(campaign_id, second):
            wait_until(lambda: waiting_for_locks(connection) == 2)
            assert told() == [None, None]
            other.rollback()

    assert told() == ["local_hours", "local_hours"]


def test_local_hours_that_are_set_in_mid_send_count_within_seconds(connection, gateway):
    slowly(connection, gateway)
    campaign_id, _ = an_open_campaign(connection, clients=500)
    with sending(campaign_id) as results:
        wait_until(lambda: gateway.stats()["received"] >= 10)
        local_from, local_to = hours_in("UTC", 600, 3600)
        campaigns.edit(connection, campaign_id, actor="anna", local_from=local_from, local_to=local_to)
        edited_at = time.time()

    assert 580 < results[0].wake_in_s < 602
    assert max(gateway.arrivals()) < edited_at + 1
    counts = states(connection, campaign_id)
    assert counts == {"sent": len(gateway.arrivals()), "pending": 500 - len(gateway.arrivals())}


# The throttle


def test_the_limit_of_a_gateway_holds_for_all_who_send_through_it_in_any_second(connection, gateway):
    connection.execute("UPDATE gateways SET messages_per_second = 60")
    first, _ = an_open_campaign(connection, clients=60)
    second, _ = an_open_campaign(connection, clients=0)

    async def all_of_them():
        began = time.monotonic()
        await asyncio.gather(*(BatchSender(campaign_id, 1).run() for campaign_id in (first, first, second)))
        return time.monotonic() - began

    took_s = asyncio.run(all_of_them())

    assert states(connection, first) == states(connection, second) == {"sent": 60}
    assert most_within(gateway.arrivals()) <= 60 + 1 + 4  # r * T + 1, and what a busy machine lets arrive late
    assert most_within(gateway.arrivals(), 0.1) <= 6 + 1 + 4
    assert took_s < 6  # 120 at 60 a second


def test_the_limit_of_a_campaign_holds_while_the_others_send_as_they_can(connection, gateway):
    limited, _ = an_open_campaign(connection, clients=50, messages_per_second=25)
    free, _ = an_open_campaign(connection, clients=0)

    async def both():
        await asyncio.gather(*(BatchSender(campaign_id, 1).run() for campaign_id in (limited, limited, free)))

    asyncio.run(both())

    assert states(connection, limited) == states(connection, free) == {"sent": 50}
    moments = posted(gateway)
    slow, fast = ([moments[row["id"]] for row in ledger(connection, id_)] for id_ in (limited, free))
    assert most_within(slow) <= 25 + 1 + 3
    assert max(slow) - min(slow) > 49 / 25 - 0.2
    assert max(fast) - min(fast) < 1


def test_a_limit_is_switched_on_changed_and_off_in_mid_send(connection, gateway):
    slowly(connection, gateway, in_flight=5, latency_s=0.02)
    campaign_id, _ = an_open_campaign(connection, clients=4_000)
    sender = BatchSender(campaign_id, 1)

    def rate():
        return len(gateway.arrivals(time.time() - 1))

    with in_a_thread(lambda: asyncio.run(sender.run()), may_raise=Stopped):
        wait_until(lambda: rate() > 80)
        gateways.change(connection, "default", actor="anna", messages_per_second=20)
        wait_until(lambda: 15 <= rate() <= 23, seconds=5)
        campaigns.edit(connection, campaign_id, actor="anna", messages_per_second=5)
        wait_until(lambda: 3 <= rate() <= 7, seconds=5)
        campaigns.edit(connection, campaign_id, actor="anna", messages_per_second=None)
        gateways.change(connection, "default", actor="anna", messages_per_second=None)
        wait_until(lambda: rate() > 80, seconds=5)
        sender.stop()

    counts = states(connection, campaign_id)
    assert counts == {"sent": len(gateway.arrivals()), "pending": 4_000 - len(gateway.arrivals())}


# The breaker


def test_a_breaker_that_one_sender_opens_stops_the_others(connection, gateway, monkeypatch):
    slowly(connection, gateway, in_flight=4, latency_s=0.1)
    healthy, _ = an_open_campaign(connection, clients=300)
    ill, _ = an_open_campaign(connection, clients=0)
    with sending(healthy) as results:
        wait_until(lambda: gateway.stats()["received"] >= 10)
        # Who opens the connection from now on finds nobody there.
        point_gateway_to(monkeypatch, f"http://127.0.0.1:{free_port()}", gateway.token())
        with sending(ill) as failed:
            pass
        opened_at = time.time()

    assert failed[0].said == results[0].said == "the gateway is left alone (not_reached)"
    assert results[0].wait.for_gateway
    assert max(gateway.arrivals()) < opened_at + 1
    assert len(evidence(connection, ill)) >= TOLERANCE
    assert states(connection, ill) == {"pending": 300}
    assert states(connection, healthy) == {"sent": len(gateway.arrivals()), "pending": 300 - len(gateway.arrivals())}


def open_breaker(connection):
    """As somebody who has met silence would leave it; it is time to probe."""
    connection.execute(
        "UPDATE gateways SET breaker_state = 'open', breaker_reason = 'no_answer', breaker_probe_at = now()"
    )


def test_after_the_probe_the_requests_in_flight_grow_by_and_by(connection, gateway):
    slowly(connection, gateway, in_flight=100, latency_s=0.25)
    campaign_id, _ = an_open_campaign(connection, clients=100)
    open_breaker(connection)

    send(campaign_id)

    assert states(connection, campaign_id) == {"sent": 100}
    probe, *rest = sorted(posted(gateway).values())
    row = connection.execute("SELECT breaker_changed_at FROM gateways").fetchone()
    closed_at = row["breaker_changed_at"].timestamp()
    assert probe + 0.25 <= closed_at <= min(rest)
    # A request is in flight for as long as its reply takes.
    first_second = [moment for moment in rest if moment < closed_at + 1]
    assert 1 <= most_within(first_second, 0.25) <= 2 * RAMP_FROM
    assert most_within(rest, 0.25) > 2 * RAMP_FROM


def test_a_probe_that_fails_leaves_the_rest_alone(connection, gateway):
    gateway.set(shares={"503": 1.0})
    campaign_id, _ = an_open_campaign(connection, clients=100)
    open_breaker(connection)

    result = send(campaign_id)

    assert result.said == "the gateway is left alone (http_503)"
    assert len(posted(gateway)) == 1
    row = connection.execute("SELECT * FROM gateways").fetchone()
    assert (row["breaker_state"], row["breaker_probes"]) == ("open", 1)


def test_of_two_senders_that_find_the_breaker_open_one_probes(connection, gateway):
    gateway.set(latency={"kind": "fixed", "seconds": 0.3}, shares={"503": 1.0})
    campaign_id, _ = an_open_campaign(connection, clients=100)
    open_breaker(connection)

    async def both():
        return await asyncio.gather(*(BatchSender(campaign_id, 1).run() for _ in range(2)))

    results = asyncio.run(both())

    assert all(result.wait.for_gateway for result in results)
    assert len(posted(gateway)) == 1


# What it says


def test_every_line_about_a_message_names_campaign_message_and_client_and_nothing_secret(connection, gateway):
    kinds = ("400", "429", "503", "502", "not_json", "code_nonzero", "drop_after_read")
    gateway.set(shares=dict.fromkeys(kinds, 0.12), retry_after=60, seed=7)
    token = json.loads(os.environ["AIRFLOW_CONN_MAILING_GATEWAY"])["password"]
    campaign_id, _ = an_open_campaign(connection, clients=60, text="A most secret text")

    with capture_logs() as logs:
        send(campaign_id)

    clients = {row["id"]: row["client_id"] for row in ledger(connection, campaign_id)}
    about_messages = [line for line in logs if "message_id" in line]
    attempts = evidence(connection, campaign_id)
    assert len(about_messages) == len(attempts) > 20
    assert {line["campaign_id"] for line in logs} == {campaign_id}
    assert all(line["client_id"] == clients[line["message_id"]] for line in about_messages)
    assert {(line["message_id"], line["attempt"], line["reason"]) for line in about_messages} == {
        (attempt["message_id"], attempt["attempt"], attempt["reason"]) for attempt in attempts
    }
    said = str(logs)
    phones = [row["phone_number"] for row in connection.execute("SELECT phone_number FROM clients")]
    assert [secret for secret in (*phones, "A most secret text", token) if secret in said] == []


def test_a_token_that_expires_soon_or_is_refused_is_told_with_its_gateway_and_connection(
    connection, gateway, monkeypatch
):
    token = gateway.token(timedelta(hours=1))
    point_gateway_to(monkeypatch, gateway.url, token)
    gateway.set(token_expired=True)
    campaign_id, _ = an_open_campaign(connection, clients=5)

    with capture_logs() as logs:
        send(campaign_id)

    lines = {line["event"]: line for line in logs if line["event"].startswith("the gateway")}
    assert {(line["gateway"], line["connection"], line["campaign_id"]) for line in lines.values()} == {
        ("default", "mailing_gateway", campaign_id)
    }
    assert [event for event in lines if "expires" in event]
    assert [event for event in lines if "refuses the token" in event]
    assert token not in str(logs)


@contextmanager
def a_log_of_one_page():
    """What is logged goes into a pipe of one page, as a task's log goes to its supervisor. Yields the end to read."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PAGE)
    before = structlog.get_config()
    with open(write, "w", encoding="utf-8", buffering=1) as log, open(read, encoding="utf-8") as lines:
        structlog.configure(
            processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(log),
            cache_logger_on_first_use=False,
        )
        try:
            yield lines
        finally:
            structlog.configure(**before)


def test_a_log_that_nobody_reads_costs_no_message_its_certainty_and_no_line(connection, gateway):
    """While Airflow's API server is away, supervisors do not read what their tasks log: its pipe fills up."""
    gateway.set(shares={"400": 1.0})
    campaign_id, _ = an_open_campaign(connection, clients=300)

    with a_log_of_one_page() as lines, in_a_thread(lambda: send(campaign_id)):
        wait_until(lambda: states(connection, campaign_id) == {"failed": 300})
        wait_until(lambda: connection.execute("SELECT * FROM leases").fetchall() == [])
        expiry, *said = [json.loads(lines.readline()) for _ in range(1 + 300)]

    assert "token expires" in expiry["event"]
    assert {line["message_id"] for line in said} == {row["id"] for row in ledger(connection, campaign_id)}
