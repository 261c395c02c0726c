"""The REST API on the whole embedded stack: what is written over it, or beside it, reaches Airflow and the gateway."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from local.stack_airflow import call, log_in
from tests.builders import HOUR, ledger, now, some_clients, states
from tests.stack.steps import ask, finished, taken, wait_until

pytestmark = pytest.mark.stack

CAMPAIGNS = "/mailing/api/campaigns/"


def a_body(code, **changes):
    window = {"sending_start": (now() - timedelta(minutes=1)).isoformat(), "sending_stop": (now() + HOUR).isoformat()}
    return {"name": f"To {code}", "text": "Hello", "filters": [code]} | window | changes


def test_a_campaign_that_is_created_over_rest_is_sent_and_finished(settings, connection):
    some_clients(connection, 50, code="501")
    token = log_in(settings)
    status, campaign = call(settings, "POST", CAMPAIGNS, a_body("501"), token)
    created = time.time()
    assert status == 201, campaign

    wait_until(finished(connection, campaign["id"]), "the campaign is finished")

    rows = ledger(connection, campaign["id"])
    assert set(taken(settings, rows).values()) == {1}
    arrivals = ask(settings, "GET", f"/_simulator/requests?first={rows[0]['id']}&last={rows[-1]['id']}")
    first = min(moment for each in arrivals.values() for moment in each["arrivals"])
    print(f"from the 201 to the first POST: {first - created:.2f} s")
    status, detail = call(settings, "GET", f"{CAMPAIGNS}{campaign['id']}/detail", token=token)
    assert (status, detail["status"], detail["counts"]["sent"]) == (200, "finished", 50)


def test_a_campaign_that_is_inserted_by_plain_sql_becomes_a_dag_by_itself(settings, connection):
    some_clients(connection, 5, code="502")
    row = connection.execute(
        "INSERT INTO campaigns (text, sending_start, sending_stop, filter_operator_codes)"
        " VALUES ('Hello', now(), now() + interval '1 hour', '{502}') RETURNING id"
    ).fetchone()
    inserted = time.monotonic()

    def is_a_dag():
        return call(settings, "GET", f"/api/v2/dags/campaign_{row['id']}", token=log_in(settings))[0] == 200

    wait_until(is_a_dag, "it is a DAG", 60)
    print(f"from the INSERT to the DAG: {time.monotonic() - inserted:.2f} s")
    wait_until(finished(connection, row["id"]), "the campaign is finished")
    assert states(connection, row["id"]) == {"sent": 5}


def test_a_test_send_uses_the_connection_that_airflow_keeps_in_its_own_store(settings, connection):
    ids = some_clients(connection, 2, code="503")
    token = log_in(settings)
    start = (now() + HOUR).isoformat()
    body = a_body("503", sending_start=start, sending_stop=(now() + 2 * HOUR).isoformat())
    status, campaign = call(settings, "POST", CAMPAIGNS, body, token)
    assert status == 201, campaign

    status, answer = call(settings, "POST", f"{CAMPAIGNS}{campaign['id']}/test-send", {"clients": ids}, token)

    assert status == 200, answer
    assert [each["state"] for each in answer["test_sends"]] == ["sent", "sent"]
    assert set(taken(settings, sorted(answer["test_sends"], key=lambda each: each["id"])).values()) == {1}
    assert states(connection, campaign["id"]) == {}
