"""The watch that has the DAGs of campaigns parsed; tests/stack has it run by a real API server."""

from __future__ import annotations

import threading
import time

import pytest
from structlog.testing import capture_logs

from mailing import campaigns, dag_watch, runs
from mailing.dag_watch import DagWatch, running
from mailing.poke import WRITING
from tests.builders import HOUR, a_campaign, now
from tests.parsing import forget_parses, forget_requests, in_airflow_waits, was_parsed
from tests.waiting import wait_until

SURELY = WRITING.total_seconds() + 1.0
"""So long after a change begins a parse of which Airflow's notes prove that it came after it."""

pytestmark = pytest.mark.usefixtures("upkeep_is_known")


@pytest.fixture
def watch(connection):
    """A watch that has seen one campaign, of which Airflow knows."""
    campaign_id = a_campaign(connection)
    watch = DagWatch()
    watch.look(connection)
    was_parsed(campaign_id, began_s=SURELY)
    watch.look(connection)
    forget_requests()
    forget_parses()  # that one is dated after what the tests do
    return watch


def asks(watch, connection):
    """Whether it asks Airflow to parse the file, at this look."""
    watch.look(connection)
    found = in_airflow_waits()
    forget_requests()
    return bool(found)


def asked_anew():
    """Whether there is a request again, half a second after all were taken."""
    forget_requests()
    time.sleep(0.5)
    return in_airflow_waits()


def test_nothing_is_asked_for_while_nothing_is_written(connection, watch):
    assert [asks(watch, connection) for _ in range(3)] == [False] * 3


@pytest.mark.parametrize(
    "written",
    [
        lambda connection: a_campaign(connection),
        lambda connection: connection.execute("UPDATE campaigns SET name = 'Friday'"),
        lambda connection: connection.execute("UPDATE campaigns SET sending_stop = sending_stop + interval '1 hour'"),
        lambda connection: connection.execute("UPDATE campaigns SET audience = 'live'"),
        lambda connection: runs.wake(connection, 1, in_s=10.0),
        lambda connection: connection.execute("DELETE FROM campaigns"),
    ],
    ids=["another one", "name", "window", "audience", "a further run", "one less"],
)
def test_what_a_dag_is_made_of_is_told_whoever_writes_it(connection, watch, written):
    written(connection)
    assert asks(watch, connection)


def test_what_no_dag_shows_is_nobodys_business(connection, watch):
    connection.execute("UPDATE campaigns SET text = 'Something else'")
    a_campaign(connection, sending_start=now() + 72 * HOUR, sending_stop=now() + 73 * HOUR)  # no DAG so far
    assert not asks(watch, connection)


def test_it_is_asked_for_again_until_it_was_parsed_since(connection, watch):
    """Airflow drops a request that comes while it parses the file, and what it parses then may be as of before."""
    campaign_id = a_campaign(connection)
    assert asks(watch, connection)
    was_parsed(campaign_id, began_s=-1.0, took_s=60.0)
    assert asks(watch, connection)
    was_parsed(1, campaign_id, began_s=-1.0, took_s=1.0, each_s=30.0)
    assert asks(watch, connection)
    was_parsed(1, campaign_id, began_s=SURELY, took_s=2.0, each_s=30.0)
    assert not asks(watch, connection)
    forget_parses()
    campaigns.edit(connection, campaign_id, actor="anna", name="Monday")
    assert asks(watch, connection)


def test_when_the_last_campaign_goes_that_is_told_once(connection, watch):
    """No DAG is left that would say when it was parsed."""
    connection.execute("DELETE FROM campaigns")
    assert [asks(watch, connection) for _ in range(3)] == [True, False, False]


def test_a_thread_looks_from_the_server_s_start_to_its_end_whatever_happens_meanwhile(connection, monkeypatch):
    monkeypatch.setattr(dag_watch, "AWAY_S", 0.1)
    monkeypatch.setenv("MAILING_DAG_WATCH_S", "0.1")
    campaign_id = a_campaign(connection)

    with running():
        wait_until(in_airflow_waits)
        was_parsed(campaign_id, began_s=SURELY)
        wait_until(lambda: not asked_anew())
        forget_parses()

        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
        assert len(ended) == 1
        wait_until(in_airflow_waits)  # who parsed while the database was away may have found none
        was_parsed(campaign_id, began_s=SURELY)
        wait_until(lambda: not asked_anew())
        forget_parses()

        a_campaign(connection)
        wait_until(in_airflow_waits)

    wait_until(lambda: "dag-watch" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.parametrize(("setting", "looks"), [("0", False), ("2s", True)])
def test_the_setting_turns_it_off_and_a_wrong_one_keeps_no_server_from_starting(
    connection, monkeypatch, setting, looks
):
    monkeypatch.setenv("MAILING_DAG_WATCH_S", setting)
    with capture_logs() as logs, running():
        assert ("dag-watch" in {thread.name for thread in threading.enumerate()}) == looks
    assert [line["event"] for line in logs if setting in line["event"]] == (
        ["MAILING_DAG_WATCH_S=2s: wanted a number of seconds; it is taken for 2"] if looks else []
    )


def test_the_first_look_tells_for_nobody_knows_what_was_written_before(connection):
    a_campaign(connection)
    assert asks(DagWatch(), connection)


def test_before_airflow_has_parsed_anything_there_is_nothing_to_ask_for(connection):
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.get(DagModel, "upkeep").relative_fileloc = None
    watch = DagWatch()
    a_campaign(connection)
    assert not asks(watch, connection)
