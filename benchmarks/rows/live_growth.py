"""Many campaigns that start at the same moment."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.airflow import BARE, Airflow, epoch_s, until
from benchmarks.bench import Bench
from benchmarks.child_bare import TEXT
from benchmarks.row import BrokenMeasurement, Goal, Row
from mailing import campaigns

TRIGGERS = 8
"""Requests at a time that make the bare runs: their making is not measured."""


def measure(bench: Bench) -> list[Row]:
    """From the start they share until the last one's first POST ÷ what as many bare runs take from their release."""
    size, lead_s, limit_s = bench.pick((500, 240, 1_800), (40, 20, 240))
    airflow = bench.airflow()
    bare = _run_bare(airflow, size, limit_s)
    bench.say(f"{size} bare runs: {bare:.1f} s until the last one's second task began")
    ours = _start(airflow, size, lead_s, limit_s)
    bench.say(f"{size} campaigns: {ours:.1f} s until the last one's first POST")
    return [
        Row(
            name="live_growth",
            what=f"{size} campaigns that start at once, until the last one's first POST ÷ {size} bare two-task runs",
            measured=ours / bare,
            goal=Goal("≤", 1.5),
            details={"campaigns": size, "bare_s": bare, "campaigns_s": ours},
        )
    ]


def _run_bare(airflow: Airflow, size: int, limit_s: float) -> float:
    """Seconds from the DAG's release, with so many runs waiting, until the last run's second task began."""
    _switch(airflow, is_paused=True)
    before = _ended(airflow)
    with ThreadPoolExecutor(TRIGGERS) as pool:
        list(pool.map(lambda _: airflow.trigger_bare(), range(size)))
    released = time.time()
    _switch(airflow, is_paused=False)
    until(lambda: _ended(airflow) >= before + size, "all bare runs have ended", limit_s)
    last = airflow.ask("GET", f"{BARE}/dagRuns/~/taskInstances?task_id=second&order_by=-start_date&limit=1")
    return epoch_s(last["task_instances"][0]["start_date"]) - released


def _switch(airflow: Airflow, *, is_paused: bool) -> None:
    airflow.ask("PATCH", f"{BARE}?update_mask=is_paused", {"is_paused": is_paused})


def _ended(airflow: Airflow) -> int:
    found: dict[str, Any] = airflow.ask("GET", f"{BARE}/dagRuns?state=success&limit=1")
    return int(found["total_entries"])


def _start(airflow: Airflow, size: int, lead_s: float, limit_s: float) -> float:
    """Seconds from their common start until the last campaign's first POST; each of them has one client."""
    airflow.gateway.reset(latency={"kind": "fixed", "seconds": 0})
    code, start = airflow.database.add_clients(1), datetime.now(UTC) + timedelta(seconds=lead_s)
    ids = [
        campaigns.create(
            airflow.database.connection, text=TEXT, filter_operator_codes=[code],
            sending_start=start, sending_stop=start + timedelta(hours=6),
        )
        for _ in range(size)
    ]  # fmt: skip
    until(lambda: all(_is_there(airflow, id_) for id_ in (ids[0], ids[-1])), "they are DAGs", lead_s)
    if (left := start.timestamp() - time.time()) < 0:
        raise BrokenMeasurement(f"{size} campaigns became DAGs {-left:.1f} s after their start: wanted before it")
    arrivals = until(lambda: _all(airflow, size), "every campaign has posted", lead_s + limit_s)
    until(lambda: _sent_once(airflow, ids) == size, "each of them has posted once", limit_s)
    return max(arrivals[:size]) - start.timestamp()


def _is_there(airflow: Airflow, campaign_id: int) -> bool:
    found = airflow.ask("GET", f"/api/v2/dags?dag_id_pattern=campaign_{campaign_id}&limit=1")
    return bool(found["total_entries"])


def _all(airflow: Airflow, size: int) -> list[float] | None:
    arrivals = airflow.gateway.arrivals()
    return arrivals if len(arrivals) >= size else None


def _sent_once(airflow: Airflow, ids: list[int]) -> int:
    """How many of these campaigns have sent their one message by one request."""
    found = airflow.database.connection.execute(
        "SELECT count(*) AS n FROM messages WHERE campaign_id = ANY (%s) AND state = 'sent' AND attempts = 1", (ids,)
    ).fetchone()
    return int(found["n"]) if found else 0
