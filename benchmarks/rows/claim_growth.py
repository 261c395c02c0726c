"""Whether a claim gets slower with what was sent before."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.row import BrokenMeasurement, Goal, Row
from mailing import messages

CALLS = 400
ROOM = 50
"""Messages for each claim: half of what the usual gateway has in flight."""


def measure(bench: Bench) -> list[Row]:
    """The median time of a claim with millions of finished messages in the ledger ÷ with none, in turn."""
    past, each = bench.pick((100, 100_000), (20, 25_000))
    empty_ms, full_ms = [], []
    with bench.database() as empty, bench.database() as full:
        began = time.monotonic()
        full.add_finished(past, each)
        bench.say(f"{past * each:,} finished messages loaded in {time.monotonic() - began:.0f} s")
        claims = _claims(empty), _claims(full)
        for _ in range(CALLS):
            empty_ms.append(claims[0]())
            full_ms.append(claims[1]())
    none, many = median(empty_ms), median(full_ms)
    bench.say(f"{ROOM} messages claimed: {none:.2f} ms, {many:.2f} ms with {past * each:,} finished ones")
    return [
        Row(
            name="claim_growth",
            what=f"claim of {ROOM} messages with {past * each:,} finished ones in the ledger ÷ with none",
            measured=many / none,
            goal=Goal("≤", 1.2),
            details={"finished": past * each, "calls": CALLS, "none_ms": none, "many_ms": many},
        )
    ]


def _claims(database: Database) -> Callable[[], float]:
    """A call that claims the next ROOM messages of a new campaign, as a sender does; milliseconds."""
    connection = database.connection
    size = CALLS * ROOM
    campaign = database.open_campaign(database.add_clients(size), batch_size=size)
    messages.plan_for_sending(connection)
    batch = messages.batch(connection, campaign.id, campaign.batches[0])
    token = messages.take_lease(connection, campaign.id, campaign.batches[0], "benchmark")
    position = batch.first_id

    def claim() -> float:
        nonlocal position
        terms = messages.renew_lease(connection, token)
        if terms is None:
            raise BrokenMeasurement("the lease ran out: a claim took too long")
        began = time.perf_counter()
        found = messages.claim(
            connection, campaign.id, token, terms, from_id=position, last_id=batch.last_id, limit=ROOM
        )
        took = (time.perf_counter() - began) * 1_000
        if len(found) != ROOM:
            raise BrokenMeasurement(f"wanted {ROOM} messages claimed, got {len(found)}")
        position = found[-1].id + 1
        return took

    return claim
