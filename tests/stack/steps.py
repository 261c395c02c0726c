"""What the tests of the stack do again and again: ask the simulator, ask Airflow, wait."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import contextmanager

from local.settings import HOST
from local.stack_airflow import call, log_in
from mailing import campaigns, db


def behave(settings, **behaviour):
    ask(settings, "PUT", "/_simulator/behaviour", behaviour)


@contextmanager
def well_behaved(settings, monkeypatch):
    """The stack's database, in autocommit; its gateway well behaved, and as fast as it can be."""
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", settings.environment()["AIRFLOW_CONN_MAILING_DB"])
    behave(settings)
    with db.connect() as connection:
        connection.autocommit = True
        connection.execute(
            "UPDATE gateways SET requests_in_flight = 100, messages_per_second = NULL, timeout_s = 10,"
            " breaker_state = 'closed', breaker_failures = 0, breaker_changed_at = NULL"
        )
        yield connection


def ask(settings, method, path, body=None):
    simulator = http.client.HTTPConnection(HOST, settings.gateway_port, timeout=30)
    simulator.request(method, path, json.dumps(body) if body is not None else None)
    answer = json.loads(simulator.getresponse().read())
    simulator.close()
    return answer


def taken(settings, rows):
    """How often the gateway took each message."""
    counts = ask(settings, "GET", f"/_simulator/counts?first={rows[0]['id']}&last={rows[-1]['id']}")
    return {row["id"]: counts.get(str(row["id"]), 0) for row in rows}


def wait_until(condition, what, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.2)
    return found


def finished(connection, campaign_id):
    return lambda: campaigns.progress(connection, campaign_id).status == "finished"


def the_run_has_ended(settings, campaign_id):
    def ended():
        status, answer = call(settings, "GET", f"/api/v2/dags/campaign_{campaign_id}/dagRuns", token=log_in(settings))
        runs = answer["dag_runs"] if status == 200 else []
        return runs if runs and all(run["state"] in ("success", "failed") for run in runs) else None

    return ended


def trigger(settings, token, dag_id, /, **conf):
    """The id of a new run of this DAG, with these parameters."""
    runs = f"/api/v2/dags/{dag_id}/dagRuns"
    status, run = call(settings, "POST", runs, {"logical_date": None, "conf": conf}, token)
    assert status == 200, run
    return run["dag_run_id"]


def ended(settings, token, dag_id, run, task, seconds=90):
    """The state of a run, once it has ended, and what this task of it returned."""
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run}"

    def look():
        status, found = call(settings, "GET", path, token=token)
        return found if status == 200 and found["state"] in ("success", "failed") else None

    state = wait_until(look, f"the run of {dag_id} has ended", seconds)["state"]
    status, value = call(settings, "GET", f"{path}/taskInstances/{task}/xcomEntries/return_value", token=token)
    if status != 200:
        return state, None
    return state, json.loads(value["value"]) if isinstance(value["value"], str) else value["value"]


def tasks(settings, dag_ids, state):
    """The task instances of these DAGs that are in this state, as Airflow's API tells them."""
    body = {"dag_ids": dag_ids, "state": [state], "page_limit": 1_000}
    status, answer = call(settings, "POST", "/api/v2/dags/~/dagRuns/~/taskInstances/list", body, log_in(settings))
    assert status == 200, answer
    return answer["task_instances"]
