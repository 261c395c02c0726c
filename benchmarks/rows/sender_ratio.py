"""How much of plain aiohttp's speed is left to a process that also keeps the ledger."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

from benchmarks import gateways
from benchmarks.bench import Bench
from benchmarks.child import Report
from benchmarks.database import Database
from benchmarks.gateways import Gateway
from benchmarks.row import Goal, Row
from benchmarks.sending import Sending, send_batch

IN_FLIGHT = 100
FREE_SHARE = 0.9
"""The bare loop takes a whole core where it gets one and the gateway keeps up; below this share, mistrust the row."""


def measure(bench: Bench) -> list[Row]:
    """Bare, sender, bare, sender …: the ratio of the medians; its spread is that of the pairs."""
    size, repeats = bench.pick((30_000, 5), (10_000, 3))
    bare, sender = [], []
    with bench.database() as database, bench.fast_gateway() as gateway:
        database.set_gateway(requests_in_flight=IN_FLIGHT)
        code = database.add_clients(size)
        for repeat in range(1, repeats + 1):
            bare.append(_post_bare(bench, gateway, size))
            sender.append(_send(bench, database, gateway, code, size))
            bench.say(
                f"{repeat}: bare {size / bare[-1].seconds:,.0f}/s, {bare[-1].cpu_s / size * 1e6:,.0f} µs CPU each;"
                f" sender {sender[-1].per_second:,.0f}/s, {sender[-1].cpu_us:,.0f} µs CPU each"
            )
    row = _row(size, bare, sender)
    if row.details["bare_core_share"] < FREE_SHARE:
        share = row.details["bare_core_share"]
        bench.say(f"mistrust this row: the bare loop had {share:.0%} of a core (a busy machine, or a slow gateway)")
    return [row]


def _post_bare(bench: Bench, gateway: Gateway, size: int) -> Report:
    with bench.bare(gateway, size, IN_FLIGHT) as child:
        child.go()
        return child.finished()


def _send(bench: Bench, database: Database, gateway: Gateway, code: str, size: int) -> Sending:
    return send_batch(bench, database, gateway, database.open_campaign(code, batch_size=size))


def _row(size: int, bare: list[Report], sender: list[Sending]) -> Row:
    bare_rates = [size / report.seconds for report in bare]
    sender_rates = [sending.per_second for sending in sender]
    pairs = [ours / theirs for ours, theirs in zip(sender_rates, bare_rates, strict=True)]
    return Row(
        name="sender_ratio",
        what=(
            f"one sending process with the ledger, {median(sender_rates):,.0f} messages/s"
            f" ÷ bare aiohttp, {median(bare_rates):,.0f} requests/s; {IN_FLIGHT} in flight"
        ),
        measured=median(sender_rates) / median(bare_rates),
        goal=Goal("≥", 0.80),
        spread=(min(pairs), max(pairs)),
        details={
            "messages": size,
            "answered_by": gateways.fastest(),
            "cpu_ratio": median(report.cpu_s for report in bare) / median(each.report.cpu_s for each in sender),
            "bare_core_share": median(report.cpu_s / report.seconds for report in bare),
            "bare_per_s": bare_rates,
            "sender_per_s": sender_rates,
            "bare": [asdict(report) for report in bare],
            "sender": [asdict(sending) for sending in sender],
        },
    )
