from __future__ import annotations

import heapq
import random
import time
from bisect import bisect_left
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing import throttle
from mailing.throttle import AHEAD_S, HUNGRY_S, SLIP_S, Schedule, book

NOW = 1_777_777_777.25
RATES = [1, 50, 200, 1000, 5000]


def a_schedule(**changes):
    idle = Schedule(gateway_rate=100, campaign_rate=None, gateway_last=0.0, campaign_last=0.0, share_last=0.0, rivals=0)
    return replace(idle, **changes)


def us(moment):
    return round(moment * 1_000_000)


def after(slots, now=NOW):
    """Milliseconds from `now`."""
    return [round((slot - now) * 1000, 2) for slot in slots]


# One booking


def test_an_idle_gateway_gives_slots_from_now_on_at_its_pace():
    booking = book(a_schedule(gateway_rate=100), NOW, 4)
    assert after(booking.slots) == [0, 10, 20, 30]
    assert booking.slots[0] == NOW
    assert (booking.is_hungry, booking.again_at) == (False, None)


def test_the_next_booking_goes_on_where_the_last_one_ended():
    first = book(a_schedule(), NOW, 4)
    assert after(book(first.schedule, NOW + 0.001, 2).slots) == [40, 50]


def test_a_silence_saves_nothing_up():
    first = book(a_schedule(), NOW, 4)
    assert after(book(first.schedule, NOW + 60, 3).slots, NOW + 60) == [0, 10, 20]


def test_without_limits_every_message_goes_at_once():
    booking = book(a_schedule(gateway_rate=None), NOW, 1000)
    assert booking.slots == [NOW] * 1000
    assert (booking.is_hungry, booking.again_at) == (False, None)


def test_slots_are_booked_only_so_far_ahead_and_who_wants_more_is_hungry():
    booking = book(a_schedule(gateway_rate=100), NOW, 1000)
    assert after(booking.slots) == [10 * n for n in range(41)]
    assert booking.is_hungry


def test_a_campaign_beyond_its_share_books_less_far_ahead():
    booking = book(a_schedule(gateway_rate=100, share_last=NOW + AHEAD_S, rivals=1), NOW, 1000)
    assert after(booking.slots) == [10 * n for n in range(11)]
    assert booking.is_hungry


def test_two_campaigns_on_one_gateway_may_each_book_their_half_ahead():
    first = book(a_schedule(gateway_rate=100, rivals=1), NOW, 1000)
    second = book(replace(first.schedule, share_last=0.0), NOW, 1000)
    assert after(first.slots) == [10 * n for n in range(21)]
    assert after(second.slots) == [10 * n for n in range(21, 41)]


def test_who_gets_slots_only_far_ahead_competes_though_all_it_wanted_was_granted():
    asked = [book(a_schedule(gateway_last=NOW + ahead), NOW, 1) for ahead in (0.2, 0.38)]
    assert [len(booking.slots) for booking in asked] == [1, 1]
    assert [booking.is_hungry for booking in asked] == [False, True]


def test_a_campaigns_own_limit_paces_it_and_leaves_the_gateway_to_others():
    booking = book(a_schedule(gateway_rate=1000, campaign_rate=100), NOW, 1000)
    assert after(booking.slots) == [0, 10, 20, 30, 40, 50]
    assert not booking.is_hungry
    others = book(replace(booking.schedule, campaign_rate=None, share_last=0.0), NOW, 3)
    assert after(others.slots) == [6, 7, 8]


def test_a_campaigns_own_limit_needs_no_limit_of_the_gateway():
    booking = book(a_schedule(gateway_rate=None, campaign_rate=100), NOW, 1000)
    assert after(booking.slots) == [10 * n for n in range(41)]
    assert not booking.is_hungry


def test_slots_that_the_gateway_gives_late_are_not_made_up_for_beyond_the_campaigns_own_limit():
    booking = book(a_schedule(gateway_rate=1000, campaign_rate=100, gateway_last=NOW + 0.3), NOW, 5)
    assert after(booking.slots) == [301, 311, 321, 331, 341]


