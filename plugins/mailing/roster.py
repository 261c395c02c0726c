"""Which campaigns are DAGs now: read whenever Airflow parses dags/campaigns.py.

It never raises for what a row or the database can do: an exception at parse time makes every campaign's DAG stale.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import structlog
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

from mailing import campaigns, db
from mailing.campaigns import CampaignRow
from mailing.window import Window

log = structlog.get_logger(__name__)

DAG_PREFIX = "campaign_"

SHORT_FIRST = 10
"""The priority of tasks that take a second, where those that send have 1: of what waits for a slot, they come first."""


ALWAYS = Window(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
"""In a task's process: there nobody looks at the schedule of its DAG."""


def dag_id(campaign_id: int) -> str:
    """The id of a campaign's DAG."""
    return f"{DAG_PREFIX}{campaign_id}"


def snapshot_file() -> Path:
    """Where the last answer of the database is kept for the time it is away: ids, names and windows, nothing else."""
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    return Path(os.environ.get("MAILING_SNAPSHOT_FILE") or home / "mailing-campaigns.json")


def read(only_dag: str | None = None, *, for_task: bool = False) -> Iterator[CampaignRow]:
    """The campaigns to build DAGs for, by id; `only_dag`: just that one, by its DAG's id.

    One query. A row that makes no sense is left out and logged; while the database is away, the last answer counts.
    `for_task`: in the process of a task of `only_dag`; then the database is not asked.
    """
    if only_dag is not None and for_task:
        yield from _of_task(only_dag)
        return
    for row in _rows():
        if only_dag not in (None, dag_id(row.get("id", 0))):
            continue
        try:
            yield CampaignRow.from_json(row)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            log.error("gets no DAG, its row cannot be read", campaign_id=row.get("id"), error=str(error))


def _of_task(only_dag: str) -> Iterator[CampaignRow]:
    """The campaign whose task this process runs, if it is one's.

    A task knows the campaign's id and reads what it needs when it runs. `is_live`, so that `follow_audience` is there.
    """
    campaign_id = only_dag.removeprefix(DAG_PREFIX)
    if only_dag.startswith(DAG_PREFIX) and campaign_id.isdecimal():
        yield CampaignRow(int(campaign_id), name=None, window=ALWAYS, wake_at=None, is_live=True)


def _rows() -> list[dict[str, Any]]:
    try:
        with db.transaction() as connection:
            rows = campaigns.relevant(connection)
    except (psycopg.Error, AirflowException, AirflowRuntimeError) as error:  # the connection may be undefined, too
        log.error("the mailing database is away: campaigns as of the last answer", error=type(error).__name__)
        return _read_snapshot()
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
