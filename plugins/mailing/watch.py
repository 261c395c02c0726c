"""A campaign as one watches it: how it stands this moment, how fast, whom it waits for, what went wrong, who did what.

Functions take a connection and never commit; times are aware.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

from mailing import db, local_hours, runs, statistics
from mailing.errors import NotFound
from mailing.local_hours import LocalHours, ZoneForecast
from mailing.models import MESSAGE_STATES

SQL = db.queries("watch")

WIDTHS_S = (*runs.COUNTED_S, 3_600, 14_400, 86_400)
MAX_COLUMNS = runs.COLUMNS
"""The chart has the narrowest columns of which it takes no more than so many."""

LAST_ATTEMPTS = 1_000
MAX_REVISIONS = 20
MAX_DECISIONS = 50
MAX_TEST_SENDS = 20


@dataclass(frozen=True, slots=True)
class Error:
    """What some of the last attempts came to: `error` is what the last of them said."""

    reason: str
    status_code: int | None
    count: int
    last_at: datetime
    error: str | None


@dataclass(frozen=True, slots=True)
class Breaker:
    """The campaign's gateway: `probe_in_s` until its next probe, or until the one that is on its way is given up."""

    gateway: str
    state: str
    reason: str | None
    changed_at: datetime | None
    probe_in_s: float | None


@dataclass(frozen=True, slots=True)
class Chart:
    """Outcomes over time: of each state the count by the beginning of its column; columns are `width_s` wide."""

    width_s: int
    columns: dict[str, dict[datetime, int]]


@dataclass(frozen=True, slots=True)
class Watched:
    """How a campaign stands at `now`, by the database's clock. `zones`: empty where it has no local hours."""

    id: int
    name: str | None
    status: str
    sending_start: datetime
    sending_stop: datetime
    opened_at: datetime | None
    finished_at: datetime | None
    archived_at: datetime | None
    audience_kind: str
    local_from: time | None
    local_to: time | None
    revision: int
    now: datetime
    counts: dict[str, int]
    messages_per_second: float
    breaker: Breaker
    chart: Chart
    zones: list[ZoneForecast]
    errors: list[Error]

    @property
    def audience(self) -> int:
        """The sum of all states."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """Messages that are still to be sent, or being sent."""
        return self.counts["pending"] + self.counts["sending"]

    @property
    def waiting(self) -> list[ZoneForecast]:
        """The zones whose local hours are yet to open before the stop, the last to open at the end."""
        later = [zone for zone in self.zones if zone.opens_at is not None and zone.opens_at > self.now]
        return sorted(later, key=lambda zone: zone.opens_at or self.now)

    @property
    def never(self) -> int:
        """Of those that are left: how many cannot be reached before the stop."""
        return sum(zone.never for zone in self.zones)

    @property
    def due(self) -> int:
        """Of those that are left: how many wait for no local hours."""
        return max(0, self.left - self.never - sum(zone.clients for zone in self.waiting))

    @property
    def hours_close_at(self) -> datetime | None:
        """When the first of the local hours that are open now will close; None: there are none."""
        if self.local_from is None or self.local_to is None:
            return None
        hours = LocalHours(self.local_from, self.local_to)
        spans = (hours.span(zone.timezone, self.now) for zone in self.zones)
        return min((span.closes_at for span in spans if span.opens_at <= self.now), default=None)

    @property
    def may_leave(self) -> bool:
        """Whether anything may, local hours aside."""
        return self.status == "running" and self.is_open and self.breaker.state == "closed"

    @property
    def eta_s(self) -> float | None:
        """Seconds until nothing is left that is due, if it goes on like this; None: it stands still."""
        return statistics.eta_s(self.due, self.messages_per_second if self.may_leave else 0.0)

    @property
    def is_open(self) -> bool:
        """Whether its window is."""
        return self.sending_start <= self.now < self.sending_stop

    @property
    def is_over(self) -> bool:
        """Whether nothing will change by itself any more."""
        return self.status in ("finished", "cancelled") and not self.left


def campaign(connection: db.Connection, campaign_id: int) -> Watched:
    """One campaign. Reads its messages only where local hours hold some of them back. Raises NotFound."""
    row = db.one(connection, SQL["campaign_to_watch"], {"campaign_id": campaign_id})
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    width_s = _width_s(row)
    counts = db.one(connection, SQL["counts"], {"campaign_id": campaign_id}) or {}
    outcomes = connection.execute(SQL["outcomes_by_time"], {"campaign_id": campaign_id, "width_s": width_s})
    waits = row["local_from"] is not None and row["status"] in ("scheduled", "running", "paused")
    return Watched(
        **{name: value for name, value in row.items() if name in Watched.__slots__},
        counts={state: counts[state] for state in MESSAGE_STATES},
        messages_per_second=counts["messages_per_second"],
        breaker=Breaker(
            row["gateway"], row["breaker_state"], row["breaker_reason"], row["breaker_changed_at"], row["probe_in_s"]
        ),
        chart=_chart(outcomes, width_s),
        zones=_zones(connection, row) if waits else [],
        errors=last_errors(connection, campaign_id),
    )


def _zones(connection: db.Connection, row: Mapping[str, Any]) -> list[ZoneForecast]:
    """As `runs.forecast`, at the moment of all the other figures."""
    rows = connection.execute(runs.SQL["audience_by_zone"], {"campaign_id": row["id"]})
    hours = LocalHours(row["local_from"], row["local_to"])
    begins = max(row["sending_start"], row["now"])
    return local_hours.forecast(
        {each["timezone"]: each["clients"] for each in rows}, hours, begins, row["sending_stop"]
    )


def _width_s(row: Mapping[str, Any]) -> int:
    begins = row["opened_at"] or row["sending_start"]
    shown_s = (min(row["now"], row["sending_stop"], row["finished_at"] or row["now"]) - begins).total_seconds()
    return next((width for width in WIDTHS_S if shown_s <= width * MAX_COLUMNS), WIDTHS_S[-1])


def _chart(outcomes: Iterable[Mapping[str, Any]], width_s: int) -> Chart:
    columns: dict[str, dict[datetime, int]] = {"sent": {}, "failed": {}, "unknown": {}}
    for each in outcomes:
        columns[each["outcome"]][each["since"]] = each["count"]
    return Chart(width_s, {state: dict(sorted(counts.items())) for state, counts in columns.items()})


def last_errors(connection: db.Connection, campaign_id: int) -> list[Error]:
    """What the campaign's last attempts that failed or are in doubt came to, the most frequent first."""
    rows = connection.execute(SQL["last_errors"], {"campaign_id": campaign_id, "last": LAST_ATTEMPTS})
    return [Error(**row) for row in rows]


def revisions(connection: db.Connection, campaign_id: int) -> list[dict[str, Any]]:
    """Text, filter and window as they were, the newest first."""
    return connection.execute(SQL["revisions"], {"campaign_id": campaign_id, "limit": MAX_REVISIONS}).fetchall()


def trail(connection: db.Connection, campaign_id: int) -> list[dict[str, Any]]:
    """Who did what to the campaign and when, the newest first; `messages`: how many a decision was about (0: none)."""
    return connection.execute(SQL["trail"], {"campaign_id": campaign_id, "limit": MAX_DECISIONS}).fetchall()


def test_sends(connection: db.Connection, campaign_id: int) -> list[dict[str, Any]]:
    """Its last test sends, the newest first: who sent what to which client, and what became of it, by SQL's columns."""
    return connection.execute(SQL["test_sends"], {"campaign_id": campaign_id, "limit": MAX_TEST_SENDS}).fetchall()
