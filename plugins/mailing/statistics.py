"""Figures: over all campaigns, per campaign, and how those get on that are running.

From the counts that are kept with the ledger: they cost the same however many messages there are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select

from mailing import db, listing
from mailing.campaigns import Progress
from mailing.errors import NotFound
from mailing.models import CAMPAIGN_STATUSES, MESSAGE_STATES, Campaign

SQL = db.queries("statistics")

MAX_LIMIT = 100
DEFAULT_LIMIT = 20
"""Campaigns of a page."""

_COLUMNS = Campaign.__table__.c

ORDERS: dict[str, ColumnElement[Any]] = {"id": _COLUMNS.id, "sending_start": _COLUMNS.sending_start}
"""What a list of campaigns with their figures can be sorted by."""


@dataclass(frozen=True, slots=True)
class Overall:
    """How many campaigns are in each status, and how many messages in each state; all of them are named."""

    campaigns: dict[str, int]
    messages: dict[str, int]


@dataclass(frozen=True, slots=True)
class Running:
    """How a campaign gets on, and how fast it was in the last seconds."""

    progress: Progress
    messages_per_second: float

    @property
    def left(self) -> int:
        """Messages that are still to be sent, or being sent."""
        return self.progress.pending + self.progress.sending

    @property
    def share_done(self) -> float:
        """From 0 to 1: the part of the audience of which the end is known."""
        return 1.0 - self.left / self.progress.audience if self.progress.audience else 1.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until nothing is left, if it goes on like this; None: it stands still."""
        may_leave = self.progress.status == "running" and self.progress.breaker_state == "closed"
        return eta_s(self.left, self.messages_per_second if may_leave else 0.0)


def eta_s(left: int, messages_per_second: float) -> float | None:
    """Seconds until nothing is left, if it goes on like this; None: it stands still."""
    if not left:
        return 0.0
    return left / messages_per_second if messages_per_second else None


def overall(connection: db.Connection) -> Overall:
    """Campaigns by status and messages by state."""
    statuses = connection.execute(SQL["campaigns_by_status"])
    campaigns = dict.fromkeys(CAMPAIGN_STATUSES, 0) | {row["status"]: row["count"] for row in statuses}
    states = connection.execute(SQL["messages_by_state"])
    messages = dict.fromkeys(MESSAGE_STATES, 0) | {row["state"]: row["count"] for row in states}
    return Overall(campaigns, messages)


def page(
    connection: db.Connection,
    *,
    statuses: Collection[str] = (),
    sort: str = "id",
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> listing.Page:
    """Some campaigns (in any of `statuses`, if there are any) as rows of reporting.campaign_statistics.

    Raises InvalidInput for a sort or a cursor that is none.
    """
    found = _campaigns(connection, statuses, sort, cursor, limit)
    return listing.Page(of_campaigns(connection, [row["id"] for row in found.items]), found.next_cursor)


def get(connection: db.Connection, campaign_id: int) -> dict[str, Any]:
    """The row of reporting.campaign_statistics of one campaign. Raises NotFound."""
    rows = of_campaigns(connection, [campaign_id])
    if not rows:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return rows[0]


def running(
    connection: db.Connection, *, cursor: str | None = None, limit: int = DEFAULT_LIMIT
) -> tuple[list[Running], str | None]:
    """Some of the campaigns that are running, by id, and the cursor of those after them. InvalidInput for a cursor."""
    found = _campaigns(connection, ("running",), "id", cursor, limit)
    rows = connection.execute(SQL["running"], {"ids": [row["id"] for row in found.items]}).fetchall()
    speeds = [row.pop("messages_per_second") for row in rows]
    return [Running(Progress(**row), speed) for row, speed in zip(rows, speeds, strict=True)], found.next_cursor


def _campaigns(
    connection: db.Connection, statuses: Collection[str], sort: str, cursor: str | None, limit: int
) -> listing.Page:
    statement = select(Campaign.id, Campaign.sending_start)
    if statuses:
        statement = statement.where(Campaign.status.in_(statuses))
    return listing.page(connection, statement, ORDERS, ORDERS["id"], sort=sort, cursor=cursor, limit=limit)


def of_campaigns(connection: db.Connection, ids: list[int]) -> list[dict[str, Any]]:
    """The rows of reporting.campaign_statistics of these campaigns, in this order; no others are counted."""
    return connection.execute(SQL["campaign_statistics"], {"ids": ids}).fetchall()
