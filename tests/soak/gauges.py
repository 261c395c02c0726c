"""What is measured all along: memory of each program, connections, rows of each table; and whether that is well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import psycopg

from local.settings import Settings
from tests.chaos.world import World

MIB = 2**20

FLAT_SHARE, FLAT_MIB = 1.05, 24.0
"""A program is flat if what lasts of it holds in the last quarter no more than the second quarter's times this,
and this on top."""

MORE_PROCESSES = 10
"""So many processes more than in the second quarter a program may have all through the last: eight tasks, and two."""

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


Holding = Mapping[tuple[int, float], float]
"""MiB of anonymous memory of a process and its offspring at one moment, by pid and seconds from boot to its start."""


@dataclass
class Gauges:
    """Every figure by its name, in the order they were taken."""

    memory: dict[str, list[Holding]] = field(default_factory=dict)  # by program
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


def held(pid: int) -> Holding:
    """What a process and all its offspring hold for themselves. Raises psutil.Error where there is no such process.

    Anonymous memory: files they map are the kernel's to drop, and shared memory is PostgreSQL's buffers, which fill up
    to `shared_buffers`, and no further. What a fork still shares with its parent counts for both.
    """
    parent, found, booted = psutil.Process(pid), {}, psutil.boot_time()  # both times move when the clock is set
    for process in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile, as tasks and parsers do all the time
            memory = process.memory_info()
            found[process.pid, round(process.create_time() - booted, 2)] = (memory.rss - memory.shared) / MIB
    return found


def flatness(name: str, samples: Sequence[Holding]) -> Judged:
    """Whether those processes that were there all through the second quarter and the last hold no more than they did.

    The first quarter warms up. Tasks and other children of a moment are left out; their number is `offspring`'s.
    """
    early, late = _quarters(samples)
    lasting = set.intersection(*(set(each) for each in (*early, *late)))
    first, last = (_floor([sum(each[one] for one in lasting) for each in part]) for part in (early, late))
    limit = first * FLAT_SHARE + FLAT_MIB
    most = max(sum(each.values()) for each in samples)
    said = f"of {len(lasting)} that lasted; {most:,.0f} at most, with what ran for a moment"
    return Judged(f"{name}, MiB", first, last, limit, bool(lasting) and last <= limit, said)


def offspring(name: str, samples: Sequence[Holding]) -> Judged:
    """Whether children come and go: those that never end are in the lowest samples, too."""
    early, late = _quarters(samples)
    first, last = (_floor([len(each) for each in part]) for part in (early, late))
    limit = first + MORE_PROCESSES
    return Judged(f"{name}, processes", first, last, limit, last <= limit, f"{max(map(len, samples))} at most")


def _quarters(samples: Sequence[Holding]) -> tuple[Sequence[Holding], Sequence[Holding]]:
    """The second and the last, or all twice where there are less than four."""
    quarter = len(samples) // 4
    return (samples[quarter : 2 * quarter], samples[-quarter:]) if quarter else (samples, samples)


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
    elif table == "log":
        limit, what = limit + campaigns, ", a row per DAG that was deleted is new"  # who did what: tidy did
    if before <= limit and after <= limit:
        return None
    return Judged(f"airflow.{table}, tidied", first, after, limit, after <= limit, f"{before:,} before{what}")


def judge(gauges: Gauges) -> list[Judged]:
    """Everything that was measured, but for Airflow's tables: they are tidied up first."""
    first, last = gauges.rows[0]["mailing"], gauges.rows[-1]["mailing"]
    grown = [growth(table, first.get(table, 0), count) for table, count in sorted(last.items())]
    return [
        *(judged(name, samples) for name, samples in sorted(gauges.memory.items()) for judged in (flatness, offspring)),
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
