"""What a stack that has nothing to do holds in memory."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.bench import Bench
from benchmarks.row import Goal, Row

MIB = 2**20
LOOKS, PAUSE_S = 60, 1.0
"""A look each second for a minute: upkeep's tasks of each minute come and go in it."""


def measure(bench: Bench) -> list[Row]:
    """PostgreSQL, Airflow and simulator, as they are most of the time once up."""
    airflow, held = bench.airflow(), []
    for _ in range(LOOKS):
        time.sleep(PAUSE_S)  # a look's pause
        held.append(airflow.pss() / MIB)
    return [
        Row(
            name="stack_memory",
            what="the whole stack, idle for a minute (median PSS of all its processes)",
            measured=median(held),
            goal=Goal("≤", 1_229),
            unit="MiB",
            form=",.0f",
            spread=(min(held), max(held)),
        )
    ]
