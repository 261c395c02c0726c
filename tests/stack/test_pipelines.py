"""Triggers from and to other pipelines on the whole stack: REST, TriggerDagRunOperator, the asset."""

from __future__ import annotations

import json

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
