"""Sends one batch: claim → POST → outcome, again and again, until nothing of it can be sent *now*.

The ledger is written by one exchange at a time: outcomes in and new claims out, in one transaction. A message is
claimed only when there is room to post it at once, so a killed task leaves no more in doubt than its requests in
flight. The exchange runs in a thread; the requests go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from mailing import db, messages, replies
from mailing.errors import MailingError
from mailing.gateway import Attempt, Gateway, open_gateway
from mailing.messages import Claim, Outcome, Outlook
from mailing.replies import Verdict

log = logging.getLogger(__name__)

T = TypeVar("T")

EXCHANGE_S = 0.05
"""Outcomes wait this long for company before they are written: a commit costs as much for fifty as for one."""

RECLAIM_S = 1.0
"""While slow replies are awaited, how often to look whether more of the batch has become due."""

HOLD_S = 5.0
"""A wait up to this long is made here; a longer one is the caller's to defer, so that it holds no worker slot."""

UNAUTHORIZED_S = 15.0
"""How long to leave a gateway alone that refuses the token: until a person has mended the connection."""

DATABASE_PATIENCE_S = 120.0
"""How long to hold on to outcomes while the database is away: they are known here and nowhere else."""

LAST_CALL_S = 1.0
"""A request that would have less time than this before the stop is not begun: the gateway answers in 0.25 to 0.75 s,
and what the stop cuts off is in doubt for ever, while what stays pending is simply expired."""


class Stopped(MailingError):
    """Again: the task was told to end; every message it had claimed is recorded, the rest is still pending."""


@dataclass(frozen=True, slots=True)
class Result:
    """How sending ended: outcomes by reason or state, seconds until there is more to do (None: never), and why."""

    counts: dict[str, int]
    wake_in_s: float | None
    said: str


