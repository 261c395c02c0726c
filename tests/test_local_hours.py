from __future__ import annotations

import itertools
import zoneinfo
import zoneinfo._zoneinfo  # the twin in Python, which shows its tables
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mailing.errors import InvalidInput
from mailing.local_hours import LocalHours, Span, spans

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
INSTANT = timedelta(microseconds=1)
ZONES = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})
OFFICE = LocalHours(time(10), time(18))


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(start, end):
    return LocalHours(time.fromisoformat(start), time.fromisoformat(end))


def spans_from(local_hours, zone, now, count):
    """So many spans in a row, each as (opens_at, closes_at)."""
    found = []
    while len(found) < count:
        span = local_hours.span(zone, now)
        found.append((span.opens_at, span.closes_at))
        now = span.closes_at
    return found


# --- Ends, midnight, what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local_now", "is_open"),
    [
        ("00:00", False),
        ("09:59:59.999999", False),
        ("10:00", True),
        ("12:00", True),
        ("17:59:59.999999", True),
        ("18:00", False),
        ("23:59:59.999999", False),
    ],
)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_local_hours_include_their_start_and_exclude_their_end(zone, local_now, is_open):
    now = datetime.combine(date(2026, 5, 1), time.fromisoformat(local_now), zoneinfo.ZoneInfo(zone))
    assert OFFICE.is_open(zone, now) is is_open
    assert OFFICE.is_open(zone, now.astimezone(UTC)) is is_open


@pytest.mark.parametrize(
    ("local_now", "is_open"),
    [
        ("21:59:59.999999", False),
        ("22:00", True),
        ("23:59:59.999999", True),
        ("00:00", True),
        ("05:59:59.999999", True),
        ("06:00", False),
    ],
)
def test_hours_whose_start_is_after_their_end_span_midnight(local_now, is_open):
    now = datetime.combine(date(2026, 5, 1), time.fromisoformat(local_now), zoneinfo.ZoneInfo("Asia/Tokyo"))
    assert hours("22:00", "06:00").is_open("Asia/Tokyo", now) is is_open


def test_hours_until_midnight_end_with_the_day():
    assert spans_from(hours("20:00", "00:00"), "Asia/Tokyo", utc("2026-05-01 00:00"), 1) == [
        (utc("2026-05-01 11:00"), utc("2026-05-01 15:00"))
    ]


def test_seconds_and_microseconds_count():
    local_hours = hours("10:00:30.000001", "10:00:30.000002")
    opens_at = utc("2026-05-01 10:00:30.000001")
    assert local_hours.span("UTC", utc("2026-05-01 00:00")) == Span(opens_at, opens_at + INSTANT)
    assert local_hours.span("UTC", opens_at + INSTANT) == Span(opens_at + DAY, opens_at + DAY + INSTANT)
    assert [local_hours.is_open("UTC", opens_at + n * INSTANT) for n in (-1, 0, 1)] == [False, True, False]


def test_hours_that_close_for_one_microsecond_last_the_rest_of_the_day():
    assert spans_from(hours("00:00", "23:59:59.999999"), "UTC", utc("2026-05-01 12:00"), 2) == [
        (utc("2026-05-01 00:00"), utc("2026-05-01 23:59:59.999999")),
        (utc("2026-05-02 00:00"), utc("2026-05-02 23:59:59.999999")),
    ]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (time(10), time(10), "local hours need two different ends, got from=10:00:00 to=10:00:00"),
        (time(10), time(10, fold=1), "local hours need two different ends, got from=10:00:00 to=10:00:00"),
        (
            time(10, tzinfo=UTC),
            time(18),
            "local hours need times without a time zone, got from=10:00:00+00:00 to=18:00:00",
        ),
        (
            time(10),
            time(18, tzinfo=UTC),
            "local hours need times without a time zone, got from=10:00:00 to=18:00:00+00:00",
        ),
    ],
)
def test_hours_without_length_or_with_a_zone_of_their_own_are_refused(start, end, message):
    with pytest.raises(InvalidInput) as caught:
        LocalHours(start, end)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "zone",
    # fmt: off
    [
        "",
        "Nowhere/Town",
        "Europe",
        "Europe/",
        "europe/berlin",
        "UTC+3",
        "+03:00",
        "../zoneinfo/UTC",
        "/etc/localtime",
        "localtime",
        "right/Europe/Berlin",
        "zone.tab",
        "a\0b",
        "\udc80",
        "x" * 5_000,
    ],
    # fmt: on
)
def test_an_unknown_zone_is_refused_by_name_with_what_was_wanted(zone):
    now = utc("2026-05-01 00:00")
    for ask in (OFFICE.is_open, OFFICE.span, lambda zone, now: spans(OFFICE, ["UTC", zone], now)):
        with pytest.raises(InvalidInput) as caught:
            ask(zone, now)
        assert repr(zone) in str(caught.value)
        assert "IANA name" in str(caught.value)


