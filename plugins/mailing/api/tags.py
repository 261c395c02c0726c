"""Tags: labels on clients. An operator code counts as a tag, and is none of these: a phone number tells it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, StringConstraints

from mailing import gate, pool, tags
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

router = APIRouter(prefix="/api/tags", tags=["tags"])

Name = Annotated[str, Storable, StringConstraints(min_length=1, max_length=200)]


class TagBody(Body):
    """A tag to create, or what to call it."""

    name: Name = Field(description="Letters, digits, - and _; not three digits: those are an operator code.")


class Tag(BaseModel):
    """A tag."""

    id: int
    name: str


class TagListing(Listing):
    """The query of the list of tags."""

    sort: Literal["id", "-id", "name", "-name"] = "name"


@router.get("/", response_model=page_of(Tag), responses=READS)
def list_tags(query: Annotated[TagListing, Query()], user: gate.Reader) -> Any:
    """All tags, a page at a time."""
    with pool.transaction() as connection:
        found = tags.page(connection, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return page_response(found, Tag, lambda row: Tag(**row), query.fields)


@router.post("/", status_code=201, response_model=Tag, responses=WRITES | CONFLICT)
def create_tag(body: TagBody, user: gate.Operator, key: Key) -> Response:
    """A new tag."""
    with pool.transaction() as connection:
        return once(connection, key, 201, lambda: _tag(tags.create(connection, body.name, actor=user.name)))


@router.get("/{tag_id}/", responses=READS | NOT_FOUND)
def get_tag(tag_id: Id, user: gate.Reader) -> Tag:
    """One tag."""
    with pool.transaction() as connection:
        return _tag(tags.get(connection, tag_id))


@router.put("/{tag_id}/", responses=WRITES | NOT_FOUND | CONFLICT)
@router.patch("/{tag_id}/", responses=WRITES | NOT_FOUND | CONFLICT)
def rename_tag(tag_id: Id, body: TagBody, user: gate.Operator) -> Tag:
    """The tag under another name; its clients keep it. A tag that the filter of a campaign names stays as it is."""
    with pool.transaction() as connection:
        return _tag(tags.rename(connection, tag_id, body.name, actor=user.name))


@router.delete("/{tag_id}/", status_code=204, responses=WRITES | NOT_FOUND | CONFLICT)
def delete_tag(tag_id: Id, user: gate.Admin) -> None:
    """Take the tag off all clients, and delete it, unless the filter of a campaign names it."""
    with pool.transaction() as connection:
        tags.delete(connection, tag_id, actor=user.name)


def _tag(row: tags.TagRow) -> Tag:
    return Tag(id=row.id, name=row.name)
