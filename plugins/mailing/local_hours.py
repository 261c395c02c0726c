"""The local hours of a campaign: when a client may be messaged, by the clock on the client's own wall.

Source of the rule: docs/delivery.md, **Local hours**. Pure: the moment is an argument, always aware, in any zone; what
comes back is in UTC. A zone is an IANA name. Nothing here counts on every day having 24 hours or on every time of day
coming once a day: only what the wall clock shows decides.
"""

from __future__ import annotations

import bisect
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache

from mailing.errors import InvalidInput

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_INSTANT = datetime.resolution  # one microsecond: between two neighbours nothing can happen


@dataclass(frozen=True, slots=True)
class Span:
    """One unbroken stretch of open time, from `opens_at` (included) to `closes_at` (excluded); aware, in UTC."""

    opens_at: datetime
    closes_at: datetime


@dataclass(frozen=True, slots=True)
class LocalHours:
    """From `start` (included) to `end` (excluded) on the client's wall clock; start > end spans midnight.

    Both are times of day without a zone, to the microsecond; InvalidInput if they carry one or are equal.
    """

    start: time
    end: time

    def __post_init__(self) -> None:
        if self.start.tzinfo is not None or self.end.tzinfo is not None:
            raise InvalidInput(f"local hours need times without a time zone, got from={self.start} to={self.end}")
        if self.start == self.end:
            raise InvalidInput(f"local hours need two different ends, got from={self.start} to={self.end}")

    def is_open(self, zone: str, now: datetime) -> bool:
        """Whether a client in `zone` may be messaged at `now`. InvalidInput if there is no such zone."""
        return self._holds(now.astimezone(_zone_info(zone)))

    def span(self, zone: str, now: datetime) -> Span:
        """The span that holds `now`, from its true beginning, or else the next one. InvalidInput: no such zone.

        An opening that a daylight-saving gap swallows is made up for when the gap ends, if the hours are not over by
        then; hours that lie wholly in the gap do not come that day. Where the clock is set back, the hours may open
        and close twice.
        """
        tz = _zone_info(zone)
        if self._holds(now.astimezone(tz)):
            opens_at = self._opened(tz, now.astimezone(UTC))
        else:
            opens_at = self._next_turn(tz, now.astimezone(UTC), to_open=True)
        return Span(opens_at, self._next_turn(tz, opens_at, to_open=False))

    def _holds(self, wall: datetime) -> bool:
        """Whether the hours include what this clock shows."""
        shown = wall.time()
        if self.start < self.end:
            return self.start <= shown < self.end
        return shown >= self.start or shown < self.end

    def _next_turn(self, tz: zoneinfo.ZoneInfo, at: datetime, *, to_open: bool) -> datetime:
        """The first moment after `at` that is open (`to_open`) or is not; at `at` it is the other way round."""
        edge = _since_midnight(self.start if to_open else self.end)
        while True:
            wall = at.astimezone(tz)
            turn = at + (edge - _since_midnight(wall)) % _DAY
            if turn.astimezone(tz).utcoffset() == wall.utcoffset():
                return turn
            # The clock is set on the way there, which may itself open or close, or put the edge out of reach.
            at = _clock_set_at(tz, at, turn)
            if self._holds(at.astimezone(tz)) is to_open:
                return at

    def _opened(self, tz: zoneinfo.ZoneInfo, at: datetime) -> datetime:
        """When the span that holds `at` began."""
        while True:
            wall = at.astimezone(tz)
            opened = at - (_since_midnight(wall) - _since_midnight(self.start)) % _DAY
            before = opened - _INSTANT  # set back to `start` at that very moment, the clock may have been open already
            if before.astimezone(tz).utcoffset() == wall.utcoffset():
                return opened
            clock_set = _clock_set_at(tz, before, at)
            at = clock_set - _INSTANT
            if not self._holds(at.astimezone(tz)):
                return clock_set


def spans(hours: LocalHours, zones: Iterable[str], now: datetime) -> dict[str, Span]:
    """`hours.span` for each of the zones. InvalidInput names the first that does not exist.

    All 600 zones take some 10 ms; the first call of a process reads their files, some 60 ms more.
    """
    return {zone: hours.span(zone, now) for zone in dict.fromkeys(zones)}


@dataclass(frozen=True, slots=True)
class ZoneForecast:
    """Of one time zone: how many clients, when the first of them can be reached, and how many never before the stop."""

    timezone: str
    clients: int
    opens_at: datetime | None  # aware; None: not before the stop
    never: int


def forecast(
    clients: Mapping[str, int], hours: LocalHours | None, begins: datetime, stop: datetime
) -> list[ZoneForecast]:
    """Whom sending from `begins` (included) to `stop` (excluded) can reach. `clients`: how many live in each zone."""
    return [_zone_forecast(zone, count, hours, begins, stop) for zone, count in clients.items()]


def _zone_forecast(zone: str, clients: int, hours: LocalHours | None, begins: datetime, stop: datetime) -> ZoneForecast:
    opens_at = begins if hours is None else max(begins, hours.span(zone, begins).opens_at)
    if opens_at >= stop:
        return ZoneForecast(zone, clients, None, clients)
    return ZoneForecast(zone, clients, opens_at, 0)


@cache  # ZoneInfo itself holds on to eight zones only and reads the others' files anew each time
def _zone_info(zone: str) -> zoneinfo.ZoneInfo:
    if zone not in _zone_names():  # ZoneInfo would also take `right/…`, half a minute off, and a folder is an OSError
        raise InvalidInput(f"time zone {zone!r}: wanted an IANA name such as 'Europe/Berlin'")
    return zoneinfo.ZoneInfo(zone)


@cache
def _zone_names() -> set[str]:
    return zoneinfo.available_timezones() - {"localtime", "Factory"}  # the server's own zone, and a placeholder


def _since_midnight(shown: datetime | time) -> timedelta:
    """What the clock shows, as if no hour of the day had been skipped or repeated."""
    return timedelta(hours=shown.hour, minutes=shown.minute, seconds=shown.second, microseconds=shown.microsecond)


def _clock_set_at(tz: zoneinfo.ZoneInfo, after: datetime, until: datetime) -> datetime:
    """The moment in (after, until], a day or less, from which the offset is another than at `after`; in UTC.

    That there is one, the caller saw: the offsets at both ends differ. There is no second one: no zone ever had two
    within a day (95 hours apart is the least; tests/test_local_hours.py watches it). Offsets change on whole seconds.
    """
    offset = after.astimezone(tz).utcoffset()
    base = after.replace(microsecond=0)

    def is_set(second: int) -> bool:
        return (base + second * _SECOND).astimezone(tz).utcoffset() != offset

    return base + bisect.bisect_left(range((until - base) // _SECOND), True, key=is_set) * _SECOND