@pytest.mark.parametrize("limits", [(0.1, None), (0.1, 50), (None, 0.1), (50, 0.1)])
def test_a_very_slow_limit_still_lets_a_message_go_when_it_is_due(limits):
    schedule, now, slots = a_schedule(gateway_rate=limits[0], campaign_rate=limits[1], rivals=3), NOW, []
    while now < NOW + 60:
        booking = book(schedule, now, 5)
        slots += booking.slots
        schedule, now = booking.schedule, booking.again_at
    assert after(slots) == [10_000 * n for n in range(7)]


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_that_makes_no_sense_is_refused(limit):
    with pytest.raises(ValueError, match="more than 0 messages per second, or None, not"):
        book(a_schedule(gateway_rate=limit), NOW, 1)
    with pytest.raises(ValueError, match="more than 0 messages per second, or None, not"):
        book(a_schedule(campaign_rate=limit), NOW, 1)


def test_wanting_less_than_nothing_is_refused_and_nothing_is_nothing():
    with pytest.raises(ValueError, match="wanted -1 slots"):
        book(a_schedule(), NOW, -1)
    schedule = a_schedule(gateway_last=NOW, share_last=NOW)
    assert book(schedule, NOW, 0) == throttle.Booking([], schedule, False, None)


def test_booking_a_thousand_slots_takes_about_a_millisecond():
    schedule, took = a_schedule(gateway_rate=5000, campaign_rate=4000), []
    for _ in range(20):
        start = time.perf_counter()
        assert len(book(schedule, NOW, 1000).slots) == 1000
        took.append(time.perf_counter() - start)
    assert min(took) < 0.005


# Limits that change


def at_its_limit(now, **limits):
    return book(a_schedule(**limits), now, 10_000).schedule


@pytest.mark.parametrize("limit", ["gateway_rate", "campaign_rate"])
def test_a_limit_that_was_raised_counts_from_the_last_slot_on(limit):
    other = {"gateway_rate": None} if limit == "campaign_rate" else {}
    slow = at_its_limit(NOW, **other, **{limit: 0.001})
    assert after(book(replace(slow, **{limit: 100}), NOW + 0.001, 3).slots) == [10, 20, 30]


@pytest.mark.parametrize("limit", ["gateway_rate", "campaign_rate"])
def test_a_limit_that_was_lowered_counts_from_the_last_slot_on(limit):
    other = {"gateway_rate": None} if limit == "campaign_rate" else {}
    fast = at_its_limit(NOW, **other, **{limit: 100})
    booking = book(replace(fast, **{limit: 0.5}), NOW + 1, 3)
    assert (booking.slots, booking.again_at > NOW + 2) == ([], True)
    assert after(book(booking.schedule, booking.again_at, 3).slots) == [2400]


@pytest.mark.parametrize("limit", ["gateway_rate", "campaign_rate"])
def test_a_limit_that_was_lifted_counts_at_once(limit):
    schedule = replace(at_its_limit(NOW, gateway_rate=100, campaign_rate=100), gateway_rate=None, campaign_rate=None)
    assert book(schedule, NOW, 3).slots == [NOW] * 3


@pytest.mark.parametrize("ahead", [1000.0, 1e9])
def test_a_clock_that_was_set_back_does_not_silence_a_gateway(ahead):
    later = NOW + ahead
    schedule = a_schedule(campaign_rate=50, gateway_last=later, campaign_last=later, share_last=later)
    assert after(book(schedule, NOW, 2).slots) == [20, 40]


# Any bookings

