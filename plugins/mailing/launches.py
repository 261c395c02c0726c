"""Campaigns that other pipelines launch: once per key, however often they ask.

Keys are kept as long as their campaign (those of the REST API, a week): a pipeline that is cleared after a month must
not send everything again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Literal

from psycopg.types.json import Jsonb
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from mailing import campaigns, db
from mailing.errors import InvalidInput
from mailing.models import DEFAULT_GATEWAY, MAX_TEXT

SQL = db.queries("launches")

MAX_KEY = 1_000


def _none_if_empty(value: Any) -> Any:
    """What a template made of nothing is nothing."""
    return None if value == "" else value


def _not_a_number(value: Any) -> Any:
    """Refuse what would be taken for seconds since 1970, or since midnight."""
    if isinstance(value, str) and not value.replace(".", "").isdecimal():
        return value.strip()
    if value is None or isinstance(value, datetime | time | timedelta):
        return value
    raise ValueError(f"wanted it as ISO 8601 writes it, got {value!r}")


def _without_zone(value: time | None) -> time | None:
    if value is not None and value.tzinfo is not None:
        raise ValueError("wanted a time of day without a time zone: it is the client's")
    return value


def _in_order(names: list[str]) -> list[str]:
    return sorted(set(names))


def _in_utc(value: datetime | None) -> datetime | None:
    try:
        return value.astimezone(UTC) if value is not None else None
    except OverflowError as error:
        raise ValueError("wanted a moment in the years 1 to 9999, as UTC has it") from error


Moment = Annotated[
    AwareDatetime | None, AfterValidator(_in_utc), BeforeValidator(_not_a_number), BeforeValidator(_none_if_empty)
]
TimeOfDay = Annotated[
    time | None, AfterValidator(_without_zone), BeforeValidator(_not_a_number), BeforeValidator(_none_if_empty)
]
Duration = Annotated[
    timedelta | None, Field(gt=timedelta(0)), BeforeValidator(_not_a_number), BeforeValidator(_none_if_empty)
]
Names = Annotated[list[str], AfterValidator(_in_order)]


class Request(BaseModel):
    """The campaign that is asked for. What is left out has its default; the order of a filter's names is no matter.

    `sending_start` (aware): None is the moment of the launch; either `sending_stop` (aware) or `duration` from the
    start says when it ends.
    """

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]
    name: Annotated[Annotated[str, StringConstraints(max_length=200)] | None, BeforeValidator(_none_if_empty)] = None
    filter_tags: Names = []
    filter_operator_codes: Names = []
    sending_start: Moment = None
    sending_stop: Moment = None
    duration: Duration = None
    audience: Literal["snapshot", "live"] = "snapshot"
    on_doubt: Literal["hold", "resend"] = "hold"
    local_from: TimeOfDay = None
    local_to: TimeOfDay = None
    messages_per_second: Annotated[
        float | None, Field(ge=0.001, le=999_999_999, allow_inf_nan=False), BeforeValidator(_none_if_empty)
    ] = None
    gateway: str = DEFAULT_GATEWAY

    @classmethod
    def of(cls, asked: dict[str, Any]) -> Request:
        """What is asked, read. Raises InvalidInput, which names the fields; a wrong text is not shown."""
        try:
            request = cls(**asked)
        except ValidationError as error:
            wrong = {str(each["loc"][0]): each["msg"].removeprefix("Value error, ") for each in error.errors()}
            said = "; ".join(f"{field}: {message}" for field, message in wrong.items())
            raise InvalidInput(f"launch: {said}", wrong) from None
        if (request.sending_stop is None) == (request.duration is None):
            raise InvalidInput(
                "launch: sending_stop, duration: wanted one of the two, to say when sending ends",
                ["sending_stop", "duration"],
            )
        return request

    def columns(self, now: datetime) -> dict[str, Any]:
        """The campaign's row, launched at `now` (aware). Raises InvalidInput for a duration that ends in the past."""
        start = self.sending_start or now
        values = self.model_dump(exclude={"duration"}) | {"sending_start": start}
        if self.duration is None:
            return values
        try:
            stop = start + self.duration
        except OverflowError:
            raise InvalidInput(f"launch: duration: wanted one that ends, got {self.duration}", ["duration"]) from None
        if stop <= now:
            said = f"launch: duration: wanted a window that ends in the future, got {start} + {self.duration}"
            raise InvalidInput(said, ["sending_start", "duration"])
        return values | {"sending_stop": stop}


@dataclass(frozen=True, slots=True)
class Launched:
    """The campaign of a key; `is_new`: this call has made it."""

    campaign_id: int
    is_new: bool


def launch(connection: db.Connection, key: str, request: Request, *, actor: str) -> Launched:
    """The campaign of this key: a new one, or the one that an equal request has made before.

    Raises InvalidInput, which names the fields, for values that break a rule, and for a key that came with another
    request; then nothing is written. Of several at once one creates, the others wait for it.
    """
    if not 1 <= len(key) <= MAX_KEY or "\x00" in key:
        raise InvalidInput(f"launch: key: wanted 1 to {MAX_KEY} characters, got {len(key)}", ["key"])
    connection.execute(SQL["lock_launch"], {"key": key})
    asked = request.model_dump(mode="json", exclude_defaults=True)
    known = db.one(connection, SQL["launch"], {"key": key})
    if known:
        _check_same(key, known["campaign_id"], known["request"], asked)
        return Launched(known["campaign_id"], is_new=False)
    row = db.one(connection, SQL["now"], {})
    assert row is not None  # noqa: S101 - a SELECT without FROM
    campaign_id = campaigns.create(connection, **request.columns(row["now"]), actor=actor)
    parameters = {"key": key, "campaign_id": campaign_id, "request": Jsonb(asked)}
    connection.execute(SQL["insert_launch"], parameters)
    return Launched(campaign_id, is_new=True)


def of_key(connection: db.Connection, key: str) -> int | None:
    """The id of the campaign that was launched under this key; None: there is none so far."""
    row = db.one(connection, SQL["launch"], {"key": key})
    return int(row["campaign_id"]) if row else None


def _check_same(key: str, campaign_id: int, before: dict[str, Any], asked: dict[str, Any]) -> None:
    differs = sorted(name for name in before.keys() | asked.keys() if before.get(name) != asked.get(name))
    if differs:
        raise InvalidInput(
            f"key {key!r}: it launched campaign {campaign_id} with another {', '.join(differs)};"
            " wanted the same request, or another key",
            ["key", *differs],
        )
