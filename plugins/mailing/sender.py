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
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from mailing import db, messages, outcomes
from mailing.errors import InvalidInput, MailingError
from mailing.gateway import Gateway, open_gateway
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

SILENCE = 10
"""After so many requests in a row without an answer the task claims no more for a while: each may be in doubt for ever.
After such a pause, as at its start, it probes with one message until the gateway answers."""

STOP_PATIENCE_S = 3.0
"""After `stop`, how long to wait for replies: Airflow kills a task 5 s after it asked it to end."""

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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exhausted_at: float | None = None  # when a claim last found less than it asked for
        self._broken: BaseException | None = None
        self._stopped_at: float | None = None
        self._unauthorized = self._lost = self._answered = False
        self._unanswered = 0  # requests in a row

    def stop(self) -> None:
        """Claim no more, and end when what is in flight is answered, in 3 s at the latest. For signal handlers."""
        self._stopped_at = self._stopped_at or time.monotonic()
        if self._loop:
            self._loop.call_soon_threadsafe(self._enough.set)

    async def run(self) -> Result:
        """Post what is due, write every outcome, and say when to come back.

        Raises NotFound for a batch that is not there, Stopped after `stop()`, psycopg.OperationalError when the
        database stays away: what was in flight then is `unknown` once the lease has run out.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._begin)
        clean = False
        try:
            result = await self._send_through_gateway()
            clean = True
        finally:
            await asyncio.to_thread(self._end, clean)
        if self._stopped_at:
            raise Stopped(f"campaign {self._campaign_id}, batch {self._number}: told to stop; {result.said}")
        return result

    # -- the loop, in the event loop's thread

    async def _send_through_gateway(self) -> Result:
        async with AsyncExitStack() as stack:
            try:
                gateway = await stack.enter_async_context(open_gateway(self._lease))
            except InvalidInput as error:
                log.error("campaign %s, batch %s: %s", self._campaign_id, self._number, error)
                result = self._result(await self._in_database(self._look))
                return result if result.wake_in_s is None else Result(result.counts, outcomes.MEND_S, str(error))
            try:
                return await self._send(gateway)
            finally:
                self._abandon()  # before the session is closed under them

    async def _send(self, gateway: Gateway) -> Result:
        while True:
            await self._exchange(gateway)
            if self._stopped_at and (not self._in_flight or time.monotonic() > self._stopped_at + STOP_PATIENCE_S):
                return Result(dict(self._counts), None, f"{len(self._in_flight)} requests were not answered in time")
            if self._in_flight or self._outcomes:
                await self._await_replies()
                continue
            if self._unauthorized:
                log.error(
                    "campaign %s, batch %s: gateway %s refuses the token of connection %s",
                    self._campaign_id, self._number, self._lease.gateway, self._lease.connection_id,
                )  # fmt: skip
                return Result(dict(self._counts), outcomes.MEND_S, "the gateway refuses the connection's token")
            result = self._result(await self._in_database(self._look))
            if self._unanswered >= SILENCE and result.wake_in_s is not None:
                log.error("campaign %s, batch %s: the gateway does not answer", self._campaign_id, self._number)
                return Result(result.counts, max(result.wake_in_s, outcomes.MEND_S), "the gateway does not answer")
            if result.wake_in_s is None or result.wake_in_s > HOLD_S:
                return result
            await self._pause(result.wake_in_s)
            self._rewind()

    async def _pause(self, seconds: float) -> None:
        """Wait, unless there is news or the task is told to stop."""
        self._enough.clear()
        if self._stopped_at:
            seconds = min(seconds, EXCHANGE_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), seconds)

    async def _exchange(self, gateway: Gateway) -> None:
        """Write the outcomes there are, and post what may be claimed instead of them."""
        if self._broken:
            raise self._broken
        if self._exhausted_at is not None and time.monotonic() - self._exhausted_at > RECLAIM_S:
            self._rewind()
        limit = self._limit if self._answered else 1
        room = 0 if self._is_closed_to_claims() else limit - len(self._in_flight)
        if room <= 0 and not self._outcomes and not self._is_renewal_due():
            return
        answered = self._outcomes.copy()
        began = time.monotonic()
        claims = await self._in_database(lambda: self._write(answered, room))
        # Only now: an outcome that is not written must never be forgotten.
        del self._outcomes[: len(answered)]
        for claim in claims:
            # The stop, as seen from before the claim was made: never later than it is.
            task = asyncio.create_task(self._post(gateway, claim, began + claim.left_s))
            self._in_flight[task] = claim
            task.add_done_callback(self._settle)

    def _is_closed_to_claims(self) -> bool:
        is_silent = self._unanswered >= SILENCE
        return bool(self._stopped_at or self._unauthorized or is_silent or self._lost or self._exhausted_at)

    def _rewind(self) -> None:
        self._exhausted_at, self._cursor = None, self._batch.first_id

    async def _await_replies(self) -> None:
        """Until half of the requests are answered, or some are and have waited for company, or it is time to look."""
        if self._in_flight and len(self._outcomes) < self._half:
            patience = RECLAIM_S if self._is_closed_to_claims() and not self._outcomes else EXCHANGE_S
            await self._pause(patience)

    @property
    def _half(self) -> int:
        return max(1, self._limit // 2)

    async def _post(self, gateway: Gateway, claim: Claim, deadline: float) -> None:
        now = time.monotonic()
        timeout_s = min(self._lease.timeout_s, deadline - now)
        if timeout_s <= 0 or now >= self._renewed_at + messages.LEASE.total_seconds():
            # This process stood still until the window had closed, or its claims were somebody else's to settle.
            outcome = outcomes.too_late(claim)
        else:
            outcome = await self._attempt(gateway, claim, timeout_s)
        self._outcomes.append((time.monotonic(), outcome))
        self._counts[outcome.reason or outcome.state] += 1

    async def _attempt(self, gateway: Gateway, claim: Claim, timeout_s: float) -> Outcome:
        try:
            attempt = await gateway.post(claim, timeout_s)
        except Exception as error:
            # A fault of ours must cost this one message its certainty, and no other.
            log.exception("campaign %s, message %s: unforeseen", self._campaign_id, claim.id)
            return outcomes.unforeseen(claim, error)
        self._answered = self._answered or attempt.status_code is not None
        self._unanswered = 0 if attempt.status_code is not None else self._unanswered + 1
        if attempt.judgement.verdict is Verdict.UNAUTHORIZED:
            self._unauthorized = True
        return outcomes.of_attempt(claim, attempt, self._rng)

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
            if task.done() and not task.cancelled() and task.exception() is None:
                continue  # its outcome is written down already
            task.cancel()
            self._outcomes.append((time.monotonic(), outcomes.stopped(claim)))
        self._in_flight.clear()

    async def _in_database(self, work: Callable[[], T]) -> T:
        """What `work` returns, run in a thread, once more with a new connection each time the database was away."""
        give_up_at: float | None = None
        while True:
            try:
                if self._connection.closed:
                    await asyncio.to_thread(self._reconnect)
                return await asyncio.to_thread(work)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # From the first failure on, not from the call: that may itself have hung for a while.
                give_up_at = give_up_at or time.monotonic() + DATABASE_PATIENCE_S
                if time.monotonic() > give_up_at:
                    raise
                log.warning(
                    "campaign %s, batch %s: the database is away (%s), %s outcomes are waiting",
                    self._campaign_id, self._number, type(error).__name__, len(self._outcomes),
                )  # fmt: skip
                await asyncio.sleep(RECLAIM_S)

    def _result(self, look: Outlook) -> Result:
        wake_in_s, said = outcomes.next_look(look)
        if self._lost and wake_in_s is not None:
            wake_in_s, said = HOLD_S + RECLAIM_S, "the lease ran out"  # to be taken anew by the next run
        return Result(dict(self._counts), wake_in_s, said)

    # -- what runs in a thread: one transaction each

    def _begin(self) -> None:
        self._connection = self._connect()
        try:
            with self._connection.transaction():
                messages.plan_for_sending(self._connection)
                self._batch = messages.batch(self._connection, self._campaign_id, self._number)
                messages.recover_claims(self._connection, self._campaign_id, self._batch)
                holder = f"{socket.gethostname()}:{os.getpid()}"
                self._lease = messages.take_lease(self._connection, self._campaign_id, self._number, holder)
        except BaseException:
            self._connection.close()
            raise
        self._cursor = self._batch.first_id
        self._limit = 1
        self._last_call_s = min(LAST_CALL_S, self._lease.timeout_s)
        self._renewed_at = time.monotonic() - messages.RENEW_S  # the first exchange learns who shares the gateway

    def _write(self, answered: list[tuple[float, Outcome]], room: int) -> list[Claim]:
        now = time.monotonic()
        for at, outcome in answered:
            outcome.age_s = now - at
        self._lost = self._lost or now >= self._renewed_at + messages.LEASE.total_seconds()
        sharers: int | None = None
        is_renewal = self._is_renewal_due()
        with self._connection.transaction():
            if is_renewal:
                sharers = messages.renew_lease(self._connection, self._lease.token)
                self._lost = sharers is None
                self._limit = max(1, self._lease.requests_in_flight // (sharers or 1))
            if answered:
                messages.record(self._connection, self._campaign_id, self._lease.token, [o for _, o in answered])
            claims = [] if room <= 0 or self._lost else self._claim(room)
        if sharers:
            self._renewed_at = now  # only now that it is committed
        if claims:
            self._cursor = claims[-1].id + 1
        if len(claims) < room:
            self._exhausted_at = now
        return claims

    def _claim(self, room: int) -> list[Claim]:
        return messages.claim(
            self._connection, self._campaign_id, self._lease.token,
            from_id=self._cursor, last_id=self._batch.last_id, limit=room, last_call_s=self._last_call_s,
        )  # fmt: skip

    def _is_renewal_due(self) -> bool:
        return not self._lost and time.monotonic() - self._renewed_at >= messages.RENEW_S

    def _look(self) -> Outlook:
        """What is left, at a moment when nothing is in flight and nothing unwritten."""
        with self._connection.transaction():
            self._return_unposted(known=[])
            look = messages.outlook(
                self._connection, self._campaign_id, self._lease.token, self._number, self._batch, self._last_call_s
            )
            if look.sending and (look.lease_s or 0.0) <= 0.0:
                messages.recover_claims(self._connection, self._campaign_id, self._batch)
            return look

    def _reconnect(self) -> None:
        """A new connection. A claim whose answer was lost with the old one was never posted, and goes back."""
        self._connection = self._connect()
        try:
            # list(): the event loop goes on settling requests meanwhile.
            known = [claim.id for claim in list(self._in_flight.values())]
            known += [outcome.id for _, outcome in list(self._outcomes)]
            with self._connection.transaction():
                messages.plan_for_sending(self._connection)
                self._return_unposted(known)
        except BaseException:
            self._connection.close()  # to be done again, whole
            raise

    def _return_unposted(self, known: list[int]) -> None:
        messages.return_unposted(self._connection, self._campaign_id, self._lease.token, self._batch, known)

    def _end(self, clean: bool) -> None:
        """Write what is left to write and give the lease back; where that fails, the lease runs out by itself.

        After an error nothing goes back to pending: what the ledger holds for this lease then may have left.
        """
        with suppress(psycopg.Error):
            if self._connection.closed:
                self._connection = self._connect()
            with self._connection:
                if self._outcomes:
                    answered = [outcome for _, outcome in self._outcomes]
                    messages.record(self._connection, self._campaign_id, self._lease.token, answered)
                if clean:
                    self._return_unposted(known=[outcome.id for _, outcome in self._outcomes])
                messages.release_lease(self._connection, self._lease.token)
