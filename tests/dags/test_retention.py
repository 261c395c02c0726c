"""The DAG `retention`: what a run by hand and a scheduled one do."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

from tests.test_retention import a_full_part, parts_there

FILE = Path(__file__).parents[2] / "dags" / "retention.py"


@pytest.fixture
def dag():
    bag = DagBag(FILE)
    assert bag.import_errors == {}
    return bag.dags["retention"]


@pytest.fixture
def run(dag, database, airflow_db):
    """A function: params → how a run by hand ended, and what it returned."""

    def run(**params):
        [instance] = dag.test(run_conf=params).get_task_instances()
        return instance.state, instance.xcom_pull(task_ids="remove_old_parts")

    return run


def test_it_runs_each_night_and_by_hand_only_tells_unless_told_otherwise(dag):
    assert dag.schedule == "40 3 * * *"
    assert (dag.params["dry_run"], dag.params["days"], dag.params["how"]) == (True, None, "drop")
    assert "MAILING_KEEP_MESSAGES_DAYS" in dag.doc_md


def test_by_hand_it_tells_what_would_go_and_drops_it_when_told_to(connection, run):
    a_full_part(connection)
    state, said = run(days=30)
    assert (state, [part["messages"] for part in said["would_go"]]) == ("success", [10])
    assert parts_there(connection)[0] == 1
    state, said = run(days=30, dry_run=False)
    assert (state, [part["messages"] for part in said["removed"]]) == ("success", [10])
    assert parts_there(connection)[0] != 1


def test_without_a_number_of_days_a_run_by_hand_says_what_it_wants(connection, run, monkeypatch):
    monkeypatch.delenv("MAILING_KEEP_MESSAGES_DAYS", raising=False)
    state, said = run(dry_run=False)
    assert (state, said) == ("failed", None)
