"""Clients: who can be messaged, one by one. Lists of them come in by `client_import`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, StringConstraints

from mailing import clients, gate, pool
from mailing.api.common import (
    CONFLICT,
    NOT_FOUND,
    READS,
    WRITES,
    Body,
    Id,
    Key,
    Listing,
    Storable,
    once,
    page_of,
    page_response,
)

router = APIRouter(prefix="/api/clients", tags=["clients"])

PHONE = "`7XXXXXXXXXX`, or as people write it: `+7 (900) 123-45-67`, `8 900 123 45 67`."
TAGS = "Names; unknown ones are created. The client's operator code may be among them, and the one it had; no other."
ZONE = "An IANA time zone, such as Europe/Moscow."

Text = Annotated[str, Storable]
Phone = Annotated[Text, StringConstraints(max_length=100)]
TagName = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Tags = Annotated[list[TagName], Field(max_length=1_000)]
Zone = Annotated[Text, StringConstraints(max_length=100)]


class WholeClient(Body):
    """All that can be written of a client."""

    phone_number: Phone = Field(description=PHONE)
    tags: Tags = Field(description=TAGS)
    timezone: Zone = Field(description=ZONE)


class NewClient(WholeClient):
    """A client to create."""

    tags: Tags = Field([], description=TAGS)
    timezone: Zone = Field("UTC", description=ZONE)


class ClientChanges(Body):
    """What is to change of a client; what is left out, or null, stays."""

    phone_number: Phone | None = Field(None, description=PHONE)
    tags: Tags | None = Field(None, description=f"In place of all it has. {TAGS}")
    timezone: Zone | None = Field(None, description=ZONE)


class PhoneNumber(Body):
    """A phone number to look for."""

    phone_number: Phone = Field(description=PHONE)


class Client(BaseModel):
    """A client."""

    id: int
    phone_number: str = Field(description="`7XXXXXXXXXX`.")
    mobile_operator_code: str = Field(description="Digits 2 to 4 of the phone number.")
    tags: list[str] = Field(description="The operator code, which counts as a tag, then the names by code point.")
    timezone: str
    created: datetime


class ClientListing(Listing):
    """The query of the list of clients: those of whom all of it is true."""

    tag: TagName | None = Field(None, description="The name of a tag, or an operator code.")
    operator_code: str | None = Field(None, pattern="^[0-9]{3}$", description="Three digits.")
    timezone: Zone | None = None
    phone_prefix: str | None = Field(
        None,
        pattern=f"^7[0-9]{{0,{clients.MAX_PREFIX - 1}}}$",
        description="The first digits of the number. A whole one is no business of a URL's: see `lookup`.",
    )
    sort: Literal["id", "-id", "phone_number", "-phone_number"] = "id"


@router.get("/", response_model=page_of(Client), responses=READS)
def list_clients(query: Annotated[ClientListing, Query()], user: gate.Reader) -> Any:
    """The clients, a page at a time; each page is as fast as the first."""
    wanted = clients.Wanted(query.tag, query.operator_code, query.timezone, query.phone_prefix)
    with pool.transaction() as connection:
        found = clients.page(connection, wanted, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return page_response(found, Client, lambda row: Client(**row), query.fields)


@router.post("/", status_code=201, response_model=Client, responses=WRITES | CONFLICT)
def create_client(body: NewClient, user: gate.Operator, key: Key) -> Response:
    """A new client."""
    with pool.transaction() as connection:
        return once(
            connection, key, 201, lambda: _client(clients.create(connection, **body.model_dump(), actor=user.name))
        )


@router.post("/lookup", responses=WRITES | NOT_FOUND)
def look_up_client(body: PhoneNumber, user: gate.Reader) -> Client:
    """The client with this phone number. A POST, so that the number stands in no URL and no access log."""
    with pool.transaction() as connection:
        return _client(clients.find(connection, body.phone_number))


@router.get("/{client_id}/", responses=READS | NOT_FOUND)
def get_client(client_id: Id, user: gate.Reader) -> Client:
    """One client."""
    with pool.transaction() as connection:
        return _client(clients.get(connection, client_id))


@router.put("/{client_id}/", responses=WRITES | NOT_FOUND | CONFLICT)
def replace_client(client_id: Id, body: WholeClient, user: gate.Operator) -> Client:
    """The client as the body has it, with these tags and no others. Campaigns that are running keep their audience."""
    with pool.transaction() as connection:
        return _client(clients.edit(connection, client_id, **body.model_dump(), actor=user.name))


@router.patch("/{client_id}/", responses=WRITES | NOT_FOUND | CONFLICT)
def edit_client(client_id: Id, body: ClientChanges, user: gate.Operator) -> Client:
    """The client with some fields changed. Campaigns that are running keep their audience."""
    with pool.transaction() as connection:
        return _client(clients.edit(connection, client_id, **body.model_dump(), actor=user.name))


@router.delete("/{client_id}/", status_code=204, responses=WRITES | NOT_FOUND)
def delete_client(client_id: Id, user: gate.Admin) -> None:
    """Delete a client. Its messages stay: those not yet claimed end as `excluded` (client_deleted)."""
    with pool.transaction() as connection:
        clients.delete(connection, client_id, actor=user.name)


def _client(row: clients.ClientRow) -> Client:
    return Client(**asdict(row))