# --- Spans on days like any other -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-04-30 16:00", "2026-05-01"),  # 18:00 the day before: just closed
        ("2026-05-01 07:59:59.999999", "2026-05-01"),
        ("2026-05-01 08:00", "2026-05-01"),
        ("2026-05-01 12:34:56.789", "2026-05-01"),
        ("2026-05-01 15:59:59.999999", "2026-05-01"),
        ("2026-05-01 16:00", "2026-05-02"),
    ],
)
def test_a_span_is_the_one_that_holds_the_moment_or_else_the_next(now, day):
    assert OFFICE.span("Europe/Berlin", utc(now)) == Span(utc(f"{day} 08:00"), utc(f"{day} 16:00"))


@pytest.mark.parametrize("now", [utc("2026-05-01 06:00"), utc("2026-05-01 12:00")])
@pytest.mark.parametrize("told_in", [timezone(timedelta(hours=-9)), zoneinfo.ZoneInfo("Europe/Berlin")])
def test_a_span_is_told_in_utc_whatever_zone_the_moment_is_told_in(now, told_in):
    now = now.astimezone(told_in)
    span = OFFICE.span("Europe/Berlin", now)
    assert span == Span(utc("2026-05-01 08:00"), utc("2026-05-01 16:00"))
    assert span.opens_at.tzinfo is UTC
    assert span.closes_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("zone", "opens_at"),
    [
        ("Asia/Kolkata", "2026-05-01 04:30"),  # +05:30
        ("Asia/Kathmandu", "2026-05-01 04:15"),  # +05:45
        ("Pacific/Marquesas", "2026-04-30 19:30"),  # -09:30
        ("Pacific/Chatham", "2026-04-30 21:15"),  # +12:45
        ("Pacific/Kiritimati", "2026-04-30 20:00"),  # +14, the first to see a day
        ("Pacific/Pago_Pago", "2026-04-30 21:00"),  # -11, the last
    ],
)
def test_odd_offsets_and_both_sides_of_the_date_line(zone, opens_at):
    now = utc("2026-04-30 14:00")
    assert OFFICE.span(zone, now) == Span(utc(opens_at), utc(opens_at) + 8 * HOUR)


def test_spans_answers_for_each_zone_what_span_does():
    now = utc("2026-03-29 00:59")
    assert spans(OFFICE, ZONES, now) == {zone: OFFICE.span(zone, now) for zone in ZONES}


def test_spans_takes_a_zone_twice_and_none_at_all():
    now = utc("2026-05-01 00:00")
    assert spans(OFFICE, iter(["UTC", "UTC"]), now) == {"UTC": OFFICE.span("UTC", now)}
    assert spans(OFFICE, [], now) == {}


