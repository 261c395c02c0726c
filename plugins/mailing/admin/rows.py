"""Tables of the domain as lists and forms: what clients, tags, messages and gateways share.

A list is paged by the domain's cursors, so that a page costs the same wherever it is: the address holds the cursors of
the last pages (`page`, once for each), and nothing is counted but small tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import psycopg
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette_admin.actions import ActionSelection
from starlette_admin.exceptions import ActionFailed, FormValidationError
from starlette_admin.flash import flash
from starlette_admin.helpers import detail_url, not_none, view_list_url
from starlette_admin.types import RequestAction, RowActionsPosition
from starlette_admin.views import BaseModelView

from mailing import db, listing
from mailing.admin import csv_file
from mailing.admin.asked import Filter, asked_of, query_of, sort_of
from mailing.admin.common import in_database, operator, who
from mailing.admin.fields import typed_id
from mailing.errors import Conflict, InvalidInput, MailingError, NotFound

# Its debug lines hold whole forms, phone numbers included; its info lines what was looked for.
logging.getLogger("starlette_admin").setLevel(logging.WARNING)

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long a page may take: a rare state is looked for through the whole ledger, which may be long."""

SIZE_PATIENCE_S = 1.0
"""How long the page then waits to be told how large the table is; it does without."""

KEPT_PAGES = 20
"""So many pages back are remembered in the address."""


DELETE_FORM = (
    '<form><p><strong class="mailing-number" data-mailing-figure>The chosen</strong> rows are deleted.</p></form>'
)


