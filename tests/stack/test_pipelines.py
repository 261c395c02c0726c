"""Triggers from and to other pipelines on the whole stack: REST, TriggerDagRunOperator, the asset."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from local.stack_airflow import call, log_in
from tests.builders import a_campaign, some_clients, states
from tests.stack.steps import ended, finished, trigger, wait_until

pytestmark = pytest.mark.stack

LAUNCHES = "/api/v2/dags/launch_campaign/dagRuns"


def test_a_campaign_is_launched_over_rest_once_per_key_and_waited_for(settings, connection):
    some_clients(connection, 30, code="601")
    token = log_in(settings)
    conf = {"text": "Hello", "filter_operator_codes": ["601"], "duration": "PT1H", "key": "stack-601"}
    conf |= {"wait": True, "min_sent_share": 1}
    wait_until(lambda: call(settings, "GET", "/api/v2/dags/launch_campaign", token=token)[0] == 200, "its DAG is there")

    runs = [trigger(settings, token, "launch_campaign", **conf) for _ in range(2)]

    outcomes = [ended(settings, token, "launch_campaign", run, "launch") for run in runs]
    assert [state for state, _ in outcomes] == ["success", "success"]
    first, second = (value for _, value in outcomes)
    assert first == second
    assert (first["audience"], first["sent"], first["status"]) == (30, 30, "finished")
    rows = connection.execute("SELECT id FROM campaigns WHERE filter_operator_codes = '{601}'").fetchall()
    assert [row["id"] for row in rows] == [first["campaign_id"]]

    # An asset event for the end, and one only.
    def events():
        status, found = call(
            settings, "GET", f"/api/v2/assets/events?source_dag_id={first['dag_id']}&limit=10", token=token
        )
        return found["asset_events"] if status == 200 else []

    found = wait_until(events, "its end is announced", 30)
    assert sorted(event["uri"] for event in found) == [
        "mailing://campaigns/", f"mailing://campaigns/{first['campaign_id']}"
    ]  # fmt: skip
    assert all(event["extra"]["sent"] == 30 for event in found)

    status, problem = call(settings, "POST", LAUNCHES, {"logical_date": None, "conf": {"text": ""}}, token)
    assert status == 400
    assert "text" in json.dumps(problem)


def test_a_downstream_dag_wakes_on_the_asset_with_the_right_figures_and_triggers_the_campaign_again(
    settings, connection
):
    some_clients(connection, 7, code="602")
    campaign_id = a_campaign(connection, filter_operator_codes=["602"], name="Stack 602")
    wait_until(finished(connection, campaign_id), "the campaign is finished")

    file = settings.var / "told.jsonl"

    def told():
        lines = file.read_text().splitlines() if file.exists() else []
        return [told for told in map(json.loads, lines) if told["campaign_id"] == campaign_id]

    [figures] = wait_until(told, "the downstream DAG has run", 60)
    assert (figures["name"], figures["status"], figures["audience"], figures["sent"]) == ("Stack 602", "finished", 7, 7)

    some_clients(connection, 2, code="602")
    token = log_in(settings)
    trigger(settings, token, "triggers_again", dag_id=f"campaign_{campaign_id}")
    wait_until(lambda: states(connection, campaign_id) == {"sent": 9}, "who came since was sent to", 60)
    again = wait_until(lambda: len(told()) > 1 and told()[1], "the downstream DAG has run again", 60)
    assert (again["finish"], again["sent"]) == (2, 9)


def test_another_dag_launches_twice_by_key_and_gets_one_for_which_a_sensor_waited(settings, connection):
    some_clients(connection, 3, code="615")
    token = log_in(settings)
    key = "sale-615"
    waiting = trigger(settings, token, "waits_for_a_key", key=key)
    wait_until(
        lambda: _state_of_wait(settings, token, "waits_for_a_key", waiting) == "deferred", "it waits for the key"
    )

    conf = {"text": "Hello", "filter_operator_codes": ["615"], "duration": "PT1H", "key": key}
    run = trigger(settings, token, "launches_twice", conf=conf)
    assert ended(settings, token, "launches_twice", run, "first", 120)[0] == "success"

    rows = connection.execute("SELECT id FROM campaigns WHERE filter_operator_codes = '{615}'").fetchall()
    assert len(rows) == 1
    state, figures = ended(settings, token, "waits_for_a_key", waiting, "wait", 120)
    assert state == "success"
    assert (figures["campaign_id"], figures["sent"]) == (rows[0]["id"], 3)


def test_a_sensor_whose_key_is_never_launched_fails_after_its_timeout(settings, connection):
    token = log_in(settings)
    run = trigger(settings, token, "waits_in_vain")
    assert ended(settings, token, "waits_in_vain", run, "wait")[0] == "failed"
    path = f"/api/v2/dags/waits_in_vain/dagRuns/{run}"
    status, found = call(settings, "GET", path, token=token)
    assert status == 200
    began, end = (datetime.fromisoformat(found[name]) for name in ("start_date", "end_date"))
    assert end - began >= timedelta(seconds=6)


def _state_of_wait(settings, token, dag_id, run):
    status, found = call(settings, "GET", f"/api/v2/dags/{dag_id}/dagRuns/{run}/taskInstances/wait", token=token)
    return found["state"] if status == 200 else None
