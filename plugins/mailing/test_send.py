"""Sends a campaign's text to a few given clients, now and outside all statistics: to see it arrive.

Each is a row of `test_sends`, committed before its request leaves and settled after; a row that stays `sending` is of a
server that died in between. Logs name campaign, test send and client by their ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import structlog

from mailing import audit, campaign_rows, db, gateways, messages, throttle
from mailing.errors import Conflict, InvalidInput, NotFound
from mailing.gateway import Attempt, Gateway, open_gateway
from mailing.messages import Claim, Terms
from mailing.replies import Verdict

SQL = db.queries("test_sends")

MAX_CLIENTS = 10

SLOT_PATIENCE_S = 10.0
"""How long the test sends of one call may wait for slots of the throttle, together: somebody waits for the answer."""

STATES = {Verdict.SENT: "sent", Verdict.IN_DOUBT: "unknown"}
"""What becomes of a test send; whatever else an attempt came to is `failed`: nothing is tried again."""

log = structlog.get_logger(__name__)

Transaction = Callable[[], AbstractContextManager[db.Connection]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send to whom: `recipients` are phone numbers by client id."""

    campaign_id: int
    actor: str
    terms: Terms
    text: str = field(repr=False)
    recipients: dict[int, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TestSendRow:
    """What became of one: `state` is sent, failed (the gateway refused it, or it never left) or unknown.

    `id`: None for one that was not begun, because its campaign was cancelled or deleted meanwhile.
    """

    id: int | None
    client_id: int
    state: str
    reason: str | None
    status_code: int | None
    error: str | None
    reply: str | None

    @property
    def is_unanswered(self) -> bool:
        """Whether the gateway said nothing to it, or to the one before."""
        return self.reason in ("not_reached", "no_answer", "connection_lost", "not_tried")


def plan(connection: db.Connection, campaign_id: int, client_ids: Collection[int], *, actor: str) -> Plan:
    """What `send` is to send; kept with `actor`. The caller commits it before.

    Raises NotFound, InvalidInput for clients that are not there (or not 1 to 10), and Conflict for a campaign that is
    cancelled and for a gateway whose breaker is not closed.
    """
    thing = f"campaign {campaign_id}: test send"
    audit.check_actor(thing, actor)
    if not 1 <= len(set(client_ids)) == len(client_ids) <= MAX_CLIENTS:
        raise InvalidInput(f"{thing}: clients: wanted 1 to {MAX_CLIENTS} different ones", ["clients"])
    campaign_rows.check_there(connection, campaign_id)
    row = db.one(connection, SQL["terms"], {"campaign_id": campaign_id})
    if row is None:  # deleted this very moment
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    text, terms = row.pop("text"), Terms(**row)
    if terms.status == "cancelled":
        raise Conflict(f"{thing}: wanted a campaign that is not cancelled")
    if terms.breaker_state != "closed":
        raise Conflict(f"{thing}: gateway {terms.gateway} is left alone ({terms.breaker_reason}); wanted it well")
    found = connection.execute(SQL["recipients"], {"client_ids": list(client_ids)})
    numbers = {client["id"]: client["phone_number"] for client in found}
    if missing := sorted(set(client_ids) - set(numbers)):
        raise InvalidInput(f"{thing}: clients: there is no client {', '.join(map(str, missing))}", ["clients"])
    audit.record(connection, actor, "test_send", campaign_id=campaign_id, clients=list(client_ids))
    return Plan(campaign_id, actor, terms, text, {client_id: numbers[client_id] for client_id in client_ids})


def send(planned: Plan, transaction: Transaction, slot_patience_s: float = SLOT_PATIENCE_S) -> list[TestSendRow]:
    """Send it, one after the other, within the throttle. What became of each, in the order of the plan.

    `transaction`: opens one of its own for each row. Raises psycopg's errors; then what was begun may have left.
    """
    return asyncio.run(_send(planned, transaction, time.monotonic() + slot_patience_s))


async def _send(planned: Plan, transaction: Transaction, deadline: float) -> list[TestSendRow]:
    async with AsyncExitStack() as stack:
        try:
            gateway = await stack.enter_async_context(open_gateway(planned.terms))
        except InvalidInput as error:  # nothing has left
            said = str(error)
            return [_settled(planned, transaction, each, "connection_unusable", said) for each in planned.recipients]
        sent: list[TestSendRow] = []
        for each in planned.recipients:
            if sent and sent[-1].is_unanswered:  # somebody waits for us, and it may take five minutes to say nothing
                sent.append(_settled(planned, transaction, each, "not_tried", None))
            else:
                sent.append(await _send_one(planned, transaction, gateway, each, deadline))
        return sent


async def _send_one(
    planned: Plan, transaction: Transaction, gateway: Gateway, client_id: int, deadline: float
) -> TestSendRow:
    if not await _slot(planned, transaction, deadline):
        return _settled(planned, transaction, client_id, "throttle", None)
    test_id = _begin(planned, transaction, client_id)
    if test_id is None:
        return _not_begun(client_id)
    timeout_s = planned.terms.timeout_s
    claim = Claim(test_id, client_id, 1, planned.recipients[client_id], planned.text, timeout_s, timeout_s)
    attempt = await gateway.post(claim, timeout_s)
    return _settle(planned, transaction, test_id, attempt)


async def _slot(planned: Plan, transaction: Transaction, deadline: float) -> bool:
    """Wait for the next slot of the throttle, as a task that sends would. False: there is none in time."""
    while planned.terms.is_paced:
        with transaction() as connection:
            locked = gateways.lock_schedule(connection, planned.campaign_id, planned.terms.gateway)
            at = time.monotonic()
            if locked is None:  # the campaign sends through another gateway by now
                return False
            schedule, now = locked
            booking = throttle.book(schedule, now, 1)
            gateways.save_schedule(connection, planned.campaign_id, planned.terms.gateway, booking)
        due = at + (booking.slots[0] if booking.slots else booking.again_at or now) - now
        if not booking.slots and due > deadline:
            return False
        await asyncio.sleep(due - time.monotonic())
        if booking.slots:
            break
    return True


def _begin(planned: Plan, transaction: Transaction, client_id: int) -> int | None:
    """Its id; None: the campaign was cancelled or deleted since it was planned."""
    parameters = {"campaign_id": planned.campaign_id, "client_id": client_id, "actor": planned.actor}
    with transaction() as connection:
        row = db.one(connection, SQL["begin_test_send"], parameters)
    return int(row["id"]) if row else None


def _not_begun(client_id: int) -> TestSendRow:
    return TestSendRow(None, client_id, "failed", "cancelled", None, None, None)


def _settled(planned: Plan, transaction: Transaction, client_id: int, reason: str, error: str | None) -> TestSendRow:
    """One that never left."""
    test_id = _begin(planned, transaction, client_id)
    if test_id is None:
        return _not_begun(client_id)
    return _write(planned, transaction, test_id, {"state": "failed", "reason": reason, "error": error})


def _settle(planned: Plan, transaction: Transaction, test_id: int, attempt: Attempt) -> TestSendRow:
    values = {
        "state": STATES.get(attempt.judgement.verdict, "failed"), "reason": attempt.judgement.reason,
        "status_code": attempt.status_code, "error": attempt.error, "reply": attempt.reply,
    }  # fmt: skip
    return _write(planned, transaction, test_id, values)


def _write(planned: Plan, transaction: Transaction, test_id: int, values: dict[str, Any]) -> TestSendRow:
    parameters = {"id": test_id, "status_code": None, **values}
    for name in ("error", "reply"):
        parameters[name] = messages.storable(values.get(name))
    with transaction() as connection:
        row = db.one(connection, SQL["settle_test_send"], parameters)
    assert row is not None  # noqa: S101 - RETURNING, of a row that nobody else knows of
    settled = TestSendRow(**row)
    log.info(
        "test send",
        campaign_id=planned.campaign_id,
        test_send_id=settled.id,
        client_id=settled.client_id,
        state=settled.state,
        reason=settled.reason,
    )
    return settled
