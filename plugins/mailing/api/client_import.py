"""Many clients at once, as JSON or as a CSV file: one set of rules, and every row that breaks one is named."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse

from mailing import client_import, gate, pool, problems
from mailing.api.common import WRITES, Body, Key, Storable, once
from mailing.client_file import Reject
from mailing.client_import import ImportFigures
from mailing.errors import InvalidInput

router = APIRouter(prefix="/api/clients", tags=["clients"])

MAX_BULK = 10_000
MAX_REJECTS = 1_000
"""Rejected rows in a JSON answer; the reject file has all."""
MAX_VALUE = 200

Text = Annotated[str, Storable]


class BulkClient(Body):
    """One client of a list. What is wrong with its values costs the others nothing."""

    phone_number: Text
    tags: list[Text] = Field([], description="All the tags that the client is to have; unknown ones are created.")
    timezone: Text = "UTC"


class Bulk(Body):
    """Clients to bring in."""

    clients: list[BulkClient] = Field(min_length=1, max_length=MAX_BULK)


class BulkReject(BaseModel):
    """A client that was left out."""

    index: int = Field(description="Its place in `clients`, from 0.")
    field: str = Field(description="The first that was wrong: phone_number, tags or timezone.")
    reason: str


class Written(BaseModel):
    """What became of those that were right."""

    inserted: int
    updated: int
    unchanged: int
    repeated: int = Field(description="Those that gave way to a later one with the same phone number.")


class BulkResult(Written):
    """What became of a list of clients."""

    rejected: int
    rejects: list[BulkReject]


class FileReject(BaseModel):
    """A row of a file that was left out."""

    line: int = Field(description="In the file, counted from 1: the header's.")
    field: str = Field(description="The first that was wrong; `row`: its shape.")
    value: str = Field(description=f"What stands there, up to {MAX_VALUE} characters of it.")
    reason: str


class ImportResult(Written):
    """What became of a file: `rows` = `clients` + `repeated` + the sum of `rejected`."""

    rows: int
    clients: int
    normalised: int = Field(description="Good rows whose number was written in another form than 7XXXXXXXXXX.")
    rejected: dict[str, int] = Field(description="Rows by the first field that was wrong.")
    rejects: list[FileReject] = Field(description=f"The first {MAX_REJECTS:,} of them.")
    rejects_truncated: bool = Field(description="There are more: ask with `Accept: text/csv`.")


@router.post("/bulk", response_model=BulkResult, responses=WRITES)
def write_clients(body: Bulk, user: gate.Operator, key: Key) -> Response:
    """Create or change up to 10,000 clients by their phone numbers; their tags and zones become those of the list."""
    rows = [(each.phone_number, each.tags, each.timezone) for each in body.clients]
    with pool.transaction() as connection:
        return once(
            connection, key, 200, lambda: _bulk(*client_import.write_clients(connection, rows, actor=user.name))
        )


async def uploaded(request: Request, user: gate.Operator) -> AsyncIterator[Path]:
    """The body as a file that is there until the request is answered: read piece by piece, for our eyes only."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/csv":
        raise HTTPException(415, "content-type: wanted text/csv")
    with tempfile.TemporaryDirectory(prefix="mailing-import-") as folder:
        handle, path = tempfile.mkstemp(dir=folder, suffix=".csv")
        with os.fdopen(handle, "wb") as file:
            try:
                async for piece in request.stream():
                    await run_in_threadpool(file.write, piece)
            except ClientDisconnect:
                raise HTTPException(400, "the body broke off: nothing was written") from None
        yield Path(path)


@router.post(
    "/import",
    response_model=ImportResult,
    responses=WRITES | problems.documented(415) | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"text/csv": {"schema": {"type": "string"}}},
        }
    },
)
def import_clients(file: Annotated[Path, Depends(uploaded)], user: gate.Operator, request: Request) -> Any:
    """Bring in the clients of a CSV file (UTF-8, header `phone_number,tags,timezone`, tags separated by `;`).

    Their tags and time zones become those of the file. All is written or nothing. A row that breaks a rule is left out
    and reported: the first 1,000 in the answer, or with `Accept: text/csv` all of them as the answer.
    """
    first: list[Reject] = []
    reject_file = file.with_name("rejects.csv")
    try:
        with pool.at_length("import") as connection:
            figures = client_import.import_clients(
                connection, file, reject_file, actor=user.name, on_rejects=lambda more: _keep_first(first, more)
            )
    except InvalidInput as error:  # which names the file as it is called here
        raise InvalidInput(str(error).replace(str(file), "body"), ["body"]) from error
    if not _wants_csv(request):
        return _import(figures, first)
    if figures.reject_file is None:
        return Response(",".join(client_import.REJECT_COLUMNS) + "\r\n", media_type="text/csv")
    return FileResponse(reject_file, media_type="text/csv", filename=reject_file.name)


def _keep_first(first: list[Reject], more: list[Reject]) -> None:
    first += more[: MAX_REJECTS - len(first)]


def _wants_csv(request: Request) -> bool:
    accepted = request.headers.get("accept", "").split(",")
    return any(each.partition(";")[0].strip().lower() == "text/csv" for each in accepted)


def _written(figures: ImportFigures) -> dict[str, int]:
    return {
        "inserted": figures.inserted,
        "updated": figures.updated,
        "unchanged": figures.unchanged,
        "repeated": figures.repeated_phone,
    }


def _bulk(figures: ImportFigures, rejects: list[Reject]) -> BulkResult:
    return BulkResult(
        **_written(figures),
        rejected=len(rejects),
        rejects=[BulkReject(index=each.line_number - 1, field=each.field, reason=each.reason) for each in rejects],
    )


def _import(figures: ImportFigures, first: list[Reject]) -> ImportResult:
    return ImportResult(
        **_written(figures),
        rows=figures.rows,
        clients=figures.clients,
        normalised=figures.normalised,
        rejected=figures.rejected,
        rejects=[
            FileReject(line=each.line_number, field=each.field, value=each.value[:MAX_VALUE], reason=each.reason)
            for each in first
        ],
        rejects_truncated=sum(figures.rejected.values()) > len(first),
    )
