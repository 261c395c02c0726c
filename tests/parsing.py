"""Airflow's own database, as far as it says which DAG files were parsed and which are asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest


def in_airflow_waits(dag_file="campaigns.py"):
    """How many requests to parse dags/campaigns.py stand in Airflow's database."""
    from airflow.models.dagbag import DagPriorityParsingRequest
    from airflow.utils.session import create_session

    with create_session() as session:
        return session.query(DagPriorityParsingRequest).filter_by(relative_fileloc=dag_file).count()


def forget_requests():
    """As if Airflow had taken them all."""
    from airflow.models.dagbag import DagPriorityParsingRequest
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(DagPriorityParsingRequest).delete()


def was_parsed(*campaign_ids, began_s=0.0, took_s=0.5, each_s=0.0):
    """As if dags/campaigns.py had been parsed, with these campaigns in it.

    `began_s`: in how many seconds that began; then it took `took_s`, and to write each of them down `each_s`.
    """
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    ended = datetime.now(UTC) + timedelta(seconds=began_s + took_s)
    with create_session() as session:
        for number, id_ in enumerate(campaign_ids):
            dag = DagModel(dag_id=f"campaign_{id_}", bundle_name="of-the-test", relative_fileloc="campaigns.py")
            dag = session.merge(dag)
            dag.last_parsed_time, dag.last_parse_duration = ended + timedelta(seconds=number * each_s), took_s


def forget_parses():
    """As if no campaign had been parsed so far."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        of_file = session.query(DagModel).filter_by(bundle_name="of-the-test", relative_fileloc="campaigns.py")
        of_file.update({"last_parsed_time": None, "last_parse_duration": None})


@pytest.fixture
def upkeep_is_known(airflow_db):
    """As if Airflow had parsed the DAG `upkeep` but no campaign, and nobody had asked for anything."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session

    forget_parses()
    forget_requests()
    with create_session() as session:
        session.merge(DagBundleModel(name="of-the-test"))
        session.flush()
        upkeep = session.merge(DagModel(dag_id="upkeep"))
        upkeep.bundle_name, upkeep.relative_fileloc = "of-the-test", "upkeep.py"
    yield
    forget_parses()
    forget_requests()
