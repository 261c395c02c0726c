"""Slots: moments in the near future at which a worker posts one message each, so that n workers are as smooth as one.

A worker locks the gateway's and the campaign's row, reads the database's clock, books here, claims as many messages and
writes the schedule back: one short transaction. Pure; every moment is in epoch seconds and means whole microseconds,
as PostgreSQL keeps them. What holds in any span of T seconds, whatever the workers do (docs/delivery.md, **Throttle**):

- a campaign's own limit of r messages/s: at most r * T + 1 slots;
- a gateway's limit of r messages/s: at most r * (T + SLIP_S) + 1 slots, because a campaign's own limit may put a
  message up to SLIP_S behind its slot. Without such campaigns: r * T + 1. (Less slip would need more asking: with
  0.02, a campaign limited to a tenth of its gateway gets half of that from a worker that asks every 50 ms.)

Nothing is saved up: slots that nobody took in time are gone, so that no burst follows a silence.

How campaigns share a gateway: each may book AHEAD_S ahead as long as it stays within its share (the limit divided
equally among the hungry), and OVER_SHARE_S ahead beyond it. So one that asks rarely finds its share untouched, however
many workers the others have, and what it leaves is not lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

AHEAD_S = 0.4  # how far ahead a campaign may book within its share: workers may ask that rarely, and lose nothing
OVER_SHARE_S = 0.1  # … and beyond it: what others leave
CROWDED_S = 0.35  # who takes slots this far ahead competes, too: one that wants little would else be overlooked
HUNGRY_S = 1.0  # a campaign competes this long after a booking that was hungry
SLIP_S = 0.05  # how far a campaign's own limit may put a message behind the slot that the gateway counts it for
FARTHEST_S = 1.0  # no slot is ever booked so far ahead: such a moment stems from a clock that was set back since

_SECOND = 1_000_000  # microseconds, as integers: sums of floats would drift by a thousandth at 5,000 messages/s
_AHEAD, _OVER_SHARE, _CROWDED, _SLIP, _FARTHEST = (
    round(seconds * _SECOND) for seconds in (AHEAD_S, OVER_SHARE_S, CROWDED_S, SLIP_S, FARTHEST_S)
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The limits, and the *last* slots that were booked (0.0: never), so that a changed limit counts at once."""

    gateway_rate: float | None  # messages/s of all campaigns together, up to 1,000,000; None: unlimited
    campaign_rate: float | None  # messages/s of this campaign; None: the gateway's limit alone
    gateway_last: float  # the last slot of the gateway
    campaign_last: float  # the last slot of this campaign
    share_last: float  # its last slot, had it had only its share of the gateway's limit
    rivals: int  # other campaigns that were hungry for slots of this gateway in the last HUNGRY_S


@dataclass(frozen=True, slots=True)
class Booking:
    """What one `book` gave."""

    slots: list[float]  # when to post each message, ascending
    schedule: Schedule  # as it is now, to be written back, even if there was no slot
    is_hungry: bool  # the gateway's limit gave less than was wanted, or nearly did: it competes with others
    again_at: float | None  # when to ask for the rest, so that a handful is due by then; None: there is no rest


def book(schedule: Schedule, now: float, wanted: int) -> Booking:
    """Up to `wanted` slots from `now` on, fewer if limits say so.

    The slots for fewer messages are the first of those for more: who could not claim enough messages books again, on
    the same schedule. `now` is to be read when the rows are locked: earlier, and another's booking may lie after it.
    Who waits much longer than until `again_at` takes large bites, in which campaigns with a limit of their own miss
    their turns. Raises ValueError for a limit or a number that makes no sense; the database refuses such limits.
    """
    if wanted < 0:
        raise ValueError(f"wanted {wanted} slots, which is less than none")
    at = round(now * _SECOND)
    gap, own_gap = _gap(schedule.gateway_rate), _gap(schedule.campaign_rate)
    gateway, own = _last(schedule.gateway_last, gap, at), _last(schedule.campaign_last, own_gap, at)
    share, share_gap = _last(schedule.share_last, gap, at), gap * (1 + schedule.rivals)
    slip = _SLIP if gap else _AHEAD
    slots: list[float] = []
    is_hungry, again = False, None
    while len(slots) < wanted:
        slot, own_slot, share_slot = max(gateway + gap, at), own + own_gap, share + share_gap
        if own_slot > slot + slip:
            # Not at `own_slot`: on a busy gateway the slots on offer lie ahead of the clock, and move on with it.
            again = at + own_slot - slot - slip // 2
            break
        if slot > at + (_AHEAD if share_slot <= at + _AHEAD else _OVER_SHARE):
            is_hungry, again = True, min(slot - _OVER_SHARE, max(slot, share_slot) - _AHEAD) + _SLIP
            break
        is_hungry = slot > at + _CROWDED
        # The share never runs further ahead: taking what others leave is not held against a campaign later.
        gateway, own, share = slot, max(slot, own_slot), min(max(share_slot, at), at + _AHEAD)
        slots.append(own / _SECOND)
    booked = replace(schedule, gateway_last=gateway / _SECOND, campaign_last=own / _SECOND, share_last=share / _SECOND)
    return Booking(slots, booked, is_hungry, None if again is None else again / _SECOND)


def _gap(rate: float | None) -> int:
    """Microseconds between two slots, rounded up so that the limit holds; 0: unlimited."""
    if rate is None:
        return 0
    if not rate > 0:
        raise ValueError(f"a limit is more than 0 messages per second, or None, not {rate}")
    return math.ceil(_SECOND / rate)


def _last(moment: float, gap: int, at: int) -> int:
    """The last slot in microseconds, or `at` where it cannot bind: no limit, or the clock was set back since."""
    last = round(moment * _SECOND)
    return last if gap and last <= at + _FARTHEST else min(last, at)
