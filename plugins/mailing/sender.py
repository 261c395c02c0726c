"""Sends one batch: claim → POST → outcome, again and again, until nothing of it can be sent *now*.

The ledger is written by one exchange at a time (`exchange`): outcomes in and new claims out, in one transaction. A
message is claimed when it can be posted at once, or within an exchange from now, so a killed task leaves no more in
doubt than twice its requests in flight. The exchange runs in a thread; the requests go on meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

import psycopg
import structlog
from airflow.sdk.observability import stats

from mailing import breaker, db, outcomes
from mailing.breaker import Report
from mailing.errors import InvalidInput, MailingError
from mailing.exchange import Exchange, Granted
from mailing.gateway import Gateway, open_gateway
from mailing.messages import Claim, Outcome
from mailing.outcomes import Wait
from mailing.replies import Verdict

T = TypeVar("T")

EXCHANGE_S = 0.05
"""Outcomes wait this long for company before they are written: a commit costs as much for fifty as for one."""

RECLAIM_S = 1.0
"""While slow replies are awaited, how often to look whether more of the batch has become due."""

HOLD_S = 5.0
"""A wait up to this long is made here; a longer one is the caller's to defer, so that it holds no worker slot."""

LATE_S = 0.03
"""A slot of the throttle that is missed by more is given up: what would have gone then must not go beside the next."""

STOP_PATIENCE_S = 3.0
"""After `stop`, how long to wait for replies: Airflow kills a task 5 s after it asked it to end."""

DATABASE_PATIENCE_S = 120.0
"""How long to hold on to outcomes while the database is away: they are known here and nowhere else."""


class Stopped(MailingError):
    """Again: the task was told to end; every message it had claimed is recorded, the rest is still pending."""


@dataclass(frozen=True, slots=True)
class Result:
    """How sending ended: attempts by reason or state, why, and what to wait for before there is more (None: never)."""

    counts: dict[str, int]
    said: str
    wait: Wait | None = None
    updated: float = 0.0  # epoch seconds: the campaign's row as it was when this was found

    @property
    def wake_in_s(self) -> float | None:
        """Seconds until there may be more to do, at the latest; None: never."""
        return self.wait.seconds if self.wait else None


