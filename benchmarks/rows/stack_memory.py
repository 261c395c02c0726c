"""What a stack that has nothing to do holds in memory."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.row import Goal, Row

MIB = 2**20


def measure(bench: Bench) -> list[Row]:
    """PostgreSQL, Airflow and simulator, as they are once up."""
    held = bench.airflow().pss() / MIB
    return [
        Row(
            name="stack_memory",
            what="the whole stack, idle (PSS of all its processes)",
            measured=held,
            goal=Goal("≤", 1_229),
            unit="MiB",
            form=",.0f",
        )
    ]