limits = st.sampled_from([0.7, 3, 50, 333, 1000, 5000])
moments = st.integers(-2_000_000, 2_000_000).map(lambda us: (us + 1_777_777_777_000_000) / 1_000_000)
schedules = st.builds(
    Schedule,
    gateway_rate=st.none() | limits,
    campaign_rate=st.none() | limits,
    gateway_last=st.just(0.0) | moments,
    campaign_last=st.just(0.0) | moments,
    share_last=st.just(0.0) | moments,
    rivals=st.integers(0, 3),
)
pauses = st.integers(0, 3000) | st.integers(0, 120_000)  # microseconds
wants = st.integers(0, 60) | st.just(400)
bookings = st.lists(st.tuples(pauses, st.integers(0, 2), wants, st.integers(0, 2)), max_size=60)


@given(schedule=schedules, now=moments, wanted=st.integers(0, 300))
def test_slots_ascend_and_never_lie_in_the_past_or_beyond_reach(schedule, now, wanted):
    slots = book(schedule, now, wanted).slots
    assert len(slots) <= wanted
    assert slots == sorted(slots)
    assert all(now <= slot <= now + AHEAD_S + SLIP_S for slot in slots)


@given(schedule=schedules, now=moments, wanted=st.integers(0, 300), fewer=st.integers(0, 300))
def test_the_slots_for_fewer_messages_are_the_first_of_those_for_more(schedule, now, wanted, fewer):
    slots = book(schedule, now, wanted).slots
    again = book(schedule, now, min(fewer, len(slots)))
    assert again.slots == slots[:fewer]
    assert again.again_at is None


@given(schedule=schedules, now=moments, wanted=st.integers(1, 300))
def test_who_asks_again_when_told_to_gets_a_slot_in_the_end_and_never_asks_in_a_hurry(schedule, now, wanted):
    booking = book(schedule, now, wanted)
    assert (booking.again_at is None) == (len(booking.slots) == wanted)
    asks = 0
    while booking.again_at is not None and asks < 100:  # slots 1 s ahead, an ask every 25 ms, twice
        assert booking.again_at >= now + SLIP_S / 2
        now, asks = booking.again_at, asks + 1
        booking = book(booking.schedule, now, 1)
    assert booking.slots or not asks


def slots_of(gateway_rate, own_rates, asks):
    """The slots of each campaign in microseconds, after (pause, campaign, wanted, rivals) for each ask."""
    now, gateway_last, slots = us(NOW), 0.0, [[] for _ in own_rates]
    rows = [a_schedule(gateway_rate=gateway_rate, campaign_rate=own_rate) for own_rate in own_rates]
    for pause, campaign, wanted, rivals in asks:
        now += pause
        booking = book(replace(rows[campaign], gateway_last=gateway_last, rivals=rivals), now / 1_000_000, wanted)
        rows[campaign], gateway_last = booking.schedule, booking.schedule.gateway_last
        slots[campaign] += map(us, booking.slots)
    return slots


def most_within(slots, span_us):
    slots = sorted(slots)
    return max((bisect_left(slots, slot + span_us) - n for n, slot in enumerate(slots)), default=0)


@given(gateway_rate=limits, asks=bookings)
def test_slots_of_a_gateway_are_never_closer_than_its_limit_allows(gateway_rate, asks):
    slots = sorted(sum(slots_of(gateway_rate, [None] * 3, asks), []))
    assert all(later - slot >= 1_000_000 / gateway_rate for slot, later in zip(slots, slots[1:], strict=False))


@given(gateway_rate=st.none() | limits, own_rates=st.lists(st.none() | limits, min_size=3, max_size=3), asks=bookings)
def test_slots_of_a_campaign_are_never_closer_than_its_own_limit_allows(gateway_rate, own_rates, asks):
    for own_rate, slots in zip(own_rates, slots_of(gateway_rate, own_rates, asks), strict=True):
        gap = 1_000_000 / own_rate if own_rate else 0
        assert all(later - slot >= gap for slot, later in zip(slots, slots[1:], strict=False))


@given(
    gateway_rate=limits,
    own_rates=st.lists(st.none() | limits, min_size=3, max_size=3),
    asks=bookings,
    span=st.just(1.0) | st.floats(0.001, 3),
)
def test_own_limits_of_campaigns_put_no_more_than_their_slip_into_any_span_of_a_gateway(
    gateway_rate, own_rates, asks, span
):
    slots = sum(slots_of(gateway_rate, own_rates, asks), [])
    assert most_within(slots, us(span)) <= gateway_rate * (span + SLIP_S) + 1


