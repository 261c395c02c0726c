"""Takes the DAGs of campaigns that are long over out of Airflow's metadata database, with their runs.

For a host that has Airflow's own configuration (API server, scheduler): tasks may not touch that database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog
from airflow.sdk.exceptions import AirflowException

from mailing import roster

log = structlog.get_logger(__name__)


def forget(days: int) -> list[str]:
    """Delete the DAGs of campaigns that Airflow has not parsed for so many days, as it deletes any other. Their ids.

    A campaign is a DAG until a day after its stop. Its rows of ours (campaign, messages, figures) stay. One whose tasks
    still run is left for the next time.
    """
    from airflow.api.common.delete_dag import delete_dag
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    before = datetime.now(UTC) - timedelta(days=days)
    with create_session() as session:
        stale = select(DagModel.dag_id).where(
            DagModel.dag_id.startswith(roster.DAG_PREFIX, autoescape=True),
            DagModel.is_stale,
            DagModel.last_parsed_time < before,
        )
        dag_ids = session.scalars(stale.order_by(DagModel.dag_id)).all()
    forgotten = []
    for dag_id in dag_ids:
        try:
            delete_dag(dag_id)
        except AirflowException as error:
            log.warning("its DAG stays", dag_id=dag_id, error=str(error))
            continue
        forgotten.append(dag_id)
    return forgotten
