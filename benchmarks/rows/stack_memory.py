"""What a stack that has nothing to do holds in memory."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.bench import Bench
from benchmarks.row import Goal, Row

MIB = 2**20
PAUSE_S = 1.0


def measure(bench: Bench) -> list[Row]:
    """PostgreSQL, Airflow and simulator, as they are most of the time once up."""
    airflow, held = bench.airflow(), []
    looks = bench.pick(60, 20)  # for a minute: upkeep's tasks of each come and go in it
    for _ in range(looks):
        time.sleep(PAUSE_S)  # a look's pause
        held.append(airflow.pss() / MIB)
    return [
        Row(
            name="stack_memory",
            what=f"the whole stack, idle for {looks} s (median PSS of all its processes)",
            measured=median(held),
            goal=Goal("≤", 1_229),
            unit="MiB",
            form=",.0f",
            spread=(min(held), max(held)),
        )
    ]
