"""Every measurement by the name that `--only` takes, in the order they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench
from benchmarks.row import Row
from benchmarks.rows import latency, memory, page_latency, rollup_ratio, sender_ratio, statistics_growth, throttle

MEASUREMENTS: Mapping[str, Callable[[Bench], list[Row]]] = {
    "sender_ratio": sender_ratio.measure,
    "rollup_ratio": rollup_ratio.measure,
    "throttle": throttle.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "page_latency": page_latency.measure,
    "statistics_growth": statistics_growth.measure,
}