# --- The clock is set: Europe/Berlin, 2026-03-29 02:00 -> 03:00 and 2026-10-25 03:00 -> 02:00, both at 01:00 UTC ----


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param(
            "02:30", "04:00", [("03-29 01:00", "03-29 02:00"), ("03-30 00:30", "03-30 02:00")], id="opens when it ends"
        ),
        pytest.param(
            "02:00", "04:00", [("03-29 01:00", "03-29 02:00"), ("03-30 00:00", "03-30 02:00")], id="starts with it"
        ),
        pytest.param(
            "01:00", "02:30", [("03-29 00:00", "03-29 01:00"), ("03-29 23:00", "03-30 00:30")], id="ends in it"
        ),
        pytest.param(
            "01:00", "03:00", [("03-29 00:00", "03-29 01:00"), ("03-29 23:00", "03-30 01:00")], id="ends with it"
        ),
        pytest.param("02:15", "02:45", [("03-30 00:15", "03-30 00:45")], id="wholly in it"),
        pytest.param("02:00", "03:00", [("03-30 00:00", "03-30 01:00")], id="the very gap"),
        pytest.param("01:00", "04:00", [("03-29 00:00", "03-29 02:00")], id="around it"),
        pytest.param("02:45", "02:15", [("03-28 01:45", "03-30 00:15")], id="the closed time is wholly in it"),
        pytest.param(
            "22:00", "02:30", [("03-28 21:00", "03-29 01:00"), ("03-29 20:00", "03-30 00:30")], id="a night, ends in it"
        ),
    ],
)
def test_hours_in_a_gap(start, end, expected):
    found = spans_from(hours(start, end), "Europe/Berlin", utc("2026-03-28 22:30"), len(expected))
    assert found == [(utc(f"2026-{opens}"), utc(f"2026-{closes}")) for opens, closes in expected]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param(
            "02:15",
            "02:45",
            [("10-25 00:15", "10-25 00:45"), ("10-25 01:15", "10-25 01:45"), ("10-26 01:15", "10-26 01:45")],
            id="come twice",
        ),
        pytest.param(
            "02:30",
            "04:00",
            [("10-25 00:30", "10-25 01:00"), ("10-25 01:30", "10-25 03:00")],
            id="close and open again",
        ),
        pytest.param(
            "01:00", "02:30", [("10-24 23:00", "10-25 00:30"), ("10-25 01:00", "10-25 01:30")], id="open once more"
        ),
        pytest.param("02:00", "04:00", [("10-25 00:00", "10-25 03:00")], id="start with it, one span"),
        pytest.param("02:00", "03:00", [("10-25 00:00", "10-25 02:00")], id="the very fold, one span"),
        pytest.param(
            "01:00", "02:00", [("10-24 23:00", "10-25 00:00"), ("10-26 00:00", "10-26 01:00")], id="before it"
        ),
        pytest.param("03:00", "04:00", [("10-25 02:00", "10-25 03:00")], id="after it"),
        pytest.param("01:00", "04:00", [("10-24 23:00", "10-25 03:00")], id="around it"),
        pytest.param(
            "02:45",
            "02:15",
            [("10-24 00:45", "10-25 00:15"), ("10-25 00:45", "10-25 01:15"), ("10-25 01:45", "10-26 01:15")],
            id="the closed time comes twice",
        ),
    ],
)
def test_hours_in_a_fold(start, end, expected):
    found = spans_from(hours(start, end), "Europe/Berlin", utc("2026-10-24 22:30"), len(expected))
    assert found == [(utc(f"2026-{opens}"), utc(f"2026-{closes}")) for opens, closes in expected]


@pytest.mark.parametrize(
    ("now", "opens_at", "closes_at"),
    [
        ("2026-03-29 01:30", "2026-03-29 01:00", "2026-03-29 02:00"),  # opened by the gap
        ("2026-10-25 00:45", "2026-10-25 00:30", "2026-10-25 01:00"),  # closed by the fold
        ("2026-10-25 02:30", "2026-10-25 01:30", "2026-10-25 03:00"),  # opened again
    ],
)
def test_a_span_that_the_setting_of_the_clock_cut_is_found_from_inside(now, opens_at, closes_at):
    assert hours("02:30", "04:00").span("Europe/Berlin", utc(now)) == Span(utc(opens_at), utc(closes_at))


@pytest.mark.parametrize("now", ["2026-10-25 00:00", "2026-10-25 00:30", "2026-10-25 01:00", "2026-10-25 02:30"])
def test_a_span_whose_start_comes_twice_in_it_began_at_the_first(now):
    span = hours("02:00", "04:00").span("Europe/Berlin", utc(now))
    assert span == Span(utc("2026-10-25 00:00"), utc("2026-10-25 03:00"))


