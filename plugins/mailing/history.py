"""What Airflow keeps of runs, tasks and campaigns that are long over goes: its own rows, never the ledger's.

For whoever may use Airflow's command line, for that is what cleans: `airflow dags delete` and `airflow db clean`, in
this process, since to start one takes seconds. Tasks may not touch Airflow's database.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from airflow.configuration import conf
from airflow.exceptions import DagNotFound
from airflow.sdk.exceptions import AirflowException

from mailing.roster import DAG_PREFIX

TABLES = (
    "asset_event", "callback", "connection_test_request", "dag_run", "dag_version", "deadline", "import_error", "job",
    "log", "partitioned_asset_key_log", "revoked_token", "task_instance", "task_instance_history", "task_reschedule",
    "task_state_store", "xcom",
)  # fmt: skip
"""What `airflow db clean` cleans, and with it all that belongs to these rows.

Without `dag`, at which it fails: a task that was skipped has no time, so it stays, and its DAG's version with it.
Without `trigger`: the scheduler removes those that nobody waits for, and one may wait for longer than history is kept.
"""

CELERY_TABLES = ("celery_taskmeta", "celery_tasksetmeta")
"""Celery's results, where there is a CeleryExecutor."""

ROWS_AT_A_TIME = 10_000
"""So many are locked and removed in one transaction."""


@dataclass(frozen=True, slots=True)
class Tidied:
    """`dags`: those that went (or would go); `kept`: those that Airflow would not delete, and why.

    `before`: runs and tasks that began before it went; `unfinished`: the DAG of the run that made it an earlier moment.
    """

    dags: list[str]
    kept: dict[str, str]
    before: datetime
    unfinished: str | None


def tidy(before: datetime, *, dry_run: bool = False) -> Tidied:
    """Remove what Airflow kept of everything before this moment; `dry_run`: only tell.

    The DAGs of campaigns go that left dags/campaigns.py before it (a day after their stop), with all that Airflow has
    of them; of all other DAGs, runs and tasks that began before it, but for the last run that they were scheduled for.
    Nothing goes that is younger than a run that has not ended. Raises what `airflow db clean` raises.
    """
    gone, kept = [], {}
    for dag_id in _gone(before):
        if why := None if dry_run else _delete(dag_id):
            kept[dag_id] = why
        else:
            gone.append(dag_id)
    # Else the command would take its tasks away from the run: it asks when they began, not what they do. (It can be
    # told to leave a DAG out, and fails then at tables that it believes to know the DAG.)
    unfinished, before = _oldest_unfinished(before, gone) or (None, before)
    _run(
        "db", "clean", "--clean-before-timestamp", before.isoformat(), "--yes", "--skip-archive",
        "--error-on-cleanup-failure", "--batch-size", str(ROWS_AT_A_TIME), "--tables", ",".join(_tables()),
        *(["--dry-run"] if dry_run else []),
    )  # fmt: skip
    return Tidied(gone, kept, before, unfinished)


def _gone(before: datetime) -> list[str]:
    """The DAGs of campaigns that no file has had since then. Airflow calls them stale."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found: Sequence[str] = session.scalars(
            select(DagModel.dag_id).where(DagModel.is_stale, DagModel.last_parsed_time < before)
        ).all()
    numbers = [each.removeprefix(DAG_PREFIX) for each in found if each.startswith(DAG_PREFIX)]
    return [f"{DAG_PREFIX}{number}" for number in sorted((each for each in numbers if each.isdecimal()), key=int)]


def _oldest_unfinished(before: datetime, gone: list[str]) -> tuple[str, datetime] | None:
    """The DAG and the start of the oldest run that goes on since before then, but for those of DAGs that are gone."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.execute(
            select(DagRun.dag_id, DagRun.start_date)
            .where(DagRun.start_date < before, DagRun.state.in_(["queued", "running"]))
            .order_by(DagRun.start_date)
        ).all()
    return next(((dag_id, began) for dag_id, began in found if began and dag_id not in gone), None)


def _tables() -> tuple[str, ...]:
    return TABLES + (CELERY_TABLES if "Celery" in conf.get("core", "executor") else ())


def _delete(dag_id: str) -> str | None:
    """Why the DAG stays; None: it is gone."""
    try:
        _run("dags", "delete", dag_id, "--yes")
    except DagNotFound:
        return None
    except AirflowException as error:  # a task of it runs
        return str(error)
    return None


def _run(*arguments: str) -> None:
    """Run a command of Airflow's command line; what it prints is dropped. Raises what it raises."""
    options = _parser().parse_args(arguments)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        options.func(options)


@cache
def _parser() -> argparse.ArgumentParser:
    from airflow.cli import cli_parser

    return cli_parser.get_parser()
