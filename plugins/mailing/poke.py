"""Tells Airflow that campaigns were written, to have their DAGs parsed at once, and asks whether they were."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

NEIGHBOUR = "upkeep"
"""A DAG that is always there, in the same folder of the same bundle as dags/campaigns.py."""


def campaigns() -> None:
    """Ask for dags/campaigns.py to be parsed next. For the API server only: tasks may not touch Airflow's database.

    Where that fails nothing is lost: the file is parsed again in any case (see also `dag_watch`).
    """
    from airflow.models.dagbag import DagPriorityParsingRequest
    from airflow.utils.session import create_session

    try:
        with create_session() as session:
            if (place := _place(session)) is not None:
                session.add(DagPriorityParsingRequest(*place))
    except IntegrityError:
        return  # somebody asked already
    except SQLAlchemyError as error:
        log.warning("Airflow was not told of the campaign: it will see it by itself", error=type(error).__name__)


def parsed_since(moment: datetime) -> bool:
    """Whether Airflow began to parse dags/campaigns.py after this moment, and has done so. For the API server only."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        if (place := _place(session)) is None:
            return False
        bundle, file = place
        of_file = DagModel.bundle_name == bundle, DagModel.relative_fileloc == file
        latest = select(DagModel.last_parsed_time, DagModel.last_parse_duration).where(*of_file)
        found = session.execute(latest.order_by(DagModel.last_parsed_time.desc().nulls_last()).limit(1)).first()
    if found is None or found.last_parsed_time is None:
        return False
    began: datetime = found.last_parsed_time - timedelta(seconds=found.last_parse_duration or 0.0)
    return began > moment


def _place(session: Session) -> tuple[str, str] | None:
    """The bundle of dags/campaigns.py and its path there; None: the folder was not parsed so far."""
    from airflow.models.dag import DagModel
    from sqlalchemy import select

    found = session.execute(
        select(DagModel.bundle_name, DagModel.relative_fileloc).where(DagModel.dag_id == NEIGHBOUR)
    ).first()
    if found is None or not found.relative_fileloc:
        return None
    return found.bundle_name, str(PurePosixPath(found.relative_fileloc).with_name("campaigns.py"))
