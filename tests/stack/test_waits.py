"""Waits on the whole stack: no worker slot is held, and what was waited for is noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from local import demo
from local.settings import HOST
from local.stack_airflow import CONNECTION_ID, call, keep_gateway_connection, log_in
from mailing import campaigns
from tests.builders import a_campaign, ledger, some_clients, states
from tests.stack.steps import behave, finished, taken, tasks, wait_until

pytestmark = pytest.mark.stack


def dag(campaign_id):
    return f"campaign_{campaign_id}"


def sent(connection, campaign_id):
    return states(connection, campaign_id).get("sent", 0)


def test_pausing_stops_a_campaign_within_seconds_and_resuming_sends_exactly_the_rest(settings, connection):
    connection.execute("UPDATE gateways SET messages_per_second = 50")
    some_clients(connection, 400, code="303")
    campaign_id = a_campaign(connection, filter_operator_codes=["303"])
    wait_until(lambda: sent(connection, campaign_id) >= 50, "some are sent")

    campaigns.pause(connection, campaign_id, actor="test")
    wait_until(lambda: tasks(settings, [dag(campaign_id)], "deferred"), "its task waits", 30)
    before = sent(connection, campaign_id)
    assert before < 50 + 50 * 5

    campaigns.resume(connection, campaign_id, actor="test")
    wait_until(finished(connection, campaign_id), "the rest is sent", 60)
    assert states(connection, campaign_id) == {"sent": 400}
    assert set(taken(settings, ledger(connection, campaign_id)).values()) == {1}


def test_pausing_its_dag_in_airflow_stops_a_campaign_and_unpausing_goes_on(settings, connection):
    connection.execute("UPDATE gateways SET messages_per_second = 50")
    some_clients(connection, 600, code="304")
    campaign_id = a_campaign(connection, filter_operator_codes=["304"])
    wait_until(lambda: sent(connection, campaign_id) >= 50, "some are sent")

    pause_dag(settings, campaign_id, True)
    wait_until(lambda: not tasks(settings, [dag(campaign_id)], "running"), "its task has stopped", 10)
    before = sent(connection, campaign_id)
    assert before < 600
    assert states(connection, campaign_id)["pending"] == 600 - before

    pause_dag(settings, campaign_id, False)
    wait_until(finished(connection, campaign_id), "the rest is sent", 90)
    assert states(connection, campaign_id) == {"sent": 600}


def pause_dag(settings, campaign_id, is_paused):
    path = f"/api/v2/dags/{dag(campaign_id)}"
    status, answer = call(settings, "PATCH", path, {"is_paused": is_paused}, log_in(settings))
    assert status == 200, answer


def test_a_refused_token_stops_a_campaign_and_a_good_one_lets_it_go_on_by_itself(settings, connection):
    behave(settings, token_expired=True)  # whatever was issued until now
    some_clients(connection, 30, code="305")
    campaign_id = a_campaign(connection, filter_operator_codes=["305"])
    wait_until(lambda: tasks(settings, [dag(campaign_id)], "deferred"), "its task waits", 60)
    standing = campaigns.progress(connection, campaign_id).standing
    assert standing == "running; gateway default refuses the token of its connection"
    assert states(connection, campaign_id) == {"pending": 30}

    behave(settings)
    keep_gateway_connection(settings)
    wait_until(finished(connection, campaign_id), "it went on by itself", 90)
    rows = ledger(connection, campaign_id)
    assert {(row["state"], row["attempts"]) for row in rows} == {("sent", 1)}


def test_the_demo_sends_nothing_to_a_gateway_that_somebody_has_named(settings, connection, monkeypatch):
    """`make up` leaves such a connection alone, and so does the demo."""
    monkeypatch.delenv("AIRFLOW_CONN_MAILING_GATEWAY", raising=False)
    path, token = f"/api/v2/connections/{CONNECTION_ID}", log_in(settings)

    def lead_to(host):
        body = {"connection_id": CONNECTION_ID, "conn_type": "http", "host": host}
        assert call(settings, "PATCH", f"{path}?update_mask=host", body, token)[0] == 200

    before = connection.execute("SELECT count(*) AS n FROM campaigns").fetchone()["n"]
    lead_to("gateway.example.com")
    try:
        with pytest.raises(
            demo.DemoError, match=r"leads to gateway\.example\.com:\d+: the demo sends to the simulator only"
        ):
            demo.send(settings, demo.a_console())
    finally:
        lead_to(HOST)
    assert connection.execute("SELECT count(*) AS n FROM campaigns").fetchone()["n"] == before


def test_a_live_audience_grows_while_its_window_is_open(settings, connection):
    some_clients(connection, 5, code="306")
    campaign_id = a_campaign(connection, filter_operator_codes=["306"], audience="live")
    wait_until(lambda: sent(connection, campaign_id) == 5, "the first are sent")
    some_clients(connection, 3, code="306")
    wait_until(lambda: sent(connection, campaign_id) == 8, "the latecomers are sent", 90)

    connection.execute("UPDATE campaigns SET sending_stop = now() + interval '1 second' WHERE id = %s", (campaign_id,))
    wait_until(finished(connection, campaign_id), "it ends with its window", 60)
    assert set(taken(settings, ledger(connection, campaign_id)).values()) == {1}


def test_a_live_campaign_whose_filter_is_edited_again_and_again_reaches_whom_each_edit_adds(settings, connection):
    """Each edit asks for a run, and each run of a live campaign would last until the stop."""
    codes = ["308"]
    some_clients(connection, 5, code="308")
    campaign_id = a_campaign(connection, filter_operator_codes=codes, audience="live")
    wait_until(lambda: sent(connection, campaign_id) == 5, "the first are sent")
    for code in ("309", "310", "311", "312", "313"):
        codes.append(code)
        some_clients(connection, 5, code=code)
        campaigns.edit(connection, campaign_id, actor="test", filter_operator_codes=codes)
        wait_until(lambda: sent(connection, campaign_id) == 5 * len(codes), "who was added is sent to", 60)

    connection.execute("UPDATE campaigns SET sending_stop = now() + interval '1 second' WHERE id = %s", (campaign_id,))
    wait_until(finished(connection, campaign_id), "it ends with its window", 60)
    assert set(taken(settings, ledger(connection, campaign_id)).values()) == {1}


def test_a_sending_task_that_is_marked_a_success_leaves_the_rest_to_a_further_run(settings, connection):
    connection.execute("UPDATE gateways SET messages_per_second = 20")
    some_clients(connection, 200, code="314")
    campaign_id = a_campaign(connection, filter_operator_codes=["314"])
    wait_until(lambda: sent(connection, campaign_id) >= 20, "some are sent")
    token, runs = log_in(settings), f"/api/v2/dags/{dag(campaign_id)}/dagRuns"
    [run] = call(settings, "GET", runs, token=token)[1]["dag_runs"]
    task = f"{runs}/{run['dag_run_id']}/taskInstances/send_batch/0"
    assert call(settings, "PATCH", task, {"new_state": "success"}, token)[0] == 200
    connection.execute("UPDATE gateways SET messages_per_second = NULL")

    wait_until(finished(connection, campaign_id), "a further run has sent the rest", 90)
    rows = ledger(connection, campaign_id)
    assert {row["state"] for row in rows} <= {"sent", "unknown"}
    assert max(taken(settings, rows).values()) == 1


def test_a_run_that_is_failed_and_deleted_leaves_the_ledger_true_and_another_sends_the_rest(settings, connection):
    connection.execute("UPDATE gateways SET messages_per_second = 20")
    some_clients(connection, 200, code="307")
    campaign_id = a_campaign(connection, filter_operator_codes=["307"])
    wait_until(lambda: sent(connection, campaign_id) >= 20, "some are sent")
    token, runs = log_in(settings), f"/api/v2/dags/{dag(campaign_id)}/dagRuns"
    [run] = call(settings, "GET", runs, token=token)[1]["dag_runs"]
    assert call(settings, "PATCH", f"{runs}/{run['dag_run_id']}", {"state": "failed"}, token)[0] == 200
    wait_until(lambda: "sending" not in states(connection, campaign_id), "its task has ended", 60)
    assert call(settings, "DELETE", f"{runs}/{run['dag_run_id']}", token=token)[0] == 204
    before = states(connection, campaign_id)
    assert campaigns.progress(connection, campaign_id).status == "running"
    assert sum(before.values()) == 200

    connection.execute("UPDATE gateways SET messages_per_second = NULL")
    assert call(settings, "POST", runs, {"logical_date": None}, token)[0] == 200
    wait_until(finished(connection, campaign_id), "all are sent", 120)
    rows = ledger(connection, campaign_id)
    counts = taken(settings, rows)
    assert {row["state"] for row in rows} <= {"sent", "unknown"}
    assert max(counts.values()) == 1
    assert all(counts[row["id"]] == 1 for row in rows if row["state"] == "sent")


def test_fifty_campaigns_that_wait_for_local_hours_leave_the_workers_to_others(settings, connection):
    some_clients(connection, 5, code="301")
    opens = (datetime.now(UTC) + timedelta(minutes=30)).time()
    closes = (datetime.now(UTC) + timedelta(minutes=50)).time()
    waiting = [
        a_campaign(connection, filter_operator_codes=["301"], local_from=opens, local_to=closes) for _ in range(50)
    ]
    deferred = wait_until(
        lambda: found if len(found := tasks(settings, [dag(each) for each in waiting], "deferred")) == 50 else None,
        "every one of them is deferred",
        240,
    )
    assert {task["task_id"] for task in deferred} == {"send_batch"}
    assert tasks(settings, [dag(each) for each in waiting], "running") == []

    some_clients(connection, 20, code="302")
    another = a_campaign(connection, filter_operator_codes=["302"])
    wait_until(finished(connection, another), "the campaign that need not wait is finished", 60)
    assert {row["state"] for each in waiting for row in ledger(connection, each)} == {"pending"}

    for each in waiting:
        campaigns.cancel(connection, each, actor="test")
    wait_until(
        lambda: not tasks(settings, [dag(each) for each in waiting], "deferred"),
        "all have noticed that it is over",
        120,
    )
