"""What a run came to: tables for people, JSON for programs, and the rows behind each broken promise."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from mailing.models import MESSAGE_STATES
from tests.chaos.plan import Plan
from tests.chaos.promises import Check, Tally
from tests.chaos.raid import Fought
from tests.chaos.world import World

SHOWN_ROWS = 20


@dataclass
class Report:
    """A run that went to its end."""

    plan: Plan
    fought: Sequence[Fought]
    tallies: Sequence[Tally]
    checks: Sequence[Check]
    oddities: Sequence[str]

    @property
    def broken(self) -> list[Check]:
        """The promises that were not kept."""
        return [check for check in self.checks if not check.is_kept]

    def show(self, console: Console) -> None:
        """Print what struck, what became of the messages, and which promises were kept."""
        for table in (self._faults(), self._campaigns(), self._promises()):
            console.print(table)
        for check in self.checks:
            if check.parts:
                bound = f" of {check.allowed:,}" if check.allowed else ""
                console.print(
                    f"{check.campaign}, {check.promise}{bound}: {check.parts}", highlight=False, soft_wrap=True
                )
        for each in self.fought:
            arrivals = sorted(at for tally in self.tallies if tally.fought is each for at in tally.arrivals)
            console.print(f"{each.phase.name}: at most {_busiest(arrivals)} requests in one second", highlight=False)
        for oddity, times in Counter(self.oddities).items():
            console.print(f"odd, {times} times: {oddity}", highlight=False)
        took_s = sum(each.ended - each.began for each in self.fought)
        said = f"{len(self.broken)} promises broken" if self.broken else "every promise was kept"
        console.print(f"seed {self.plan.seed}, {took_s:.0f} s: {said}", style="bold red" if self.broken else "bold")

    def _faults(self) -> Table:
        table = Table("fault", title="what struck", title_justify="left")
        for each in self.fought:
            table.add_column(each.phase.name, justify="right")
        counts = [Counter(blow.strike.kind for blow in each.blows) for each in self.fought]
        for kind in sorted(set().union(*counts)):
            table.add_row(kind, *[str(count[kind] or "") for count in counts])
        table.add_row("together", *[str(count.total()) for count in counts], style="bold")
        return table

    def _campaigns(self) -> Table:
        states = [state for state in MESSAGE_STATES if any(tally.states[state] for tally in self.tallies)]
        table = Table("campaign", title="what became of the messages", title_justify="left")
        for name in ("audience", *states, "taken twice", "sending, s"):
            table.add_column(name, justify="right")
        for tally in self.tallies:
            counts = [len(tally.rows), *[tally.states[state] for state in states], tally.repeated]
            table.add_row(
                f"{tally.campaign['id']} {tally.planned.label} ({tally.planned.on_doubt})",
                *[f"{count:,}" for count in counts],
                f"{tally.arrivals[-1] - tally.arrivals[0]:.0f}" if tally.arrivals else "",
            )
        return table

    def _promises(self) -> Table:
        """One row per promise, one column per campaign: how many broke it and, where some may, how many may."""
        labels = list(dict.fromkeys(check.campaign for check in self.checks))
        table = Table("what must not be", title="what was promised", title_justify="left")
        for label in labels:
            table.add_column(label, justify="right", no_wrap=True)
        for promise in dict.fromkeys(check.promise for check in self.checks):
            found = {check.campaign: _shown(check) for check in self.checks if check.promise == promise}
            table.add_row(promise, *[found.get(label, "") for label in labels])
        return table

    def write(self, path: Path) -> None:
        """Keep everything but the messages themselves."""
        found = {
            "plan": asdict(self.plan),
            "phases": [
                {
                    "name": each.phase.name,
                    "began": each.began,
                    "ended": each.ended,
                    "dropped": each.dropped,
                    "blows": [asdict(blow) for blow in each.blows],
                    "pauses": [asdict(pause) for pause in each.pauses],
                }
                for each in self.fought
            ],
            "campaigns": [
                {"label": tally.planned.label, "matched": len(tally.matched), "taken_twice": tally.repeated}
                | {"states": tally.states, "unknown": tally.reasons}
                for tally in self.tallies
            ],
            "checks": [
                asdict(check) | {"is_kept": check.is_kept, "ids": check.ids[:SHOWN_ROWS]} for check in self.checks
            ],
            "oddities": list(self.oddities),
        }
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _busiest(arrivals: Sequence[float], span_s: float = 1.0) -> int:
    """The most arrivals in any span of so many seconds."""
    return max((nth - bisect_left(arrivals, at - span_s) for nth, at in enumerate(arrivals, start=1)), default=0)


def _shown(check: Check) -> str:
    bound = f" ≤ {check.allowed:,}" if check.allowed else ""
    return f"{check.seen:,}{bound}" if check.is_kept else f"[bold red]{check.seen:,} > {check.allowed:,}[/]"


def write_evidence(world: World, report: Report, path: Path) -> None:
    """The rows, attempts and requests behind every broken promise, some of each."""
    by_id = {msg_id: tally for tally in report.tallies for msg_id in tally.rows}
    found = {
        f"{check.campaign}: {check.promise}": [
            _evidence(world, msg_id, by_id.get(msg_id)) for msg_id in check.ids[:SHOWN_ROWS]
        ]
        for check in report.broken
    }
    path.write_text(json.dumps(found, indent=2, default=_said) + "\n", encoding="utf-8")


def _evidence(world: World, msg_id: int, tally: Tally | None) -> dict[str, Any]:
    if tally is None:
        return {"id": msg_id, "message": None}
    return {
        "message": tally.rows[msg_id],
        "requests": tally.seen[msg_id],
        "in_doubt": tally.doubts[msg_id],
        "attempts": world.rows("SELECT * FROM attempts WHERE message_id = %s ORDER BY id", msg_id),
    }


def write_standing(world: World, path: Path) -> None:
    """How things stand in a run that does not end: campaigns, leases, gateways, and Airflow's tasks."""
    found = {
        "campaigns": world.rows("SELECT * FROM reporting.campaign_statistics"),
        "leases": world.rows("SELECT *, clock_timestamp() AS now FROM leases"),
        "gateways": world.rows("SELECT * FROM gateways"),
    }
    with psycopg.connect(world.settings.database_url("airflow"), row_factory=dict_row) as airflow:
        found["runs"] = airflow.execute("SELECT dag_id, run_id, state, start_date, end_date FROM dag_run").fetchall()
        found["tasks"] = airflow.execute(
            "SELECT dag_id, run_id, task_id, map_index, state, try_number, start_date, end_date, next_method"
            " FROM task_instance WHERE dag_id <> 'upkeep' ORDER BY 1, 2, 3, 4"
        ).fetchall()
    path.write_text(json.dumps(found, indent=2, default=_said) + "\n", encoding="utf-8")


def _said(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