@pytest.mark.parametrize(
    ("zone", "now", "start", "end", "expected"),
    [
        pytest.param(
            "Australia/Lord_Howe",  # 2026-10-04 02:00 +10:30 -> 02:30 +11
            "2026-10-03 12:00",
            "02:15",
            "03:00",
            [("2026-10-03 15:30", "2026-10-03 16:00"), ("2026-10-04 15:15", "2026-10-04 16:00")],
            id="a gap of half an hour",
        ),
        pytest.param(
            "Australia/Lord_Howe",  # 2026-04-05 02:00 +11 -> 01:30 +10:30
            "2026-04-04 12:00",
            "01:45",
            "03:00",
            [("2026-04-04 14:45", "2026-04-04 15:00"), ("2026-04-04 15:15", "2026-04-04 16:30")],
            id="a fold of half an hour",
        ),
        pytest.param(
            "America/Havana",  # 2026-03-08 00:00 -05 -> 01:00 -04
            "2026-03-07 18:00",
            "00:00",
            "08:00",
            [("2026-03-08 05:00", "2026-03-08 12:00"), ("2026-03-09 04:00", "2026-03-09 12:00")],
            id="Havana has no midnight",
        ),
        pytest.param(
            "America/Havana",  # 2026-11-01 01:00 -04 -> 00:00 -05
            "2026-10-31 12:00",
            "22:00",
            "00:30",
            [("2026-11-01 02:00", "2026-11-01 04:30"), ("2026-11-01 05:00", "2026-11-01 05:30")],
            id="Havana has two midnights",
        ),
        pytest.param(
            "Asia/Beirut",  # 2026-03-29 00:00 +02 -> 01:00 +03
            "2026-03-28 12:00",
            "22:00",
            "00:30",
            [("2026-03-28 20:00", "2026-03-28 22:00"), ("2026-03-29 19:00", "2026-03-29 21:30")],
            id="Beirut has no midnight",
        ),
        pytest.param(
            "Asia/Beirut",  # 2026-10-25 00:00 +03 -> 2026-10-24 23:00 +02
            "2026-10-24 12:00",
            "09:00",
            "00:00",
            [("2026-10-24 06:00", "2026-10-24 22:00"), ("2026-10-25 07:00", "2026-10-25 22:00")],
            id="Beirut goes back to the day before",
        ),
        pytest.param(
            "Asia/Beirut",
            "2026-10-24 12:00",
            "00:00",
            "08:00",
            [("2026-10-24 22:00", "2026-10-25 06:00")],
            id="midnight, not reached at first, comes an hour later",
        ),
        pytest.param(
            "America/Sao_Paulo",  # 2018-11-04 00:00 -03 -> 01:00 -02
            "2018-11-03 18:00",
            "00:15",
            "00:45",
            [("2018-11-05 02:15", "2018-11-05 02:45")],
            id="Sao Paulo's midnight hour is swallowed",
        ),
        pytest.param(
            "America/Sao_Paulo",  # 2018-02-18 00:00 -02 -> 2018-02-17 23:00 -03
            "2018-02-17 18:00",
            "23:30",
            "06:00",
            [("2018-02-18 01:30", "2018-02-18 02:00"), ("2018-02-18 02:30", "2018-02-18 09:00")],
            id="Sao Paulo's last hour of the day comes twice",
        ),
        pytest.param(
            "Pacific/Apia",  # 2011-12-30 does not exist: from -10 to +14 at 2011-12-30 10:00 UTC
            "2011-12-29 18:00",
            "10:00",
            "18:00",
            [("2011-12-29 20:00", "2011-12-30 04:00"), ("2011-12-30 20:00", "2011-12-31 04:00")],
            id="Samoa skips a day",
        ),
        pytest.param(
            "Pacific/Apia",
            "2011-12-30 09:00",
            "22:00",
            "06:00",
            [("2011-12-30 08:00", "2011-12-30 16:00")],
            id="a night from the 29th to the 31st",
        ),
    ],
)
def test_where_the_clock_is_set_in_other_ways(zone, now, start, end, expected):
    found = spans_from(hours(start, end), zone, utc(now), len(expected))
    assert found == [(utc(opens), utc(closes)) for opens, closes in expected]


def test_no_zone_sets_its_clock_twice_within_a_day():
    """`_clock_set_at` rests on it, and so does telling from two offsets that are the same that nothing happened."""
    gaps = []
    for zone in ZONES:
        table = zoneinfo._zoneinfo.ZoneInfo.no_cache(zone)
        offsets = [table._tti_before.utcoff, *(info.utcoff for info in table._ttinfos)]
        steps = zip(table._trans_utc, itertools.pairwise(offsets), strict=True)
        changes = [timedelta(seconds=second) for second, (old, new) in steps if old != new]
        gaps += [later - earlier for earlier, later in itertools.pairwise(changes)]
    assert DAY < min(gaps) < 10 * DAY  # 95 hours (Africa/Freetown, 1939) or 167, by how much of the past a host keeps


# --- Against brute force ----------------------------------------------------------------------------------------------

DAY_US = DAY // INSTANT
RESTLESS_ZONES = [
    "Africa/Casablanca",
    "America/Havana",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
]


def shown_us(moment, tz):
    wall = moment.astimezone(tz)
    return ((wall.hour * 60 + wall.minute) * 60 + wall.second) * 1_000_000 + wall.microsecond


def us(moment):
    return timedelta(hours=moment.hour, minutes=moment.minute, seconds=moment.second) // INSTANT + moment.microsecond


