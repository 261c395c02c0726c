"""The ledger as people read it: one message, and pages of many. What is done with messages is in `messages`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, select

from mailing import db, listing
from mailing.errors import NotFound
from mailing.models import Message


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message as it stands."""

    id: int
    campaign_id: int
    client_id: int
    created: datetime
    state: str
    reason: str | None
    attempts: int
    revision: int | None  # of the campaign, as it was claimed last
    not_before: datetime | None
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages are wanted: all that is given must hold. A span (aware) ends before its `_to`."""

    campaign_id: int | None = None
    client_id: int | None = None
    states: Collection[str] = ()  # any of them
    reason: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    sent_from: datetime | None = None
    sent_to: datetime | None = None


EVERYTHING = Wanted()

SQL = db.queries("ledger")

GAP = 10_000
"""So many messages of other campaigns are read over rather than left out: a few milliseconds."""

MAX_SPANS = 32

_COLUMNS = (
    Message.id, Message.campaign_id, Message.client_id, Message.created, Message.state, Message.reason,
    Message.attempts, Message.revision, Message.not_before, Message.sent_at,
)  # fmt: skip


def get(connection: db.Connection, message_id: int) -> MessageRow:
    """One message. Raises NotFound."""
    found = listing.rows(connection, select(*_COLUMNS).where(Message.id == message_id))
    if not found:
        raise NotFound(f"message {message_id}: there is no such message")
    return MessageRow(**found[0])


def page(
    connection: db.Connection,
    wanted: Wanted = EVERYTHING,
    *,
    sort: str = "id",
    cursor: str | None = None,
    limit: int = listing.DEFAULT_LIMIT,
) -> listing.Page:
    """Some of the messages, by id, with the columns of `MessageRow`.

    Raises InvalidInput for a sort or a cursor that is none. In a transaction, a page of a campaign costs the same
    wherever it lies and however large the ledger is.
    """
    statement = select(*_COLUMNS).where(*_conditions(wanted))
    key: ColumnElement[Any] = Message.__table__.c.id
    if wanted.client_id is not None:
        key = Message.id + 0  # not by the primary key, whose order tempts the planner: the few of a client, then sorted
        statement = statement.where(Message.client_id == wanted.client_id)
        if wanted.campaign_id is not None:
            statement = statement.where(Message.campaign_id == wanted.campaign_id)
    elif wanted.campaign_id is not None:
        return _page_of_campaign(connection, statement, wanted.campaign_id, sort, cursor, limit)
    return listing.page(connection, statement, {"id": key}, key, sort=sort, cursor=cursor, limit=limit)


def _page_of_campaign(
    connection: db.Connection,
    statement: Select[*tuple[Any, ...]],
    campaign_id: int,
    sort: str,
    cursor: str | None,
    limit: int,
) -> listing.Page:
    """By the primary key, where the campaign's ids lie, span by span.

    The campaign's own index is in another order: each page would read and sort all of it.
    """
    key = Message.__table__.c.id
    statement = statement.where(Message.campaign_id == campaign_id)
    items: list[dict[str, Any]] = []
    connection.execute(SQL["plan_by_id"])
    for first_id, last_id in _spans(connection, campaign_id, is_descending=sort.startswith("-")):
        part = statement.where(Message.id.between(first_id, last_id))
        missing = limit - len(items)  # 0: is there one more?
        found = listing.page(connection, part, {"id": key}, key, sort=sort, cursor=cursor, limit=max(1, missing))
        items += found.items[:missing]
        if found.next_cursor or (found.items and not missing):
            connection.execute(SQL["plan_as_usual"])
            return listing.Page(items, listing.cursor_after(sort, [items[-1]["id"]]))
    connection.execute(SQL["plan_as_usual"])
    return listing.Page(items, None)


def _spans(connection: db.Connection, campaign_id: int, *, is_descending: bool) -> list[tuple[int, int]]:
    """First and last id of each span, in the order of the page; one that is empty where there are none."""
    parameters = {"campaign_id": campaign_id, "gap": GAP, "max_spans": MAX_SPANS}
    spans = [tuple(row.values()) for row in connection.execute(SQL["id_spans"], parameters)] or [(1, 0)]
    return spans[::-1] if is_descending else spans


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.states:
        conditions.append(Message.state.in_(wanted.states))
    if wanted.reason is not None:
        conditions.append(Message.reason == wanted.reason)
    for column, since, before in (
        (Message.created, wanted.created_from, wanted.created_to),
        (Message.sent_at, wanted.sent_from, wanted.sent_to),
    ):
        if since is not None:
            conditions.append(column >= since)
        if before is not None:
            conditions.append(column < before)
    return conditions
