"""Campaigns as rows: creating, editing, pausing, resuming, cancelling, reading. What their runs do is in `runs`.

Functions take a connection and never commit; times are aware. A transition is one guarded UPDATE: from its commit on,
no claim is granted that it forbids, whoever sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from mailing import audit, db
from mailing.campaign_rows import CampaignDetails as CampaignDetails
from mailing.campaign_rows import Progress as Progress
from mailing.campaign_rows import get as get
from mailing.campaign_rows import page as page
from mailing.campaign_rows import progress as progress
from mailing.errors import Conflict, InvalidInput, NotFound
from mailing.models import DEFAULT_GATEWAY, MAX_TEXT
from mailing.window import LEAD, TRAIL, Window

SQL = db.queries("campaigns")

WRONG_VALUES = {
    "campaigns_text_length_check": f"text: wanted 1 to {MAX_TEXT} characters",
    "campaigns_name_length_check": "name: wanted 1 to 200 characters, or none",
    "campaigns_window_order_check": "sending_stop: wanted a moment after sending_start",
    "campaigns_window_range_check": "sending_start, sending_stop: wanted moments from the years 2000 to 9998",
    "campaigns_filter_operator_codes_form_check": "filter_operator_codes: wanted codes of three digits",
    "campaigns_filter_tags_known": "filter_tags: wanted names of existing tags",
    "campaigns_audience_known_check": "audience: wanted snapshot or live",
    "campaigns_on_doubt_known_check": "on_doubt: wanted hold or resend",
    "campaigns_gateway_fkey": "gateway: wanted the name of an existing gateway",
    "campaigns_local_hours_both_ends_check": "local_from, local_to: wanted both ends of the local hours, or neither",
    "campaigns_local_hours_not_empty_check": "local_from, local_to: wanted two different times",
    "campaigns_local_hours_in_a_day_check": "local_from, local_to: wanted times before 24:00 (midnight is 00:00)",
    "campaigns_messages_per_second_positive_check": "messages_per_second: wanted a number above 0, or none",
}
"""What was wanted, by the constraint that a value broke."""

EDITABLE = (
    "name", "text", "sending_start", "sending_stop", "filter_tags", "filter_operator_codes", "audience", "on_doubt",
    "local_from", "local_to", "messages_per_second", "gateway",
)  # fmt: skip

TRANSITIONS = {
    "pause": ("paused", ("scheduled", "running")),
    "resume": ("running", ("paused",)),
    "cancel": ("cancelled", ("scheduled", "running", "paused")),
}
"""Of each action: what the campaign is then, and what it must be before."""

DONE_ALREADY = {"pause": ("paused",), "resume": ("scheduled", "running"), "cancel": ("cancelled",)}
"""Where a second press of the same button changes nothing."""


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """What a campaign's DAG needs to know of its row."""

    id: int
    name: str | None
    window: Window
    wake_at: datetime | None
    is_live: bool = False  # its audience grows while its window is open

    @classmethod
    def from_json(cls, campaign: Mapping[str, Any]) -> CampaignRow:
        """Read one object of `relevant`. Raises ValueError, KeyError or TypeError for one that makes no sense."""
        wake_at = campaign["wake_at"]
        return cls(
            id=int(campaign["id"]),
            name=campaign["name"],
            window=Window(
                datetime.fromisoformat(campaign["sending_start"]), datetime.fromisoformat(campaign["sending_stop"])
            ),
            wake_at=datetime.fromisoformat(wake_at) if wake_at else None,
            is_live=campaign.get("audience") == "live",
        )


def relevant(connection: db.Connection) -> list[dict[str, Any]]:
    """The campaigns that are DAGs now, by id, as JSON objects for `CampaignRow.from_json`: one query."""
    rows = connection.execute(SQL["relevant_campaigns"], {"lead": LEAD, "trail": TRAIL})
    return [row["campaign"] for row in rows]