@pytest.mark.parametrize("span", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("own_rate", [50, 500, 900])
def test_who_books_after_a_campaign_with_its_own_limit_finds_at_most_its_slip_taken_twice(own_rate, span):
    asks = [(0, 0, 400, 0)] + [(50_000, 1, 400, 0)] * 60
    most = most_within(sum(slots_of(1000, [own_rate, None], asks), []), us(span))
    assert 1000 * span <= most <= 1000 * (span + SLIP_S) + 1


# Many workers for a while


@dataclass
class Sender:
    """A campaign whose workers ask every 50 ms, each at its own phase, or (`obeys`) when they are told to."""

    workers: int
    own_rate: float | None = None
    demand: float | None = None  # messages/s that come in; None: there are always more
    start_s: float = 0.0
    wanted: int = 40
    every_s: float = 0.05
    obeys: bool = False
    asks: int = 0
    schedule: Schedule = field(default_factory=a_schedule)
    hungry_at: float = 0.0
    slots: list[float] = field(default_factory=list)

    def ask(self, now, rate, gateway_last, rivals):
        wanted = max(self.wanted, int(rate / 10))
        if self.demand is not None:
            wanted = max(0, min(wanted, int((now - NOW) * self.demand) - len(self.slots)))
        limits = {"gateway_rate": rate, "campaign_rate": self.own_rate}
        booking = book(replace(self.schedule, gateway_last=gateway_last, rivals=rivals, **limits), now, wanted)
        self.schedule = booking.schedule
        self.slots += booking.slots
        self.hungry_at = now if booking.is_hungry else self.hungry_at
        self.asks += 1
        return booking

    def rate(self, since_s, until_s):
        return sum(NOW + since_s <= slot < NOW + until_s for slot in self.slots) / (until_s - since_s)


def simulate(rate, senders, until_s=11.0, seed=1):
    rng, gateway_last = random.Random(seed), 0.0
    asks = [
        (NOW + sender.start_s + rng.uniform(0, sender.every_s), n)
        for n, sender in enumerate(senders)
        for _ in range(sender.workers)
    ]
    heapq.heapify(asks)
    while asks[0][0] < NOW + until_s:
        now, n = heapq.heappop(asks)
        rivals = sum(s is not senders[n] and s.hungry_at > now - HUNGRY_S for s in senders)
        booking = senders[n].ask(now, rate, gateway_last, rivals)
        gateway_last = booking.schedule.gateway_last
        told = senders[n].obeys and booking.again_at
        heapq.heappush(asks, (told + rng.uniform(0, 0.01) if told else now + senders[n].every_s, n))
    most = most_within([us(slot) for sender in senders for slot in sender.slots], 1_000_000)
    assert most <= rate * (1 + SLIP_S) + 1
    return [sender.rate(1, until_s) / rate for sender in senders]


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("rate", RATES)
def test_a_gateway_at_its_limit_loses_no_slot(rate, workers):
    [share] = simulate(rate, [Sender(workers)])
    assert share >= 0.99


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rate", RATES)
def test_two_hungry_campaigns_get_the_same_however_many_workers_they_have(rate, seed):
    many, one = simulate(rate, [Sender(7), Sender(1)], seed=seed)
    assert many + one >= 0.99
    assert one == pytest.approx(many, rel=0.02)


def test_a_campaign_whose_worker_asks_rarely_gets_its_share_all_the_same():
    many, one = simulate(1000, [Sender(7), Sender(1, every_s=0.25, wanted=500)])
    assert many + one >= 0.99
    assert one == pytest.approx(many, rel=0.02)


def test_ten_hungry_campaigns_get_a_tenth_each():
    shares = simulate(1000, [Sender(1 + n % 4) for n in range(10)])
    assert sum(shares) >= 0.99
    assert shares == pytest.approx([0.1] * 10, rel=0.1)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("workers", [(7, 1), (2, 2)])
@pytest.mark.parametrize("rate", RATES[1:])
def test_a_campaign_that_wants_little_gets_it_and_the_others_share_the_rest(rate, workers, seed):
    little, *others = simulate(rate, [Sender(1, demand=rate / 10), *map(Sender, workers)], seed=seed)
    assert little >= 0.097
    assert little + sum(others) >= 0.99
    assert others == pytest.approx([0.45, 0.45], rel=0.05)


@pytest.mark.parametrize("workers", [1, 7])
@pytest.mark.parametrize("rate", RATES[1:])
def test_a_campaign_with_a_low_limit_of_its_own_reaches_it_and_leaves_the_rest_to_others(rate, workers):
    low, *others = simulate(rate, [Sender(workers, own_rate=rate / 15), Sender(7), Sender(1)])
    assert low * 15 >= 0.95
    assert low + sum(others) >= 0.99
    assert others == pytest.approx([7 / 15, 7 / 15], rel=0.05)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("all_obey", [True, False])
@pytest.mark.parametrize("rate", [50, 1000])
def test_a_campaign_reaches_its_own_limit_on_a_busy_gateway_by_asking_when_it_is_told_to(rate, all_obey, workers):
    shares = simulate(rate, [Sender(workers, own_rate=rate / 5, obeys=True), Sender(2, obeys=all_obey)])
    assert shares[0] * 5 >= 0.95
    assert sum(shares) >= 0.99


@pytest.mark.parametrize("own_share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("rate", [200, 1000, 5000])
def test_a_campaign_alone_reaches_its_own_limit(rate, own_share):
    [share] = simulate(rate, [Sender(2, own_rate=rate * own_share)])
    assert share == pytest.approx(own_share, rel=0.01)


@pytest.mark.parametrize("rate", RATES[1:])
def test_a_campaign_that_comes_back_has_its_share_within_a_second(rate):
    stayed, back = senders = [Sender(7), Sender(1, start_s=5)]
    simulate(rate, senders, until_s=8)
    assert stayed.rate(1, 5) >= 0.99 * rate
    assert back.rate(6, 8) == pytest.approx(rate / 2, rel=0.05)
    assert stayed.rate(6, 8) == pytest.approx(rate / 2, rel=0.05)


@pytest.mark.parametrize(("own_share", "asks_per_s"), [(1.0, 20), (0.5, 40), (0.1, 40)])
def test_a_worker_that_asks_when_it_is_told_to_loses_little_and_asks_seldom(own_share, asks_per_s):
    sender = Sender(1, own_rate=1000 * own_share if own_share < 1 else None, obeys=True, wanted=1000)
    [share] = simulate(1000, [sender])
    assert share >= 0.99 * own_share
    assert sender.asks <= asks_per_s * 11


@pytest.mark.parametrize(("before", "after"), [(1000, 100), (100, 1000), (0.01, 1000)])
def test_a_changed_limit_is_reached_within_half_a_second_of_the_change(before, after):
    schedule, slots = a_schedule(), []
    for tick in range(0, 10_000, 50):
        schedule = replace(schedule, gateway_rate=before if tick < 5000 else after)
        booking = book(schedule, NOW + tick / 1000, 1000)
        schedule, slots = booking.schedule, slots + booking.slots
    assert sum(NOW + 5.5 <= slot < NOW + 9.5 for slot in slots) == pytest.approx(4 * after, abs=1)


def test_what_a_campaign_took_beyond_its_share_is_not_held_against_it():
    schedule = a_schedule(gateway_rate=100, rivals=3)
    for tick in range(0, 10_000, 50):  # nobody else wants any
        schedule = book(schedule, NOW + tick / 1000, 100).schedule
    crowded = replace(schedule, gateway_last=NOW + 10.3)
    assert len(book(crowded, NOW + 10.2, 100).slots) == 6  # its quarter of the 0.25 s since
