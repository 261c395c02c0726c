"""The verbs of a campaign's life: pause, resume, cancel; send again, settle; preview, test send."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

import psycopg
from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mailing import campaigns, gate, idempotency, poke, pool, preview, runs, test_send, verdicts
from mailing.api.campaign_bodies import Campaign, CampaignBody, ShortText, as_response, columns, fields_of_body, told
from mailing.api.common import CONFLICT, MAX_ID, NOT_FOUND, READS, WRITES, Body, Id, Identifier, Key, once, replayed
from mailing.api.etags import HAS_ETAG, STALE, IfMatch, check_fresh

router = APIRouter(prefix="/api/campaigns", tags=["lifecycle"])

VERB = WRITES | NOT_FOUND | CONFLICT | STALE


@router.post("/{campaign_id}/pause", response_model=Campaign, responses=VERB | HAS_ETAG)
def pause_campaign(campaign_id: Id, user: gate.Operator, if_match: IfMatch = None) -> Response:
    """Send nothing more until it is resumed; what is on its way arrives."""
    return _turn(campaigns.pause, campaign_id, user, if_match)


@router.post("/{campaign_id}/resume", response_model=Campaign, responses=VERB | HAS_ETAG)
def resume_campaign(campaign_id: Id, user: gate.Operator, if_match: IfMatch = None) -> Response:
    """Send the rest."""
    return _turn(campaigns.resume, campaign_id, user, if_match)


@router.post("/{campaign_id}/cancel", response_model=Campaign, responses=VERB | HAS_ETAG)
def cancel_campaign(campaign_id: Id, user: gate.Operator, if_match: IfMatch = None) -> Response:
    """Send nothing more, for good; what is on its way arrives, what waits is cancelled at once."""
    return _turn(campaigns.cancel, campaign_id, user, if_match, then=_close)


def _turn(
    verb: Callable[..., None],
    campaign_id: int,
    user: gate.User,
    if_match: str | None,
    then: Callable[[int], None] | None = None,
) -> Response:
    with pool.transaction() as connection:
        check_fresh(connection, campaign_id, if_match)
        verb(connection, campaign_id, actor=user.name)
    poke.campaigns()
    if then:
        then(campaign_id)
    with pool.transaction() as connection:
        return as_response(told(connection, campaign_id))


def _close(campaign_id: int) -> None:
    """In a transaction of its own: it may wait for a run that takes the audience, and nothing is claimed meanwhile."""
    # It is cancelled already: what cannot be swept up now, upkeep sweeps up within a minute.
    with suppress(psycopg.OperationalError), pool.transaction() as connection:
        runs.sweep_cancelled(connection, campaign_id)


# Again


Expected = Annotated[
    int | None,
    Field(
        ge=0,
        le=MAX_ID,
        description="How many messages you saw; where there are more or fewer by now, 409 and nothing is done.",
    ),
]


class ResendBody(Body):
    """Which messages to send again."""

    states: Annotated[
        list[Literal["failed", "unknown"]], Field(min_length=1, max_length=2, json_schema_extra={"uniqueItems": True})
    ] = Field(description="`unknown` ones may have been taken: their clients may get the message twice.")
    expected: Expected = None


class Resent(BaseModel):
    """How many messages are to be sent again, by the state they were in."""

    messages: dict[str, int]


class SettleBody(Body):
    """A person's word on the messages of which nobody knows whether they were taken."""

    verdict: Literal["send_again", "assume_sent", "give_up"]
    reason: ShortText | None = Field(None, description="Only those that are unknown for this reason.")
    expected: Expected = None


class Settled(BaseModel):
    """How many messages were settled."""

    messages: int


@router.post("/{campaign_id}/resend", response_model=Resent, responses=VERB)
def resend_campaign(
    campaign_id: Id, body: ResendBody, user: gate.Operator, key: Key, if_match: IfMatch = None
) -> Response:
    """Send again, under the same ids, what failed or is unknown. Its window must be open."""

    def resend() -> Resent:
        check_fresh(connection, campaign_id, if_match)
        counts = verdicts.resend(connection, campaign_id, body.states, expected=body.expected, actor=user.name)
        return Resent(messages=counts)

    with pool.transaction() as connection:
        response = once(connection, key, 200, resend)
    poke.campaigns()
    return response


