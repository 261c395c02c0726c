"""Rows as a CSV file, written while it is read: a page of the list at a time."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette_admin.actions import ActionSelection
from starlette_admin.exceptions import ActionFailed
from starlette_admin.export.helpers import escape_formula
from starlette_admin.fields import BaseField
from starlette_admin.types import RequestAction

from mailing import listing, pool
from mailing.admin.asked import asked_of, query_of, sort_of
from mailing.errors import InvalidInput

if TYPE_CHECKING:
    from mailing.admin.rows import Rows

MAX_ROWS = 1_000_000
"""Of one file; what is beyond is not in it."""


async def response(view: Rows, request: Request, selection: ActionSelection) -> Response:
    """The rows that the form asks for (`scope`: selected, page or all; `fields`), as a download."""
    request.state.action = RequestAction.EXPORT
    form = await request.form()
    chosen = form.getlist("fields")
    fields = [field for field in view.get_fields_list(request) if not chosen or field.name in chosen]
    pages = await _pages(view, request, selection, str(form.get("scope")))
    headers = {"Content-Disposition": f'attachment; filename="{view.key}.csv"'}
    return StreamingResponse(_lines(request, fields, pages), media_type="text/csv", headers=headers)


async def _pages(view: Rows, request: Request, selection: ActionSelection, scope: str) -> Iterator[list[Any]]:
    if scope == "selected":
        if selection.is_select_all:
            raise ActionFailed("Choose rows.")
        return iter([await view.find_by_pks(request, await selection.pks())])
    query = query_of(request)
    params = view._parse_list_params(request, query)
    asked, sort = asked_of(view.filters, query), sort_of(params.sorts)
    if scope == "all":
        return _all(view, asked, sort)
    return iter([await view.find_all(request, limit=params.page_size, sorts=params.sorts)])


def _all(view: Rows, asked: dict[str, str], sort: str) -> Iterator[list[Any]]:
    """All that match, page by page, each in a transaction of its own: nothing is held while the client reads."""
    cursor: str | None = None
    for _ in range(MAX_ROWS // listing.MAX_LIMIT):
        with pool.transaction() as connection:
            found = view.page(connection, asked, sort, cursor, listing.MAX_LIMIT)
        yield [view.row(item) for item in found.items]
        cursor = found.next_cursor
        if cursor is None:
            return


def _lines(request: Request, fields: list[BaseField], pages: Iterator[list[Any]]) -> Iterator[str]:
    """The file, a page at a time. Runs in a thread: so much text would hold up the server's event loop."""
    yield ",".join(field.name for field in fields) + "\r\n"
    try:
        for rows in pages:
            text = io.StringIO()
            csv.writer(text).writerows(asyncio.run(_cells(request, fields, rows)))
            yield text.getvalue()
    except InvalidInput:
        return  # what was asked for is wrong, and the list says so: it has no rows


async def _cells(request: Request, fields: list[BaseField], rows: list[Any]) -> list[list[Any]]:
    return [[await _cell(request, field, getattr(row, field.name)) for field in fields] for row in rows]


async def _cell(request: Request, field: BaseField, value: Any) -> Any:
    shown = "" if value is None else await field.serialize_value(request, value)
    return escape_formula(shown) if isinstance(shown, str) else shown
