"""What is measured all along: memory of each process, connections, rows of each table; and whether that is well."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import psutil
import psycopg

from tests.chaos.world import World

MIB = 2**20

FLAT_SHARE, FLAT_MIB = 1.15, 24.0
"""A process is flat if in the last quarter it holds no more than the second quarter's times this, and this on top."""

CONNECTIONS = 120
"""At most so many sessions of PostgreSQL, of 200, of all roles: eight tasks, Airflow's pools, ours, these measures."""

GROWN_ROWS = 500
"""A table that has so many rows more than at first grows."""

HISTORY = ("dag_run", "task_instance", "task_instance_history", "xcom", "log", "job", "asset_event")
"""What the documents have `airflow db clean` clear: without `dag`, of which Airflow keeps the last run, and fails."""

WITH_RUNS = (
    "rendered_task_instance_fields",
    "task_map",
    "trigger",
    "task_instance_note",
    "dagrun_asset_event",
    "task_reschedule",
)
"""What goes with the rows of HISTORY, by foreign keys or because Airflow clears it itself."""

WITH_DAGS = (
    "dag", "dag_tag", "dag_version", "dag_code", "serialized_dag", "dag_favorite", "dag_owner_attributes",
    "task_outlet_asset_reference", "dag_schedule_asset_reference",
)  # fmt: skip

CLEANED = {
    "mailing": {
        "messages": "retention, by part", "attempts": "retention, by part", "batches": "retention, by part",
        "campaigns": "kept: a row each", "revisions": "kept: a row per edit", "audit_log": "kept: who did what",
        "state_counts": "kept: a few rows per campaign", "operator_counts": "kept: a few rows per campaign",
        "time_counts": "folded after two minutes, kept", "finishes": "kept: a row per end",
    },
    "airflow": {
        **dict.fromkeys((*HISTORY, *WITH_RUNS), "airflow db clean"),
        **dict.fromkeys(WITH_DAGS, "mailing.cli forget-dags"),
    },
}  # fmt: skip
"""Tables that may grow, and who clears them; parts of the ledger count as their whole."""


@dataclass
class Gauges:
    """Every figure by its name, in the order they were taken."""

    memory: dict[str, list[float]] = field(default_factory=dict)  # MiB, by process
    connections: list[int] = field(default_factory=list)
    rows: list[dict[tuple[str, str], int]] = field(default_factory=list)  # by database and table

    def take(self, world: World) -> None:
        """One of each. A database that is away is left out."""
        for name, state in world.supervisor.states().items():
            if state.pid:
                self.memory.setdefault(name, []).append(held_mib(state.pid))
        with suppress(psycopg.Error):
            self.connections.append(_sessions(world))
            self.rows.append({**_rows(world, "mailing"), **_rows(world, "airflow")})


@dataclass(frozen=True)
class Judged:
    """One figure: what it is, how it began and ended, and whether that is well."""

    name: str
    first: float
    last: float
    limit: float
    is_well: bool
    said: str = ""


def flatness(name: str, samples: Sequence[float]) -> Judged:
    """Whether the median of the last quarter lies within the allowance of the second's; the first one warms up."""
    quarter = max(1, len(samples) // 4)
    first, last = median(samples[quarter : 2 * quarter] or samples), median(samples[-quarter:])
    limit = first * FLAT_SHARE + FLAT_MIB
    return Judged(name, first, last, limit, last <= limit)


def boundedness(samples: Sequence[int]) -> Judged:
    """Whether there were never more connections than may be."""
    return Judged("connections, at most", samples[0], max(samples), CONNECTIONS, max(samples) <= CONNECTIONS)


def growth(database: str, table: str, first: int, last: int) -> Judged | None:
    """A table that grew, and who clears it; None: it did not."""
    if last - first <= GROWN_ROWS:
        return None
    cleaned = CLEANED[database].get(table)
    said = cleaned or "nobody clears it"
    return Judged(f"{database}.{table}", first, last, first + GROWN_ROWS, cleaned is not None, said)


def judge(gauges: Gauges) -> list[Judged]:
    """Everything that was measured."""
    grown = [growth(*table, gauges.rows[0].get(table, 0), count) for table, count in sorted(gauges.rows[-1].items())]
    return [
        *(flatness(f"{name}, MiB", samples) for name, samples in sorted(gauges.memory.items())),
        boundedness(gauges.connections),
        *(each for each in grown if each),
    ]


def held_mib(pid: int) -> float:
    """What a program holds with all that it started: its tasks, its trigger runner, PostgreSQL's sessions.

    Only what each has for itself (USS), for there a leak is: shared buffers fill up, no further than they are large.
    Tasks come and go, and are in some samples; a median over a quarter of the samples hardly minds them.
    """
    held = 0
    with suppress(psutil.Error):
        program = psutil.Process(pid)
        for process in (program, *program.children(recursive=True)):
            with suppress(psutil.Error):
                held += process.memory_full_info().uss
    return held / MIB


def _sessions(world: World) -> int:
    """As the superuser: another role is not told of the sessions of others."""
    url = world.settings.database_url("postgres")
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        ).fetchone()
    return int(row[0]) if row else 0


def _rows(world: World, database: str) -> dict[tuple[str, str], int]:
    """Rows of each table, a partition's under the name of its whole. Counted, for statistics lag behind."""
    with psycopg.connect(world.settings.database_url(database), autocommit=True, connect_timeout=5) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text, c.relname FROM pg_class c"
            " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace"
        ).fetchall()
        counts = {}
        for quoted, name in tables:
            row = connection.execute(f"SELECT count(*) FROM {quoted}").fetchone()  # noqa: S608
            counts[database, name] = row[0] if row else 0
        return counts