class BatchSender:
    """Sends one batch of one campaign, once: `await BatchSender(campaign_id, number).run()`.

    Any number of them may work on one batch, in any number of processes: row locks and fencing tokens keep them apart.
    `is_probe`: the caller was given the right to probe the gateway, whose breaker is open.
    """

    def __init__(
        self,
        campaign_id: int,
        number: int,
        connect: Callable[[], db.Connection] = db.connect,
        *,
        is_probe: bool = False,
    ) -> None:
        self._log = structlog.get_logger(__name__).bind(campaign_id=campaign_id, batch=number)
        self._name = f"campaign {campaign_id}, batch {number}"
        self._exchange = Exchange(campaign_id, number, connect, is_probe=is_probe)
        self._rng = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._counts: Counter[str] = Counter()
        self._ready: deque[tuple[Claim, float]] = deque()  # claimed, not begun; with the moment of the claim
        self._slots: deque[float] = deque()  # when the next of them may go, where a limit applies
        self._awaiting_slot = 0  # posters that took a slot and wait for its moment
        self._in_flight: dict[int, Claim] = {}
        self._outcomes: list[tuple[float, Outcome]] = []  # with the moment of each
        self._met = Report()
        self._limit = 1  # how many requests this task may have in flight; few, until the gateway has answered at all
        self._posters: set[asyncio.Task[None]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()  # posters without work
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_paced = False
        self._ahead = 0  # as many as are answered between two exchanges are claimed before there is room for them
        self._exhausted_at: float | None = None  # when a claim last found less than it asked for
        self._slot_at = 0.0  # no slot before that
        self._broken: BaseException | None = None
        self._stopped_at: float | None = None
        self._is_answered = self._is_refused = False

    def stop(self) -> None:
        """Claim no more, and end when what is in flight is answered, in 3 s at the latest. For signal handlers."""
        self._stopped_at = self._stopped_at or time.monotonic()
        if self._loop:
            self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> Result:
        """Post what is due, write every outcome, and say what to wait for.

        Raises NotFound for a batch that is not there, Stopped after `stop()`, psycopg.OperationalError when the
        database stays away: what was in flight then is `unknown` once the lease has run out.
        """
        self._loop = asyncio.get_running_loop()
        gc.freeze()  # what Airflow imported need not be searched for garbage again and again: a quarter of our time
        await asyncio.to_thread(self._exchange.begin)
        clean = False
        try:
            result = await self._send_through_gateway()
            clean = True
        finally:
            left = [outcome for _, outcome in self._outcomes]
            with suppress(psycopg.Error):
                await asyncio.to_thread(self._exchange.end, left, clean=clean)
        if self._stopped_at:
            raise Stopped(f"{self._name}: told to stop; {result.said}")
        return result

    # -- the loop

    async def _send_through_gateway(self) -> Result:
        async with AsyncExitStack() as stack:
            try:
                gateway = await stack.enter_async_context(open_gateway(self._exchange.terms))
            except InvalidInput as error:
                return await self._give_up(str(error))
            self._warn_of_expiry(gateway)
            try:
                if self._exchange.is_probe:
                    await self._knock(gateway)
                return await self._send(gateway)
            finally:
                await self._abandon()  # before the session is closed under them

    async def _give_up(self, said: str) -> Result:
        """Of a gateway that cannot be asked: a person mends its connection."""
        self._log.error("the gateway cannot be used", reason=said)
        self._met.failed("connection_unusable", None, is_refused=True)
        await self._in_database(lambda: self._exchange.fail_to_open(self._met))
        result = await self._take_stock()
        return Result(result.counts, said, result.wait, result.updated) if result else Result({}, said)

    def _warn_of_expiry(self, gateway: Gateway) -> None:
        left_s = None if gateway.token_expires is None else gateway.token_expires - time.time()
        if left_s is not None and left_s < self._exchange.terms.token_warning_s:
            terms = self._exchange.terms
            self._log.warning(
                "the gateway's token expires", gateway=terms.gateway, connection=terms.connection_id, in_s=round(left_s)
            )

    async def _knock(self, gateway: Gateway) -> None:
        """Before a message is risked on a gateway that was gone, see whether anybody is there."""
        if reason := await gateway.knock(self._exchange.terms.timeout_s):
            self._met.failed(reason, None)

    async def _send(self, gateway: Gateway) -> Result:
        while True:
            await self._trade(gateway)
            if self._stopped_at and (not self._in_flight or time.monotonic() > self._stopped_at + STOP_PATIENCE_S):
                return Result(dict(self._counts), f"{len(self._in_flight)} requests were not answered in time")
            if self._in_flight or self._outcomes or self._ready:
                await self._await_replies()
            elif result := await self._rest(gateway):
                return result

    async def _rest(self, gateway: Gateway) -> Result | None:
        """With nothing to post now: wait a moment here, or say for what to wait elsewhere."""
        if self._exchange.terms.route != gateway.route:
            return Result(dict(self._counts), "the gateway was changed", Wait(0.0, "the gateway was changed"))
        result = await self._take_stock()
        if result is None:
            return None
        if self._is_refused:
            stats.incr("mailing.gateway.token_refused", tags={"gateway": self._exchange.terms.gateway})
            self._log.error(
                "the gateway refuses the token: put a good one into the connection's password",
                gateway=self._exchange.terms.gateway, connection=self._exchange.terms.connection_id,
            )  # fmt: skip
        if result.wait is None or result.wait.for_gateway or result.wait.seconds > HOLD_S:
            return result
        await self._pause(result.wait.seconds)
        self._rewind()
        return None

    async def _take_stock(self) -> Result | None:
        """Why nothing can be claimed; None if this task may go on: it was given the right to probe."""
        was_probe = self._exchange.is_probe
        look = await self._in_database(self._exchange.look)
        if self._exchange.is_probe and not was_probe:
            return Result(dict(self._counts), "it is time to probe the gateway", Wait(0.0, "probes"), look.updated)
        found = outcomes.next_look(look)
        if isinstance(found, str):
            return Result(dict(self._counts), found, None, look.updated)
        if self._exchange.is_lost:
            found = Wait(HOLD_S + RECLAIM_S, "the lease ran out")  # to be taken anew by the next run
        elif not found.for_gateway and self._slot_at > time.monotonic() + found.seconds:
            found = Wait(self._slot_at - time.monotonic(), "the throttle has no slot before")
        return Result(dict(self._counts), found.said, found, look.updated)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless there is news or the task is told to stop."""
        self._news.clear()
        if self._stopped_at:
            seconds = min(seconds, EXCHANGE_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    async def _trade(self, gateway: Gateway) -> None:
        """Write the outcomes there are, and claim what may be posted instead of them."""
        if self._broken:
            raise self._broken
        if self._exhausted_at is not None and time.monotonic() - self._exhausted_at > RECLAIM_S:
            self._rewind()
        if self._is_ending:
            self._ready.clear()  # they go back as soon as nothing is in flight
        self._limit = self._exchange.share if self._is_answered else min(self._exchange.share, breaker.TOLERANCE)
        unslotted = max(0, len(self._ready) - len(self._slots) - self._awaiting_slot) if self._is_paced else 0
        room = max(0, self._limit + self._ahead - len(self._in_flight) - len(self._ready))
        if self._is_ending or self._exhausted_at is not None:
            room = 0
        answered, met = self._outcomes.copy(), self._met
        if room or unslotted or answered or met.failures or self._exchange.is_renewal_due:
            self._met = Report()
            granted = await self._in_database(lambda: self._exchange.write(answered, met, room, unslotted))
            # Only now: an outcome that is not written must never be forgotten.
            del self._outcomes[: len(answered)]
            self._take(granted, len(answered))
        self._set_to_work(gateway)

    def _take(self, granted: Granted, answered: int) -> None:
        """Put what was granted where the posters find it."""
        if granted.exhausted:
            self._exhausted_at = time.monotonic()
        self._is_paced = granted.slots is not None or (self._is_paced and not granted.claims)
        self._slot_at = time.monotonic() + (granted.slot_in_s or 0.0)
        # Where a limit applies, slots are booked ahead, and their messages claimed.
        self._ahead = self._limit if self._is_paced else min(self._limit, max(answered, self._ahead - 1))
        self._ready.extend((claim, granted.at) for claim in granted.claims)
        self._slots.extend(granted.slots or ())

    def _set_to_work(self, gateway: Gateway) -> None:
        """Wake as many posters as there is work for, or take on new ones."""
        for _ in range(min(len(self._ready), self._limit - self._busy)):
            if self._idle:
                future = self._idle.popleft()
                if not future.done():
                    future.set_result(None)
            elif len(self._posters) < self._limit:
                poster = asyncio.create_task(self._post_what_is_ready(gateway))
                self._posters.add(poster)
                poster.add_done_callback(self._bury)

    @property
    def _busy(self) -> int:
        return len(self._in_flight) + self._awaiting_slot

    @property
    def _is_ending(self) -> bool:
        """Whether nothing more is to be begun by this task."""
        is_ill = self._met.failures >= breaker.TOLERANCE
        return bool(self._stopped_at or self._is_refused or is_ill or self._exchange.is_lost)

    def _rewind(self) -> None:
        self._exhausted_at = None
        self._exchange.rewind()

    async def _await_replies(self) -> None:
        """Until half of the requests are answered, or some are and have waited for company, or it is time to look."""
        if len(self._outcomes) >= self._half or not (self._in_flight or self._ready):
            return
        is_quiet = (self._is_ending or self._exhausted_at is not None) and not self._outcomes and not self._ready
        await self._pause(RECLAIM_S if is_quiet else EXCHANGE_S)

    @property
    def _half(self) -> int:
        return max(1, self._limit // 2)

    # -- the posters: as many as there may be requests in flight

    async def _post_what_is_ready(self, gateway: Gateway) -> None:
        while True:
            if not self._ready or self._busy >= self._limit or (self._is_paced and not self._slots):
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(future)
                await future
            elif not self._is_paced or await self._is_in_time():
                await self._post_next(gateway)

    async def _is_in_time(self) -> bool:
        """Wait for the next slot of the throttle. False: it was missed, or there is nothing to post any more."""
        slot = self._slots.popleft()
        self._awaiting_slot += 1
        try:
            await asyncio.sleep(slot - time.monotonic())
        finally:
            self._awaiting_slot -= 1
        return bool(self._ready) and time.monotonic() - slot <= LATE_S

    async def _post_next(self, gateway: Gateway) -> None:
        claim, claimed_at = self._ready.popleft()
        self._in_flight[claim.id] = claim
        outcome = await self._post(gateway, claim, claimed_at)
        self._outcomes.append((time.monotonic(), outcome))
        del self._in_flight[claim.id]
        self._counts[outcome.reason or outcome.state] += 1
        if not self._in_flight or len(self._outcomes) >= self._half:
            self._news.set()

    async def _post(self, gateway: Gateway, claim: Claim, claimed_at: float) -> Outcome:
        now = time.monotonic()
        # The stop, as seen from before the claim was made: never later than it is.
        timeout_s = min(self._exchange.terms.timeout_s, claimed_at + claim.left_s - now)
        if timeout_s <= 0 or now >= min(claimed_at + claim.begin_s, self._exchange.lease_ends_at):
            # This process stood still until the window had closed, or its claims were somebody else's to settle.
            return outcomes.too_late(claim)
        try:
            attempt = await gateway.post(claim, timeout_s)
        except Exception as error:
            # A fault of ours must cost this one message its certainty, and no other.
            self._log.exception("unforeseen", message_id=claim.id, client_id=claim.client_id)
            return outcomes.unforeseen(claim, error)
        outcomes.note(self._met, attempt)
        self._is_answered = self._is_answered or attempt.status_code is not None
        self._is_refused = self._is_refused or attempt.judgement.verdict is Verdict.UNAUTHORIZED
        outcome = outcomes.of_attempt(claim, attempt, self._rng)
        if outcome.state != "sent":
            self._log.warning(
                "not sent", message_id=claim.id, client_id=claim.client_id, attempt=claim.attempts,
                state=outcome.state, reason=outcome.reason, status_code=outcome.status_code,
            )  # fmt: skip
        return outcome

    def _bury(self, poster: asyncio.Task[None]) -> None:
        """A poster ended by a fault of ours, which ends the task."""
        self._posters.discard(poster)
        if not poster.cancelled() and (error := poster.exception()):
            self._broken = error
            self._news.set()

    async def _abandon(self) -> None:
        """Whatever is still in flight is in doubt from now on: nobody will hear the answer."""
        for poster in list(self._posters):
            poster.cancel()
        await asyncio.gather(*self._posters, return_exceptions=True)
        self._outcomes += [(time.monotonic(), outcomes.stopped(claim)) for claim in self._in_flight.values()]
        self._in_flight.clear()

    def _known(self) -> list[int]:
        """The ids this task has claimed and knows of. In the order in which they move on: none is missed on its way."""
        known = [claim.id for claim, _ in list(self._ready)] + list(self._in_flight)
        return known + [outcome.id for _, outcome in list(self._outcomes)]

    async def _in_database(self, work: Callable[[], T]) -> T:
        """What `work` returns, run in a thread, once more with a new connection each time the database was away."""
        give_up_at: float | None = None
        while True:
            try:
                await asyncio.to_thread(self._exchange.reconnect, self._known)
                return await asyncio.to_thread(work)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # From the first failure on, not from the call: that may itself have hung for a while.
                give_up_at = give_up_at or time.monotonic() + DATABASE_PATIENCE_S
                if time.monotonic() > give_up_at:
                    raise
                self._log.warning("the database is away", error=type(error).__name__, waiting=len(self._outcomes))
                await asyncio.sleep(RECLAIM_S)
