"""Campaigns: creating, editing, listing, deleting. What the verbs of their life do is in `lifecycle`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from mailing import campaign_rows, campaigns, gate, ledger, listing, poke, pool
from mailing.api.campaign_bodies import (
    Campaign,
    CampaignBody,
    CampaignPatch,
    ShortText,
    Status,
    as_response,
    columns,
    fields_of_body,
    told,
)
from mailing.api.common import (
    CONFLICT,
    NOT_FOUND,
    READS,
    WRITES,
    Body,
    Id,
    Key,
    Listing,
    Page,
    Storable,
    once,
    page_of,
    page_response,
)
from mailing.api.etags import (
    HAS_ETAG,
    NOT_MODIFIED,
    STALE,
    IfMatch,
    IfNoneMatch,
    check_fresh,
    etag,
    matches,
    tagged,
)
from mailing.api.messages import Message, as_message
from mailing.api.values import Moment, OperatorCode
from mailing.api.written import Written
from mailing.campaigns import CampaignDetails
from mailing.ledger import MessageRow
from mailing.models import MESSAGE_STATES

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])

CHUNK = 500
"""Messages that `/full` writes at a time."""


class CampaignListing(Listing):
    """The query of the list of campaigns."""

    status: list[Status] = Field([], description="In one of these.")
    tag: ShortText | None = Field(None, description="Whose filter names this tag.")
    operator_code: OperatorCode | None = Field(None, description="Whose filter names this operator code.")
    gateway: ShortText | None = None
    open_from: Moment | None = Field(None, description="Whose window closes after this.")
    open_until: Moment | None = Field(None, description="Whose window opens before this.")
    name_prefix: ShortText | None = Field(None, description="Whose name begins so.")
    sort: Literal[
        "id", "-id", "sending_start", "-sending_start", "sending_stop", "-sending_stop", "created", "-created"
    ] = "id"


@router.get("/", response_model=page_of(Campaign), responses=READS)
def list_campaigns(query: Annotated[CampaignListing, Query()], user: gate.Reader) -> Any:
    """All campaigns, a page at a time."""
    choice = campaign_rows.Choice(
        statuses=query.status, tag=query.tag, operator_code=query.operator_code, gateway=query.gateway,
        open_from=query.open_from, open_until=query.open_until, name_prefix=query.name_prefix,
    )  # fmt: skip
    with pool.transaction() as connection:
        found = campaigns.page(connection, choice, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return page_response(found, Campaign, lambda row: Campaign.of(CampaignDetails(**row)), query.fields)


@router.post("/", status_code=201, response_model=Campaign, responses=WRITES | CONFLICT)
def create_campaign(body: CampaignBody, user: gate.Operator, key: Key) -> Response:
    """A new campaign. It sends by itself from its start on; where that is past already, at once."""

    def create() -> Campaign:
        with fields_of_body():
            campaign_id = campaigns.create(connection, **columns(body.model_dump()), actor=user.name)
        return told(connection, campaign_id)

    with pool.transaction() as connection:
        response = once(connection, key, 201, create)
    poke.campaigns()
    return tagged(response)


class FullQuery(Body):
    """The query of all campaigns with their messages."""

    status: list[Status] = Field([], description="In one of these.")


class FullCampaign(Campaign):
    """A campaign with all its messages, by client."""

    messages: list[Message]


@router.get("/full", response_model=list[FullCampaign], responses=READS)
def all_in_full(query: Annotated[FullQuery, Query()], user: gate.Reader) -> StreamingResponse:
    """Every campaign with all its messages, as they stood at one moment: one JSON array, written while it is read."""
    return Written(_written_in_full(query.status), "application/json")


def _written_in_full(statuses: list[Status]) -> Generator[bytes]:
    # A connection of its own: who reads slowly must not keep others from the pool's.
    with pool.at_length("full") as connection:
        separator = b"["
        for campaign, messages in campaign_rows.in_full(connection, statuses):
            yield separator + Campaign.of(campaign).model_dump_json().encode()[:-1] + b',"messages":['
            yield from _written_messages(messages)
            yield b"]}"
            separator = b","
        yield b"[]" if separator == b"[" else b"]"


def _written_messages(messages: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    separator, rest = b"", iter(messages)
    while some := list(islice(rest, CHUNK)):
        yield separator + b",".join(as_message(MessageRow(**message)).model_dump_json().encode() for message in some)
        separator = b","


@router.get("/{campaign_id}/", response_model=Campaign, responses=READS | NOT_FOUND | HAS_ETAG | NOT_MODIFIED)
def get_campaign(
    campaign_id: Id, user: gate.Reader, response: Response, if_none_match: IfNoneMatch = None
) -> Campaign | Response:
    """One campaign."""
    with pool.transaction() as connection:
        campaign = told(connection, campaign_id)
    tag = etag(campaign.id, campaign.updated)
    if if_none_match is not None and matches(if_none_match, tag, weakly=True):
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return campaign


class DetailQuery(Body):
    """The query of a campaign's messages."""

    limit: int = Field(listing.DEFAULT_LIMIT, ge=1, le=listing.MAX_LIMIT, description="Messages of a page.")
    cursor: Annotated[str, Storable] | None = Field(
        None, max_length=500, description="The page before's `messages.next_cursor`."
    )


