"""Airflow's own history goes, by the command line, from a metadata database of Airflow's own making."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest
from airflow.utils.db_cleanup import config_dict

from local.settings import free_port
from mailing import history
from tests.builders import a_campaign
from tests.test_cli import mailing

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@pytest.fixture(scope="module")
def metadata_url(server):
    environment = {**os.environ, CONNECTION: server.url("airflow", scheme="postgresql+psycopg")}
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    return server.url("airflow")


@pytest.fixture
def metadata(metadata_url, monkeypatch):
    """A connection to Airflow's metadata, which the commands use from now on, too."""
    monkeypatch.setenv(CONNECTION, metadata_url.replace("postgresql:", "postgresql+psycopg:"))
    with psycopg.connect(metadata_url, autocommit=True) as connection:
        yield connection


def airflow(*arguments):
    subprocess.run([sys.executable, "-m", "airflow", *arguments], check=True, capture_output=True)


def dags(metadata):
    """The DAGs that each table has rows of."""
    return {
        table: {dag_id for (dag_id,) in metadata.execute(f"SELECT dag_id FROM {table}")}  # noqa: S608
        for table in ("dag", "dag_version", "dag_code", "serialized_dag", "dag_tag")
    }


def runs(metadata, table="dag_run"):
    return {dag_id for (dag_id,) in metadata.execute(f"SELECT dag_id FROM {table}")}  # noqa: S608


def happened(metadata, days, dag_id, state):
    """The DAG's run began so many days ago."""
    metadata.execute(
        "UPDATE dag_run SET state = %s, start_date = now() - make_interval(days => %s) WHERE dag_id = %s",
        (state, days, dag_id),
    )


def test_what_is_cleaned_leaves_out_only_what_is_named():
    left_out = {"dag", "trigger", "_xcom_archive"}
    assert {*history.TABLES, *history.CELERY_TABLES} == set(config_dict) - left_out


def test_what_is_long_over_goes_and_what_goes_on_stays(metadata, connection):
    old, recent = (f"campaign_{a_campaign(connection)}" for _ in range(2))
    airflow("dags", "reserialize")
    for dag_id in (old, recent, "upkeep"):
        airflow("dags", "trigger", dag_id)
    happened(metadata, 100, old, state="running")  # nobody goes on with it: its DAG is gone
    happened(metadata, 80, recent, state="running")
    happened(metadata, 100, "upkeep", state="success")
    # Not its tasks: as those that were skipped, they have no time. `airflow db clean` fails at such a DAG.
    metadata.execute("UPDATE task_instance SET start_date = now() - interval '100 days' WHERE dag_id = 'upkeep'")
    metadata.execute("UPDATE dag SET is_stale = true WHERE dag_id IN (%s, %s)", (old, recent))
    metadata.execute("UPDATE dag SET last_parsed_time = now() - interval '100 days' WHERE dag_id = %s", (old,))
    before = dags(metadata)

    told = mailing("tidy", "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "1 DAGs of campaigns, " in told.stdout
    assert (dags(metadata), runs(metadata)) == (before, {old, recent, "upkeep"})

    done = mailing("tidy", "--days", "90")

    assert done.returncode == 0, done.stderr
    assert "1 DAGs of campaigns, and runs and tasks before" in done.stdout
    assert dags(metadata) == {table: ids - {old} for table, ids in before.items()}
    assert {old, recent} <= before["serialized_dag"]
    assert runs(metadata) == runs(metadata, "task_instance") == {recent}

    metadata.execute("UPDATE task_instance SET start_date = now() - interval '79 days'")
    again = mailing("tidy", "--days", "70")
    assert f"a run of {recent} goes on for longer than that" in again.stdout
    assert runs(metadata) == runs(metadata, "task_instance") == {recent}


def test_a_wrong_number_of_days_and_a_database_that_is_away_are_one_line_and_exit_code_1(monkeypatch):
    wrong = mailing("tidy", "--days", "-1")
    assert (wrong.returncode, wrong.stderr) == (1, "mailing: days: wanted a number from 0 on, got -1.0\n")
    monkeypatch.setenv(CONNECTION, f"postgresql+psycopg://x:not_shown@127.0.0.1:{free_port()}/airflow")
    away = mailing("tidy")
    assert away.returncode == 1
    assert "Airflow's database is away" in away.stderr
    assert "Traceback" not in away.stderr
    assert "not_shown" not in away.stderr
