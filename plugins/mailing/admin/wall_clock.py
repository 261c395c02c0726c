"""A moment as a zone's clocks show it, and as <input type="datetime-local"> has it: without the zone.

In autumn clocks show an hour twice: then a text means two moments, and `fold` says which: "0" the first, "1" the
second, "" where there is no question. In spring they leave an hour out: such a text means no moment.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """The zone. Raises ValueError for one that is not known here."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # a name with a NUL or too long a one, a folder, one that is not there
        raise ValueError(f"wanted a moment in a time zone that is known here, got {name[:50]!r}") from None


def read(text: str) -> datetime:
    """What the clock shows, without a zone. Raises ValueError."""
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        wall = None
    if wall is None or wall.tzinfo is not None:
        raise ValueError("wanted a date and a time")
    return wall


def moments(wall: datetime, zone: zoneinfo.ZoneInfo) -> list[datetime]:
    """When the zone's clocks show this: the moments, in UTC, the first of them first; none, one or two.

    Raises ValueError for one at the end of time.
    """
    try:
        found = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        return sorted(at for at in found if at.astimezone(zone).replace(tzinfo=None) == wall)
    except OverflowError:
        raise ValueError("wanted moments from the years 2000 to 9998") from None


def meant(text: str, fold: str, zone_name: str) -> datetime:
    """The one moment, in UTC. Raises ValueError, whose text says what was wanted."""
    wall, zone = read(text), zone_of(zone_name)
    found = moments(wall, zone)
    if not found:
        raise ValueError(f"there is no {wall:%Y-%m-%d %H:%M} in {zone_name}: its clocks are set forward then")
    if len(found) == 1:
        return found[0]
    if fold not in ("0", "1"):
        raise ValueError(f"clocks in {zone_name} show {wall:%Y-%m-%d %H:%M} twice: choose which of the two is meant")
    return found[int(fold)]


def possible(text: str, zone_name: str) -> list[datetime]:
    """All that a text can mean; of one that is no time, nothing."""
    try:
        return moments(read(text), zone_of(zone_name))
    except ValueError:
        return []


def shown(moment: datetime, zone_name: str) -> tuple[str, str]:
    """The text, in whole seconds, and the fold."""
    zone = zone_of(zone_name)
    local = moment.astimezone(zone).replace(microsecond=0)
    wall = local.replace(tzinfo=None)
    text = wall.isoformat(timespec="seconds" if wall.second else "minutes")
    return text, str(local.fold) if len(moments(wall, zone)) > 1 else ""
