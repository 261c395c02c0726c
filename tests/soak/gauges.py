"""What is measured all along: memory of each program, connections, rows of each table; and whether that is well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from local.settings import Settings
from tests.chaos.world import World

MIB = 2**20

FLAT_SHARE, FLAT_MIB = 1.15, 24.0
"""A program is flat if in the last quarter it holds no more than the second quarter's times this, and this on top."""

CONNECTIONS = 120
"""At most so many sessions of PostgreSQL, of 200: eight tasks, Airflow's pools, ours, and these measures."""

GROWN_ROWS = 500
"""A table that has so many rows more than at first grows."""

CLEANED = {
    "messages": "retention, by part", "attempts": "retention, by part", "batches": "retention, by part",
    "campaigns": "kept: a row each", "campaign_revisions": "kept: a row per edit", "audit_log": "kept: who did what",
    "state_counts": "kept: a few rows per campaign", "operator_counts": "kept: a few rows per campaign",
    "time_counts": "folded after two minutes, kept", "finishes": "kept: a row per end",
}  # fmt: skip
"""Tables of ours that may grow, and who clears them; parts of the ledger count as their whole.

Of Airflow's tables none may: whether `mailing.cli tidy` clears them is tried (tidying.py).
"""

TIDY_ROWS = 150
"""So many rows more than at first Airflow's tables may hold after that: what happened in its last minute, and since."""

A_ROW_PER_CAMPAIGN = {"asset", "asset_active", "asset_alias_asset"}
"""Airflow's tables that keep `mailing://campaigns/<id>`: it has no way to delete an asset (docs/reporting.md)."""


@dataclass
class Gauges:
    """Every figure by its name, in the order they were taken."""

    memory: dict[str, list[float]] = field(default_factory=dict)  # MiB, by program with all its offspring
    connections: list[dict[str, int]] = field(default_factory=list)  # by role
    rows: list[dict[str, dict[str, int]]] = field(default_factory=list)  # by database and table

    def take(self, world: World) -> None:
        """One of each. A database that is away is left out."""
        for name, state in world.supervisor.states().items():
            if state.pid:
                with suppress(psutil.Error):
                    self.memory.setdefault(name, []).append(held(state.pid))
        with suppress(psycopg.Error):
            self.connections.append(sessions(world.settings.database_url("postgres")))
            self.rows.append({database: rows(world.settings, database) for database in ("mailing", "airflow")})


@dataclass(frozen=True)
class Judged:
    """One figure: what it is, how it began and ended, and whether that is well."""

    name: str
    first: float
    last: float
    limit: float
    is_well: bool
    said: str = ""


def held(pid: int) -> float:
    """MiB that a process and all its offspring hold together. Raises psutil.Error where there is no such process.

    Of pages that processes share, each counts its part (PSS): those of a fork would count for each child otherwise.
    Shared memory is left out: PostgreSQL's buffers fill up to `shared_buffers`, and no further.
    """
    parent = psutil.Process(pid)
    return sum(_held_alone(process) for process in [parent, *parent.children(recursive=True)])


