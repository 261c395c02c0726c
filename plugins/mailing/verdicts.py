"""What people say of messages that ended or are in doubt: a verdict on what is unknown, or send again what failed.

Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import structlog

from mailing import audit, campaign_rows, db
from mailing.errors import Conflict, InvalidInput, NotFound

SQL = db.queries("verdicts")

log = structlog.get_logger(__name__)

VERDICTS = ("send_again", "assume_sent", "give_up")
RESENDABLE = ("failed", "unknown")
UNKNOWN = ["unknown"]
"""What a verdict is on."""


def settle(connection: db.Connection, message_id: int, verdict: str, *, actor: str) -> None:
    """A person's word on one message that is `unknown`: `send_again`, `assume_sent` or `give_up`; kept with `actor`.

    `send_again` wakes the campaign; it wants its window open. Raises NotFound, InvalidInput, Conflict; then nothing is
    written.
    """
    _check_verdict(f"message {message_id}", verdict, actor)
    message = db.one(connection, SQL["message_for_verdict"], {"message_id": message_id})
    if message is None:
        raise NotFound(f"message {message_id}: there is no such message")
    if message["state"] != "unknown":
        raise Conflict(f"message {message_id}: {verdict}: wanted a message that is unknown, it is {message['state']}")
    campaign_id = message["campaign_id"]
    _apply(connection, _verdict_on(campaign_id, verdict, actor, ids=[message_id]))
    log.info(
        "settled", campaign_id=campaign_id, verdict=verdict, actor=actor, message_id=message_id,
        client_id=message["client_id"],
    )  # fmt: skip


def settle_all(
    connection: db.Connection,
    campaign_id: int,
    verdict: str,
    *,
    actor: str,
    reason: str | None = None,
    expected: int | None = None,
) -> int:
    """The same word on all `unknown` messages of a campaign (of one `reason`). Returns how many there were.

    `expected`: how many whoever decides was told of; None: however many. Raises NotFound, InvalidInput, and Conflict
    where there are more or fewer of them by now; then nothing is written.
    """
    thing = f"campaign {campaign_id}"
    _check_verdict(thing, verdict, actor)
    parameters = _verdict_on(campaign_id, verdict, actor, reason=reason)
    with connection.transaction():
        count = _settle_many(connection, parameters)
        if count == 0:
            campaign_rows.check_there(connection, campaign_id)
        _check_confirmed(f"{thing}: {verdict}", count, expected, "in doubt")
    _log_settled(parameters, count)
    return count


def settle_chosen(connection: db.Connection, message_ids: Collection[int], verdict: str, *, actor: str) -> int:
    """The same word on those of these messages that are `unknown`, of whatever campaigns. Returns how many they were.

    Raises as `settle` does, where one campaign of them cannot send again too; then nothing is written.
    """
    _check_verdict(f"{len(message_ids)} messages", verdict, actor)
    ids = list(message_ids)
    of_each = [
        _verdict_on(row["campaign_id"], verdict, actor, ids=ids)
        for row in connection.execute(SQL["campaigns_of"], {"ids": ids, "states": UNKNOWN})
    ]
    total = 0
    for parameters in of_each:
        count = _settle_many(connection, parameters)
        _log_settled(parameters, count)
        total += count
    return total


def resend(
    connection: db.Connection,
    campaign_id: int,
    states: Collection[str],
    *,
    message_ids: Collection[int] | None = None,
    expected: int | None = None,
    actor: str,
) -> dict[str, int]:
    """Send again, under the same ids, what `failed` or is `unknown` (or both). Returns how many there were of each.

    `message_ids`: only those of them. `expected`: how many whoever asks was told of; None: however many. An unknown
    message may have been taken, so its client may get it twice: whoever asks answers for that. Raises NotFound,
    InvalidInput, and Conflict for a campaign that is cancelled, or outside its window, and where there are more or
    fewer of them by now; then nothing is written.
    """
    thing = f"campaign {campaign_id}"
    audit.check_actor(thing, actor)
    if not states or set(states) - set(RESENDABLE):
        raise InvalidInput(f"{thing}: resend: wanted some of {', '.join(RESENDABLE)}, got {sorted(states)}", ["states"])
    counts = dict.fromkeys(sorted(states), 0)
    ids = None if message_ids is None else list(message_ids)
    parameters = {"campaign_id": campaign_id, "states": list(counts), "ids": ids, "reason": None, "actor": actor}
    with connection.transaction():
        if _lock(connection, parameters):
            _reopen_for(connection, campaign_id, "resend")
            counts |= {row["state"]: row["count"] for row in connection.execute(SQL["resend_messages"], parameters)}
        else:
            campaign_rows.check_there(connection, campaign_id)
        _check_confirmed(f"{thing}: resend", sum(counts.values()), expected, " or ".join(counts))
    if any(counts.values()):
        log.info("to be sent again", campaign_id=campaign_id, actor=actor, **counts)
    return counts


def resend_chosen(connection: db.Connection, message_ids: Collection[int], *, actor: str) -> int:
    """Send again those of these messages that `failed`, of whatever campaigns. Returns how many they were.

    Raises Conflict where one of their campaigns is cancelled, or outside its window; then nothing is written.
    """
    parameters = {"ids": list(message_ids), "states": ["failed"]}
    campaign_ids = [row["campaign_id"] for row in connection.execute(SQL["campaigns_of"], parameters)]
    counts = (resend(connection, id_, ["failed"], message_ids=message_ids, actor=actor) for id_ in campaign_ids)
    return sum(each["failed"] for each in counts)


def reopen(connection: db.Connection, campaign_id: int) -> bool:
    """Have the campaign run once more, also when it is resumed only later. False: it is cancelled, or not open."""
    return connection.execute(SQL["reopen"], {"campaign_id": campaign_id}).rowcount == 1


def _reopen_for(connection: db.Connection, campaign_id: int, action: str) -> None:
    if not reopen(connection, campaign_id):
        raise Conflict(f"campaign {campaign_id}: {action}: wanted a campaign that is not cancelled, its window open")


def _check_confirmed(thing: str, found: int, expected: int | None, state: str) -> None:
    """Raise Conflict where somebody confirmed another figure than was found; None: they confirmed none.

    To be called once the rows are changed, for only then is it sure how many they were: the caller takes it all back.
    """
    if expected is not None and found != expected:
        raise Conflict(
            f"{thing}: {found:,} {'is' if found == 1 else 'are'} {state} by now,"
            f" {expected:,} {'was' if expected == 1 else 'were'} confirmed: look again"
        )


def _check_verdict(thing: str, verdict: str, actor: str) -> None:
    if verdict not in VERDICTS:
        raise InvalidInput(f"{thing}: verdict {verdict!r}: wanted one of {', '.join(VERDICTS)}")
    audit.check_actor(thing, actor)


def _verdict_on(
    campaign_id: int, verdict: str, actor: str, *, ids: list[int] | None = None, reason: str | None = None
) -> dict[str, Any]:
    """A verdict on a campaign's unknown messages as parameters of a statement. `ids`, `reason`: None stands for any."""
    return {
        "campaign_id": campaign_id, "states": UNKNOWN, "ids": ids, "reason": reason, "verdict": verdict, "actor": actor,
    }  # fmt: skip


def _settle_many(connection: db.Connection, parameters: dict[str, Any]) -> int:
    return _apply(connection, parameters) if _lock(connection, parameters) else 0


def _lock(connection: db.Connection, parameters: dict[str, Any]) -> int:
    """How many messages the verdict is on: from now on they are nobody else's."""
    row = db.one(connection, SQL["lock_messages"], parameters)
    return int(row["count"]) if row else 0


def _log_settled(parameters: dict[str, Any], count: int) -> None:
    if count:
        log.info("settled", messages=count, **{name: parameters[name] for name in ("campaign_id", "verdict", "actor")})


def _apply(connection: db.Connection, parameters: dict[str, Any]) -> int:
    if parameters["verdict"] == "send_again":
        _reopen_for(connection, parameters["campaign_id"], "send_again")
    row = db.one(connection, SQL["apply_verdict"], parameters)
    return int(row["count"]) if row else 0
