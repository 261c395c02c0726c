"""Some days later: what an operator's `mailing.cli tidy` leaves of Airflow's own history."""

from __future__ import annotations

import subprocess
import sys

from local.settings import ROOT
from local.stack_processes import process_environment
from tests.chaos.world import InVain, World
from tests.soak import gauges
from tests.soak.gauges import Judged

KEEP_S = 60.0
"""What is younger stays: a living scheduler's row is a few seconds old, and runs of `upkeep` hardly take longer."""

STALE_S = 300.0
"""By then Airflow must have noticed that DAGs have left their file. It takes some two minutes."""


def tidy_up(world: World, campaigns: int, first: dict[str, int]) -> list[Judged]:
    """What of it is still there, as judged; `first`: the rows of each of Airflow's tables in the beginning.

    Only for the end: campaigns are as if they had ended days ago then. Raises InVain.
    """
    days_go_by(world)
    before, of_campaigns = (
        gauges.rows(world.settings, "airflow"),
        sum(gauges.rows_of_campaigns(world.settings).values()),
    )
    said = _tidy(world)
    after = gauges.rows(world.settings, "airflow")
    grown = [
        gauges.tidiness(table, first.get(table, 0), count, after[table], campaigns) for table, count in before.items()
    ]
    left = sum(gauges.rows_of_campaigns(world.settings).values())
    return [
        Judged("rows of campaigns in Airflow, tidied", of_campaigns, left, 0, left == 0, said),
        *(each for each in grown if each),
    ]


def days_go_by(world: World) -> None:
    """Let every campaign have ended three days ago, and wait until Airflow has taken its DAG for gone."""
    world.in_database(
        lambda connection: connection.execute(
            "UPDATE campaigns SET sending_start = sending_start - interval '3 days',"
            " sending_stop = sending_stop - interval '3 days'"
        )
    )
    world.wait(lambda: not gauges.living_dags(world.settings, KEEP_S), "Airflow takes the DAGs for gone", STALE_S)


def _tidy(world: World) -> str:
    """What the command says last of all. Raises InVain where it fails."""
    command = [sys.executable, "-m", "mailing.cli", "tidy", "--days", f"{KEEP_S / 86_400:.6f}"]
    done = subprocess.run(
        command, cwd=ROOT, env=process_environment(world.settings), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InVain(f"`mailing.cli tidy` failed: {done.stderr[-1_000:]}")
    return done.stdout.strip().rpartition("\n")[2]
