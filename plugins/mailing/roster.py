"""Which campaigns are DAGs now: read whenever Airflow parses dags/campaigns.py.

It never raises for what a row or the database can do: an exception at parse time makes every campaign's DAG stale.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import structlog
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

from mailing import campaigns, db
from mailing.campaigns import CampaignRow

log = structlog.get_logger(__name__)

DAG_PREFIX = "campaign_"

SHORT_FIRST = 10
"""The priority of tasks that take a second, where those that send have 1: of what waits for a slot, they come first."""


def dag_id(campaign_id: int) -> str:
    """The id of a campaign's DAG."""
    return f"{DAG_PREFIX}{campaign_id}"


def snapshot_file() -> Path:
    """Where the last answer of the database is kept for the time it is away: ids, names and windows, nothing else."""
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    return Path(os.environ.get("MAILING_SNAPSHOT_FILE") or home / "mailing-campaigns.json")


def read(only_dag: str | None = None) -> Iterator[CampaignRow]:
    """The campaigns to build DAGs for, by id; `only_dag` (in a task's process): just that one, by its DAG's id.

    One query. A row that makes no sense is left out and logged; while the database is away, the last answer counts.
    """
    for row in _rows(only_dag):
        try:
            yield CampaignRow.from_json(row)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            log.error("gets no DAG, its row cannot be read", campaign_id=row.get("id"), error=str(error))


def _rows(only_dag: str | None) -> list[dict[str, Any]]:
    if only_dag is not None and not only_dag.removeprefix(DAG_PREFIX).isdecimal():
        return []  # another file's DAG
    only_id = int(only_dag.removeprefix(DAG_PREFIX)) if only_dag else None
    try:
        with db.transaction() as connection:
            if only_id is not None:
                return campaigns.for_dag(connection, only_id)
            rows = campaigns.relevant(connection)
    except (psycopg.Error, AirflowException, AirflowRuntimeError) as error:  # the connection may be undefined, too
        log.error("the mailing database is away: campaigns as of the last answer", error=type(error).__name__)
        return [row for row in _read_snapshot() if only_id in (None, row.get("id"))]
    _write_snapshot(rows)
    return rows


def _read_snapshot() -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(snapshot_file().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.error("no snapshot of the campaigns either", error=str(error))
        return []
    return rows


def _write_snapshot(rows: list[dict[str, Any]]) -> None:
    """Replace the snapshot if it says something else; a host that cannot write one works without."""
    file, text = snapshot_file(), json.dumps(rows)
    try:
        if file.exists() and file.read_text(encoding="utf-8") == text:
            return
        with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", delete=False) as unfinished:
            unfinished.write(text)
        Path(unfinished.name).replace(file)
    except OSError as error:
        log.warning("the snapshot of the campaigns was not written", error=str(error))
