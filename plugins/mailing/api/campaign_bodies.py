"""How campaigns are written and told over REST, and what the names in a body are called in the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from mailing import campaigns, db
from mailing.api.common import Body, Storable
from mailing.api.etags import tagged
from mailing.api.values import Moment, TimeOfDay
from mailing.campaigns import CampaignDetails
from mailing.errors import InvalidInput
from mailing.models import DEFAULT_GATEWAY, MAX_TEXT

Status = Literal["scheduled", "running", "paused", "cancelled", "finished"]
ShortText = Annotated[str, Storable, StringConstraints(min_length=1, max_length=200)]
MessageText = Annotated[str, Storable, StringConstraints(min_length=1, max_length=MAX_TEXT)]


class Editable(Body):
    """What may be left out of a campaign."""

    name: ShortText | None = Field(None, description="For people.")
    filters: list[ShortText] = Field(
        [],
        max_length=1_000,
        description="Names of tags, of which a client needs all, and operator codes (three digits), of which it needs"
        " one. Empty: everybody.",
    )
    audience: Literal["snapshot", "live"] = Field(
        "snapshot", description="`snapshot`: who matches when it opens; `live`: also who comes to match later."
    )
    on_doubt: Literal["hold", "resend"] = Field(
        "hold", description="What becomes of a message that may have left and was not answered."
    )
    local_from: TimeOfDay | None = Field(None, description="Send from this time on, by the client's own clock.")
    local_to: TimeOfDay | None = Field(None, description="Send until this time, by the client's own clock.")
    messages_per_second: float | None = Field(
        None, ge=0.001, le=999_999_999, allow_inf_nan=False, strict=True, description="Its own limit."
    )
    gateway: ShortText = Field(DEFAULT_GATEWAY, description="The name of the gateway that takes its messages.")


class CampaignBody(Editable):
    """A campaign to create, or what one is to be: what is left out has its default."""

    text: MessageText = Field(description="What every client gets.")
    sending_start: Moment = Field(description="From when on to send; with a time zone.")
    sending_stop: Moment = Field(description="From when on to send nothing more; with a time zone.")


class CampaignPatch(Editable):
    """What to change of a campaign: what is left out stays as it is."""

    text: MessageText | SkipJsonSchema[None] = Field(None, description="What every client gets.")
    sending_start: Moment | SkipJsonSchema[None] = Field(None, description="With a time zone.")
    sending_stop: Moment | SkipJsonSchema[None] = Field(None, description="With a time zone.")


class Campaign(BaseModel):
    """A campaign. Moments are in UTC; `revision` counts the changes of text, filter and window."""

    id: int
    sending_start: datetime
    text: str
    sending_stop: datetime
    filters: list[str]
    name: str | None
    audience: str
    on_doubt: str
    local_from: time | None
    local_to: time | None
    messages_per_second: float | None
    gateway: str
    status: Status
    revision: int
    created: datetime
    updated: datetime
    opened_at: datetime | None
    finished_at: datetime | None
    archived_at: datetime | None = Field(
        description="When its messages were dropped: none is listed, its figures stay, and nothing of it changes."
    )

    @classmethod
    def of(cls, details: CampaignDetails) -> Campaign:
        """The row as it is told."""
        filters = details.filter_operator_codes + details.filter_tags
        return cls(filters=filters, **{name: getattr(details, name) for name in cls.model_fields if name != "filters"})


def told(connection: db.Connection, campaign_id: int) -> Campaign:
    """The campaign as it is told. Raises NotFound."""
    return Campaign.of(campaigns.get(connection, campaign_id))


def as_response(campaign: Campaign) -> Response:
    """The campaign as JSON, with its ETag."""
    return tagged(Response(campaign.model_dump_json(), media_type="application/json"))


def columns(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a body by the names of the columns: `filters` are two of them."""
    filters = values.pop("filters", None)
    if filters is None:
        return values
    codes = [name for name in filters if len(name) == 3 and name.isascii() and name.isdecimal()]
    return values | {
        "filter_tags": [name for name in filters if name not in codes],
        "filter_operator_codes": codes,
    }


@contextmanager
def fields_of_body() -> Iterator[None]:
    """What is wrong with a value, by the name that it has in the body."""
    try:
        yield
    except InvalidInput as error:
        fields = ["filters" if field.startswith("filter_") else field for field in error.fields]
        raise InvalidInput(str(error), fields) from None
