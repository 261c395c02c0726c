"""Campaigns on the whole embedded stack: Airflow's four processes, PostgreSQL and the gateway simulator."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest

from local.stack_airflow import call, log_in
from tests.builders import a_campaign, ledger, now, some_clients, states
from tests.stack.steps import behave, finished, taken, the_run_has_ended, wait_until

pytestmark = pytest.mark.stack


def test_a_campaign_inside_its_window_starts_at_once_and_clearing_its_tasks_sends_nothing_twice(settings, connection):
    some_clients(connection, 300, code="201")
    campaign_id = a_campaign(connection, name="At once", filter_operator_codes=["201"])

    wait_until(finished(connection, campaign_id), "the campaign is finished")
    [run] = wait_until(the_run_has_ended(settings, campaign_id), "its run has ended")

    assert run["state"] == "success"
    assert states(connection, campaign_id) == {"sent": 300}

    body = {"dry_run": False, "reset_dag_runs": True, "only_failed": False, "dag_run_id": run["dag_run_id"]}
    path = f"/api/v2/dags/campaign_{campaign_id}/clearTaskInstances"
    status, answer = call(settings, "POST", path, body, log_in(settings))
    assert status == 200, answer
    again = wait_until(
        lambda: [
            each
            for each in the_run_has_ended(settings, campaign_id)() or []
            if each["start_date"] != run["start_date"] or each["end_date"] != run["end_date"]
        ],
        "the cleared run has ended again",
    )
    assert again[0]["state"] == "success"
    assert set(taken(settings, ledger(connection, campaign_id)).values()) == {1}


def test_a_campaign_in_the_future_starts_by_itself(settings, connection):
    some_clients(connection, 20, code="202")
    start = now() + timedelta(seconds=25)
    campaign_id = a_campaign(
        connection, filter_operator_codes=["202"], sending_start=start, sending_stop=start + timedelta(hours=1)
    )

    wait_until(finished(connection, campaign_id), "the campaign is finished")

    rows = ledger(connection, campaign_id)
    assert {row["state"] for row in rows} == {"sent"}
    assert min(row["claimed_at"] for row in rows) >= start
    assert set(taken(settings, rows).values()) == {1}


def test_a_killed_send_task_is_retried_and_leaves_in_doubt_only_what_may_have_left(settings, connection):
    connection.execute("UPDATE gateways SET requests_in_flight = 10")
    behave(settings, latency={"kind": "fixed", "seconds": 0.2})
    some_clients(connection, 400, code="203")
    campaign_id = a_campaign(connection, filter_operator_codes=["203"])

    wait_until(lambda: states(connection, campaign_id).get("sent", 0) >= 50, "some messages are sent")
    holder = connection.execute("SELECT holder FROM leases WHERE campaign_id = %s", (campaign_id,)).fetchone()
    os.kill(int(holder["holder"].rsplit(":", 1)[1]), signal.SIGKILL)
    wait_until(finished(connection, campaign_id), "its retry has finished the campaign", 180)

    counts = states(connection, campaign_id)
    assert sum(counts.values()) == 400
    assert set(counts) == {"sent", "unknown"}
    assert 0 < counts["unknown"] <= 20  # twice the requests in flight
    rows = ledger(connection, campaign_id)
    by_id = taken(settings, rows)
    assert max(by_id.values()) == 1
    assert all(by_id[row["id"]] == 1 for row in rows if row["state"] == "sent")


def test_a_campaign_that_is_wholly_past_is_closed_and_sends_nothing(settings, connection):
    some_clients(connection, 5, code="204")
    hour = timedelta(hours=1)
    campaign_id = a_campaign(
        connection, filter_operator_codes=["204"], sending_start=now() - 2 * hour, sending_stop=now() - hour
    )

    wait_until(finished(connection, campaign_id), "upkeep has closed the campaign")

    rows = ledger(connection, campaign_id)
    assert {(row["state"], row["reason"]) for row in rows} == {("expired", "window")}
    assert set(taken(settings, rows).values()) == {0}
