"""Campaigns as they are read: the row, its progress, lists of them. `campaigns` hands these on, and writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from datetime import datetime, time
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, any_, cast, literal, select

from mailing import db, listing
from mailing.errors import Conflict, NotFound
from mailing.models import MESSAGE_STATES, Campaign

SQL = db.queries("campaigns")

FETCH = 2_000
"""Messages that a server-side cursor brings at a time."""

NOBODY: tuple[int, Iterator[dict[str, Any]]] = (0, iter(()))

_COLUMNS = Campaign.__table__.c

ORDERS: dict[str, ColumnElement[Any]] = {
    name: _COLUMNS[name] for name in ("id", "sending_start", "sending_stop", "created")
}
"""What a list of campaigns can be sorted by."""


@dataclass(frozen=True, slots=True)
class CampaignDetails:
    """A campaign's whole row. Times are aware; `local_from` and `local_to` are of the clients' own clocks."""

    id: int
    name: str | None
    text: str
    sending_start: datetime
    sending_stop: datetime
    filter_tags: list[str]
    filter_operator_codes: list[str]
    audience: str
    on_doubt: str
    local_from: time | None
    local_to: time | None
    messages_per_second: float | None
    gateway: str
    status: str
    revision: int
    wake_at: datetime | None
    audience_stale: bool
    opened_at: datetime | None
    finished_at: datetime | None
    archived_at: datetime | None
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How a campaign stands: `audience` is the sum of the eight states, always."""

    id: int
    name: str | None
    status: str
    audience: int
    pending: int
    sending: int
    sent: int
    failed: int
    unknown: int
    expired: int
    cancelled: int
    excluded: int
    opened_at: datetime | None
    finished_at: datetime | None
    wake_at: datetime | None
    gateway: str
    breaker_state: str
    breaker_reason: str | None
    breaker_probe_at: datetime | None
    first_claimed_at: datetime | None
    last_sent_at: datetime | None

    @property
    def standing(self) -> str:
        """For people: its status, and what keeps it from sending."""
        if self.status != "running" or self.breaker_state == "closed":
            return self.status
        if self.breaker_reason in ("http_401", "http_403"):
            return f"running; gateway {self.gateway} refuses the token of its connection"
        return f"running; waits for gateway {self.gateway} ({self.breaker_reason})"

    @property
    def counts(self) -> dict[str, int]:
        """The audience and its states, without those that nobody is in."""
        states = {state: getattr(self, state) for state in MESSAGE_STATES}
        return {"audience": self.audience} | {state: count for state, count in states.items() if count}


def get(connection: db.Connection, campaign_id: int) -> CampaignDetails:
    """One campaign. Raises NotFound."""
    row = db.one(connection, SQL["campaign"], {"campaign_id": campaign_id})
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return CampaignDetails(**row)


def check_kept(connection: db.Connection, campaign_id: int) -> None:
    """Raise Conflict where the campaign's messages were dropped (retention)."""
    row = db.one(connection, SQL["archived_at"], {"campaign_id": campaign_id})
    if row is not None:
        raise Conflict(
            f"campaign {campaign_id}: its messages were dropped at {row['archived_at']:%Y-%m-%d %H:%M} UTC: only its"
            f" figures are left (GET /api/statistics/campaigns/{campaign_id}/)"
        )


def check_there(connection: db.Connection, campaign_id: int) -> None:
    """Raise NotFound where there is no such campaign, and Conflict where its messages were dropped."""
    get(connection, campaign_id)
    check_kept(connection, campaign_id)


def progress(connection: db.Connection, campaign_id: int) -> Progress:
    """How the campaign stands now, by the counts that are kept with the ledger. Raises NotFound."""
    row = db.one(connection, SQL["campaign_progress"], {"campaign_id": campaign_id})
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return Progress(**row)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which campaigns a list is to have; what is not given leaves nobody out.

    `tag`, `operator_code`: named by the filter; `open_from`, `open_until` (aware): whose window has a moment between
    them; `name_prefix`: how the name begins.
    """

    statuses: Collection[str] = ()
    tag: str | None = None
    operator_code: str | None = None
    gateway: str | None = None
    open_from: datetime | None = None
    open_until: datetime | None = None
    name_prefix: str | None = None


EVERY_ONE = Choice()


def page(
    connection: db.Connection,
    choice: Choice = EVERY_ONE,
    *,
    sort: str = "id",
    cursor: str | None = None,
    limit: int = listing.DEFAULT_LIMIT,
) -> listing.Page:
    """Some of the campaigns, with the fields of `CampaignDetails`.

    Raises InvalidInput for a sort or a cursor that is none.
    """
    return listing.page(connection, _chosen(choice), ORDERS, _COLUMNS.id, sort=sort, cursor=cursor, limit=limit)


def in_full(
    connection: db.Connection, statuses: Collection[str] = ()
) -> Iterator[tuple[CampaignDetails, Iterator[dict[str, Any]]]]:
    """Every campaign with all its messages, as they stand at one moment: campaigns by id, messages by client.

    Read each campaign's messages before the next campaign: neither is held in memory. Wants a transaction of its own.
    """
    connection.execute(SQL["at_one_moment"])
    cursor = None
    while True:
        found = page(connection, Choice(statuses), cursor=cursor, limit=listing.MAX_LIMIT)
        yield from _with_messages(connection, [CampaignDetails(**row) for row in found.items])
        if (cursor := found.next_cursor) is None:
            return


def _with_messages(
    connection: db.Connection, campaigns: list[CampaignDetails]
) -> Iterator[tuple[CampaignDetails, Iterator[dict[str, Any]]]]:
    with connection.cursor(name="messages_of_campaigns") as rows:
        rows.itersize = FETCH
        rows.execute(SQL["messages_of_campaigns"], {"ids": [campaign.id for campaign in campaigns]})
        groups = groupby(rows, key=itemgetter("campaign_id"))
        campaign_id, messages = next(groups, NOBODY)
        for campaign in campaigns:
            if campaign.id != campaign_id:
                yield campaign, iter(())
                continue
            yield campaign, messages
            campaign_id, messages = next(groups, NOBODY)


def _chosen(choice: Choice) -> Select[*tuple[Any, ...]]:
    statement: Select[*tuple[Any, ...]] = select(*(_column(field.name) for field in fields(CampaignDetails)))
    if choice.statuses:
        statement = statement.where(Campaign.status.in_(list(choice.statuses)))
    if choice.tag is not None:
        statement = statement.where(literal(choice.tag) == any_(_COLUMNS.filter_tags))
    if choice.operator_code is not None:
        statement = statement.where(literal(choice.operator_code) == any_(_COLUMNS.filter_operator_codes))
    if choice.gateway is not None:
        statement = statement.where(Campaign.gateway == choice.gateway)
    if choice.open_from is not None:
        statement = statement.where(Campaign.sending_stop > choice.open_from)
    if choice.open_until is not None:
        statement = statement.where(Campaign.sending_start < choice.open_until)
    if choice.name_prefix is not None:
        statement = statement.where(Campaign.name.startswith(choice.name_prefix, autoescape=True))
    return statement


def _column(name: str) -> ColumnElement[Any]:
    column: ColumnElement[Any] = _COLUMNS[name]
    return cast(column, Float(53)).label(name) if name == "messages_per_second" else column