@router.post("/{campaign_id}/settle", response_model=Settled, responses=VERB)
def settle_campaign(
    campaign_id: Id, body: SettleBody, user: gate.Operator, key: Key, if_match: IfMatch = None
) -> Response:
    """One verdict on all messages of the campaign that are unknown (for one reason)."""

    def settle() -> Settled:
        check_fresh(connection, campaign_id, if_match)
        count = verdicts.settle_all(
            connection, campaign_id, body.verdict, actor=user.name, reason=body.reason, expected=body.expected
        )
        return Settled(messages=count)

    with pool.transaction() as connection:
        response = once(connection, key, 200, settle)
    poke.campaigns()
    return response


# Before


class Zone(BaseModel):
    """The clients of one time zone."""

    model_config = ConfigDict(from_attributes=True)

    timezone: str
    clients: int
    opens_at: datetime | None = Field(description="When the first of them can be reached; null: not before the stop.")
    never: int = Field(description="How many of them cannot be reached before the stop.")


class SampleClient(BaseModel):
    """One of the audience."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    phone_number: str = Field(description="Masked.")
    mobile_operator_code: str
    timezone: str
    tags: list[str]


class Preview(BaseModel):
    """Who would get which text."""

    model_config = ConfigDict(from_attributes=True)

    is_open: bool = Field(description="Its audience was taken: what follows is of those who are still to be reached.")
    audience: int
    never: int = Field(description="How many of them cannot be reached before the stop.")
    zones: list[Zone]
    operator_codes: dict[str, int]
    sample: list[SampleClient] = Field(description="The first ten.")
    text: str
    characters: int


@router.post("/preview", responses=WRITES)
def preview_draft(body: CampaignBody, user: gate.Operator) -> Preview:
    """What a campaign would come to that is not saved yet; nothing is saved."""
    with pool.transaction() as connection, fields_of_body():
        return Preview.model_validate(preview.of_draft(connection, **columns(body.model_dump())))


@router.post("/{campaign_id}/preview", responses=READS | NOT_FOUND)
def preview_campaign(campaign_id: Id, user: gate.Reader) -> Preview:
    """Whom the campaign would reach as it is now, and with which text."""
    with pool.transaction() as connection:
        return Preview.model_validate(preview.of_campaign(connection, campaign_id))


def _all_different(ids: list[int]) -> list[int]:
    if len(set(ids)) < len(ids):
        raise ValueError("wanted different clients")
    return ids


class TestSendBody(Body):
    """Whom to send the campaign's text to, now."""

    clients: Annotated[
        list[Identifier],
        Field(min_length=1, max_length=test_send.MAX_CLIENTS, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_all_different),
    ] = Field(description="Ids of clients.")


class TestSend(BaseModel):
    """What became of one test send. `unknown`: it may have arrived."""

    model_config = ConfigDict(from_attributes=True)

    id: int | None = Field(description="Null: not begun, because the campaign was cancelled or deleted meanwhile.")
    client_id: int
    state: Literal["sent", "failed", "unknown"]
    reason: str | None
    status_code: int | None
    error: str | None
    reply: str | None


class TestSends(BaseModel):
    """What became of each."""

    test_sends: list[TestSend]


@router.post("/{campaign_id}/test-send", response_model=TestSends, responses=VERB)
def send_test(campaign_id: Id, body: TestSendBody, user: gate.Operator, key: Key, if_match: IfMatch = None) -> Any:
    """Send the campaign's text to these clients now, whatever its window and filter, outside all statistics."""
    with pool.transaction() as connection:
        # The key is kept before the first request leaves: whoever repeats this meanwhile, or after, sends nothing.
        if key and (answer := idempotency.recall(connection, key)):
            return replayed(answer)
        check_fresh(connection, campaign_id, if_match)
        planned = test_send.plan(connection, campaign_id, body.clients, actor=user.name)
    sent = test_send.send(planned, pool.transaction)
    became = TestSends(test_sends=[TestSend.model_validate(each) for each in sent])
    if key:
        with pool.transaction() as connection:
            idempotency.keep(connection, key, idempotency.Answer(200, became.model_dump(mode="json")))
    return became
