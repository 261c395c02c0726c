"""The watch that has the DAGs of campaigns parsed; tests/stack has it run by a real API server."""

from __future__ import annotations

import pytest

from mailing import campaigns, runs
from mailing.dag_watch import DagWatch
from tests.builders import HOUR, a_campaign, now
from tests.parsing import forget_requests, in_airflow_waits, was_parsed

pytestmark = pytest.mark.usefixtures("upkeep_is_known")


@pytest.fixture
def watch(connection):
    """A watch that has seen one campaign, of which Airflow knows."""
    campaign_id = a_campaign(connection)
    watch = DagWatch()
    watch.look(connection)
    was_parsed(campaign_id)
    watch.look(connection)
    forget_requests()
    return watch


def asks(watch, connection):
    """Whether it asks Airflow to parse the file, at this look."""
    watch.look(connection)
    found = in_airflow_waits()
    forget_requests()
    return bool(found)


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
    was_parsed(campaign_id, took_s=60.0)
    assert asks(watch, connection)
    was_parsed(campaign_id)
    assert not asks(watch, connection)
    campaigns.edit(connection, campaign_id, actor="anna", name="Monday")
    assert asks(watch, connection)


def test_the_first_look_tells_for_nobody_knows_what_was_written_before(connection):
    a_campaign(connection)
    assert asks(DagWatch(), connection)


def test_before_airflow_has_parsed_anything_there_is_nothing_to_ask_for(connection):
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(DagModel).filter_by(dag_id="upkeep").delete()
    watch = DagWatch()
    a_campaign(connection)
    assert not asks(watch, connection)
