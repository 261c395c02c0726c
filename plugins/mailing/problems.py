"""What the web server says when a request cannot be answered: problem details, one JSON shape for all (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import psycopg
import structlog
from airflow.sdk.exceptions import AirflowNotFoundException
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from mailing.errors import Busy, Conflict, InvalidInput, NotFound, Stale

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
"""In how many seconds to ask again while a database is away."""

REPEATABLE = "a write with an Idempotency-Key can be repeated safely"


class FieldError(BaseModel):
    """One thing that was wrong with the request."""

    field: str = Field(description="Where it stands: `body.text`, `query.limit`, `path.campaign_id`.")
    reason: str = Field(description="What was wanted.")


class Problem(BaseModel):
    """Why the request was not answered, as RFC 9457 has it."""

    type: str = Field(default="about:blank", description="Always `about:blank`: `status` says which kind it is.")
    title: str
    status: int
    detail: str = Field(description="What was wrong, naming the thing, its id and what was wanted.")
    errors: list[FieldError] = Field([], description="The fields that were wrong, where the request was.")


def response(
    status: int,
    detail: str,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The problem as a response."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=[FieldError(**error) for error in errors],
    )
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), MEDIA_TYPE)


def away(what: str) -> JSONResponse:
    """Of a database that does not answer."""
    return response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{what} is away; {REPEATABLE}",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


DESCRIPTIONS = {
    400: "The request could not be read.",
    401: "Nobody is logged in: wanted `Authorization: Bearer` (from `POST /auth/token`) or the web UI's cookie.",
    403: "Whoever is logged in may not do this.",
    404: "There is no such thing.",
    409: "Its state forbids it.",
    412: "It was written since it was read: the `If-Match` is old.",
    413: "The body is too large.",
    415: "The body is of another kind: see `Content-Type`.",
    422: "A value breaks a rule; `errors` names the fields.",
    503: "The database is away, or busy: try again after `Retry-After` seconds.",
    504: "It took the database too long, and was given up: ask for less.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a path: these problems."""
    return {
        status: {
            "model": Problem,
            "description": DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def is_busy(error: Exception) -> bool:
    """Whether others are at it: the database is there, and the same may do in a moment."""
    return isinstance(error, Busy | psycopg.errors.LockNotAvailable)


def of(error: Exception) -> JSONResponse | None:
    """What to answer to an error of the domain or the database; None for a fault of ours."""
    match error:
        case InvalidInput():
            reason = str(error)
            return response(422, reason, [{"field": field, "reason": reason} for field in error.fields])
        case NotFound():
            return response(404, str(error))
        case Stale():
            return response(412, str(error))
        case Conflict():
            return response(409, str(error))
        case psycopg.errors.QueryCanceled():
            return response(504, "this took the mailing database too long, and was given up: narrow the filter or span")
        case _ if is_busy(error):
            waited = "the mailing database is busy: somebody else writes what this wants"
            said = error if isinstance(error, Busy) else waited
            return response(503, f"{said}; {REPEATABLE}", headers={"Retry-After": str(RETRY_AFTER_S)})
        case psycopg.OperationalError() | psycopg.InterfaceError() | AirflowNotFoundException():
            return away("the mailing database")
    return None


def unforeseen(path: str, error: Exception) -> JSONResponse:
    """Of a fault of ours. The log has what it was; whoever asked learns that it was not them."""
    # The traceback, unless it may show a row: PostgreSQL's errors do.
    traceback = None if isinstance(error, psycopg.Error) else error
    log.error("unforeseen", path=path, error=type(error).__name__, exc_info=traceback)
    return response(HTTPStatus.INTERNAL_SERVER_ERROR, "this was not foreseen; the server's log says more")