def _held_alone(process: psutil.Process) -> float:
    """0 for one that has ended meanwhile, as tasks and the DAG processor's children do all the time."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except PermissionError:
        # Airflow hides its tasks' memory from all but root. What they share with a fork counts for each of them then.
        with suppress(psutil.Error):
            said = process.memory_info()
            return float(said.rss - said.shared) / MIB
    except (FileNotFoundError, ProcessLookupError):
        pass
    else:
        kib = [int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_File:"))]
        return sum(kib) / 1024
    return 0.0


def flatness(name: str, samples: Sequence[float]) -> Judged:
    """Whether the floor of the last quarter lies within the allowance of the second's; the first one warms up.

    The floor, for tasks and other children of a moment only ever add to a sample: what a program never gives back,
    children that never end among it, is in its lowest samples, too. How many tasks run just then is not.
    """
    quarter = max(1, len(samples) // 4)
    first, last = _floor(samples[quarter : 2 * quarter] or samples), _floor(samples[-quarter:])
    limit = first * FLAT_SHARE + FLAT_MIB
    return Judged(name, first, last, limit, last <= limit, f"at most {max(samples):,.0f}, with what ran for a moment")


def _floor(samples: Sequence[float]) -> float:
    """The lowest tenth: a sample or two may have missed a process that was just starting."""
    return sorted(samples)[len(samples) // 10]


def sessions(url: str) -> dict[str, int]:
    """PostgreSQL's sessions by role, that of this question too; `url`: a superuser's. Others see only their own."""
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        rows = connection.execute(
            "SELECT usename, count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 1"
        )
        return dict(rows.fetchall())


def boundedness(samples: Sequence[Mapping[str, int]]) -> Judged:
    """Whether there were never more connections of all roles together than may be."""
    first, most = sum(samples[0].values()), max(samples, key=lambda each: sum(each.values()))
    last = sum(most.values())
    said = ", ".join(f"{role} {count}" for role, count in most.items())
    return Judged("connections, at most", first, last, CONNECTIONS, last <= CONNECTIONS, said)


def growth(table: str, first: int, last: int) -> Judged | None:
    """A table of ours that grew, and who clears it; None: it did not."""
    if last - first <= GROWN_ROWS:
        return None
    cleaned = CLEANED.get(table)
    said = cleaned or "nobody clears it"
    return Judged(f"mailing.{table}", first, last, first + GROWN_ROWS, cleaned is not None, said)


def tidiness(table: str, first: int, before: int, after: int, campaigns: int) -> Judged | None:
    """A table of Airflow's that grew until it was tidied up, and whether that cleared it; None: it did not grow."""
    limit, what = first + TIDY_ROWS, ""
    if table in A_ROW_PER_CAMPAIGN:
        limit, what = first + campaigns + 1, ", a row per campaign stays"
    if before <= limit and after <= limit:
        return None
    return Judged(f"airflow.{table}, tidied", first, after, limit, after <= limit, f"{before:,} before{what}")


def judge(gauges: Gauges) -> list[Judged]:
    """Everything that was measured, but for Airflow's tables: they are tidied up first."""
    first, last = gauges.rows[0]["mailing"], gauges.rows[-1]["mailing"]
    grown = [growth(table, first.get(table, 0), count) for table, count in sorted(last.items())]
    return [
        *(flatness(f"{name}, MiB", samples) for name, samples in sorted(gauges.memory.items())),
        boundedness(gauges.connections),
        *(each for each in grown if each),
    ]


def rows(settings: Settings, database: str) -> dict[str, int]:
    """Rows of each table, a partition's under the name of its whole. Counted, for statistics lag behind."""
    with _asking(settings, database) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text, c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace ORDER BY 2"
        ).fetchall()
        return {name: _count(connection, f"SELECT count(*) FROM {quoted}") for quoted, name in tables}  # noqa: S608


def rows_of_campaigns(settings: Settings) -> dict[str, int]:
    """How many rows of which table Airflow has of campaigns' DAGs. Its log of who did what is no DAG's history."""
    with _asking(settings, "airflow") as connection:
        tables = connection.execute(
            "SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
            " WHERE attname = 'dag_id' AND relkind = 'r' AND relname <> 'log'"
            " AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        return {
            table: _count(connection, f"SELECT count(*) FROM {table} WHERE dag_id ~ '^campaign_[0-9]+$'")  # noqa: S608
            for (table,) in tables
        }


def living_dags(settings: Settings, seconds: float) -> int:
    """How many DAGs of campaigns were in their file within these seconds, or still are as Airflow believes."""
    with _asking(settings, "airflow") as connection:
        return _count(
            connection,
            "SELECT count(*) FROM dag WHERE dag_id ~ '^campaign_[0-9]+$'"
            " AND (NOT is_stale OR last_parsed_time > now() - make_interval(secs => %s))",
            seconds,
        )


def _asking(settings: Settings, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(settings.database_url(database), autocommit=True, connect_timeout=5)


def _count(connection: psycopg.Connection[Any], statement: str, *parameters: Any) -> int:
    row = connection.execute(statement.encode(), parameters).fetchone()
    return int(row[0]) if row else 0
