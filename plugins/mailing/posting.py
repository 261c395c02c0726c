"""The requests of one sending task: never more than `limit` at a time, each in its slot where a limit applies.

What was claimed goes in at `take`; what became of it comes out in `outcomes`, for the ledger. No database here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque

from mailing import outcomes
from mailing.background_log import BackgroundLog
from mailing.breaker import Report
from mailing.exchange import Exchange, Granted
from mailing.gateway import Gateway
from mailing.messages import Claim, Outcome
from mailing.replies import Verdict

LATE_S = 0.03
"""A slot of the throttle that is missed by more is given up: what would have gone then must not go beside the next."""


class Posting:
    """Posts what is ready, through as many posters (coroutines) as there may be requests in flight.

    `news` is set when enough outcomes have come for a look, when nothing is in flight any more, or when `broken` is.
    """

    def __init__(self, exchange: Exchange, log: BackgroundLog) -> None:
        self._exchange = exchange
        self._log = log
        self._rng = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._posters: set[asyncio.Task[None]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()  # posters without work
        self._slots: deque[float] = deque()  # when the next messages may go
        self._awaiting_slot = 0  # posters that took a slot and wait for its moment
        self.limit = 1
        self.ready: deque[tuple[Claim, float]] = deque()  # claimed, not begun; with the moment of the claim
        self.in_flight: dict[int, Claim] = {}
        self.outcomes: list[tuple[float, Outcome]] = []  # with the moment of each
        self.counts: Counter[str] = Counter()
        self.met = Report()  # what the breaker is to be told
        self.news = asyncio.Event()
        self.broken: BaseException | None = None
        self.is_paced = self.is_answered = self.is_refused = False

    @property
    def half(self) -> int:
        """So many outcomes are worth an exchange with the ledger."""
        return max(1, self.limit // 2)

    @property
    def held(self) -> int:
        """How many messages this task has claimed that are not answered yet."""
        return len(self.in_flight) + len(self.ready)

    @property
    def unslotted(self) -> int:
        """How many of the ready ones still want a slot of the throttle."""
        return max(0, len(self.ready) - len(self._slots) - self._awaiting_slot) if self.is_paced else 0

    @property
    def known(self) -> list[int]:
        """The ids this task has claimed and knows of. In the order in which they move on: none is missed on its way."""
        known = [claim.id for claim, _ in list(self.ready)] + list(self.in_flight)
        return known + [outcome.id for _, outcome in list(self.outcomes)]

    def take(self, granted: Granted) -> None:
        """Put what was granted where the posters find it."""
        self.is_paced = granted.slots is not None or (self.is_paced and not granted.claims)
        self.ready.extend((claim, granted.at) for claim in granted.claims)
        self._slots.extend(granted.slots or ())

    def set_to_work(self, gateway: Gateway) -> None:
        """Wake as many posters as there is work for, or take on new ones."""
        for _ in range(min(len(self.ready), self.limit - self._busy)):
            if self._idle:
                future = self._idle.popleft()
                if not future.done():
                    future.set_result(None)
            elif len(self._posters) < self.limit:
                poster = asyncio.create_task(self._post_what_is_ready(gateway))
                self._posters.add(poster)
                poster.add_done_callback(self._bury)

    async def abandon(self) -> None:
        """Whatever is still in flight is in doubt from now on: nobody will hear the answer."""
        for poster in list(self._posters):
            poster.cancel()
        await asyncio.gather(*self._posters, return_exceptions=True)
        self.outcomes += [(time.monotonic(), outcomes.stopped(claim)) for claim in self.in_flight.values()]
        self.in_flight.clear()

    @property
    def _busy(self) -> int:
        return len(self.in_flight) + self._awaiting_slot

    async def _post_what_is_ready(self, gateway: Gateway) -> None:
        while True:
            if not self.ready or self._busy >= self.limit or (self.is_paced and not self._slots):
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(future)
                await future
            elif not self.is_paced or await self._is_in_time():
                await self._post_next(gateway)

    async def _is_in_time(self) -> bool:
        """Wait for the next slot of the throttle. False: it was missed, or there is nothing to post any more."""
        slot = self._slots.popleft()
        self._awaiting_slot += 1
        try:
            await asyncio.sleep(slot - time.monotonic())
        finally:
            self._awaiting_slot -= 1
        return bool(self.ready) and time.monotonic() - slot <= LATE_S

    async def _post_next(self, gateway: Gateway) -> None:
        claim, claimed_at = self.ready[0]
        self.in_flight[claim.id] = claim  # first: another thread may read `known` at any moment
        self.ready.popleft()
        outcome = await self._post(gateway, claim, claimed_at)
        self.outcomes.append((time.monotonic(), outcome))
        del self.in_flight[claim.id]
        self.counts[outcome.reason or outcome.state] += 1
        if not self.in_flight or len(self.outcomes) >= self.half:
            self.news.set()

    async def _post(self, gateway: Gateway, claim: Claim, claimed_at: float) -> Outcome:
        now = time.monotonic()
        # The stop, as seen from before the claim was made: never later than it is.
        timeout_s = min(self._exchange.terms.timeout_s, claimed_at + claim.left_s - now)
        begin_s = min(claimed_at + claim.begin_s, self._exchange.lease_ends_at) - now
        if timeout_s <= 0 or begin_s <= 0:
            # This process stood still until the window had closed, or its claims were somebody else's to settle.
            return outcomes.too_late(claim)
        try:
            attempt = await gateway.post(claim, timeout_s, begin_s)
        except Exception as error:
            # A fault of ours must cost this one message its certainty, and no other; one that meets each message must
            # not put a whole audience in doubt.
            self.met.failed("unforeseen", None)
            self._log.error("unforeseen", message_id=claim.id, client_id=claim.client_id, exc_info=error)
            return outcomes.unforeseen(claim, error)
        outcomes.note(self.met, attempt)
        self.is_answered = self.is_answered or attempt.status_code is not None
        self.is_refused = self.is_refused or attempt.judgement.verdict is Verdict.UNAUTHORIZED
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
            self.broken = error
            self.news.set()
