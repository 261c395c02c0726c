"""Every measurement by the name that `--only` takes, in the order they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench
from benchmarks.row import Row
from benchmarks.rows import (
    audience_ratio,
    campaign_ratio,
    claim_growth,
    import_ratio,
    latency,
    launch_ratio,
    live_growth,
    memory,
    page_latency,
    parse_growth,
    rollup_ratio,
    sender_ratio,
    slow_gateway,
    stack_memory,
    statistics_growth,
    throttle,
    workers,
)

MEASUREMENTS: Mapping[str, Callable[[Bench], list[Row]]] = {
    "sender_ratio": sender_ratio.measure,
    "rollup_ratio": rollup_ratio.measure,
    "throttle": throttle.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "page_latency": page_latency.measure,
    "statistics_growth": statistics_growth.measure,
    "import_ratio": import_ratio.measure,
    "audience_ratio": audience_ratio.measure,
    "claim_growth": claim_growth.measure,
    "workers": workers.measure,
    "slow_gateway": slow_gateway.measure,
    "parse_growth": parse_growth.measure,
    "stack_memory": stack_memory.measure,
    "launch_ratio": launch_ratio.measure,
    "campaign_ratio": campaign_ratio.measure,
    "live_growth": live_growth.measure,
}
