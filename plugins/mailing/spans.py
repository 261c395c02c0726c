"""Figures of a span of time: the campaigns that were open in it, and their messages by day, operator code and tag.

Every breakdown is of all messages of the chosen campaigns, whenever they were sent, so that its sum is the audience. By
day and by operator code from the counts that are kept with the ledger; by tag counted at the moment of asking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

import psycopg

from mailing import db
from mailing.errors import InvalidInput
from mailing.models import CAMPAIGN_STATUSES, OUTCOMES

SQL = db.queries("statistics")

PATIENCE_S = 30
"""How long a count may take: people who wait longer ask again, and connections are few."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Campaigns, the newest window first, and the moment of all figures that are counted in this transaction."""

    as_of: datetime
    statuses: dict[str, int]
    ids: list[int]


@dataclass(slots=True)
class Counts:
    """Messages by outcome (or by state); all are named."""

    states: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))

    @property
    def audience(self) -> int:
        """All of them."""
        return sum(self.states.values())

    @classmethod
    def sum(cls, parts: Iterable[Counts]) -> Counts:
        """All parts together."""
        total: dict[str, int] = {}
        for part in parts:
            for state, count in part.states.items():
                total[state] = total.get(state, 0) + count
        return cls(total) if total else cls()


@dataclass(frozen=True, slots=True)
class Days:
    """Messages by the day of their last request; those that have none (yet), or were not sent after it, are `undated`.

    `days`: one for each day asked for, in order; `before` and `after` them.
    """

    before: Counts
    days: list[Counts]
    after: Counts
    undated: Counts

    @property
    def total(self) -> Counts:
        """Every message of the campaigns."""
        return Counts.sum((self.before, *self.days, self.after, self.undated))


def midnights(first: date, last: date, zone: str) -> list[datetime]:
    """When each day from `first` to `last` begins in a zone, and when the last one ends: one more than the days."""
    days = (last - first).days + 1
    return [datetime.combine(first + timedelta(days=n), time.min, ZoneInfo(zone)) for n in range(days + 1)]


def choose(
    connection: db.Connection, since: datetime | None, until: datetime, campaign_id: int | None = None
) -> Chosen:
    """The campaigns whose window meets the span (`since` None: from the beginning), or only the one.

    To be the first of its transaction, in which everything is then counted as of one moment.
    """
    connection.execute(SQL["one_moment"])
    moment = db.one(connection, SQL["as_of"], {"patience": f"{PATIENCE_S}s"})
    assert moment is not None  # noqa: S101 - a SELECT without FROM has one row
    parameters = {"since": since, "until": until, "campaign_id": campaign_id}
    found = connection.execute(SQL["campaigns_of_span"], parameters).fetchall()
    statuses = dict.fromkeys(CAMPAIGN_STATUSES, 0)
    for row in found:
        statuses[row["status"]] += 1
    return Chosen(moment["as_of"], statuses, [row["id"] for row in found])


def by_day(connection: db.Connection, chosen: Chosen, borders: Sequence[datetime]) -> Days:
    """By day, as `midnights` has them. InvalidInput: it takes too long."""
    found = _counted(connection, SQL["messages_by_day"], chosen, {"borders": list(borders)})
    days = [found.get(number, Counts()) for number in range(1, len(borders))]
    return Days(found.get(0, Counts()), days, found.get(len(borders), Counts()), found.get(None, Counts()))


def by_operator_code(connection: db.Connection, chosen: Chosen) -> dict[str, Counts]:
    """By the operator code that the client had, the largest first. '': not known. InvalidInput as `by_day`."""
    return _counted(connection, SQL["messages_by_operator_code"], chosen)


def by_tag(connection: db.Connection, chosen: Chosen) -> dict[str | None, Counts]:
    """By each tag that the client has now, the largest first: a client with two tags counts twice.

    None: it has no tag, or was deleted. InvalidInput as `by_day`.
    """
    return _counted(connection, SQL["messages_by_tag"], chosen)


@contextmanager
def in_time(chosen: Chosen) -> Iterator[None]:
    """What counts the messages of these campaigns. Raises InvalidInput when it takes too long."""
    try:
        yield
    except psycopg.errors.QueryCanceled:
        reason = f"{len(chosen.ids)} campaigns could not be counted within {PATIENCE_S} s: wanted a shorter span"
        raise InvalidInput(reason, ["from"]) from None


def _counted(
    connection: db.Connection, statement: LiteralString, chosen: Chosen, more: dict[str, Any] | None = None
) -> dict[Any, Counts]:
    found: dict[Any, Counts] = {}
    with in_time(chosen):
        rows = connection.execute(statement, {"ids": chosen.ids} | (more or {}))
    for row in rows:
        found.setdefault(row["key"], Counts()).states[row["state"]] = row["count"]
    return dict(sorted(found.items(), key=lambda item: -item[1].audience))
