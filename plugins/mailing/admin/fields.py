"""Fields of lists and forms that starlette-admin has not, and how what was typed is read."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette_admin.fields import DateTimeField, StringField, TagsField
from starlette_admin.i18n import get_tzinfo
from starlette_admin.types import RequestAction

MAX_ID = 2**63 - 1


@dataclass
class Moment(DateTimeField):
    """A moment in the viewer's zone, with UTC as its title. A form keeps what was typed: `typed_moment` reads it."""

    null_template: str = "fields/none.html"
    list_template: str = "fields/moment.html"
    detail_template: str = "fields/moment.html"

    async def serialize_value(self, request: Request, value: datetime) -> Any:
        """What the template shows; for a form or a file: ISO 8601."""
        if request.state.action.is_form() or request.state.action == RequestAction.EXPORT:
            return await super().serialize_value(request, value)
        return shown_moment(value)

    async def parse_form_data(self, request: Request, form_data: FormData) -> Any:
        """What was typed."""
        return form_data.get(self.id) or None


@dataclass
class Zone(StringField):
    """The name of a time zone, offered from a list as it is typed."""

    form_template: str = "fields/zone.html"

    def input_params(self) -> str:
        """As of any text, with the list."""
        return f'{super().input_params()} list="{self.id}-names"'

    @property
    def names(self) -> list[str]:
        """All that Python knows."""
        return sorted(zoneinfo.available_timezones())


@dataclass
class Number(StringField):
    """A number as text: a form keeps what was typed. `none`: what no number means."""

    none: str | None = None
    maxlength: int | None = 20

    async def serialize_value(self, request: Request, value: float) -> str:
        """With commas where it is read by people."""
        is_shown = request.state.action in (RequestAction.LIST, RequestAction.DETAIL)
        return f"{value:,.12g}" if is_shown else f"{value:.12g}"

    async def serialize_none_value(self, request: Request) -> str | None:
        """In words where it is read by people."""
        return None if request.state.action.is_form() else self.none


@dataclass
class Codes(TagsField):
    """A list of short words, typed one by one."""

    async def serialize_value(self, request: Request, value: list[Any]) -> Any:
        """The same, as text; in a file parted by `;`."""
        words = [str(word) for word in value]
        return ";".join(words) if request.state.action == RequestAction.EXPORT else words


@dataclass
class ClientTags(Codes):
    """A client's tags. Its operator code, the first, is shown with them, and is nobody's to write."""

    async def serialize_value(self, request: Request, value: list[str]) -> Any:
        """Without the operator code where it could be written, or brought in again from a file."""
        is_shown = request.state.action in (RequestAction.LIST, RequestAction.DETAIL)
        return await super().serialize_value(request, value if is_shown else value[1:])


def shown_moment(at: datetime) -> dict[str, str]:
    """A moment for templates/fields/moment.html."""
    local = at.astimezone(get_tzinfo())
    return {
        "iso": at.astimezone(UTC).isoformat(),
        "local": f"{local:%-d %b %Y, %H:%M:%S}",
        "utc": f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
    }


def brief_moment(at: datetime, now: datetime) -> str:
    """A moment of late in the viewer's zone: with its date, unless that is today's; with its year, unless this one."""
    local, today = at.astimezone(get_tzinfo()), now.astimezone(get_tzinfo()).date()
    if local.date() == today:
        return f"{local:%H:%M}"
    return f"{local:%-d %b, %H:%M}" if local.year == today.year else f"{local:%-d %b %Y, %H:%M}"


def typed_moment(typed: str | None) -> datetime | None:
    """A moment typed in the viewer's zone. Raises ValueError, whose text says what was wanted."""
    if not typed:
        return None
    try:
        at = datetime.fromisoformat(typed)
    except ValueError:
        raise ValueError("wanted a date and a time, such as 2030-01-31 09:00") from None
    return at if at.tzinfo else at.replace(tzinfo=get_tzinfo())


def typed_id(typed: str | None) -> int:
    """An id. Raises ValueError, whose text says what was wanted."""
    text = (typed or "").strip()
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= MAX_ID):
        raise ValueError("wanted a number from 1 on")
    return int(text)
