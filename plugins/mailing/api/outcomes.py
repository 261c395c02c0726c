"""Outcomes of a campaign, all of them, as a file."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from mailing import exports, gate, pool
from mailing.api.common import CONFLICT, NOT_FOUND, READS, Body, Id
from mailing.api.written import Written

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])

FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"The file. Its columns: {', '.join(exports.COLUMNS)}.",
        "content": {
            exports.MEDIA_TYPES["csv"]: {"schema": {"type": "string"}},
            exports.MEDIA_TYPES["parquet"]: {"schema": {"type": "string", "format": "binary"}},
        },
        "headers": {
            "Content-Disposition": {"schema": {"type": "string"}, "description": "What to save it as."},
        },
    }
}


class OutcomesQuery(Body):
    """What the file is to be."""

    format: Literal["csv", "parquet"] = Field("csv", description="CSV: times are ISO 8601 in UTC.")


@router.get("/{campaign_id}/outcomes", response_class=StreamingResponse, responses=READS | NOT_FOUND | CONFLICT | FILE)
def campaign_outcomes(campaign_id: Id, query: Annotated[OutcomesQuery, Query()], user: gate.Reader) -> Written:
    """What became of every message of a campaign, as a file: one row per message, by client, without phone numbers.

    Written while it is read. Two at a time; who does not read for a minute is left. 409: its messages were dropped.
    """
    name = f"campaign-{campaign_id}-outcomes.{query.format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Written(_outcomes(campaign_id, query.format), exports.MEDIA_TYPES[query.format], headers)


def _outcomes(campaign_id: int, form: str) -> Generator[bytes]:
    # A connection of its own, as for /campaigns/full.
    with pool.at_length("outcomes") as connection:
        yield from exports.outcomes(connection, campaign_id, form)
