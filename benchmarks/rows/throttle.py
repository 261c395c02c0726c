"""Whether several sending processes keep to the gateway's limit together, and use all of it."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.gateways import Simulator
from benchmarks.row import BrokenMeasurement, Goal, Row

LIMITS = (50, 200, 1_000)  # messages a second
PROCESSES = 4
IN_FLIGHT = 400
LATENCY_S = 0.05
RAMP_S = 1.0
"""Left out of the mean at each end."""


def measure(bench: Bench) -> list[Row]:
    """For each limit: the mean rate that the gateway saw, and the most that came within any one second."""
    rows = []
    with bench.database() as database, bench.simulator() as gateway:
        for limit in bench.pick(LIMITS, LIMITS[1:]):
            rows += _measure_limit(bench, database, gateway, limit)
    return rows


def _measure_limit(bench: Bench, database: Database, gateway: Simulator, limit: int) -> list[Row]:
    size = limit * bench.pick(10, 6)
    gateway.reset(latency={"kind": "fixed", "seconds": LATENCY_S})
    database.set_gateway(requests_in_flight=IN_FLIGHT, messages_per_second=limit)
    campaign = database.open_campaign(database.add_clients(size), batch_size=-(-size // PROCESSES))
    if len(campaign.batches) != PROCESSES:
        raise BrokenMeasurement(f"campaign {campaign.id}: wanted {PROCESSES} batches, got {campaign.batches}")
    with ExitStack() as stack:
        children = [stack.enter_context(bench.sender(database, gateway, campaign, batch)) for batch in campaign.batches]
        for child in children:  # only now: each of them has done its imports
            child.go()
        reports = [child.finished() for child in children]
    database.all_sent(campaign)
    arrivals = sorted(gateway.arrivals())
    mean, most = mean_rate(arrivals), most_in_a_second(arrivals)
    seconds = arrivals[-1] - arrivals[0]
    bench.say(f"limit {limit:,}/s: {len(arrivals):,} in {seconds:.1f} s, mean {mean:,.1f}/s, at most {most:,} in 1 s")
    details = {
        "limit": limit, "arrivals": len(arrivals), "seconds": seconds, "mean_per_s": mean, "most_in_1_s": most,
        "took_s": [report.seconds for report in reports],
    }  # fmt: skip
    what = f"{PROCESSES} processes under {limit:,}/s:"
    return [
        Row("throttle", f"{what} mean rate ÷ limit", mean / limit, Goal("≥", 0.97), form=".3f", details=details),
        Row("throttle", f"{what} most in any 1 s ÷ limit", most / limit, Goal("≤", 1.05), form=".3f", details=details),
    ]


def mean_rate(arrivals: list[float]) -> float:
    """Arrivals a second, without the first and the last second; over all of it where that leaves nothing.

    `arrivals`: epoch seconds, sorted, two or more.
    """
    first, last = arrivals[0], arrivals[-1]
    if last - first > 3 * RAMP_S:
        first, last = first + RAMP_S, last - RAMP_S
    return sum(first <= at < last for at in arrivals) / (last - first)


def most_in_a_second(arrivals: list[float]) -> int:
    """The largest number of arrivals that any span of one second held. `arrivals`: epoch seconds, sorted."""
    most = oldest = 0
    for newest, at in enumerate(arrivals):
        while at - arrivals[oldest] >= 1.0:
            oldest += 1
        most = max(most, newest - oldest + 1)
    return most
