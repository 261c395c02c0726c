"""What happened on one day, as tables.

A message counts on the day in which it was sent; one that failed or is in doubt, on that in which its last request
began. Re-counting a past day gives the same figures until somebody changes what they count: a verdict on what was in
doubt, or to send again. How campaigns ended is kept with their ends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
from starlette_admin.export.helpers import escape_formula

from mailing import db, spans
from mailing.errors import InvalidInput

SQL = db.queries("daily_report")

REQUESTED = ("sent", "failed", "unknown")
NOT_REQUESTED = ("expired", "cancelled", "excluded")

TABLES: dict[str, tuple[str, ...]] = {
    "totals": ("campaigns", "requests", *REQUESTED, *NOT_REQUESTED),
    "campaigns": (
        "campaign", "name", "audience", "earlier", "requests", *REQUESTED, *NOT_REQUESTED, "open", "sending_start",
        "sending_stop", "ended_at",
    ),
    "hours": ("hour", "requests", *REQUESTED),
    "operator_codes": ("operator_code", "requests", *REQUESTED),
    "reasons": ("outcome", "reason", "messages"),
}  # fmt: skip
"""Each table's columns, in the order of the report."""

TEXTS = {"name", "sending_start", "sending_stop", "ended_at", "hour", "operator_code", "outcome", "reason"}
"""Columns that are not counts. Moments are ISO 8601 in UTC, an hour is as the clock of the report's zone showed it."""

