"""The results for people, as a table, and for programs, as benchmarks/latest.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.row import Row

LATEST = Path(__file__).parent / "latest.json"


@dataclass
class Results:
    """What a run found, filled as it goes on. `broken`: measurement to what went wrong."""

    machine: Mapping[str, Any]
    options: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def show(self, console: Console) -> None:
        """Print the table, and below it the machine it is true of."""
        table = Table("name", "what", show_lines=True)
        table.add_column("measured", justify="right")
        table.add_column("goal", justify="right", no_wrap=True)
        table.add_column("met?")
        for row in self.rows:
            met = "[green]yes[/]" if row.is_met else "[red]no[/]"
            table.add_row(row.name, row.what, row.shown, row.goal_shown, met)
        for name, reason in self.broken.items():
            table.add_row(name, reason.partition("\n")[0], "", "", "[red]broken[/]")
        console.print(table)
        facts = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        console.print(f"{facts}; took {sum(self.seconds.values()):.0f} s", highlight=False, style="dim", markup=False)

    def write(self, path: Path = LATEST) -> None:
        """Keep everything, repeats and explanations too."""
        found = {
            "machine": dict(self.machine),
            "options": dict(self.options),
            "rows": [row.as_json() for row in self.rows],
            "broken": self.broken,
            "seconds": self.seconds,
        }
        path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
