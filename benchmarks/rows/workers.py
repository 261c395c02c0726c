"""Whether a second sending process doubles what is sent, where the gateway's latency is the limit."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks.bench import Bench
from benchmarks.child import Report
from benchmarks.database import Campaign, Database
from benchmarks.gateways import Gateway
from benchmarks.row import Goal, Row

IN_FLIGHT = 50
LATENCY_S = 0.02
SECOND = "second"


def measure(bench: Bench) -> list[Row]:
    """Messages a second of two processes ÷ one: 50 requests in flight each, every one answered after 20 ms."""
    size, repeats = bench.pick((20_000, 3), (10_000, 1))
    one, two = [], []
    with bench.database() as database, bench.simulator() as gateway:
        gateway.reset(fixed_reply=True, latency={"kind": "fixed", "seconds": LATENCY_S})
        database.set_gateway(requests_in_flight=IN_FLIGHT)
        database.add_gateway(SECOND, requests_in_flight=IN_FLIGHT)
        codes = [database.add_clients(size), database.add_clients(size)]
        for repeat in range(1, repeats + 1):
            one.append(_rate(bench, database, gateway, [database.open_campaign(codes[0], size)]))
            both = [database.open_campaign(codes[0], size), database.open_campaign(codes[1], size, SECOND)]
            two.append(_rate(bench, database, gateway, both))
            bench.say(f"{repeat}: one process {one[-1]:,.0f}/s, two {two[-1]:,.0f}/s")
    pairs = [double / single for double, single in zip(two, one, strict=True)]
    return [
        Row(
            name="workers",
            what=f"messages/s of 2 processes, {median(two):,.0f} ÷ 1, {median(one):,.0f}; {IN_FLIGHT} in flight each",
            measured=median(two) / median(one),
            goal=Goal("≥", 1.9),
            spread=(min(pairs), max(pairs)),
            details={"messages_each": size, "latency_s": LATENCY_S, "one_per_s": one, "two_per_s": two},
        )
    ]


def _rate(bench: Bench, database: Database, gateway: Gateway, campaigns: list[Campaign]) -> float:
    """Messages a second of a process for each campaign, from the first claim of any until the last had returned."""
    with ExitStack() as stack:
        children = [stack.enter_context(bench.sender(database, gateway, each, each.batches[0])) for each in campaigns]
        for child in children:
            child.go()
        reports: list[Report] = [child.finished() for child in children]
    began = min(database.all_sent(campaign) for campaign in campaigns).timestamp()
    return sum(campaign.audience for campaign in campaigns) / (max(report.ended for report in reports) - began)