class BatchSender:
    """Sends one batch of one campaign, once: `await BatchSender(campaign_id, number).run()`.

    Any number of them may work on one batch, in any number of processes: row locks and fencing tokens keep them apart.
    """

    def __init__(self, campaign_id: int, number: int, connect: Callable[[], db.Connection] = db.connect) -> None:
        self._campaign_id = campaign_id
        self._number = number
        self._connect = connect
        self._rng = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._counts: Counter[str] = Counter()
        self._in_flight: dict[asyncio.Task[None], Claim] = {}
        self._outcomes: list[tuple[float, Outcome]] = []  # with the moment of each, monotonic
        self._enough = asyncio.Event()
        self._exhausted_at: float | None = None  # when a claim last found less than it asked for
        self._broken: BaseException | None = None
        self._stopping = self._unauthorized = self._lost = False

    def stop(self) -> None:
        """Claim no more, and end as soon as what is in flight is answered. For a signal handler."""
        self._stopping = True

    async def run(self) -> Result:
        """Post what is due, write every outcome, and say when to come back.

        Raises NotFound for a batch that is not there, InvalidInput for a connection that cannot be used, Stopped after
        `stop()`, psycopg.OperationalError when the database stays away: what was in flight then is `unknown` once
        the lease has run out.
        """
        await asyncio.to_thread(self._begin)
        clean = False
        try:
            async with open_gateway(self._lease) as gateway:
                result = await self._send(gateway)
            clean = True
        finally:
            self._abandon()
            await asyncio.to_thread(self._end, clean)
        if self._stopping:
            raise Stopped(f"campaign {self._campaign_id}, batch {self._number}: told to stop; {result.said}")
        return result

    # -- the loop, in the event loop's thread

    async def _send(self, gateway: Gateway) -> Result:
        while True:
            await self._exchange(gateway)
            if self._in_flight or self._outcomes:
                await self._await_replies()
                continue
            if self._stopping:
                return Result(dict(self._counts), None, "stopped")
            if self._unauthorized:
                return Result(dict(self._counts), UNAUTHORIZED_S, "the gateway refuses the connection's token")
            result = self._judge_outlook(await self._in_database(self._look))
            if result.wake_in_s is None or result.wake_in_s > HOLD_S:
                return result
            await asyncio.sleep(result.wake_in_s)
            self._rewind()

    async def _exchange(self, gateway: Gateway) -> None:
        """Write the outcomes there are, and post what may be claimed instead of them."""
        if self._broken:
            raise self._broken
        if self._exhausted_at is not None and time.monotonic() - self._exhausted_at > RECLAIM_S:
            self._rewind()
        room = 0 if self._is_closed_to_claims() else self._limit - len(self._in_flight)
        if room <= 0 and not self._outcomes and not self._is_renewal_due():
            return
        outcomes = self._outcomes.copy()
        began = time.monotonic()
        claims = await self._in_database(lambda: self._write(outcomes, room))
        # Only now: an outcome that is not written must never be forgotten.
        del self._outcomes[: len(outcomes)]
        for claim in claims:
            # The stop, as seen from before the claim was made: never later than it is.
            task = asyncio.create_task(self._post(gateway, claim, began + claim.left_s))
            self._in_flight[task] = claim
            task.add_done_callback(self._settle)

    def _is_closed_to_claims(self) -> bool:
        return self._stopping or self._unauthorized or self._lost or self._exhausted_at is not None

    def _rewind(self) -> None:
        self._exhausted_at, self._cursor = None, self._batch.first_id

    async def _await_replies(self) -> None:
        """Until half of the requests are answered, or some are and have waited for company, or it is time to look."""
        self._enough.clear()
        if self._in_flight and len(self._outcomes) < self._half:
            patience = RECLAIM_S if self._is_closed_to_claims() and not self._outcomes else EXCHANGE_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), patience)

    @property
    def _half(self) -> int:
        return max(1, self._limit // 2)

    async def _post(self, gateway: Gateway, claim: Claim, deadline: float) -> None:
        now = time.monotonic()
        timeout_s = min(self._lease.timeout_s, deadline - now)
        if timeout_s <= 0 or now >= self._renewed_at + messages.LEASE.total_seconds():
            # This process stood still until the window had closed, or its claims were somebody else's to settle.
            outcome = Outcome(claim.id, claim.attempts, "pending", reason="too_late", wait_s=0.0, burn=False)
        else:
            outcome = self._outcome(claim, await gateway.post(claim, timeout_s))
        self._outcomes.append((time.monotonic(), outcome))
        self._counts[outcome.reason or outcome.state] += 1

    def _settle(self, task: asyncio.Task[None]) -> None:
        """One request is over. Its claim is forgotten only when there is an outcome to write."""
        if task.cancelled():
            return
        if error := task.exception():
            self._broken = error
        else:
            del self._in_flight[task]
        if self._broken or not self._in_flight or len(self._outcomes) >= self._half:
            self._enough.set()

    def _abandon(self) -> None:
        """Whatever is still in flight is in doubt from now on: nobody will hear the answer."""
        for task, claim in self._in_flight.items():
            task.cancel()
            outcome = Outcome(claim.id, claim.attempts, "unknown", "task_stopped", wait_s=replies.FIRST_BACKOFF_S)
            self._outcomes.append((time.monotonic(), outcome))
        self._in_flight.clear()

    async def _in_database(self, work: Callable[[], T]) -> T:
        """What `work` returns, run in a thread, once more with a new connection each time the database was away."""
        give_up_at = time.monotonic() + DATABASE_PATIENCE_S
        while True:
            try:
                if self._connection.closed:
                    await asyncio.to_thread(self._reconnect)
                return await asyncio.to_thread(work)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning(
                    "campaign %s, batch %s: the database is away (%s), %s outcomes are waiting",
                    self._campaign_id, self._number, type(error).__name__, len(self._outcomes),
                )  # fmt: skip
                await asyncio.sleep(RECLAIM_S)

    def _outcome(self, claim: Claim, attempt: Attempt) -> Outcome:
        """What the ledger is to say of an attempt."""
        verdict = attempt.judgement.verdict
        outcome = Outcome(claim.id, claim.attempts, verdict.value, attempt.judgement.reason)
        if verdict in (Verdict.REPEAT, Verdict.IN_DOUBT):
            outcome.state = "pending" if verdict is Verdict.REPEAT else "unknown"
            outcome.wait_s = replies.backoff_s(claim.attempts, attempt.judgement.retry_after_s, self._rng)
        elif verdict is Verdict.UNAUTHORIZED:
            outcome.state, outcome.wait_s, outcome.burn = "pending", 0.0, False
            self._unauthorized = True
        if verdict is not Verdict.SENT:
            outcome.duration_ms = round(attempt.duration_s * 1000)
            outcome.status_code, outcome.error, outcome.reply = attempt.status_code, attempt.error, attempt.reply
        return outcome

    def _judge_outlook(self, look: Outlook) -> Result:
        """When to come back to the batch, seen that nothing of it can be claimed now."""
        counts = dict(self._counts)
        if look.status != "running" or look.is_over:
            return Result(counts, None, "the window is over" if look.is_over else f"the campaign is {look.status}")
        waits = []
        if look.pending:
            waits.append(look.due_s or 0.0)
        if look.sending:  # claimed by somebody else: settled by them, or by us once their lease has run out
            waits.append(max(look.lease_s or 0.0, 0.0) + RECLAIM_S)
        if not waits:
            return Result(counts, None, "nothing is left to send")
        if self._lost:
            return Result(counts, HOLD_S + RECLAIM_S, "the lease ran out")
        return Result(counts, min(waits), f"{look.pending} pending, {look.sending} claimed by other tasks")

    # -- what runs in a thread: one transaction each

    def _begin(self) -> None:
        self._connection = self._connect()
        with self._connection.transaction():
            messages.plan_for_sending(self._connection)
            self._batch = messages.batch(self._connection, self._campaign_id, self._number)
            messages.recover_claims(self._connection, self._campaign_id, self._batch)
            holder = f"{socket.gethostname()}:{os.getpid()}"
            self._lease = messages.take_lease(self._connection, self._campaign_id, self._number, holder)
        self._cursor = self._batch.first_id
        self._limit = 1
        self._last_call_s = min(LAST_CALL_S, self._lease.timeout_s)
        self._renewed_at = time.monotonic() - messages.RENEW_S  # the first exchange learns who shares the gateway

    def _write(self, outcomes: list[tuple[float, Outcome]], room: int) -> list[Claim]:
        now = time.monotonic()
        for at, outcome in outcomes:
            outcome.age_s = now - at
        self._lost = self._lost or now >= self._renewed_at + messages.LEASE.total_seconds()
        with self._connection.transaction():
            if self._is_renewal_due():
                self._renew(now)
            if outcomes:
                messages.record(self._connection, self._campaign_id, self._lease.token, [o for _, o in outcomes])
            if room <= 0 or self._lost:
                return []
            claims = messages.claim(
                self._connection, self._campaign_id, self._lease.token,
                from_id=self._cursor, last_id=self._batch.last_id, limit=room, last_call_s=self._last_call_s,
            )  # fmt: skip
        if claims:
            self._cursor = claims[-1].id + 1
        if len(claims) < room:
            self._exhausted_at = now
        return claims

    def _renew(self, now: float) -> None:
        sharers = messages.renew_lease(self._connection, self._lease.token)
        if sharers is None:
            self._lost = True
            return
        self._renewed_at = now
        self._limit = max(1, self._lease.requests_in_flight // sharers)

    def _is_renewal_due(self) -> bool:
        return not self._lost and time.monotonic() - self._renewed_at >= messages.RENEW_S

    def _look(self) -> Outlook:
        with self._connection.transaction():
            look = messages.outlook(
                self._connection, self._campaign_id, self._lease.token, self._number, self._batch, self._last_call_s
            )
            if look.sending and (look.lease_s or 0.0) <= 0.0:
                messages.recover_claims(self._connection, self._campaign_id, self._batch)
            return look

    def _reconnect(self) -> None:
        """A new connection. A claim whose answer was lost with the old one was never posted, and goes back."""
        self._connection = self._connect()
        known = [claim.id for claim in self._in_flight.values()] + [outcome.id for _, outcome in self._outcomes]
        with self._connection.transaction():
            messages.plan_for_sending(self._connection)
            messages.return_unposted(self._connection, self._campaign_id, self._lease.token, self._batch, known)

    def _end(self, clean: bool) -> None:
        """Write what is left to write and give the lease back; where that fails, the lease runs out by itself.

        After an error nothing goes back to pending: what the ledger holds for this lease then may have left.
        """
        with suppress(psycopg.Error), self._connection:
            if self._outcomes:
                messages.record(self._connection, self._campaign_id, self._lease.token, [o for _, o in self._outcomes])
            if clean:
                messages.return_unposted(self._connection, self._campaign_id, self._lease.token, self._batch, known=[])
            messages.release_lease(self._connection, self._lease.token)
