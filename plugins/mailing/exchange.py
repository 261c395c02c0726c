"""The sender's side of the ledger: outcomes in, new claims out, in one transaction. Runs in a thread; no HTTP, no loop.

One `Exchange` belongs to one task: it holds the connection, the lease, and the terms to send on.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mailing import breaker, db, gateways, messages, runs, throttle
from mailing.background_log import BackgroundLog
from mailing.breaker import Breaker, Report
from mailing.local_hours import LocalHours, Span, spans
from mailing.messages import Batch, Claim, Outcome, Outlook, Terms
from mailing.window import LAST_CALL

HOURS_SLICE = 10_000
"""So many messages (ids) are told at once to wait for local hours: so long their campaign is locked."""


@dataclass(slots=True)
class Granted:
    """What an exchange came to.

    `at`: the moment (monotonic) from which the claims' `left_s` and `begin_s` count; `slots`: when each message may go
    (monotonic), None where no limit applies; `exhausted`: there was no more to claim; `slot_in_s`: no slot sooner.
    """

    at: float
    claims: list[Claim] = field(default_factory=list)
    slots: list[float] | None = None
    exhausted: bool = False
    slot_in_s: float | None = None


class Exchange:
    """One task's hold on one batch. Each method is one transaction; psycopg's errors are the caller's to survive."""

    batch: Batch
    terms: Terms
    route: tuple[str, str, str]  # what this task's session with the gateway is opened for, whatever the terms say later

    def __init__(
        self,
        campaign_id: int,
        number: int,
        connect: Callable[[], db.Connection],
        log: BackgroundLog,
        *,
        is_probe: bool,
    ) -> None:
        self._campaign_id = campaign_id
        self._number = number
        self._connect = connect
        self._log = log
        self.is_probe = is_probe  # this task holds the right to probe the gateway
        self.is_lost = False  # the lease ran out: claims are for others now
        self.is_ending = False  # the task is told to end
        self._are_terms_old = False
        self._hours: LocalHours | None = None
        self._zones: Mapping[str, Span] | None = None
        self._zones_until = 0.0  # monotonic

    def begin(self) -> None:
        """Recover what dead tasks had claimed, take a lease, learn the terms. Raises NotFound."""
        self._connection = self._connect()
        self._renewed_at = time.monotonic()
        try:
            with self._connection.transaction():
                messages.plan_for_sending(self._connection)
                self.batch = messages.batch(self._connection, self._campaign_id, self._number)
                messages.recover_claims(self._connection, self._campaign_id, self.batch, self._log.warning)
                holder = f"{socket.gethostname()}:{os.getpid()}"
                self._token = messages.take_lease(self._connection, self._campaign_id, self._number, holder)
                self._renew()
                if self.terms.breaker_state != "closed" and not self.is_probe:
                    self.is_probe = gateways.take_probe(self._connection, self.terms.gateway)
        except BaseException:
            self._connection.close()
            raise
        self.is_probe = self.is_probe and self.terms.breaker_state != "closed"
        self.route = self.terms.route
        self._cursor = self.batch.first_id
        self._last_call_s = min(LAST_CALL.total_seconds(), self.terms.timeout_s)

    @property
    def _gateway(self) -> str:
        return self.route[0]

    @property
    def lease_ends_at(self) -> float:
        """When the lease runs out unless it is renewed (monotonic); rather too early than too late."""
        return self._renewed_at + messages.LEASE.total_seconds()

    @property
    def is_renewal_due(self) -> bool:
        """Whether it is time to show a sign of life."""
        is_old = self._are_terms_old or time.monotonic() - self._renewed_at >= messages.RENEW_S
        return is_old and not self.is_lost

    @property
    def share(self) -> int:
        """How many requests this task may have in flight, of those that the gateway allows to all together."""
        if self.is_probe:
            return 1
        terms = self.terms
        closed_for_s = terms.breaker_changed_s
        if terms.breaker_state != "closed":  # as of the last renewal: who closed it since did so a moment ago
            closed_for_s = 0.0
        elif closed_for_s is not None:
            closed_for_s += time.monotonic() - self._renewed_at
        allowed = breaker.ramp(terms.requests_in_flight, closed_for_s)
        return max(1, allowed // max(1, terms.campaigns) // terms.siblings)

    @property
    def is_halted(self) -> bool:
        """Whether what was claimed and not begun is not to leave, as of the last renewal: it goes back."""
        terms = self.terms
        is_left_alone = terms.breaker_state != "closed" and not self.is_probe
        return terms.status != "running" or terms.audience_stale or is_left_alone or terms.route != self.route

    def rewind(self) -> None:
        """Look for due messages from the batch's beginning again: some may have become due."""
        self._cursor = self.batch.first_id

    def write(self, answered: list[tuple[float, Outcome]], met: Report, room: int, unslotted: int) -> Granted:
        """Record outcomes (with the moment of each, monotonic), tell the breaker, and claim up to `room` more.

        `unslotted`: messages claimed before that still want a slot of the throttle.
        """
        for at, outcome in answered:
            outcome.age_s = time.monotonic() - at
        began = time.monotonic()
        self.is_lost = self.is_lost or began >= self.lease_ends_at
        standing: Breaker | None = None
        with self._connection.transaction(), self._connection.pipeline():
            is_renewed = self.is_renewal_due and self._renew()
            if answered:
                messages.record(self._connection, self._campaign_id, self._token, [o for _, o in answered])
            if met.is_well or met.failures:
                standing = gateways.report(self._connection, self._gateway, met, is_probe=self.is_probe)
            is_open = standing is not None and standing.state == "open"
            # Of hours that the renewal has just brought, the spans must be known before a claim (follow_hours).
            can_claim = not (self.is_lost or is_open or self.is_halted or self._are_hours_new)
            wants_any = room > 0 or unslotted > 0
            granted = self._claim(room, unslotted) if wants_any and can_claim else Granted(began)
        if is_renewed:
            self._renewed_at = began  # only now that it is committed
        if granted.claims:
            self._cursor = granted.claims[-1].id + 1
        if standing is not None and self.is_probe and standing.state != "half_open":
            self.is_probe = False
            self._are_terms_old = True  # how far to ramp up
        return granted

    def _renew(self) -> bool:
        terms = messages.renew_lease(self._connection, self._token)
        if terms is None:
            self.is_lost = True
            return False
        self.terms, self._are_terms_old = terms, False
        return True

    def _claim(self, room: int, unslotted: int) -> Granted:
        at = time.monotonic()
        if not self.terms.is_paced or self.is_probe:
            claims = self._claim_some(room)
            return Granted(at, claims, exhausted=len(claims) < room)
        return self._claim_paced(room, unslotted)

    def _claim_paced(self, room: int, unslotted: int) -> Granted:
        """Book slots of the throttle, claim as many messages, and keep what was used of the booking."""
        locked = gateways.lock_schedule(self._connection, self._campaign_id, self.terms.gateway)
        at = time.monotonic()
        if locked is None:
            return Granted(at, exhausted=True)
        schedule, now = locked
        booking = throttle.book(schedule, now, unslotted + room)
        wanted = max(0, len(booking.slots) - unslotted)
        claims = self._claim_some(wanted) if wanted else []
        used = min(len(booking.slots), unslotted + len(claims))
        if used < len(booking.slots):
            booking = throttle.book(schedule, now, used)
        gateways.save_schedule(self._connection, self._campaign_id, self.terms.gateway, booking)
        return Granted(
            at,
            claims,
            [at + slot - now for slot in booking.slots],
            exhausted=len(claims) < wanted,
            slot_in_s=None if booking.again_at is None or booking.slots else booking.again_at - now,
        )

    def _claim_some(self, limit: int) -> list[Claim]:
        return messages.claim(
            self._connection, self._campaign_id, self._token, self.terms,
            from_id=self._cursor, last_id=self.batch.last_id, limit=limit, last_call_s=self._last_call_s,
            zones=self._zones, is_probe=self.is_probe,
        )  # fmt: skip

    def look(self) -> Outlook:
        """What is left, at a moment when nothing is in flight and nothing unwritten."""
        self.follow_hours()
        with self._connection.transaction():
            self._return_unposted(known=[])
            look = messages.outlook(
                self._connection, self._campaign_id, self._token, self._number, self.batch, self._last_call_s
            )
            if look.sending and (look.lease_s or 0.0) <= 0.0:
                messages.recover_claims(self._connection, self._campaign_id, self.batch, self._log.warning)
            if look.breaker_state != "closed" and look.is_due and not self.is_probe:
                self.is_probe = gateways.take_probe(self._connection, self._gateway)
        if look.audience_stale and look.status == "running" and not look.sending:
            with self._connect() as connection:  # of its own: this task's plans are tied to sending
                runs.follow_filter(connection, self._campaign_id)
        return look

    @property
    def _are_hours_new(self) -> bool:
        return self.terms.local_hours != self._hours

    @property
    def are_hours_due(self) -> bool:
        """Whether a zone's local hours have opened or closed, or were changed: messages wait, or need not any more."""
        is_past_edge = self._hours is not None and time.monotonic() >= self._zones_until
        return self._are_hours_new or is_past_edge

    def follow_hours(self) -> None:
        """In transactions of their own: they lock the campaign, whose editor may wait for messages that we hold.

        A slice of the batch each: whoever would pause the campaign meanwhile waits for one of each task, at most. That
        may take long: between them the lease is renewed, and a task that is told to end leaves the rest for later.
        """
        if self.is_ending or self.is_lost:
            return
        terms = self.terms  # of one pass: hours that a renewal brings meanwhile must not go with the zones of these
        hours = self._hours = terms.local_hours
        self._zones, self._zones_until, until_next = None, 0.0, 0.0  # to be done again if it is cut off
        if hours is not None:
            with self._connection.transaction():
                now, zones = messages.zones_of_batch(self._connection, self._campaign_id, self.batch)
            self._zones = spans(hours, zones, now)
            until_next = time.monotonic() + _until_next_edge(self._zones.values(), now)
        for part in self.batch.parts(HOURS_SLICE):
            if self.is_ending or self.is_lost:
                return
            began = time.monotonic()
            with self._connection.transaction():
                is_renewed = self.is_renewal_due and self._renew()
                messages.follow_local_hours(self._connection, self._campaign_id, part, terms, self._zones)
            if is_renewed:
                self._renewed_at = began
        self._zones_until = until_next

    def disconnect(self) -> None:
        """Have the next one who asks connect anew."""
        self._connection.close()

    def reconnect(self, known: Callable[[], Iterable[int]]) -> None:
        """Take a new connection if the old one is lost. `known`: the ids that this task has claimed and knows of.

        A claim whose answer was lost with the connection was never posted, and goes back.
        """
        if not self._connection.closed:
            return
        self._connection = self._connect()
        try:
            with self._connection.transaction():
                messages.plan_for_sending(self._connection)
                self._return_unposted(known())
        except BaseException:
            self._connection.close()  # to be done again, whole
            raise

    def _return_unposted(self, known: Iterable[int]) -> None:
        messages.return_unposted(self._connection, self._campaign_id, self._token, self.batch, list(known))

    def end(self, outcomes: list[Outcome], *, clean: bool) -> None:
        """Write what is left to write and give the lease back; where that fails, the lease runs out by itself.

        After an error (`clean` is false) nothing goes back to pending: what the ledger holds for this lease then may
        have left, and is settled like the claims of a dead task.
        """
        if self._connection.closed:
            self._connection = self._connect()
        with self._connection:
            if outcomes:
                messages.record(self._connection, self._campaign_id, self._token, outcomes)
            if clean:
                self._return_unposted(known=[outcome.id for outcome in outcomes])
                messages.release_lease(self._connection, self._token)
            else:
                messages.end_lease(self._connection, self._token)
            if self.is_probe:
                gateways.return_probe(self._connection, self._gateway)

    def fail_to_open(self, met: Report) -> None:
        """Tell the breaker of a gateway that could not even be asked."""
        with self._connection.transaction():
            standing = gateways.report(self._connection, self._gateway, met, is_probe=self.is_probe)
        self.is_probe = self.is_probe and standing is not None and standing.state == "half_open"


def _until_next_edge(zones: Iterable[Span], now: datetime) -> float:
    """Seconds until the first of the spans opens or closes."""
    edges = [edge for span in zones for edge in (span.opens_at, span.closes_at) if edge > now]
    return (min(edges, default=datetime.max.replace(tzinfo=UTC)) - now).total_seconds()
