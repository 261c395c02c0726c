"""ETags of campaigns: two editors of one campaign cannot overwrite each other's work unseen (RFC 9110, section 13)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Header, Response
from pydantic import StringConstraints

from mailing import campaigns, db, problems
from mailing.errors import Stale

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TAG = re.compile(r'(?:W/)?"[^"]*"')

STALE = problems.documented(412)
HAS_ETAG: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "For `If-Match`.", "schema": {"type": "string"}}}}
}
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as `If-None-Match` has it."}}
"""`responses=` of paths, to be merged."""

Lock = Callable[[db.Connection, int], Mapping[str, Any]]

_Tags = Annotated[str, StringConstraints(max_length=1_000)]

IfMatch = Annotated[
    _Tags | None, Header(description="The `ETag` of the campaign as you know it; 412 if it was written since.")
]
IfNoneMatch = Annotated[_Tags | None, Header(description="The `ETag` you have; 304 if the campaign is still that.")]


def etag(campaign_id: int, updated: datetime) -> str:
    """The ETag of a campaign that was last written then."""
    return f'"{campaign_id}-{(updated - _EPOCH) // timedelta(microseconds=1)}"'


def matches(header: str, tag: str, *, weakly: bool = False) -> bool:
    """Whether the list of ETags in `header` names `tag`; `*` names every one, a weak one only where that is enough."""
    named = _TAG.findall(header)
    return header.strip() == "*" or tag in named or (weakly and f"W/{tag}" in named)


def check_fresh(connection: db.Connection, campaign_id: int, if_match: str | None, lock: Lock = campaigns.lock) -> None:
    """Raise Stale if the campaign is not the one the caller knows; it cannot change until the transaction ends.

    Raises NotFound. Without `If-Match` nothing is looked at.
    """
    if if_match is None:
        return
    tag = etag(campaign_id, lock(connection, campaign_id)["updated"])
    if not matches(if_match, tag):
        raise Stale(f"campaign {campaign_id}: If-Match: it was written since; wanted its ETag of now, which is {tag}")


def tagged(response: Response) -> Response:
    """The response, with the ETag of the campaign that is its body: also where that is an answer of before."""
    body = json.loads(bytes(response.body))
    response.headers["ETag"] = etag(body["id"], datetime.fromisoformat(body["updated"]))
    return response
