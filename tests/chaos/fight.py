"""One fight against a world that is up, from the raid to the report: for the embedded stack and for a cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
from rich.console import Console

from tests.chaos import promises, report
from tests.chaos.plan import Plan
from tests.chaos.raid import Raid
from tests.chaos.world import InVain, World


def fight(world: World, planned: Plan, console: Console, say: Callable[[str], None], folder: Path, json: Path) -> int:
    """The exit code: 0 if every promise was kept. What a failure wants to be looked at is written to `folder`.

    Raises InVain when the raid does not end.
    """
    try:
        fought = Raid(world, planned, say=say).run()
        found = report.Report(planned, fought, *promises.check(world, planned, fought), world.oddities)
        found.show(console)
        found.write(json)
        if found.broken:
            report.write_evidence(world, found, folder / "evidence.json")
        return 1 if found.broken else 0
    except InVain:
        with suppress(InVain, psycopg.Error):
            report.write_standing(world, folder / "standing.json")
        raise
    finally:
        world.close()