def create(
    connection: db.Connection,
    *,
    text: str,
    sending_start: datetime,
    sending_stop: datetime,
    name: str | None = None,
    filter_tags: Iterable[str] = (),
    filter_operator_codes: Iterable[str] = (),
    audience: str = "snapshot",
    on_doubt: str = "hold",
    local_from: time | None = None,
    local_to: time | None = None,
    messages_per_second: float | Decimal | None = None,
    gateway: str = DEFAULT_GATEWAY,
    actor: str | None = None,
    draft_id: int | None = None,
) -> int:
    """The id of a new campaign. Raises InvalidInput for values that break a rule; then nothing is written.

    `actor`: who is to stand in the audit log; None: nobody, for a row that is written as SQL would write it.
    `draft_id`: of a row that will be rolled back, below zero; None: the next id.
    """
    if actor is not None:
        audit.check_actor("new campaign", actor)
    values = {
        "id": draft_id, "name": name, "text": text, "sending_start": sending_start, "sending_stop": sending_stop,
        "filter_tags": list(filter_tags), "filter_operator_codes": list(filter_operator_codes),
        "audience": audience, "on_doubt": on_doubt, "local_from": local_from, "local_to": local_to,
        "messages_per_second": messages_per_second, "gateway": gateway,
    }  # fmt: skip
    row = _write(connection, "new campaign", SQL["insert_campaign"], values, values)
    if actor is not None:
        audit.record(connection, actor, "create", campaign_id=row["id"])
    return int(row["id"])


def edit(connection: db.Connection, campaign_id: int, *, actor: str, **changes: Any) -> None:
    """Change what is given of `EDITABLE`; it counts for messages that are not claimed yet.

    A new filter leaves out who does not match any more and adds who does; a later stop opens an ended window again.
    Raises NotFound, InvalidInput for values that break a rule, Conflict for a campaign that is cancelled, or finished
    and not extended; then nothing is written.
    """
    thing = f"campaign {campaign_id}"
    audit.check_actor(thing, actor)
    if unknown := sorted(set(changes) - set(EDITABLE)):
        raise InvalidInput(f"{thing}: {', '.join(unknown)}: wanted some of {', '.join(EDITABLE)}", unknown)
    if not changes:
        return
    campaign = lock(connection, campaign_id)
    if campaign["status"] == "cancelled":
        raise Conflict(f"{thing}: edit: wanted a campaign that is not cancelled")
    if campaign["status"] == "finished" and set(changes) - {"name"} and not _is_later(changes, campaign):
        raise Conflict(f"{thing}: edit: it is finished; wanted a later sending_stop, which opens it again")
    columns = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder(column)) for column in changes
    )
    statement = sql.SQL(
        "UPDATE campaigns SET {} WHERE id = {} RETURNING id, sending_stop <= clock_timestamp() AS is_over"
    )
    values = {name: list(value) if name.startswith("filter_") else value for name, value in changes.items()}
    _write(connection, thing, statement.format(columns, campaign_id), values, changes)
    audit.record(connection, actor, "edit", campaign_id=campaign_id, changed=sorted(changes))


def _is_later(changes: Mapping[str, Any], campaign: Mapping[str, Any]) -> bool:
    stop = changes.get("sending_stop")
    return isinstance(stop, datetime) and stop.tzinfo is not None and stop > campaign["sending_stop"]


