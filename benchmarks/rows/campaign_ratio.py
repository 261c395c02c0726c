"""How much of plain aiohttp's speed is left to a whole campaign: Airflow's run, audience, batches, report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import median

from benchmarks.airflow import Airflow, epoch_s, until
from benchmarks.bench import Bench
from benchmarks.child_bare import TEXT
from benchmarks.row import BrokenMeasurement, Goal, Row

IN_FLIGHT = 100
LIMIT_S = 900.0


def measure(bench: Bench) -> list[Row]:
    """Messages a second of a campaign, from its run's start to `finished` ÷ requests of one bare process, in turn."""
    size, repeats = bench.pick((200_000, 3), (20_000, 1))
    airflow = bench.airflow()
    airflow.gateway.reset(fixed_reply=True, latency={"kind": "fixed", "seconds": 0})
    airflow.database.set_gateway(requests_in_flight=IN_FLIGHT)
    code = airflow.database.add_clients(size)
    bare, ours = [], []
    for repeat in range(1, repeats + 1):
        with bench.bare(airflow.gateway, size, IN_FLIGHT) as child:
            child.go()
            bare.append(size / child.finished().seconds)
        ours.append(size / _send(airflow, code, size))
        bench.say(f"{repeat}: bare {bare[-1]:,.0f}/s; campaign {ours[-1]:,.0f}/s")
    pairs = [campaign / plain for campaign, plain in zip(ours, bare, strict=True)]
    return [
        Row(
            name="campaign_ratio",
            what=(
                f"a campaign of {size:,}, its run's start to finished, {median(ours):,.0f} messages/s"
                f" ÷ bare aiohttp, {median(bare):,.0f} requests/s"
            ),
            measured=median(ours) / median(bare),
            goal=Goal("≥", 0.70),
            spread=(min(pairs), max(pairs)),
            details={"messages": size, "bare_per_s": bare, "campaign_per_s": ours},
        )
    ]


def _send(airflow: Airflow, code: str, size: int) -> float:
    """Seconds from the start of the campaign's run until it is finished, everything sent."""
    now = datetime.now(UTC)
    body = {
        "text": TEXT, "filters": [code], "sending_start": (now - timedelta(minutes=1)).isoformat(),
        "sending_stop": (now + timedelta(hours=6)).isoformat(),
    }  # fmt: skip
    campaign_id = airflow.ask("POST", "/mailing/api/campaigns/", body)["id"]
    finished_at = until(lambda: airflow.database.progress(campaign_id).finished_at, "the campaign is finished", LIMIT_S)
    if (sent := airflow.database.progress(campaign_id).sent) != size:
        raise BrokenMeasurement(f"campaign {campaign_id}: wanted {size} messages to be sent, got {sent}")
    [run] = airflow.ask("GET", f"/api/v2/dags/campaign_{campaign_id}/dagRuns")["dag_runs"]
    return epoch_s(finished_at) - epoch_s(run["start_date"])
