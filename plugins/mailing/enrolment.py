"""What people do to messages by hand: enrol a client, postpone, remove. It cannot forge an outcome.

Functions take a connection and never commit; times are aware. What each of them means, and why:
docs/decisions/0014-what-writing-a-message-by-hand-means.md.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog

from mailing import audit, campaigns, db, runs, verdicts
from mailing.errors import Conflict, InvalidInput, NotFound
from mailing.local_hours import LocalHours
from mailing.window import LAST_CALL

SQL = db.queries("enrolment")

log = structlog.get_logger(__name__)

REMOVABLE = ("pending", "expired", "cancelled", "excluded")

_BEGUN = ("running", "paused")


def enrol(connection: db.Connection, campaign_id: int, client_id: int, *, actor: str) -> int:
    """The id of the client's new message: it joins the audience of a campaign that has opened, and a run sends it.

    Raises NotFound, and Conflict for a campaign that has not opened or is over, a client that does not match its
    filter, and one who is in its ledger already; then nothing is written.
    """
    thing = f"campaign {campaign_id}"
    audit.check_actor(thing, actor)
    parameters = {"campaign_id": campaign_id, "client_id": client_id}
    connection.execute(runs.SQL["lock_audience"], parameters)
    campaign = campaigns.lock(connection, campaign_id)
    if campaign["opened_at"] is None and campaign["status"] != "cancelled" and not campaign["is_over"]:
        raise Conflict(f"{thing}: enrol: it has not opened yet; whoever matches its filter then is in it anyway")
    _check_open(thing, "enrol", campaign)
    matches = _matches(connection, campaign_id, client_id)
    if matches is None:
        raise NotFound(f"client {client_id}: there is no such client")
    if not matches:
        raise Conflict(f"client {client_id} does not match the filter of campaign {campaign_id}")
    message_id = _enrol(connection, campaign, parameters)
    verdicts.reopen(connection, campaign_id)
    audit.record(connection, actor, "enrol", campaign_id=campaign_id, message_id=message_id, client_id=client_id)
    return message_id


def _matches(connection: db.Connection, campaign_id: int, client_id: int) -> bool | None:
    """Whether the client matches the campaign's filter as it is now; None: there is no such client."""
    client = db.one(connection, SQL["client_to_enrol"], {"campaign_id": campaign_id, "client_id": client_id})
    return None if client is None else bool(client["matches"])


def _enrol(connection: db.Connection, campaign: dict[str, Any], parameters: dict[str, Any]) -> int:
    batching = {"batch_size": runs.BATCH_SIZE, "id_span": runs.ID_SPAN, "is_live": campaign["audience"] == "live"}
    connection.execute(runs.SQL["make_room"], parameters)
    row = db.one(connection, SQL["enrol_client"], parameters | batching)
    if row is not None:
        return int(row["id"])
    said = f"client {parameters['client_id']} is in the ledger of campaign {campaign['id']} already"
    if there := db.one(connection, SQL["message_of_client"], parameters):
        said += f": message {there['id']}, {there['state']}"
    raise Conflict(said)


def postpone(connection: db.Connection, message_id: int, not_before: datetime | None, *, actor: str) -> None:
    """Send a pending message not before this moment of its campaign's window; None: as soon as may be.

    Its client's local hours hold all the same. Raises NotFound; InvalidInput for a moment at which, and after which, it
    could not be sent; Conflict for a message that is not pending, or whose campaign sends nothing more.
    """
    thing = f"message {message_id}"
    audit.check_actor(thing, actor)
    parameters = {"message_id": message_id, "not_before": not_before}
    campaign = campaigns.lock(connection, _campaign_of(connection, message_id))
    message = db.one(connection, SQL["message_to_postpone"], parameters)
    if message is None:
        raise Conflict(f"{thing}: postpone: a task is at it this very moment")
    if message["state"] != "pending":
        raise Conflict(f"{thing}: postpone: wanted a message that is pending, it is {message['state']}")
    _check_open(f"{thing}: campaign {campaign['id']}", "postpone", campaign)
    if not_before is not None:
        _check_moment(thing, not_before, campaign, message)
    connection.execute(SQL["postpone_message"], parameters)
    if message["not_before"] is not None and (not_before is None or not_before < message["not_before"]):
        verdicts.reopen(connection, campaign["id"])  # its task waits for the later moment
    audit.record(
        connection, actor, "postpone", campaign_id=campaign["id"], message_id=message_id,
        not_before=not_before and not_before.isoformat(),
    )  # fmt: skip


