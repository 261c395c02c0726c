"""Whether statistics cost more where there are more messages."""

from __future__ import annotations

import statistics as stats
import time
from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench
from benchmarks.database import Database, on_one_processor
from benchmarks.row import BrokenMeasurement, Goal, Row
from mailing import db, statistics

FEW = 100_000
CALLS = 200
CAMPAIGNS = 20

Call = Callable[[db.Connection], Any]
CALLS_OF: dict[str, Call] = {
    "overall": statistics.overall,
    "a page of campaigns": statistics.page,
    "one campaign": lambda connection: statistics.get(connection, CAMPAIGNS // 2),
}


def measure(bench: Bench) -> list[Row]:
    """Median times of overall and per-campaign statistics of ten million messages ÷ of a hundred thousand."""
    many = bench.pick(10_000_000, 1_000_000)
    with bench.database() as small, bench.database() as large:
        for database, size in ((small, FEW), (large, many)):
            began = time.monotonic()
            database.add_ledger(CAMPAIGNS, size // CAMPAIGNS)
            bench.say(f"{size:,} messages of {CAMPAIGNS} campaigns written in {time.monotonic() - began:.0f} s")
            counted = sum(statistics.overall(database.connection).messages.values())
            if counted != size:
                raise BrokenMeasurement(f"wanted {size:,} messages counted, got {counted:,}")
        return [_row(bench, what, call, many, small, large) for what, call in CALLS_OF.items()]


def _row(bench: Bench, what: str, call: Call, many: int, small: Database, large: Database) -> Row:
    few_ms, many_ms = [], []
    with on_one_processor(small, large):
        for _ in range(CALLS):
            few_ms.append(_ms(call, small.connection))
            many_ms.append(_ms(call, large.connection))
    of_few, of_many = stats.median(few_ms), stats.median(many_ms)
    bench.say(f"{what}: {of_few:.2f} ms of {FEW:,} messages, {of_many:.2f} ms of {many:,}")
    return Row(
        name="statistics_growth",
        what=f"statistics, {what}: of {many:,} messages ÷ of {FEW:,}",
        measured=of_many / of_few,
        goal=Goal("≤", 1.3),
        details={"few": FEW, "many": many, "calls": CALLS, "few_ms": of_few, "many_ms": of_many},
    )


def _ms(call: Call, connection: db.Connection) -> float:
    began = time.perf_counter()
    call(connection)
    return (time.perf_counter() - began) * 1_000
