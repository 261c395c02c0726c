"""Tables of figures, each for a page, for its chart, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from starlette_admin.export.helpers import escape_formula

from mailing.models import MESSAGE_STATES, OUTCOMES
from mailing.spans import Counts, Days

SHOWN = 50
"""Lines of a table on a page; the CSV has all."""


@dataclass(frozen=True, slots=True)
class Line:
    """What it is of (`cells`), and its messages. `mark`: its name in a chart; `campaign_id`: it leads to that one."""

    cells: tuple[Any, ...]
    counts: Counts
    mark: str | None = None
    campaign_id: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Lines under `heads`. `total`: the sum of all lines, where each message stands in one line only."""

    heads: tuple[str, ...]
    lines: list[Line]
    total: Counts | None = None
    note: str = ""
    states: tuple[str, ...] = field(default=OUTCOMES)

    def chart(self) -> dict[str, Any]:
        """The lines that have a mark, as series; states that none of them has are left out."""
        marked = [line for line in self.lines if line.mark is not None]
        series = [
            {"name": state, "data": [line.counts.states[state] for line in marked]}
            for state in self.states
            if any(line.counts.states[state] for line in marked)
        ]
        return {"categories": [line.mark for line in marked], "series": series}

    def csv(self) -> str:
        """All lines. What a spreadsheet would run as a formula is marked as text."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow([*self.heads, "audience", *self.states])
        for line in self.lines:
            states = [line.counts.states[state] for state in self.states]
            writer.writerow([*map(_plain, line.cells), line.counts.audience, *states])
        return out.getvalue()

    def shortened(self, limit: int = SHOWN) -> Table:
        """The first lines, and one for all others together."""
        if len(self.lines) <= limit:
            return self
        rest = self.lines[limit:]
        others = Line(
            (f"{len(rest):,} others", *[""] * (len(self.heads) - 1)), Counts.sum(line.counts for line in rest)
        )
        return Table(self.heads, [*self.lines[:limit], others], self.total, self.note, self.states)


def of_days(found: Days, days: Sequence[date]) -> Table:
    """A line for each day, and for what belongs to none of them."""
    lines = [Line((day.isoformat(),), counts, day.isoformat()) for day, counts in zip(days, found.days, strict=True)]
    edges = [
        Line(("before these days",), found.before),
        Line(("after these days",), found.after),
        Line(("not sent (yet)",), found.undated),
    ]
    lines += [line for line in edges if line.counts.audience]
    note = "A message counts on the day on which it was sent; failed, or in doubt: on that of its last request."
    return Table(("day",), lines, found.total, note)


def of_operator_codes(found: dict[str, Counts]) -> Table:
    """A line for each operator code."""
    lines = [Line((code or "not known",), counts, code or "?") for code, counts in found.items()]
    note = "By the number that the client had when it was chosen."
    return Table(("operator code",), lines, Counts.sum(found.values()), note)


def of_tags(found: dict[str | None, Counts]) -> Table:
    """A line for each tag."""
    lines = [Line((tag or "no tag, or client deleted",), counts, tag or "no tag") for tag, counts in found.items()]
    note = "By the tags that the client has now. A client with several tags counts under each: the lines have no sum."
    return Table(("tag",), lines, None, note)


def of_campaigns(rows: list[dict[str, Any]]) -> Table:
    """A line for each row of reporting.campaign_statistics."""
    lines = [
        Line(
            (row["campaign_id"], row["campaign_name"] or "", row["status"], row["sending_start"]),
            Counts({state: row[state] for state in MESSAGE_STATES}),
            f"#{row['campaign_id']}",  # not its name, which is as long as people make it
            row["campaign_id"],
        )
        for row in rows
    ]
    total = Counts.sum(line.counts for line in lines)
    return Table(("campaign", "name", "status", "start"), lines, total, states=MESSAGE_STATES)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return escape_formula(value) if isinstance(value, str) else value
