"""What the counts that are kept with the ledger cost a process that sends."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median

from benchmarks import gateways
from benchmarks.bench import Bench
from benchmarks.row import Goal, Row
from benchmarks.sending import Sending, send_batch
from local.postgres import processes

IN_FLIGHT = 100


@dataclass(frozen=True, slots=True)
class Measured:
    """A sending, and the seconds of processor that sender and PostgreSQL took for it."""

    sending: Sending
    cpu_s: float


def measure(bench: Bench) -> list[Row]:
    """Without counts, with, with, without, …: the ratio of the medians of messages a second."""
    size, repeats = bench.pick((30_000, 7), (10_000, 3))
    counted: list[Measured] = []
    uncounted: list[Measured] = []
    with bench.database() as database, bench.fast_gateway() as gateway:
        database.set_gateway(requests_in_flight=IN_FLIGHT)
        code = database.add_clients(size)

        def send() -> Measured:
            before = _cpu_s(bench)
            sending = send_batch(bench, database, gateway, campaign)
            return Measured(sending, sending.report.cpu_s + _cpu_s(bench) - before)

        for repeat in range(1, repeats + 1):
            # Who goes first has the better of a machine that grows busy, so they take turns in that, too.
            for counts in (True, False) if repeat % 2 else (False, True):
                campaign = database.open_campaign(code, batch_size=size)
                if counts:
                    counted.append(send())
                    continue
                with database.uncounted():
                    uncounted.append(send())
            bench.say(
                f"{repeat}: with the counts {counted[-1].sending.per_second:,.0f}/s,"
                f" without {uncounted[-1].sending.per_second:,.0f}/s"
            )
    return [_row(size, counted, uncounted)]


def _cpu_s(bench: Bench) -> float:
    """What PostgreSQL's processes have taken that have ended; the sender's end with it."""
    times = processes(bench.server.data)[0].cpu_times()
    return float(times.children_user + times.children_system)


def _row(size: int, counted: list[Measured], uncounted: list[Measured]) -> Row:
    with_counts, without = ([each.sending.per_second for each in some] for some in (counted, uncounted))
    pairs = [ours / theirs for ours, theirs in zip(with_counts, without, strict=True)]
    return Row(
        name="rollup_ratio",
        what=(
            f"one sending process, {median(with_counts):,.0f} messages/s with the counts"
            f" ÷ {median(without):,.0f}/s with their triggers off; {IN_FLIGHT} in flight"
        ),
        measured=median(with_counts) / median(without),
        goal=Goal("≥", 0.9),
        spread=(min(pairs), max(pairs)),
        details={
            "messages": size,
            "answered_by": gateways.fastest(),
            "cpu_ratio": median(each.cpu_s for each in uncounted) / median(each.cpu_s for each in counted),
            "counted_per_s": with_counts,
            "uncounted_per_s": without,
            "counted": [asdict(each) for each in counted],
            "uncounted": [asdict(each) for each in uncounted],
        },
    )
