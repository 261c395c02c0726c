"""Test sends: a campaign's text to a few clients, outside all statistics, against the gateway simulator."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import psycopg
import pytest

from mailing import campaigns, db, gateways, runs, test_send
from mailing.errors import Conflict, InvalidInput, NotFound
from tests.builders import HOUR, a_campaign, audited, ledger, now, some_clients
from tests.conftest import point_gateway_to
from tests.waiting import in_a_thread, wait_until

SECRET = "A most secret text."


def try_out(connection, campaign_id, client_ids, **more):
    with db.transaction() as own:
        planned = test_send.plan(own, campaign_id, client_ids, actor="anna")
    return test_send.send(planned, db.transaction, **more)


def rows(connection):
    return connection.execute("SELECT * FROM test_sends ORDER BY id").fetchall()


def test_each_client_gets_the_text_once_whatever_the_window_and_the_filter(connection, gateway):
    ids = some_clients(connection, 4, code="903")
    campaign_id = a_campaign(
        connection, filter_operator_codes=["900"], sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR
    )
    sent = try_out(connection, campaign_id, [ids[2], ids[0]])
    assert [(each.client_id, each.state, each.reason) for each in sent] == [
        (ids[2], "sent", None),
        (ids[0], "sent", None),
    ]
    assert gateway.counts() == {each.id: 1 for each in sent}
    kept = [(row["id"], row["client_id"], row["campaign_id"], row["actor"], row["state"]) for row in rows(connection)]
    assert kept == [(each.id, each.client_id, campaign_id, "anna", "sent") for each in sent]
    assert audited(connection) == [("anna", "test_send", campaign_id, None, {"clients": [ids[2], ids[0]]})]


def test_no_message_ever_has_the_id_of_a_test_send(connection, gateway):
    ids = some_clients(connection, 3)
    campaign_id = a_campaign(connection)
    first = [each.id for each in try_out(connection, campaign_id, ids)]
    runs.select_audience(connection, campaign_id)
    second = [each.id for each in try_out(connection, campaign_id, ids)]
    messages = [row["id"] for row in ledger(connection, campaign_id)]
    assert len({*first, *second, *messages}) == 9


def test_it_stays_out_of_the_statistics(connection, gateway):
    ids = some_clients(connection, 2)
    campaign_id = a_campaign(connection)
    try_out(connection, campaign_id, ids)
    assert campaigns.progress(connection, campaign_id).audience == 0
    assert ledger(connection, campaign_id) == []
    assert connection.execute("SELECT count(*) AS n FROM reporting.message_outcomes").fetchone() == {"n": 0}
    assert connection.execute("SELECT count(*) AS n FROM attempts").fetchone() == {"n": 0}


@pytest.mark.parametrize(
    ("kind", "state", "reason", "status"),
    [
        ("400", "failed", "http_400", 400),
        ("code_nonzero", "failed", "code_1", 200),
        ("429", "failed", "http_429", 429),
        ("401", "failed", "http_401", 401),
        ("502", "unknown", "http_502", 502),
        ("not_json", "unknown", "reply_not_json", 200),
        ("drop_after_read", "unknown", "connection_lost", None),
    ],
)
def test_what_the_gateway_made_of_it_is_recorded_with_its_evidence(connection, gateway, kind, state, reason, status):
    gateway.set(shares={kind: 1}, nonzero_code=1)
    [client] = some_clients(connection, 1)
    [sent] = try_out(connection, a_campaign(connection), [client])
    assert (sent.state, sent.reason, sent.status_code) == (state, reason, status)
    [row] = rows(connection)
    assert (row["state"], row["reason"], row["status_code"]) == (state, reason, status)
    assert sent.error
    assert gateways.all_gateways(connection)[0].breaker_state == "closed"


def test_after_a_gateway_that_is_not_there_no_other_is_tried(connection, gateway, monkeypatch):
    point_gateway_to(monkeypatch, "http://127.0.0.1:1", gateway.token())
    sent = try_out(connection, a_campaign(connection), some_clients(connection, 3))
    assert [(each.state, each.reason) for each in sent] == [
        ("failed", "not_reached"), ("failed", "not_tried"), ("failed", "not_tried")
    ]  # fmt: skip


def test_a_gateway_that_does_not_answer_in_time_leaves_one_doubt(connection, gateway):
    gateway.set(latency={"kind": "fixed", "seconds": 30})
    connection.execute("UPDATE gateways SET timeout_s = 0.3")
    sent = try_out(connection, a_campaign(connection), some_clients(connection, 2))
    assert [(each.state, each.reason) for each in sent] == [("unknown", "no_answer"), ("failed", "not_tried")]


def test_a_connection_that_cannot_be_used_is_said_and_nothing_leaves(connection, gateway, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_GATEWAY", '{"conn_type": "http", "host": "127.0.0.1", "schema": "http"}')
    sent = try_out(connection, a_campaign(connection), some_clients(connection, 2))
    assert [(each.state, each.reason) for each in sent] == [("failed", "connection_unusable")] * 2
    assert "bearer token" in sent[0].error
    assert gateway.stats()["received"] == 0


def test_each_row_is_committed_as_sending_before_its_request_and_stays_so_if_nobody_is_left_to_settle_it(
    connection, gateway
):
    ids = some_clients(connection, 2)
    seen = []

    @contextmanager
    def transaction():
        seen.append([row["state"] for row in rows(connection)])
        if len(seen) == 2:  # the answer has come, and is to be written
            raise psycopg.OperationalError("away")
        with db.transaction() as own:
            yield own

    planned = test_send.plan(connection, a_campaign(connection), ids, actor="anna")
    with pytest.raises(psycopg.OperationalError):
        test_send.send(planned, transaction)
    assert seen == [[], ["sending"]]
    assert [row["state"] for row in rows(connection)] == ["sending"]
    assert gateway.counts() == {rows(connection)[0]["id"]: 1}


def test_the_throttle_is_heeded(connection, gateway):
    connection.execute("UPDATE gateways SET messages_per_second = 4")
    try_out(connection, a_campaign(connection), some_clients(connection, 4))
    arrivals = sorted(gateway.arrivals())
    assert len(arrivals) == 4
    assert arrivals[-1] - arrivals[0] >= 3 / 4 - 0.1
    booked = connection.execute("SELECT last_slot_at FROM gateways WHERE name = 'default'").fetchone()
    assert booked["last_slot_at"] is not None


def test_a_throttle_that_has_no_slot_in_time_fails_the_rest(connection, gateway):
    connection.execute("UPDATE gateways SET messages_per_second = 0.1")
    sent = try_out(connection, a_campaign(connection), some_clients(connection, 3), slot_patience_s=0.2)
    assert [(each.state, each.reason) for each in sent] == [
        ("sent", None), ("failed", "throttle"), ("failed", "throttle")
    ]  # fmt: skip
    assert sum(gateway.counts().values()) == 1


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_what_is_left_is_not_begun_once_the_campaign_is_cancelled_or_deleted(connection, gateway, end):
    gateways.change(connection, "default", actor="setup", messages_per_second=0.7)
    start, stop = now() + HOUR, now() + 2 * HOUR
    campaign_id = a_campaign(connection, sending_start=start, sending_stop=stop)
    ids = some_clients(connection, 2)
    sent = []
    with in_a_thread(lambda: sent.extend(try_out(connection, campaign_id, ids))):
        wait_until(lambda: gateway.stats()["received"] == 1)
        wait_until(lambda: [row["state"] for row in rows(connection)] == ["sent"])
        getattr(campaigns, end)(connection, campaign_id, actor="anna")
    assert [(each.state, each.reason) for each in sent] == [
        ("sent", None),
        ("failed", "cancelled"),
    ]
    assert len(gateway.arrivals()) == 1


def test_a_campaign_is_not_deleted_while_a_test_of_it_is_on_its_way(connection, gateway):
    gateway.set(latency={"kind": "fixed", "seconds": 1})
    campaign_id = a_campaign(connection, sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR)
    ids = some_clients(connection, 1)
    with in_a_thread(lambda: try_out(connection, campaign_id, ids)):
        wait_until(lambda: [row["state"] for row in rows(connection)] == ["sending"])
        with pytest.raises(Conflict, match="no task is at, the test send of anna is"):
            campaigns.delete(connection, campaign_id, actor="boris")


def test_neither_phone_number_nor_text_is_logged(connection, gateway, caplog, capsys):
    gateway.set(shares={"400": 1})
    caplog.set_level(logging.DEBUG, logger="mailing")
    campaign_id = a_campaign(connection, text=SECRET)
    planned = test_send.plan(connection, campaign_id, some_clients(connection, 1), actor="anna")
    test_send.send(planned, db.transaction)
    said = caplog.text + "".join(capsys.readouterr()) + repr(planned) + str(audited(connection))
    assert "http_400" in said
    assert SECRET not in said
    assert "71030000001" not in said


@pytest.mark.parametrize(
    ("clients", "said"),
    [
        ([], "1 to 10"),
        (list(range(1, 12)), "1 to 10"),
        ([1, 1], "1 to 10 different"),
        ([1, 99, 98], "no client 98, 99"),
    ],
)
def test_clients_that_make_no_sense_are_refused_and_nothing_is_kept(connection, clients, said):
    some_clients(connection, 11)
    with pytest.raises(InvalidInput, match=said) as caught:
        test_send.plan(connection, a_campaign(connection), clients, actor="anna")
    assert caught.value.fields == ("clients",)
    assert audited(connection) == []


def test_a_cancelled_campaign_and_one_that_is_not_there_are_refused(connection):
    ids = some_clients(connection, 1)
    campaign_id = a_campaign(connection)
    campaigns.cancel(connection, campaign_id, actor="anna")
    with pytest.raises(Conflict, match=f"^campaign {campaign_id}: test send: wanted a campaign that is not cancelled$"):
        test_send.plan(connection, campaign_id, ids, actor="anna")
    with pytest.raises(NotFound, match="^campaign 99: there is no such campaign$"):
        test_send.plan(connection, 99, ids, actor="anna")
