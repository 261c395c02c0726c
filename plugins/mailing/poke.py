"""Tells Airflow that campaigns were written: their DAGs are parsed at once instead of at the next round."""

from __future__ import annotations

from pathlib import PurePosixPath

import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

log = structlog.get_logger(__name__)

NEIGHBOUR = "upkeep"
"""A DAG that is always there, in the same folder of the same bundle as dags/campaigns.py."""


def campaigns() -> None:
    """Ask for dags/campaigns.py to be parsed next. For the API server only: tasks may not touch Airflow's database.

    Where that fails nothing is lost: the file is parsed again in any case, within seconds.
    """
    from airflow.models.dag import DagModel
    from airflow.models.dagbag import DagPriorityParsingRequest
    from airflow.utils.session import create_session
    from sqlalchemy import select

    try:
        with create_session() as session:
            found = session.execute(
                select(DagModel.bundle_name, DagModel.relative_fileloc).where(DagModel.dag_id == NEIGHBOUR)
            ).first()
            if found is None or not found.relative_fileloc:
                return  # the folder was never parsed so far: it is about to be
            file = str(PurePosixPath(found.relative_fileloc).with_name("campaigns.py"))
            session.add(DagPriorityParsingRequest(found.bundle_name, file))
    except IntegrityError:
        return  # somebody asked already
    except SQLAlchemyError as error:
        log.warning("Airflow was not told of the campaign: it will see it by itself", error=type(error).__name__)
