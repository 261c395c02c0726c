"""One batch sent by one fresh process, verified in the ledger: what several rows measure."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.child import Report
from benchmarks.database import Campaign, Database
from benchmarks.gateways import Gateway
from benchmarks.row import BrokenMeasurement


@dataclass(frozen=True, slots=True)
class Sending:
    """How it went: messages, seconds from the first claim until `run()` had returned, and the process's report."""

    messages: int
    seconds: float
    report: Report

    @property
    def per_second(self) -> float:
        """Messages a second, recorded as sent."""
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the process's CPU for one message."""
        return self.report.cpu_s / self.messages * 1e6


def send_batch(bench: Bench, database: Database, gateway: Gateway, campaign: Campaign) -> Sending:
    """Send a campaign of one batch. Raises BrokenMeasurement unless every message is recorded as sent."""
    with bench.sender(database, gateway, campaign, the_batch(campaign)) as child:
        child.go()
        report = child.finished()
    first_claimed_at = database.all_sent(campaign)
    # The database runs on this machine: its clock is the process's clock.
    return Sending(campaign.audience, report.ended - first_claimed_at.timestamp(), report)


def the_batch(campaign: Campaign) -> int:
    """The number of its only batch. Raises BrokenMeasurement where there is another number of them."""
    if len(campaign.batches) != 1:
        raise BrokenMeasurement(f"campaign {campaign.id}: wanted one batch, got {campaign.batches}")
    return campaign.batches[0]