class Rows(BaseModelView):
    """A table as a list, forms, and a file to take away. Whoever reads may look; the rest is told by each view."""

    filters: Sequence[Filter] = ()
    table = ""
    """Whose size is told above the list."""
    empty = "There is none yet."
    form_field = ""
    """Beside which a refusal stands that names no field."""

    importers = ()
    exporters = ("csv",)
    searchable_fields = ()
    page_size = 25
    page_size_options = (25, 50, 100, 250)
    row_actions_position = RowActionsPosition.AFTER_COLUMNS
    list_template = "rows.html"
    detail_template = "row.html"
    create_template = "row_create.html"
    edit_template = "row_edit.html"

    def page(
        self, connection: db.Connection, asked: Mapping[str, str], sort: str, cursor: str | None, limit: int
    ) -> listing.Page:
        """One page of what was asked for (by the names of `filters`). Raises InvalidInput."""
        raise NotImplementedError

    def one(self, connection: db.Connection, pk: str) -> Any:
        """One row. Raises NotFound; ValueError for what is no key."""
        raise NotImplementedError

    def row(self, item: dict[str, Any]) -> Any:
        """An item of a page as `one` returns it."""
        raise NotImplementedError

    # Who may

    def is_accessible(self, request: Request) -> bool:
        """Readers."""
        return who(request).may_read

    def can_create(self, request: Request) -> bool:
        """Operators."""
        return who(request).may_write

    def can_edit(self, request: Request) -> bool:
        """Operators."""
        return who(request).may_write

    def can_delete(self, request: Request) -> bool:
        """Admins."""
        return who(request).is_admin

    async def is_action_allowed(self, request: Request, name: str) -> bool:
        """Operators; what the library has of its own, as told above."""
        if name in ("delete", "export"):
            return await super().is_action_allowed(request, name)
        return who(request).may_write

    async def is_row_action_allowed(self, request: Request, name: str) -> bool:
        """The same."""
        if name in ("view", "edit", "delete"):
            return await super().is_row_action_allowed(request, name)
        return who(request).may_write

    async def handle_action(self, request: Request, selection: ActionSelection, name: str) -> Response | None:
        """As the library does, but 403 to who may not; then back to the same list."""
        if name in self._actions_handlers and not await self.is_action_allowed(request, name):
            raise HTTPException(403, f"user {who(request).name} may not do this")
        done = await super().handle_action(request, selection, name)
        back = f"{view_list_url(request, not_none(self.key))}?{query_of(request)}"
        return done or JSONResponse({"redirect": back})

    async def handle_row_action(self, request: Request, pk: Any, name: str) -> Response | None:
        """As the library does, but 403 to who may not; then back to the row's page, if it is still there."""
        if name in self._row_actions_handlers and not await self.is_row_action_allowed(request, name):
            raise HTTPException(403, f"user {who(request).name} may not do this")
        done = await super().handle_row_action(request, pk, name)
        key = not_none(self.key)
        back = view_list_url(request, key) if name == "delete" else detail_url(request, key, pk)
        return done or JSONResponse({"redirect": back})

    # What is read

    async def find_all(
        self, request: Request, skip: int = 0, limit: int = 100, q: Any = None, sorts: Any = None, filters: Any = None
    ) -> list[Any]:
        """One page, by the cursor in the address; what was wrong with the question is told by the template."""
        query = query_of(request)
        asked = asked_of(self.filters, query)
        request.state.asked, request.state.cursors = asked, query.getlist("page")[-KEPT_PAGES:]
        request.state.wrong, request.state.size = None, None

        def read(connection: db.Connection) -> listing.Page:
            listing.lose_patience(connection, PATIENCE_S)
            cursor = (request.state.cursors or [None])[-1]
            found = self.page(connection, asked, sort_of(sorts), cursor, min(max(limit, 1), listing.MAX_LIMIT))
            if not asked and self.table and request.state.action == RequestAction.LIST:
                size = listing.counted(connection, SIZE_PATIENCE_S, lambda: listing.size(connection, self.table))
                request.state.size = size
            return found

        try:
            found = await in_database(read)
        except InvalidInput as error:
            request.state.wrong, found = _said(error), listing.Page([], None)
        except psycopg.errors.QueryCanceled:
            request.state.wrong = f"This took longer than {PATIENCE_S:.0f} seconds: narrow it down."
            found = listing.Page([], None)
        request.state.next_cursor = found.next_cursor
        request.state.shown = len(found.items)
        return [self.row(item) for item in found.items]

    async def count(self, request: Request, q: Any = None, filters: Any = None) -> int:
        """Of this page: nothing offers all that match, for they may be millions."""
        if request.state.action == RequestAction.ACTION:
            raise ActionFailed("Choose rows: all that match cannot be chosen at once.")
        return getattr(request.state, "shown", 0)

    async def find_by_pk(self, request: Request, pk: Any) -> Any:
        """One row, or None."""
        try:
            return await in_database(lambda connection: self.one(connection, str(pk)))
        except (NotFound, ValueError):
            return None

    async def find_by_pks(self, request: Request, pks: list[Any]) -> list[Any]:
        """Those of them that there are."""
        found = [await self.find_by_pk(request, pk) for pk in pks]
        return [row for row in found if row is not None]

    async def repr(self, obj: Any, request: Request) -> str:
        """`client 17`: as messages call it."""
        return f"{self.display_name} {await self.get_pk_value(request, obj)}"

    async def export_action(self, request: Request, selection: ActionSelection) -> Response:
        """The chosen rows, or all that match, as a CSV file."""
        return await csv_file.response(self, request, selection)

    export_action._action = BaseModelView.export_action._action | {  # type: ignore[attr-defined]
        "header": "Take rows away as a CSV file", "modal_size": "md",
    }  # fmt: skip

    async def delete_action(self, request: Request, selection: ActionSelection) -> None:
        """The chosen rows, all or none."""
        await super().delete_action(request, selection)

    delete_action._action = BaseModelView.delete_action._action | {  # type: ignore[attr-defined]
        "header": "Delete", "confirmation": "What is deleted cannot be brought back.", "form": DELETE_FORM,
        "submit_btn_text": "Delete them",
    }  # fmt: skip

    # What is written

    async def write(self, request: Request, work: Callable[[db.Connection], T]) -> T:
        """What `work` returns, in a transaction; what the domain refuses is told beside the field, or by an alert."""
        try:
            return await in_database(work)
        except MailingError as error:
            if not request.state.action.is_form():
                raise ActionFailed(_said(error)) from error
            fields = error.fields if isinstance(error, InvalidInput) else ()
            self.refuse(request, error, [field for field in fields if field in {each.name for each in self.fields}])

    def refuse(self, request: Request, error: Exception, fields: Sequence[str] = ()) -> NoReturn:
        """Show the form again, with what was typed and why it was refused."""
        beside = list(fields) or ([self.form_field] if self.form_field and isinstance(error, Conflict) else [])
        if not beside:
            flash(request, _said(error), "error")
        raise FormValidationError({field: _said(error, field) for field in beside} or {"": _said(error)}) from error

    def remove(self, connection: db.Connection, row_id: int, actor: str) -> None:
        """Delete one row. Raises NotFound, Conflict."""
        raise NotImplementedError

    async def delete(self, request: Request, pks: list[Any]) -> int:
        """All of them or, where one is refused, none."""
        actor, ids = operator(request).name, chosen_ids(pks)

        def remove_all(connection: db.Connection) -> int:
            for row_id in ids:
                self.remove(connection, row_id, actor)
            return len(ids)

        return await self.write(request, remove_all)


def chosen_ids(pks: Sequence[Any]) -> list[int]:
    """The ids of the rows that an action is upon. Raises ActionFailed for what is none."""
    try:
        return [typed_id(str(pk)) for pk in pks]
    except ValueError as error:
        raise ActionFailed(f"Rows: {error}.") from error


def _said(error: Exception, field: str = "") -> str:
    """What the domain says, without the name of the field beside which it stands."""
    said = str(error)
    said = (field and said.partition(f"{field}: ")[2]) or said
    return said[:1].upper() + said[1:]
