"""How soon a campaign that is created over REST posts its first message."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from statistics import median

from benchmarks.airflow import BARE, Airflow, epoch_s, until
from benchmarks.bench import Bench
from benchmarks.child_bare import TEXT
from benchmarks.row import Goal, Row

LIMIT_S = 60.0


def measure(bench: Bench) -> list[Row]:
    """From the API's 201 to the first POST ÷ from a trigger's answer to a bare DAG's second task, in turn."""
    repeats = bench.pick(9, 3)
    airflow = bench.airflow()
    code = airflow.database.add_clients(1)
    bare, ours = [], []
    for repeat in range(1, repeats + 1):
        bare.append(_trigger(airflow))
        ours.append(_launch(airflow, code))
        bench.say(f"{repeat}: bare {bare[-1]:.2f} s; campaign {ours[-1]:.2f} s")
    pairs = [campaign / plain for campaign, plain in zip(ours, bare, strict=True)]
    return [
        Row(
            name="launch_ratio",
            what=(
                f"a campaign's 201 → its first POST, {median(ours):.2f} s"
                f" ÷ a bare DAG's trigger → its second task, {median(bare):.2f} s"
            ),
            measured=median(ours) / median(bare),
            goal=Goal("≤", 1.5),
            spread=(min(pairs), max(pairs)),
            details={"bare_s": bare, "campaign_s": ours},
        )
    ]


def _trigger(airflow: Airflow) -> float:
    run = airflow.trigger_bare()
    answered = time.time()

    def start() -> str | None:
        found = airflow.ask("GET", f"{BARE}/dagRuns/{run}/taskInstances/second")
        return found["start_date"] if found["state"] == "success" else None

    return epoch_s(until(start, "the bare DAG's second task has run", LIMIT_S)) - answered


def _launch(airflow: Airflow, code: str) -> float:
    airflow.gateway.reset(latency={"kind": "fixed", "seconds": 0})
    now = datetime.now(UTC)
    body = {
        "text": TEXT, "filters": [code], "sending_start": (now - timedelta(minutes=1)).isoformat(),
        "sending_stop": (now + timedelta(hours=6)).isoformat(),
    }  # fmt: skip
    campaign_id = airflow.ask("POST", "/mailing/api/campaigns/", body)["id"]
    answered = time.time()
    first = until(airflow.gateway.arrivals, f"campaign {campaign_id} posts", LIMIT_S)[0]
    until(lambda: airflow.database.progress(campaign_id).finished_at, "the campaign is finished", LIMIT_S)
    return first - answered
