"""DAGs of campaigns that are long over, taken out of a real Airflow's database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.session import create_session
from sqlalchemy import func, select

from mailing import cli
from tests.builders import a_campaign, an_open_campaign
from tests.dags.test_campaigns import parse

pytestmark = pytest.mark.usefixtures("gateway", "airflow_db")

ROWS = (DagModel, DagRun, SerializedDagModel)


def rows_of(dag_id):
    with create_session() as session:
        return [session.scalar(select(func.count()).where(model.dag_id == dag_id)) for model in ROWS]


def went_stale(dag_id, days):
    with create_session() as session:
        dag = session.get(DagModel, dag_id)
        dag.is_stale, dag.last_parsed_time = True, datetime.now(UTC) - timedelta(days=days)


def test_a_dag_that_is_long_over_is_forgotten_and_its_campaign_is_not(connection, capsys):
    old, _ = an_open_campaign(connection, clients=0)
    recent, live = a_campaign(connection), a_campaign(connection)
    names = [f"campaign_{id_}" for id_ in (old, recent, live)]
    for name in names:
        parse()[name].test()
    went_stale(names[0], 91)
    went_stale(names[1], 89)
    before = [rows_of(name) for name in names]
    assert before[0] == [1, 1, 1]

    assert cli.main(["forget-dags"]) == 0

    assert "1 DAGs of campaigns are forgotten" in capsys.readouterr().out
    assert [rows_of(name) for name in names] == [[0, 0, 0], *before[1:]]
    found = connection.execute("SELECT count(*) AS n FROM campaigns WHERE id = %s", (old,)).fetchone()
    assert found["n"] == 1


def test_days_are_a_whole_number_from_one_on(capsys):
    with pytest.raises(SystemExit):
        cli.main(["forget-dags", "--days", "0"])
    assert "wanted at least 1, got 0" in capsys.readouterr().err
