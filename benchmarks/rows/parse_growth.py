"""Whether the campaigns of the past slow Airflow's parsing of dags/campaigns.py."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.child_bare import TEXT
from benchmarks.database import Database
from benchmarks.row import BrokenMeasurement, Goal, Row

LIVE = 200
PAST = 50_000
TIMES = 5
"""Parses of each process; its first ones find no caches yet, so a process counts by its median."""

_ADD_LIVE = """
INSERT INTO campaigns (text, sending_start, sending_stop)
SELECT %s, now() - interval '1 hour', now() + interval '8 hours' FROM generate_series(1, %s)
"""


def measure(bench: Bench) -> list[Row]:
    """The file parsed with 200 live and 50,000 finished campaigns ÷ with the live ones alone, in turn."""
    alone, grown = [], []
    with bench.database() as few, bench.database() as many:
        many.add_past_campaigns(PAST)
        for database in (few, many):
            database.connection.execute(_ADD_LIVE, (TEXT, LIVE))
        for repeat in range(1, bench.pick(5, 2) + 1):
            alone.append(_parse(bench, few))
            grown.append(_parse(bench, many))
            bench.say(f"{repeat}: {alone[-1]:.2f} s; with {PAST:,} finished campaigns {grown[-1]:.2f} s")
    pairs = [ours / bare for ours, bare in zip(grown, alone, strict=True)]
    return [
        Row(
            name="parse_growth",
            what=f"dags/campaigns.py parsed with {LIVE} live and {PAST:,} finished campaigns ÷ the live ones alone",
            measured=median(grown) / median(alone),
            goal=Goal("≤", 1.1),
            spread=(min(pairs), max(pairs)),
            details={"live": LIVE, "finished": PAST, "alone_s": alone, "grown_s": grown},
        )
    ]


def _parse(bench: Bench, database: Database) -> float:
    with bench.working("child_parse", [str(TIMES)], database) as child:
        child.go()
        said = child.finished().said
    if said["dags"] != LIVE:
        raise BrokenMeasurement(f"wanted {LIVE} DAGs, got {said['dags']}")
    seconds: list[float] = said["seconds"]
    return median(seconds)
