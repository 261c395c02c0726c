"""What all paths of the REST API share: how bodies and lists look, and requests that may be repeated."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Generic, Optional, TypeVar

from fastapi import Depends, Header, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from mailing import db, gate, idempotency, listing, problems
from mailing.errors import InvalidInput
from mailing.idempotency import Answer

T = TypeVar("T")

MAX_ID = 2**63 - 1

Id = Annotated[int, Path(ge=1, le=MAX_ID)]
"""An id in the path."""

Identifier = Annotated[int, Field(ge=1, le=MAX_ID)]
"""An id in a body or a query."""

Storable = StringConstraints(pattern=r"^[^\x00]*$")
"""What PostgreSQL's text can hold: no NUL."""

READS = problems.documented(401, 403, 422, 503, 504)
WRITES = problems.documented(400, 401, 403, 413, 422, 503, 504)
NOT_FOUND = problems.documented(404)
CONFLICT = problems.documented(409)
"""`responses=` of paths, to be merged."""


class Body(BaseModel):
    """What a caller sends. A field that is not known is refused: it is a misspelling more often than not."""

    model_config = ConfigDict(extra="forbid")


class Listing(Body):
    """The query of a list; each list adds what it can be filtered by, and its `sort`."""

    limit: int = Field(listing.DEFAULT_LIMIT, ge=1, le=listing.MAX_LIMIT, description="Rows of a page.")
    cursor: Annotated[str, Storable] | None = Field(
        None, max_length=500, description="The page before's `next_cursor`."
    )
    fields: Annotated[str, Storable] | None = Field(
        None, max_length=500, description="Only these fields of each row, separated by commas."
    )


class Page(BaseModel, Generic[T]):
    """Some rows of a list, in a stable order."""

    items: list[T]
    next_cursor: str | None = Field(description="Of the next page; null: this is the last one.")


@cache
def page_of(model: type[BaseModel]) -> Any:
    """A page of `model` for the documents: with `fields`, any field of a row may be missing."""
    fields: dict[str, Any] = {
        name: (Optional[field.annotation], Field(None, description=field.description))  # noqa: UP045 - of a value
        for name, field in model.model_fields.items()
    }
    some = create_model(f"Some{model.__name__}", __doc__=model.__doc__, **fields)
    return Page[some]  # type: ignore[valid-type]


def page_response(
    found: listing.Page, model: type[BaseModel], make: Callable[..., BaseModel], fields: str | None
) -> Any:
    """One page as JSON. `make`: a row as an object of `model`; `fields` as in `Listing`. Raises InvalidInput."""
    wanted = None if fields is None else set(fields.split(","))
    if unknown := sorted((wanted or set()) - set(model.model_fields)):
        raise InvalidInput(f"fields: {', '.join(unknown)}: wanted some of {', '.join(model.model_fields)}", ["fields"])
    items = [make(row).model_dump(mode="json", include=wanted) for row in found.items]
    return JSONResponse({"items": items, "next_cursor": found.next_cursor})


async def _key(
    request: Request,
    user: gate.Operator,
    idempotency_key: Annotated[
        Annotated[str, Storable] | None,
        Header(
            min_length=1,
            max_length=200,
            description="Any text of your own: the same key again gets the same answer, and nothing is done twice.",
        ),
    ] = None,
) -> idempotency.Key | None:
    if idempotency_key is None:
        return None
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return idempotency.Key(user.name, f"{request.method} {path}", idempotency_key, await request.body())


Key = Annotated[idempotency.Key | None, Depends(_key)]


def once(
    connection: db.Connection, key: idempotency.Key | None, status: int, work: Callable[[], BaseModel]
) -> Response:
    """What `work` returns, as a response; where its key was answered already, that answer, and `work` is not done."""
    answer = idempotency.recall(connection, key) if key else None
    if answer is not None:
        return replayed(answer)
    body = work().model_dump(mode="json")
    if key:
        idempotency.keep(connection, key, Answer(status, body))
    return JSONResponse(body, status)


def replayed(answer: Answer) -> Response:
    """The answer that was given before."""
    return JSONResponse(answer.body, answer.status, {"Idempotent-Replayed": "true"})
