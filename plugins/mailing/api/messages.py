"""Messages: one per client and campaign, with what became of it. Their outcomes are the senders' to write.

Creating one enrols a client into a campaign that has opened; changing one means to postpone it; deleting is for those
that never left. What may have left is settled by a verdict.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from mailing import campaign_rows, db, enrolment, gate, ledger, messages, poke, pool, verdicts
from mailing.api.common import (
    CONFLICT,
    NOT_FOUND,
    READS,
    WRITES,
    Body,
    Id,
    Identifier,
    Key,
    Listing,
    Page,
    Storable,
    once,
    page_of,
    page_response,
)
from mailing.api.values import Moment
from mailing.errors import Conflict

router = APIRouter(prefix="/api/messages", tags=["messages"])

State = Literal["pending", "sending", "sent", "failed", "unknown", "expired", "cancelled", "excluded"]
Verdict = Literal["send_again", "assume_sent", "give_up"]


class Message(BaseModel):
    """A message of a campaign to a client."""

    id: int = Field(description="Also the gateway's `msgId`, on every attempt.")
    created: datetime
    send_status: bool = Field(description="Whether it was sent.")
    mail_sender: int = Field(description="The id of its campaign.")
    client: int = Field(description="The id of its client, who may be deleted by now.")
    state: State
    reason: str | None = Field(description="Why it is in this state, or what it waits for.")
    attempts: int = Field(description="How often it was posted to the gateway, as far as that counts.")
    sent_at: datetime | None
    not_before: datetime | None = Field(description="While it is pending: when it is due; null: now.")
    revision: int | None = Field(description="Of the campaign, as of the last attempt: tells which text it has.")


class NewMessage(Body):
    """Whom to enrol, and into which campaign."""

    mail_sender: Identifier = Field(description="The id of a campaign that has opened.")
    client: Identifier = Field(description="The id of a client that matches its filter.")


class MessageChange(Body):
    """A message with another `not_before`. Everything else may be sent along as it is, or be left out."""

    not_before: Moment | None = Field(
        None, description="A moment inside the campaign's window; null: as soon as may be. Only while it is pending."
    )
    id: int | None = None
    created: Moment | None = None
    send_status: bool | None = None
    mail_sender: int | None = None
    client: int | None = None
    state: str | None = None
    reason: str | None = None
    attempts: int | None = None
    sent_at: Moment | None = None
    revision: int | None = None


class VerdictBody(Body):
    """A person's word on a message that is `unknown`."""

    verdict: Verdict


class Attempt(BaseModel):
    """An attempt that failed or is in doubt. One that went well leaves no evidence but the message's state."""

    attempt: int = Field(description="From 1; the same again where it did not count (the token was refused).")
    state: str = Field(description="What it made of the message.")
    reason: str
    ended_at: datetime
    duration_ms: int | None = Field(description="Null: nobody knows, its task died.")
    status_code: int | None
    error: str | None
    reply: str | None = Field(description="The beginning of what the gateway answered.")


class MessageListing(Listing):
    """The query of the list of messages: all that is given must hold. A span of time ends before its `_to`."""

    sort: Literal["id", "-id"] = "id"
    mail_sender: Identifier | None = Field(None, description="Of this campaign.")
    client: Identifier | None = Field(None, description="To this client.")
    state: list[State] = Field([], max_length=8, description="In any of these; to be given once for each.")
    reason: Annotated[str, Storable] | None = Field(None, max_length=200)
    created_from: Moment | None = None
    created_to: Moment | None = None
    sent_from: Moment | None = None
    sent_to: Moment | None = None

    @property
    def wanted(self) -> ledger.Wanted:
        """What is asked for."""
        return ledger.Wanted(
            campaign_id=self.mail_sender, client_id=self.client, states=self.state, reason=self.reason,
            created_from=self.created_from, created_to=self.created_to, sent_from=self.sent_from, sent_to=self.sent_to,
        )  # fmt: skip


