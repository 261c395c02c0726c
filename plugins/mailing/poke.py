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


WRITING = timedelta(seconds=2)
"""What may lie between the end of a parse and the moment that Airflow notes of it: it locks its rows before."""


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
    from sqlalchemy import func, select

    with create_session() as session:
        if (place := _place(session)) is None:
            return False
        bundle, file = place
        of_file = DagModel.bundle_name == bundle, DagModel.relative_fileloc == file
        latest = (
            select(DagModel.last_parse_duration)
            .where(*of_file, DagModel.last_parsed_time.is_not(None))
            .order_by(DagModel.last_parsed_time.desc())
            .limit(1)
        ).scalar_subquery()
        # A parse's DAGs are written one after the other, each with its own moment and the duration of all.
        written = select(func.min(DagModel.last_parsed_time), func.min(DagModel.last_parse_duration))
        first, took_s = session.execute(written.where(*of_file, DagModel.last_parse_duration == latest)).one()
    if first is None or took_s is None:
        return False
    return bool(first - timedelta(seconds=took_s) - WRITING > moment)


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
