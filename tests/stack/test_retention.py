"""On the whole stack: old messages go by the DAG `retention`, a reader looks on, the webhook is told of an end."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg.rows import dict_row

from local.stack_airflow import call, log_in
from mailing import webhook
from tests.builders import a_campaign, some_clients, states
from tests.receiver import SECRET
from tests.stack.steps import ended, finished, trigger, wait_until
from tests.test_retention import an_ended_campaign, as_of_yesterday

pytestmark = pytest.mark.stack

CONNECTIONS = "/api/v2/connections"


@pytest.fixture
def hook(settings, receiver):
    """Receives what the stack's own tasks post to the webhook."""
    token = log_in(settings)
    body = {"connection_id": webhook.CONNECTION_ID, "conn_type": "http", "host": receiver.url, "password": SECRET}
    status, said = call(settings, "POST", CONNECTIONS, body, token)
    assert status == 201, said
    yield receiver
    assert call(settings, "DELETE", f"{CONNECTIONS}/{webhook.CONNECTION_ID}", token=token)[0] == 204


@pytest.fixture
def reader(settings):
    """A connection as `mailing_reader`, by the address that docs/reporting.md has people use."""
    with psycopg.connect(settings.database_url("mailing", "mailing_reader"), row_factory=dict_row) as connection:
        connection.autocommit = True
        yield connection


def an_old_campaign_alone_in_its_part(connection):
    """Its id. The next campaign goes into the next part."""
    sequence = "pg_get_serial_sequence('campaigns', 'id')"
    with connection.transaction():  # so that Airflow never sees it unfinished
        connection.execute(f"SELECT setval({sequence}, max(end_campaign_id) - 1) FROM ledger_parts")  # noqa: S608
        campaign_id = an_ended_campaign(connection)
        connection.execute(f"SELECT setval({sequence}, max(end_campaign_id) - 1) FROM ledger_parts")  # noqa: S608
    return campaign_id


def figures(reader, campaign_id):
    [row] = reader.execute("SELECT * FROM campaign_statistics WHERE campaign_id = %s", (campaign_id,)).fetchall()
    return {name: value for name, value in row.items() if name != "archived_at"}


def test_an_old_part_is_told_and_then_dropped_and_its_figures_stay(settings, connection, reader):
    some_clients(connection, 5, code="603")
    old = an_old_campaign_alone_in_its_part(connection)
    before = figures(reader, old)
    assert before["audience"] == before["sent"] + before["failed"] + before["unknown"] > 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT * FROM public.messages")
    with connection.transaction():
        next_one = a_campaign(connection, filter_operator_codes=["603"])
        as_of_yesterday(connection, next_one, "created = now() - interval '2 hours'")
        connection.execute("SELECT ledger_part(%s)", (next_one,))  # before its run does it
    token = log_in(settings)

    def run(**params):
        return ended(settings, token, "retention", trigger(settings, token, "retention", **params), "remove_old_parts")

    state, told = run(days=30)
    assert state == "success"
    assert old in [part["first_campaign_id"] for part in told["would_go"]]
    assert sum(states(connection, old).values()) == before["audience"]

    state, done = run(days=30, dry_run=False)
    assert (state, _without_size(done["removed"])) == ("success", _without_size(told["would_go"]))
    assert states(connection, old) == {}
    assert figures(reader, old) == before


def _without_size(parts):
    """Autovacuum may write a map of free space meanwhile."""
    return [{name: value for name, value in part.items() if name != "bytes"} for part in parts]


def test_an_end_is_told_to_the_webhook_once_and_signed(settings, connection, hook):
    some_clients(connection, 3, code="604")
    campaign_id = a_campaign(connection, filter_operator_codes=["604"])
    wait_until(finished(connection, campaign_id), "the campaign is finished")

    def told():
        return [each for each in hook.received if json.loads(each[2])["campaign_id"] == campaign_id]

    [(_, headers, body)] = wait_until(told, "the webhook is told", 90)
    assert headers["Mailing-Signature"] == webhook.signature(SECRET, headers["Mailing-Timestamp"], body)
    event = json.loads(body)
    assert (event["status"], event["audience"], event["sent"]) == ("finished", 3, 3)
    wait_until(
        lambda: connection.execute(
            "SELECT FROM finishes WHERE campaign_id = %s AND webhook_state = 'delivered'", (campaign_id,)
        ).fetchone() is not None,
        "its delivery is written down",
    )  # fmt: skip
    assert len(told()) == 1