@router.get("/", response_model=page_of(Message), responses=READS | CONFLICT)
def list_messages(query: Annotated[MessageListing, Query()], user: gate.Reader) -> Any:
    """Messages, a page at a time. 409: those of this campaign were dropped; its figures are left."""
    with pool.transaction() as connection:
        if query.mail_sender is not None:
            campaign_rows.check_kept(connection, query.mail_sender)
        found = ledger.page(connection, query.wanted, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return page_response(found, Message, lambda row: as_message(ledger.MessageRow(**row)), query.fields)


@router.post("/", status_code=201, response_model=Message, responses=WRITES | NOT_FOUND | CONFLICT)
def create_message(body: NewMessage, user: gate.Operator, key: Key) -> Response:
    """Enrol a client into a campaign that has opened: a run of it sends the message, by the campaign's own rules."""

    def enrol() -> Message:
        message_id = enrolment.enrol(connection, body.mail_sender, body.client, actor=user.name)
        return _get(connection, message_id)

    with pool.transaction() as connection:
        answer = once(connection, key, 201, enrol)
    poke.campaigns()
    return answer


@router.get("/{message_id}/", responses=READS | NOT_FOUND)
def get_message(message_id: Id, user: gate.Reader) -> Message:
    """One message."""
    with pool.transaction() as connection:
        return _get(connection, message_id)


@router.put("/{message_id}/", responses=WRITES | NOT_FOUND | CONFLICT)
@router.patch("/{message_id}/", responses=WRITES | NOT_FOUND | CONFLICT)
def change_message(message_id: Id, body: MessageChange, user: gate.Operator) -> Message:
    """Postpone a message that is pending, or have it sent sooner: `not_before` is all that can be changed by hand."""
    with pool.transaction() as connection:
        now = _get(connection, message_id)
        _refuse_forgery(now, body)
        if "not_before" in body.model_fields_set and body.not_before != now.not_before:
            enrolment.postpone(connection, message_id, body.not_before, actor=user.name)
        changed = _get(connection, message_id)
    if changed != now:
        poke.campaigns()
    return changed


@router.delete("/{message_id}/", status_code=204, responses=WRITES | NOT_FOUND | CONFLICT)
def delete_message(message_id: Id, user: gate.Admin) -> None:
    """Take a message that never left out of the ledger: the campaign's audience is one less."""
    with pool.transaction() as connection:
        enrolment.remove(connection, message_id, actor=user.name)


@router.get("/{message_id}/attempts", responses=READS | NOT_FOUND)
def list_attempts(message_id: Id, user: gate.Reader) -> Page[Attempt]:
    """Every attempt at a message that failed or is in doubt, by time."""
    with pool.transaction() as connection:
        ledger.get(connection, message_id)
        found = messages.attempts(connection, message_id)
    return Page(items=[Attempt.model_validate(each, from_attributes=True) for each in found], next_cursor=None)


@router.post("/{message_id}/verdict", response_model=Message, responses=WRITES | NOT_FOUND | CONFLICT)
def settle_message(message_id: Id, body: VerdictBody, user: gate.Operator, key: Key) -> Response:
    """Settle a message that is `unknown`: send it again, assume that it was sent, or give it up."""

    def settle() -> Message:
        verdicts.settle(connection, message_id, body.verdict, actor=user.name)
        return _get(connection, message_id)

    with pool.transaction() as connection:
        answer = once(connection, key, 200, settle)
    poke.campaigns()
    return answer


def _get(connection: db.Connection, message_id: int) -> Message:
    return as_message(ledger.get(connection, message_id))


def as_message(row: ledger.MessageRow) -> Message:
    """A message of the ledger as the API shows it."""
    return Message(
        id=row.id, created=row.created, send_status=row.state == "sent", mail_sender=row.campaign_id,
        client=row.client_id, state=row.state, reason=row.reason, attempts=row.attempts, sent_at=row.sent_at,  # type: ignore[arg-type]
        not_before=row.not_before, revision=row.revision,
    )  # fmt: skip


def _refuse_forgery(now: Message, body: MessageChange) -> None:
    """Raise Conflict for a field that differs from what is there and is not to be changed by hand."""
    given = body.model_fields_set - {"not_before"}
    if wrong := sorted(name for name in given if getattr(body, name) != getattr(now, name)):
        raise Conflict(
            f"message {now.id}: {', '.join(wrong)}: only not_before can be changed; an outcome is settled by a verdict"
            f" (POST /api/messages/{now.id}/verdict)"
        )