def _write(
    connection: db.Connection, thing: str, statement: Any, values: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """What `statement` returns. Raises InvalidInput for values that break a rule, and then writes nothing."""
    for end in ("sending_start", "sending_stop"):
        if end in given and (not isinstance(given[end], datetime) or given[end].tzinfo is None):
            raise InvalidInput(f"{thing}: {end}: wanted a moment with a time zone, got {given[end]}", [end])
    try:
        with connection.transaction():
            row = db.one(connection, statement, values)
            assert row is not None  # noqa: S101 - RETURNING, of a row that is locked
            if row["is_over"] and "sending_stop" in given:
                said = f"{thing}: sending_stop: wanted a moment to come, got {given['sending_stop']}"
                raise InvalidInput(said, ["sending_stop"])
    except psycopg.errors.IntegrityError as error:  # which shows the row, text and all: not to be seen in a traceback
        raise _what_was_wanted(thing, error, given) from None
    except (psycopg.DataError, psycopg.errors.DatatypeMismatch) as error:
        raise InvalidInput(f"{thing}: {error.diag.message_primary or error}") from None
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{thing}: wanted text that is Unicode, got {error.reason}") from None
    return row


def _what_was_wanted(thing: str, error: psycopg.errors.IntegrityError, given: Mapping[str, Any]) -> InvalidInput:
    """The rule and the values that broke it; the text's length instead of the text, which logs must not show."""
    constraint = error.diag.constraint_name or ""
    wanted = WRONG_VALUES.get(constraint, f"{error.diag.column_name or constraint}: {error.diag.message_primary}")
    names = wanted.partition(":")[0].split(", ")
    shown = [name for name in names if name in given]
    got = {name: f"{len(given[name] or '')} characters" if name == "text" else given[name] for name in shown}
    said = ", ".join(f"{name}={value}" for name, value in got.items())
    hint = f" ({error.diag.message_primary})" if constraint == "campaigns_filter_tags_known" else ""
    return InvalidInput(f"{thing}: {wanted}" + (f", got {said}" if said else "") + hint, names)


def pause(connection: db.Connection, campaign_id: int, *, actor: str) -> None:
    """Claim nothing more until it is resumed; what is in flight is recorded. Raises NotFound, Conflict."""
    _change_status(connection, campaign_id, "pause", actor)


def resume(connection: db.Connection, campaign_id: int, *, actor: str) -> None:
    """Send the remainder. Raises NotFound, and Conflict unless it is paused and its window is not over."""
    _change_status(connection, campaign_id, "resume", actor)


def cancel(connection: db.Connection, campaign_id: int, *, actor: str) -> None:
    """Send nothing more, for good; what is in flight is recorded. Raises NotFound, Conflict.

    The pending messages become `cancelled` when the campaign is closed (`runs.close`): by its run, by upkeep within a
    minute, or by whoever calls, in a transaction of its own.
    """
    _change_status(connection, campaign_id, "cancel", actor)


def _change_status(connection: db.Connection, campaign_id: int, action: str, actor: str) -> None:
    audit.check_actor(f"campaign {campaign_id}", actor)
    campaign = lock(connection, campaign_id)
    status, before = TRANSITIONS[action]
    if campaign["status"] in DONE_ALREADY[action]:
        return
    if campaign["status"] not in before:
        raise Conflict(f"campaign {campaign_id}: {action}: wanted {' or '.join(before)}, it is {campaign['status']}")
    if action == "resume" and campaign["is_over"]:
        raise Conflict(f"campaign {campaign_id}: resume: its window closed at {campaign['sending_stop']}")
    parameters = {"campaign_id": campaign_id, "status": status, "from": list(before)}
    with connection.transaction():
        connection.execute(SQL["change_status"], parameters)
        audit.record(connection, actor, action, campaign_id=campaign_id)


def delete(connection: db.Connection, campaign_id: int, *, actor: str) -> None:
    """Forget a campaign of which nothing ever left: its messages, batches and test sends go with it.

    Raises NotFound, and Conflict where it may have sent something, or still may; then nothing is written.
    """
    thing = f"campaign {campaign_id}"
    audit.check_actor(thing, actor)
    campaign = lock_for_deletion(connection, campaign_id)
    if campaign["status"] not in ("cancelled", "finished") and (
        campaign["status"] != "scheduled" or campaign["opens_in_s"] <= 0
    ):
        raise Conflict(f"{thing}: delete: wanted one whose start is still ahead, or that is over; cancel it instead")
    row = db.one(connection, SQL["what_left"], {"campaign_id": campaign_id})
    if row and row["holder"]:
        raise Conflict(f"{thing}: delete: wanted one that no task is at, {row['holder']} is")
    if row and row["message_id"]:
        raise Conflict(f"{thing}: delete: wanted one of which nothing left; message {row['message_id']} was claimed")
    with connection.transaction():
        connection.execute(SQL["delete_messages"], {"campaign_id": campaign_id})
        connection.execute(SQL["delete_campaign"], {"campaign_id": campaign_id})
        audit.record(connection, actor, "delete", campaign_id=campaign_id)


def lock_for_deletion(connection: db.Connection, campaign_id: int) -> dict[str, Any]:
    """As `lock`, and against whoever would add messages, too: before `lock`, or the two may wait for each other."""
    connection.execute(SQL["lock_campaign_wholly"], {"campaign_id": campaign_id})
    return lock(connection, campaign_id)


def lock(connection: db.Connection, campaign_id: int) -> dict[str, Any]:
    """The campaign's row, locked until the transaction ends, with its window told by the database's clock.

    Raises NotFound, and Conflict for one that is archived: nothing about it changes any more.
    """
    row = db.one(connection, SQL["lock_campaign"], {"campaign_id": campaign_id})
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    if row["archived_at"] is not None:
        raise Conflict(
            f"campaign {campaign_id}: its messages were dropped at {row['archived_at']}: it can only be read"
        )
    return row


def signals(connection: db.Connection) -> dict[int, dict[str, Any]]:
    """What a waiting task watches, by campaign: status, `has_ended`, `updated`, `closes_s`; its gateway's breaker."""
    return {row["id"]: row for row in connection.execute(SQL["campaign_signals"], {"trail": TRAIL})}
