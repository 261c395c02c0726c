"""Sends one batch: claim → POST → outcome, again and again, until nothing of it can be sent *now*.

The ledger is written by one exchange at a time (`exchange`): outcomes in and new claims out, in one transaction. A
message is claimed when it can be posted at once, or within an exchange from now, so a killed task leaves no more in
doubt than twice its requests in flight. The exchange runs in a thread; the requests (`posting`) go on meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import psycopg
import structlog
from airflow.sdk.observability import stats

from mailing import breaker, db, outcomes
from mailing.background_log import BackgroundLog
from mailing.breaker import Report
from mailing.errors import InvalidInput, MailingError
from mailing.exchange import Exchange, Granted
from mailing.gateway import Gateway, open_gateway
from mailing.outcomes import Wait
from mailing.posting import Posting

T = TypeVar("T")

EXCHANGE_S = 0.05
"""Outcomes wait this long for company before they are written: a commit costs as much for fifty as for one."""

RECLAIM_S = 1.0
"""While slow replies are awaited, how often to look whether more of the batch has become due."""

HOLD_S = 5.0
"""A wait up to this long is made here; a longer one is the caller's to defer, so that it holds no worker slot."""

STOP_PATIENCE_S = 3.0
"""After `stop`, how long to wait for replies: Airflow kills a task 5 s after it asked it to end."""

DATABASE_PATIENCE_S = 120.0
"""How long to hold on to outcomes while the database is away: they are known here and nowhere else."""

AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
"""How a database says that it is away, or was: the last two are no OperationalErrors to psycopg."""


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
        log = structlog.get_logger(__name__).bind(campaign_id=campaign_id, batch=number)
        self._log = BackgroundLog(log)
        self._name = f"campaign {campaign_id}, batch {number}"
        self._exchange = Exchange(campaign_id, number, connect, self._log, is_probe=is_probe)
        self._posting = Posting(self._exchange, self._log)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ahead = 0  # as many as are answered between two exchanges are claimed before there is room for them
        self._exhausted_at: float | None = None  # when a claim last found less than it asked for
        self._slot_at = 0.0  # no slot before that
        self._end_by: float | None = None  # it was told to stop
        self.label: str | None = None  # what its batch is called; None: it has not begun

    @property
    def mapped_at(self) -> datetime | None:
        """As `Terms.mapped_at`, a renewal ago at most. It must have begun."""
        return self._exchange.terms.mapped_at

    def stop(self, patience_s: float = STOP_PATIENCE_S) -> None:
        """Claim no more, and end when what is in flight is answered, or so soon: then what is not is `unknown`.

        `math.inf`: as long as the gateway's timeout. For signal handlers.
        """
        self._end_by = min(self._end_by or math.inf, time.monotonic() + patience_s)
        self._exchange.is_ending = True
        if self._loop:
            self._loop.call_soon_threadsafe(self._posting.news.set)

    async def run(self) -> Result:
        """Post what is due, write every outcome, and say what to wait for.

        Raises NotFound for a batch that is not there, Stopped after `stop()`, psycopg.OperationalError when the
        database stays away: what was in flight then is `unknown` once the lease has run out.
        """
        self._loop = asyncio.get_running_loop()
        gc.freeze()  # what Airflow imported need not be searched for garbage again and again: a quarter of our time
        await asyncio.to_thread(self._exchange.begin)
        self.label = self._exchange.batch.label
        clean = False
        try:
            result = await self._send_through_gateway()
            clean = True
        finally:
            left = [outcome for _, outcome in self._posting.outcomes]
            with suppress(psycopg.Error):
                await asyncio.to_thread(self._exchange.end, left, clean=clean)
            await asyncio.to_thread(self._log.close)  # last: whatever may depend on it is written
        if self._end_by is not None:
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
                await self._posting.abandon()  # before the session is closed under them

    async def _give_up(self, said: str) -> Result:
        """Of a gateway that cannot be asked: a person mends its connection."""
        self._log.error("the gateway cannot be used", reason=said)
        self._posting.met.failed("connection_unusable", None, is_refused=True)
        await self._in_database(lambda: self._exchange.fail_to_open(self._posting.met))
        result = await self._take_stock()
        return Result(result.counts, said, result.wait, result.updated)

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
            self._posting.met.failed(reason, None)

    async def _send(self, gateway: Gateway) -> Result:
        posting = self._posting
        while True:
            await self._trade(gateway)
            if self._end_by is not None and (not posting.in_flight or time.monotonic() > self._end_by):
                return self._result(f"{len(posting.in_flight)} requests were not answered in time")
            if posting.held or posting.outcomes:
                await self._await_replies()
            elif result := await self._rest(gateway):
                return result

    async def _rest(self, gateway: Gateway) -> Result | None:
        """With nothing to post now: wait a moment here, or say for what to wait elsewhere."""
        terms = self._exchange.terms
        if terms.route != self._exchange.route:
            return self._result("the gateway was changed", Wait(0.0, "the gateway was changed"))
        result = await self._take_stock()
        if self._posting.is_refused:
            stats.incr("mailing.gateway.token_refused", tags={"gateway": terms.gateway})
            self._log.error(
                "the gateway refuses the token: put a good one into the connection's password",
                gateway=terms.gateway, connection=terms.connection_id,
            )  # fmt: skip
        if result.wait is None or result.wait.for_gateway or not 0.0 < result.wait.seconds <= HOLD_S:
            return result
        await self._pause(result.wait.seconds)
        self._rewind()
        return None

    async def _take_stock(self) -> Result:
        """Why nothing can be claimed now, and what to wait for."""
        was_probe = self._exchange.is_probe
        look = await self._in_database(self._exchange.look)
        if self._exchange.is_probe and not was_probe:
            found: Wait | str = Wait(0.0, "it is time to probe the gateway")  # in a session of its own
        else:
            found = outcomes.next_look(look)
        if isinstance(found, str):
            return self._result(found, None, look.updated)
        if self._exchange.is_lost:
            found = Wait(HOLD_S + RECLAIM_S, "the lease ran out")  # to be taken anew by the next run
        elif not found.for_gateway and self._slot_at > time.monotonic() + found.seconds:
            found = Wait(self._slot_at - time.monotonic(), "the throttle has no slot before")
        return self._result(found.said, found, look.updated)

    def _result(self, said: str, wait: Wait | None = None, updated: float = 0.0) -> Result:
        return Result(dict(self._posting.counts), said, wait, updated)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless there is news or the task is told to stop."""
        self._posting.news.clear()
        if self._end_by is not None:
            seconds = min(seconds, EXCHANGE_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._posting.news.wait(), seconds)

    async def _trade(self, gateway: Gateway) -> None:
        """Write the outcomes there are, and claim what may be posted instead of them."""
        posting, exchange = self._posting, self._exchange
        if posting.broken:
            raise posting.broken
        if self._exhausted_at is not None and time.monotonic() - self._exhausted_at > RECLAIM_S:
            self._rewind()
        if self._is_ending or exchange.is_halted:
            posting.ready.clear()  # they go back as soon as nothing is in flight
        # Few, until the gateway has answered at all.
        posting.limit = exchange.share if posting.is_answered else min(exchange.share, breaker.TOLERANCE)
        if exchange.are_hours_due:
            await self._write(0, 0)  # what was answered need not wait until all of the batch was told
            await self._in_database(exchange.follow_hours)
        is_closed = self._is_ending or self._exhausted_at is not None
        room = 0 if is_closed else max(0, posting.limit + self._ahead - posting.held)
        await self._write(room, posting.unslotted)
        posting.set_to_work(gateway)

    async def _write(self, room: int, unslotted: int) -> None:
        """One exchange with the ledger, if there is anything to it."""
        posting, exchange = self._posting, self._exchange
        answered, met = posting.outcomes.copy(), posting.met
        if room or unslotted or answered or met.failures or exchange.is_renewal_due:
            posting.met = Report()
            granted = await self._in_database(lambda: exchange.write(answered, met, room, unslotted))
            # Only now: an outcome that is not written must never be forgotten.
            del posting.outcomes[: len(answered)]
            self._take(granted, len(answered))

    def _take(self, granted: Granted, answered: int) -> None:
        if granted.exhausted:
            self._exhausted_at = time.monotonic()
        self._slot_at = time.monotonic() + (granted.slot_in_s or 0.0)
        self._posting.take(granted)
        # Where a limit applies, slots are booked ahead, and their messages claimed.
        limit = self._posting.limit
        self._ahead = limit if self._posting.is_paced else min(limit, max(answered, self._ahead - 1))

    @property
    def _is_ending(self) -> bool:
        """Whether nothing more is to be begun by this task."""
        is_ill = self._posting.met.failures >= breaker.TOLERANCE
        return bool(self._end_by is not None or self._posting.is_refused or is_ill or self._exchange.is_lost)

    def _rewind(self) -> None:
        self._exhausted_at = None
        self._exchange.rewind()

    async def _await_replies(self) -> None:
        """Until half of the requests are answered, or some are and have waited for company, or it is time to look."""
        posting = self._posting
        if len(posting.outcomes) >= posting.half or not posting.held:
            return
        is_closed = self._is_ending or self._exhausted_at is not None
        is_quiet = is_closed and not posting.outcomes and not posting.ready
        await self._pause(RECLAIM_S if is_quiet else EXCHANGE_S)

    async def _in_database(self, work: Callable[[], T]) -> T:
        """What `work` returns, run in a thread, once more with a new connection each time the database was away."""
        give_up_at: float | None = None
        while True:
            try:
                await asyncio.to_thread(self._exchange.reconnect, lambda: self._posting.known)
                return await asyncio.to_thread(work)
            except AWAY as error:
                if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                    self._exchange.disconnect()  # a standby, which another server is to take over from
                # From the first failure on, not from the call: that may itself have hung for a while.
                give_up_at = give_up_at or time.monotonic() + DATABASE_PATIENCE_S
                if time.monotonic() > give_up_at:
                    raise
                waiting = len(self._posting.outcomes)
                self._log.warning("the database is away", error=type(error).__name__, waiting=waiting)
                await asyncio.sleep(RECLAIM_S)