ARCHIVED = "archived"
"""In place of an operator code or a reason: the messages were dropped, only how many there were is known."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A day (from `since` to before `until`) in a zone, as of one moment; tables by name, as `TABLES` has them."""

    day: date
    zone: str
    since: datetime
    until: datetime
    as_of: datetime
    tables: dict[str, pd.DataFrame]

    @property
    def is_over(self) -> bool:
        """Whether the day had ended when it was counted."""
        return self.as_of >= self.until

    @property
    def totals(self) -> dict[str, int]:
        """The one row of the table of that name."""
        row = self.tables["totals"].iloc[0]
        return {str(name): int(count) for name, count in row.items()}

    def csv(self, name: str) -> str:
        """One table. What a spreadsheet would run as a formula is marked as text."""
        table = self.tables[name].copy()
        for column in TEXTS & set(table.columns):
            table[column] = [escape_formula(value) for value in table[column]]
        return table.to_csv(index=False, lineterminator="\r\n")

    def json(self) -> str:
        """All of it, as `from_json` reads it."""
        tables = {name: json.loads(table.to_json(orient="records")) for name, table in self.tables.items()}
        said = {name: getattr(self, name).isoformat() for name in ("day", "since", "until", "as_of")}
        return json.dumps({**said, "zone": self.zone, "tables": tables}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Figures:
        """What `json` wrote."""
        said = json.loads(text)
        moments = {name: datetime.fromisoformat(said[name]) for name in ("since", "until", "as_of")}
        tables = {name: table_of(name, rows) for name, rows in said["tables"].items()}
        return cls(day=date.fromisoformat(said["day"]), zone=said["zone"], tables=tables, **moments)


def table_of(name: str, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The table of this name. A count that is None is left empty, and so is a text."""
    columns = TABLES[name]
    cells = [[(row[column] or "") if column in TEXTS else row[column] for column in columns] for row in rows]
    table = pd.DataFrame(cells, columns=list(columns))
    return table.astype({column: "object" if column in TEXTS else "Int64" for column in columns})


def hours_of(since: datetime, until: datetime, zone: str) -> tuple[list[str], list[datetime]]:
    """The hours of a day as its clocks show them, and when each begins (and the last ends).

    An hour that is there twice, or is cut short, because clocks are changed is told apart by its offset from UTC.
    """
    quarters = (until - since) // timedelta(minutes=15)
    moments = [since.astimezone(UTC) + n * timedelta(minutes=15) for n in range(quarters)]
    shown = [moment.astimezone(ZoneInfo(zone)) for moment in moments]
    is_plain = len({moment.utcoffset() for moment in shown}) == 1
    labels: list[str] = []
    borders: list[datetime] = []
    for moment, local in zip(moments, shown, strict=True):
        label = f"{local:%H}:00" if is_plain else f"{local:%H}:00 {local.isoformat()[-6:]}"
        if label not in labels[-1:]:
            labels.append(label)
            borders.append(moment)
    return labels, [*borders, until]


def count(connection: db.Connection, day: date, zone: str) -> Figures:
    """The figures of a day in a zone, all as of one moment. To be the first of its transaction.

    Raises InvalidInput for a day that has not begun.
    """
    connection.execute(db.queries("statistics")["one_moment"])
    moment = db.one(connection, SQL["as_of"], {})
    assert moment is not None  # noqa: S101 - a SELECT without FROM has one row
    as_of: datetime = moment["as_of"]
    since, until = (moment.astimezone(UTC) for moment in spans.midnights(day, day, zone))
    if since > as_of:
        raise InvalidInput(f"day {day}: it has not begun in {zone}; wanted a past day", ["day"])
    found = connection.execute(SQL["campaigns_of_day"], {"since": since, "until": until})
    rows = [_line(row) for row in found]
    asked = _asked(rows, since, until)
    tables = {
        "totals": [_totals(rows)],
        "campaigns": rows,
        "hours": _hours(connection, asked, zone),
        "operator_codes": _operator_codes(connection, asked, rows),
        "reasons": _reasons(connection, asked, rows),
    }
    return Figures(day, zone, since, until, as_of, {name: table_of(name, lines) for name, lines in tables.items()})


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """A campaign's line. An audience that nobody knows any more is left empty, and so is what was open of it.

    `not_requested`: how many messages its ends on this day added, by state and reason ("expired window").
    """
    row["requests"] = _sum(row, REQUESTED)
    row["open"] = 0 if row["is_over"] else row["audience"] - row["earlier"] - row["requests"]
    if row["is_open_ended"]:
        row["open"] = row["audience"] = None
    added = Counter(row["not_requested"]) - Counter(row["not_requested_before"])
    row["not_requested"] = added
    row |= {state: sum(n for key, n in added.items() if key.startswith(f"{state} ")) for state in NOT_REQUESTED}
    moments = ("sending_start", "sending_stop", "ended_at")
    return row | {name: row[name].astimezone(UTC).isoformat() for name in moments if row[name]}


def _sum(row: dict[str, Any], names: Iterable[str]) -> int:
    return sum(row[name] for name in names)


def _totals(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts = {name: sum(row[name] for row in rows) for name in ("requests", *REQUESTED, *NOT_REQUESTED)}
    return {"campaigns": len(rows), **counts}


def _asked(rows: list[dict[str, Any]], since: datetime, until: datetime) -> dict[str, Any]:
    """The parameters of the statements: the span, and which campaigns are counted from where."""
    requesting = [row for row in rows if row["requests"]]
    return {
        "since": since,
        "until": until,
        "ids": [row["campaign"] for row in requesting],
        "whole": [row["campaign"] for row in requesting if not row["elsewhere"]],
        "split": [row["campaign"] for row in requesting if row["elsewhere"] and not row["is_archived"]],
    }


def _hours(connection: db.Connection, asked: dict[str, Any], zone: str) -> list[dict[str, Any]]:
    """Every hour of the day, also where nothing happened."""
    labels, borders = hours_of(asked["since"], asked["until"], zone)
    found = connection.execute(SQL["requests_by_hour"], asked | {"borders": borders})
    counts = {(row["hour"], row["outcome"]): row["count"] for row in found}
    lines = [{outcome: counts.get((n, outcome), 0) for outcome in REQUESTED} for n in range(1, len(borders))]
    return [{"hour": label, "requests": sum(line.values()), **line} for label, line in zip(labels, lines, strict=True)]


def _operator_codes(
    connection: db.Connection, asked: dict[str, Any], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The largest first."""
    lines: dict[str, dict[str, int]] = {}
    for row in connection.execute(SQL["requests_by_operator_code"], asked):
        line = lines.setdefault(row["operator_code"] or "not known", dict.fromkeys(REQUESTED, 0))
        line[row["outcome"]] += row["count"]
    if lost := _lost(rows):
        lines[ARCHIVED] = lost
    told = [{"operator_code": code, "requests": sum(line.values()), **line} for code, line in lines.items()]
    return sorted(told, key=lambda line: (-line["requests"], line["operator_code"]))


def _reasons(connection: db.Connection, asked: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The most frequent first."""
    lost = _lost(rows)
    messages = sum((row["not_requested"] for row in rows), Counter[str]())
    for row in connection.execute(SQL["reasons"], asked):
        messages[f"{row['outcome']} {row['reason']}"] += row["messages"]
    found = [
        {"outcome": key.partition(" ")[0], "reason": key.partition(" ")[2], "messages": count}
        for key, count in sorted(messages.items(), key=lambda item: (-item[1], item[0]))
    ]
    archived = [
        {"outcome": outcome, "reason": ARCHIVED, "messages": lost[outcome]}
        for outcome in ("failed", "unknown")
        if lost and lost[outcome]
    ]
    return found + archived


def _lost(rows: list[dict[str, Any]]) -> dict[str, int] | None:
    """Requests of campaigns that are archived and had others on other days: nothing else is known of them by day."""
    lost = [row for row in rows if row["is_archived"] and row["elsewhere"] and row["requests"]]
    return {outcome: sum(row[outcome] for row in lost) for outcome in REQUESTED} if lost else None
