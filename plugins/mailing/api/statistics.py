"""Statistics: over all campaigns, per campaign, and how those get on that are running. The views of `reporting`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from mailing import gate, pool, statistics
from mailing.api.common import NOT_FOUND, READS, Body, Id, Listing, Page, Storable, page_of, page_response

router = APIRouter(prefix="/api/statistics", tags=["statistics"])

Status = Literal["scheduled", "running", "paused", "cancelled", "finished"]

Limit = Annotated[
    int, Field(ge=1, le=statistics.MAX_LIMIT, description="Campaigns of a page: all messages of each are counted.")
]


class CampaignCounts(BaseModel):
    """How many campaigns are in each status."""

    scheduled: int
    running: int
    paused: int
    cancelled: int
    finished: int


class MessageCounts(BaseModel):
    """How many messages are in each state."""

    pending: int
    sending: int
    sent: int
    failed: int
    unknown: int
    expired: int
    cancelled: int
    excluded: int


class Totals(BaseModel):
    """The sums of the counts."""

    campaigns: int
    messages: int


class Overall(BaseModel):
    """Everything there is."""

    campaigns: CampaignCounts
    messages: MessageCounts
    totals: Totals


class CampaignStatistics(MessageCounts):
    """A campaign and its messages by state: the eight counts add up to `audience`."""

    campaign_id: int
    campaign_name: str | None
    status: Status
    sending_start: datetime
    sending_stop: datetime
    revision: int
    audience: int
    first_claimed_at: datetime | None = Field(description="When its first message was claimed, before its request.")
    first_sent_at: datetime | None
    last_sent_at: datetime | None
    opened_at: datetime | None
    finished_at: datetime | None
    archived_at: datetime | None = Field(description="When its messages were dropped; its figures stay.")
    assumed_sent: int = Field(description="Of those that are sent: what was in doubt, and a person assumed to be sent.")


class Running(MessageCounts):
    """How a campaign gets on that is running."""

    campaign_id: int
    campaign_name: str | None
    standing: str = Field(description="For people: that it runs, and what keeps it from sending.")
    audience: int
    share_done: float = Field(description="From 0 to 1: the part of the audience that is neither pending nor sending.")
    messages_per_second: float = Field(description="Sent, over the last 10 to 15 seconds.")
    eta_s: float | None = Field(description="Seconds until nothing is left at this speed; null: it stands still.")
    gateway: str
    breaker_state: Literal["closed", "open", "half_open"]
    breaker_reason: str | None
    breaker_probe_at: datetime | None
    last_sent_at: datetime | None


class StatisticsListing(Listing):
    """The query of the list of campaigns with their figures."""

    limit: Limit = statistics.DEFAULT_LIMIT
    sort: Literal["id", "-id", "sending_start", "-sending_start"] = "-id"
    status: list[Status] = Field([], max_length=5, description="In any of these; to be given once for each.")


class RunningListing(Body):
    """The query of the list of campaigns that are running."""

    limit: Limit = statistics.DEFAULT_LIMIT
    cursor: Annotated[str, Storable] | None = Field(
        None, max_length=500, description="The page before's `next_cursor`."
    )


@router.get("/", responses=READS)
def get_statistics(user: gate.Reader) -> Overall:
    """Campaigns by status and messages by state."""
    with pool.transaction() as connection:
        found = statistics.overall(connection)
    return Overall(
        campaigns=CampaignCounts(**found.campaigns),
        messages=MessageCounts(**found.messages),
        totals=Totals(campaigns=sum(found.campaigns.values()), messages=sum(found.messages.values())),
    )


@router.get("/campaigns/", response_model=page_of(CampaignStatistics), responses=READS)
def list_campaign_statistics(query: Annotated[StatisticsListing, Query()], user: gate.Reader) -> Any:
    """Each campaign with its messages by state, a page at a time."""
    with pool.transaction() as connection:
        found = statistics.page(
            connection, statuses=query.status, sort=query.sort, cursor=query.cursor, limit=query.limit
        )
    return page_response(found, CampaignStatistics, lambda row: CampaignStatistics(**row), query.fields)


@router.get("/campaigns/{campaign_id}/", responses=READS | NOT_FOUND)
def get_campaign_statistics(campaign_id: Id, user: gate.Reader) -> CampaignStatistics:
    """One campaign with its messages by state."""
    with pool.transaction() as connection:
        return CampaignStatistics(**statistics.get(connection, campaign_id))


@router.get("/running", responses=READS)
def list_running(query: Annotated[RunningListing, Query()], user: gate.Reader) -> Page[Running]:
    """How the campaigns get on that are running, a page at a time."""
    with pool.transaction() as connection:
        found, next_cursor = statistics.running(connection, cursor=query.cursor, limit=query.limit)
    return Page(items=[_running(each) for each in found], next_cursor=next_cursor)


def _running(found: statistics.Running) -> Running:
    progress = found.progress
    return Running(
        campaign_id=progress.id,
        campaign_name=progress.name,
        standing=progress.standing,
        share_done=round(found.share_done, 4),
        messages_per_second=round(found.messages_per_second, 1),
        eta_s=None if found.eta_s is None else round(found.eta_s, 1),
        gateway=progress.gateway,
        breaker_state=progress.breaker_state,  # type: ignore[arg-type]
        breaker_reason=progress.breaker_reason,
        breaker_probe_at=progress.breaker_probe_at,
        last_sent_at=progress.last_sent_at,
        audience=progress.audience,
        **{state: getattr(progress, state) for state in MessageCounts.model_fields},
    )
