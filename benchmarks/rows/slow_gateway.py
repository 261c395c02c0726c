"""Whether a campaign whose gateway is slow holds up those of another gateway."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks.bench import Bench
from benchmarks.database import Campaign, Database
from benchmarks.gateways import Gateway
from benchmarks.row import BrokenMeasurement, Goal, Row

OTHERS = 9
IN_FLIGHT = 90
LATENCY_S = 0.1
SLOW = "slow"
SLOW_S = 5.0


def measure(bench: Bench) -> list[Row]:
    """Messages a second of nine campaigns while a tenth waits 5 s for each answer ÷ without the tenth, in turn."""
    size, repeats = bench.pick((3_000, 3), (1_000, 1))
    without, beside = [], []
    with bench.database() as database, bench.simulator() as gateway, bench.simulator() as slow:
        gateway.reset(fixed_reply=True, latency={"kind": "fixed", "seconds": LATENCY_S})
        slow.reset(fixed_reply=True, latency={"kind": "fixed", "seconds": SLOW_S})
        database.set_gateway(requests_in_flight=IN_FLIGHT)
        database.add_gateway(SLOW, requests_in_flight=IN_FLIGHT)
        codes = [database.add_clients(size) for _ in range(OTHERS)]
        slow_code = database.add_clients(100_000)  # more than it can send meanwhile
        for repeat in range(1, repeats + 1):
            without.append(_rate(bench, database, gateway, _open(database, codes, size)))
            with ExitStack() as stack:
                tenth = database.open_campaign(slow_code, 100_000, SLOW)
                stack.enter_context(bench.sender(database, slow, tenth, tenth.batches[0])).go()
                beside.append(_rate(bench, database, gateway, _open(database, codes, size)))
                if not database.progress(tenth.id).sending:
                    raise BrokenMeasurement("the slow campaign had nothing in flight when the others were done")
            bench.say(f"{repeat}: nine alone {without[-1]:,.0f}/s, beside a slow one {beside[-1]:,.0f}/s")
    pairs = [ours / alone for ours, alone in zip(beside, without, strict=True)]
    return [
        Row(
            name="slow_gateway",
            what=f"messages/s of nine campaigns beside one on a gateway of {SLOW_S:.0f} s ÷ without it",
            measured=median(beside) / median(without),
            goal=Goal("≥", 0.95),
            spread=(min(pairs), max(pairs)),
            details={"messages_each": size, "without_per_s": without, "beside_per_s": beside},
        )
    ]


def _open(database: Database, codes: list[str], size: int) -> list[Campaign]:
    return [database.open_campaign(code, size) for code in codes]


def _rate(bench: Bench, database: Database, gateway: Gateway, campaigns: list[Campaign]) -> float:
    with bench.senders(database, gateway, [(each, each.batches[0]) for each in campaigns]) as child:
        child.go()
        ended = child.finished().ended
    began = min(database.all_sent(campaign) for campaign in campaigns).timestamp()
    return sum(campaign.audience for campaign in campaigns) / (ended - began)