class CampaignDetail(Campaign):
    """A campaign, how many of its messages are in which state, and a page of them, by id."""

    counts: dict[str, int] = Field(description="Of all eight states, and of the audience, which is their sum.")
    messages: Page[Message]


@router.get("/{campaign_id}/detail", responses=READS | NOT_FOUND)
def campaign_in_detail(campaign_id: Id, query: Annotated[DetailQuery, Query()], user: gate.Reader) -> CampaignDetail:
    """One campaign with its counts and a page of its messages."""
    with pool.transaction() as connection:
        campaign = told(connection, campaign_id)
        progress = campaigns.progress(connection, campaign_id)
        wanted = ledger.Wanted(campaign_id=campaign_id)
        found = ledger.page(connection, wanted, cursor=query.cursor, limit=query.limit)
    messages = [as_message(MessageRow(**row)) for row in found.items]
    return CampaignDetail(
        **campaign.model_dump(),
        counts={name: getattr(progress, name) for name in ("audience", *MESSAGE_STATES)},
        messages=Page(items=messages, next_cursor=found.next_cursor),
    )


@router.put("/{campaign_id}/", response_model=Campaign, responses=WRITES | NOT_FOUND | CONFLICT | STALE | HAS_ETAG)
def replace_campaign(campaign_id: Id, body: CampaignBody, user: gate.Operator, if_match: IfMatch = None) -> Response:
    """The campaign as the body has it: it counts for messages that have not begun to leave."""
    return _edit(campaign_id, body.model_dump(), user, if_match)


@router.patch("/{campaign_id}/", response_model=Campaign, responses=WRITES | NOT_FOUND | CONFLICT | STALE | HAS_ETAG)
def change_campaign(campaign_id: Id, body: CampaignPatch, user: gate.Operator, if_match: IfMatch = None) -> Response:
    """The campaign with these fields changed: it counts for messages that have not begun to leave."""
    return _edit(campaign_id, body.model_dump(exclude_unset=True), user, if_match)


def _edit(campaign_id: int, values: dict[str, Any], user: gate.User, if_match: str | None) -> Response:
    with pool.transaction() as connection:
        check_fresh(connection, campaign_id, if_match)
        with fields_of_body():
            campaigns.edit(connection, campaign_id, actor=user.name, **columns(values))
        campaign = told(connection, campaign_id)
    poke.campaigns()
    return as_response(campaign)


@router.delete("/{campaign_id}/", status_code=204, responses=WRITES | NOT_FOUND | CONFLICT | STALE)
def delete_campaign(campaign_id: Id, user: gate.Admin, if_match: IfMatch = None) -> None:
    """Forget a campaign of which nothing ever left. Any other is cancelled instead, and stays for the reports."""
    with pool.transaction() as connection:
        check_fresh(connection, campaign_id, if_match, campaigns.lock_for_deletion)
        campaigns.delete(connection, campaign_id, actor=user.name)
    poke.campaigns()
