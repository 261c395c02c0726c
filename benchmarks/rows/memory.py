"""Whether a batch's size shows in the memory of the process that sends it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.gateways import Gateway
from benchmarks.row import BrokenMeasurement, Goal, Row
from benchmarks.sending import the_batch

IN_FLIGHT = 100
SMALL = 10_000
WHOLE_S = 3_600.0
"""Under `--full`, the longest that the large batch may take."""


@dataclass(frozen=True, slots=True)
class Peak:
    """What one process held at most (MiB), and how many of its batch's messages it had sent by then."""

    audience: int
    sent: int
    ready_mib: float
    peak_mib: float

    @property
    def growth_mib(self) -> float:
        """Beyond what it held when its imports were done."""
        return self.peak_mib - self.ready_mib


def measure(bench: Bench) -> list[Row]:
    """The difference of the two peaks. Unless `--full`, the large batch is cut short: a part of it tells as much."""
    large_size = bench.pick(1_000_000, 100_000)
    limit_s = WHOLE_S if bench.full else bench.pick(150.0, 25.0)
    with bench.database() as database, bench.fast_gateway() as gateway:
        database.set_gateway(requests_in_flight=IN_FLIGHT)
        small = _peak(bench, database, gateway, SMALL, WHOLE_S)
        if small.sent != small.audience:
            raise BrokenMeasurement(f"the small batch: wanted {small.audience} sent, got {small.sent}")
        large = _peak(bench, database, gateway, large_size, limit_s)
    return [_row(small, large), _whole(large)]


def _peak(bench: Bench, database: Database, gateway: Gateway, size: int, limit_s: float) -> Peak:
    campaign = database.open_campaign(database.add_clients(size), batch_size=size)
    with bench.sender(database, gateway, campaign, the_batch(campaign)) as child:
        child.go()
        report = child.report(limit_s)
        peak_mib = report.peak_mib if report else child.peak_mib()
    if report:
        database.all_sent(campaign)
    found = Peak(campaign.audience, database.progress(campaign.id).sent, child.ready_mib, peak_mib)
    bench.say(
        f"{found.sent:,} of {size:,} sent: {found.ready_mib:.1f} MiB after the imports, {found.peak_mib:.1f} at most"
    )
    return found


def _row(small: Peak, large: Peak) -> Row:
    part = "" if large.sent == large.audience else f" (of which {large.sent:,} were sent)"
    return Row(
        name="memory",
        what=f"peak RSS of one process: a batch of {large.audience:,}{part} less one of {small.audience:,}",
        measured=large.peak_mib - small.peak_mib,
        goal=Goal("≤", 25),
        unit="MiB",
        form=".1f",
        details={
            "small": asdict(small),
            "large": asdict(large),
            "growth_ratio": large.growth_mib / small.growth_mib if small.growth_mib > 0 else None,
        },
    )


def _whole(large: Peak) -> Row:
    return Row(
        name="sender_memory",
        what=f"peak RSS of one process, imports and all: a batch of {large.audience:,} ({large.sent:,} sent)",
        measured=large.peak_mib,
        goal=Goal("≤", 250),
        unit="MiB",
        form=".0f",
    )
