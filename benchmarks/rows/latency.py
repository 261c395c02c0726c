"""Whether a slow gateway is kept busy: with many requests in flight its latency should not show."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.bench import Bench
from benchmarks.row import Goal, Row
from benchmarks.sending import send_batch

LATENCY_S = 0.5
IN_FLIGHT = 500


def measure(bench: Bench) -> list[Row]:
    """Messages a second of one process through a gateway that takes half a second for each; 1,000 in theory."""
    size = bench.pick(15_000, 10_000)
    with bench.database() as database, bench.simulator() as gateway:
        gateway.reset(fixed_reply=True, latency={"kind": "fixed", "seconds": LATENCY_S})
        database.set_gateway(requests_in_flight=IN_FLIGHT)
        code = database.add_clients(size)
        sending = send_batch(bench, database, gateway, database.open_campaign(code, batch_size=size))
    bench.say(f"{size:,} messages in {sending.seconds:.1f} s, {sending.cpu_us:,.0f} µs CPU each")
    return [
        Row(
            name="latency",
            what=f"messages/s of one process, {IN_FLIGHT} in flight, each answered after {LATENCY_S} s",
            measured=sending.per_second,
            goal=Goal("≥", 900),
            form=",.0f",
            details={"messages": size, "sender": asdict(sending)},
        )
    ]
