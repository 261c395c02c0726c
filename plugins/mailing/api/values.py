"""Values that several bodies and queries hold: moments, times of day, operator codes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, StringConstraints, WithJsonSchema

_TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?$"


def _written_moment(value: Any) -> Any:
    """Refuse numbers, which pydantic would take for seconds (or milliseconds) since 1970."""
    if not isinstance(value, str) or not re.match(r"\d{4}-\d{2}-\d{2}[Tt ]", value, re.ASCII):
        raise ValueError("wanted a moment such as 2030-01-31T09:00:00+03:00")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("wanted a moment in the years 1 to 9999, as UTC has it") from error


def _written_time(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(_TIME_OF_DAY.strip("^$"), value):
        raise ValueError("wanted a time of day such as 09:00, without a time zone: it is the client's")
    return time.fromisoformat(value)


Moment = Annotated[AwareDatetime, BeforeValidator(_written_moment), AfterValidator(_in_utc)]
"""A moment with a time zone, as ISO 8601 writes it; in UTC from here on."""

TimeOfDay = Annotated[
    time,
    BeforeValidator(_written_time),
    WithJsonSchema({"type": "string", "pattern": _TIME_OF_DAY, "examples": ["09:00"]}),
]
"""A time on the client's own clock."""

OperatorCode = Annotated[str, StringConstraints(pattern="^[0-9]{3}$")]
"""Digits 2 to 4 of a phone number."""