def _campaign_of(connection: db.Connection, message_id: int) -> int:
    row = db.one(connection, SQL["campaign_of_message"], {"message_id": message_id})
    if row is None:
        raise NotFound(f"message {message_id}: there is no such message")
    return int(row["campaign_id"])


def _check_moment(thing: str, at: datetime, campaign: dict[str, Any], message: dict[str, Any]) -> None:
    if at.tzinfo is None:
        raise InvalidInput(f"{thing}: not_before: wanted a moment with a time zone, got {at}", ["not_before"])
    start, stop = campaign["sending_start"], campaign["sending_stop"] - LAST_CALL  # later, nothing is begun
    if not start <= at < stop:
        raise InvalidInput(
            f"{thing}: not_before: wanted a moment from {start} on and before {stop}, got {at}", ["not_before"]
        )
    if message["local_from"] is None or message["timezone"] is None:
        return
    opens_at = LocalHours(message["local_from"], message["local_to"]).span(message["timezone"], at).opens_at
    if opens_at >= stop:
        raise InvalidInput(
            f"{thing}: not_before: wanted a moment after which the local hours of client {message['client_id']} open"
            f" before {stop}; after {at} they do at {opens_at}",
            ["not_before"],
        )


def remove(connection: db.Connection, message_id: int, *, actor: str) -> None:
    """Take a message out of the ledger that never left; the campaign's audience is one less.

    It is no stop list: who matches joins again when a filter is edited or a run is triggered by hand. Raises NotFound,
    and Conflict for a message that was tried, or whose client would join again by itself (a live audience).
    """
    thing = f"message {message_id}"
    audit.check_actor(thing, actor)
    parameters = {"message_id": message_id, "removable": list(REMOVABLE)}
    message = _to_remove(connection, thing, parameters)
    campaign_id, client_id = message["campaign_id"], message["client_id"]
    if message["grows"] and _matches(connection, campaign_id, client_id):
        raise Conflict(
            f"{thing}: remove: the audience of campaign {campaign_id} is live, and client {client_id} matches its"
            " filter: it would join again"
        )
    if db.one(connection, SQL["remove_message"], parameters) is None:
        _to_remove(connection, thing, parameters)
        raise Conflict(f"{thing}: remove: a task was at it this very moment")
    audit.record(connection, actor, "remove", campaign_id=campaign_id, message_id=message_id, client_id=client_id)


def _to_remove(connection: db.Connection, thing: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The message as it stands. Raises NotFound, and Conflict for one that was tried."""
    message = db.one(connection, SQL["message_to_remove"], parameters)
    if message is None:
        raise NotFound(f"{thing}: there is no such message")
    if message["state"] not in REMOVABLE or message["attempts"] or message["tried"]:
        raise Conflict(
            f"{thing}: remove: wanted one that is {', '.join(REMOVABLE)} and was never tried,"
            f" it is {message['state']} after {message['attempts']} attempts"
        )
    return message


def _check_open(thing: str, action: str, campaign: dict[str, Any]) -> None:
    if campaign["status"] not in _BEGUN:
        raise Conflict(f"{thing}: {action}: wanted one that is {' or '.join(_BEGUN)}, it is {campaign['status']}")
    if campaign["is_over"]:
        raise Conflict(f"{thing}: {action}: its window closed at {campaign['sending_stop']}")