def brute_force(local_hours, zone, first, last):
    """[(moment, open)] for each minute in [first, last], and for each moment between where hours could turn.

    Since 1990 every offset is of whole minutes and sets in on a whole minute, so these are the minutes plus the
    seconds of either end.
    """
    tz = zoneinfo.ZoneInfo(zone)
    start_us, end_us = us(local_hours.start), us(local_hours.end)
    length_us = (end_us - start_us) % DAY_US
    parts = sorted({timedelta(), *(timedelta(microseconds=at_us % 60_000_000) for at_us in (start_us, end_us))})
    moments = [first + n * MINUTE + part for n in range((last - first) // MINUTE) for part in parts]
    return [(moment, (shown_us(moment, tz) - start_us) % DAY_US < length_us) for moment in moments]


def brute_spans(states):
    """Every span that begins and ends within the states."""
    turns = [moment for (_, was), (moment, is_open) in itertools.pairwise(states) if was is not is_open]
    if states[0][1]:
        turns = turns[1:]
    return [Span(*pair) for pair in zip(turns[::2], turns[1::2], strict=False)]


@cache
def clock_changes(zone, year):
    """The moments of a year at which the zone's offset changes, by steps of a day and then of a minute."""
    tz = zoneinfo.ZoneInfo(zone)
    days = [datetime(year, 1, 1, tzinfo=UTC) + n * DAY for n in range(366)]
    found = []
    for day, next_day in itertools.pairwise(days):
        old, new = (moment.astimezone(tz).utcoffset() for moment in (day, next_day))
        if old != new:
            minutes = (day + n * MINUTE for n in range(1, 1_441))
            found.append(next(minute for minute in minutes if minute.astimezone(tz).utcoffset() == new))
    return found


@st.composite
def situations(draw):
    """A zone, a moment on a whole minute of 1990 to 2037, near a change of the clock where there is one, and hours."""
    zone, year = draw(st.sampled_from(ZONES) | st.sampled_from(RESTLESS_ZONES)), draw(st.integers(1990, 2037))
    changes = clock_changes(zone, year)
    near = bool(changes) and draw(st.sampled_from([True, True, True, False]))
    if near:
        change = draw(st.sampled_from(changes))
        centre = change + draw(st.integers(-120, 120)) * MINUTE
    else:
        centre = datetime(year, 1, 1, tzinfo=UTC) + draw(st.integers(0, 365 * 1_440)) * MINUTE
    part_us = st.sampled_from([0, 0, 0, 1, 30_000_000, 59_999_999])
    if near and draw(st.booleans()):  # hours about the time of day that is skipped or repeated, or just at its ends
        shown = shown_us(change, zoneinfo.ZoneInfo(zone)) // 60_000_000
        offs = st.sampled_from([-60, -30, 0, 30, 60]) | st.integers(-150, 150)
        minutes = offs.map(lambda off: (shown + off) % 1_440)
    else:
        minutes = st.integers(0, 1_439)
    ends = [draw(minutes) * 60_000_000 + draw(part_us) for _ in range(2)]
    assume(ends[0] != ends[1])
    start, end = ((datetime.min + timedelta(microseconds=end_us)).time() for end_us in ends)
    return zone, centre, LocalHours(start, end)


@settings(deadline=None, max_examples=120)
@given(situation=situations())
def test_hours_and_spans_are_what_brute_force_finds(situation):
    zone, centre, local_hours = situation
    states = brute_force(local_hours, zone, centre - 2.5 * DAY, centre + 3.5 * DAY)
    expected = brute_spans(states)
    for moment, is_open in states:
        assert local_hours.is_open(zone, moment) is is_open
    for offset_min in range(-360, 361, 15):
        now = centre + offset_min * MINUTE
        span = next(span for span in expected if span.closes_at > now)
        assert local_hours.span(zone, now) == span


@settings(deadline=None, max_examples=300)
@given(situation=situations(), off_us=st.integers(0, 59_999_999))
def test_a_span_holds_its_moment_or_follows_it_and_turns_at_both_its_ends(situation, off_us):
    zone, centre, local_hours = situation
    now = centre + timedelta(microseconds=off_us)
    span = local_hours.span(zone, now)
    assert local_hours.is_open(zone, now) is (span.opens_at <= now)
    assert now < span.closes_at
    edges = [span.opens_at - INSTANT, span.opens_at, span.closes_at - INSTANT, span.closes_at]
    assert [local_hours.is_open(zone, edge) for edge in edges] == [False, True, True, False]
    assert local_hours.span(zone, span.opens_at) == local_hours.span(zone, span.closes_at - INSTANT) == span
    assert local_hours.span(zone, span.closes_at).opens_at > span.closes_at
    assert local_hours.span(zone, now.astimezone(zoneinfo.ZoneInfo(zone))) == span
