"""Clients: the list, forms, tags for many at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette_admin import CustomView, IntegerField, StringField, action
from starlette_admin.actions import ActionSelection
from starlette_admin.exceptions import ActionFailed
from starlette_admin.fields import BaseField
from starlette_admin.flash import flash
from starlette_admin.helpers import detail_url, view_list_url
from starlette_admin.routing import route

from mailing import clients, db, listing
from mailing.admin.asked import Filter
from mailing.admin.common import in_database, operator, reader
from mailing.admin.fields import ClientTags, Moment, Zone, typed_id
from mailing.admin.rows import Rows, chosen_ids
from mailing.client_file import DEFAULT_ZONE
from mailing.errors import InvalidInput, NotFound

TAGS_FORM = """<form>
    <p><strong class="mailing-number" data-mailing-figure>The chosen</strong> clients.</p>
    <label class="form-label" for="action-tags">Tags</label>
    <input class="form-control" id="action-tags" name="tags" maxlength="1000" autocomplete="off" required
           aria-describedby="action-tags-help">
    <small class="form-hint" id="action-tags-help">Several are parted by commas.</small>
</form>"""


class ClientsView(Rows):
    """Whom campaigns choose."""

    key = "clients"
    table = "clients"
    menu_label = "Clients"
    display_name = "client"
    icon = "fa-solid fa-address-book"
    pk_attr = "id"
    form_field = "phone_number"
    list_template = "clients.html"
    empty = "There is no client yet: import a file of them, or create one."
    fields: tuple[BaseField, ...] = (
        IntegerField("id", label="Id"),
        StringField("phone_number", label="Phone number", required=True, maxlength=40, placeholder="79001234567"),
        ClientTags("tags", label="Tags", help_text="Letters, digits, - and _. The operator code is added by itself."),
        Zone("timezone", label="Time zone", default=DEFAULT_ZONE, help_text="For local hours, such as Europe/Moscow."),
        Moment("created", label="Created", exclude_from_create=True, exclude_from_edit=True),
    )
    sortable_fields = ("id", "phone_number")
    fields_default_sort = (("id", True),)
    filters = (
        Filter("tag", "Tag or operator code"),
        Filter("phone", "Phone begins with", hint="7 digits at most", max_length=clients.MAX_PREFIX, is_number=True),
        Filter("zone", "Time zone"),
    )
    actions = ("tag", "untag", "delete", "export")

    def page(
        self, connection: db.Connection, asked: Mapping[str, str], sort: str, cursor: str | None, limit: int
    ) -> listing.Page:
        """Those who have the tag, the first digits and the zone."""
        wanted = clients.Wanted(tag=asked.get("tag"), timezone=asked.get("zone"), phone_prefix=asked.get("phone"))
        try:
            return clients.page(connection, wanted, sort=sort, cursor=cursor, limit=limit)
        except InvalidInput as error:
            if "phone_prefix" in error.fields:
                raise InvalidInput("phone begins with: wanted 1 to 7 digits, the first a 7") from error
            raise

    def row(self, item: dict[str, Any]) -> clients.ClientRow:
        """A client."""
        return clients.ClientRow(**item)

    def one(self, connection: db.Connection, pk: str) -> clients.ClientRow:
        """A client."""
        return clients.get(connection, typed_id(pk))

    def remove(self, connection: db.Connection, row_id: int, actor: str) -> None:
        """What the ledger holds of it stays."""
        clients.delete(connection, row_id, actor=actor)

    async def create(self, request: Request, data: dict[str, Any]) -> clients.ClientRow:
        """A new client."""
        actor = operator(request).name
        return await self.write(
            request,
            lambda connection: clients.create(
                connection, data["phone_number"], tags=data["tags"], timezone=data["timezone"] or DEFAULT_ZONE,
                actor=actor,
            ),
        )  # fmt: skip

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> clients.ClientRow:
        """The client as the form has it."""
        actor = operator(request).name
        return await self.write(
            request,
            lambda connection: clients.edit(
                connection, typed_id(pk), phone_number=data["phone_number"], tags=data["tags"],
                timezone=data["timezone"] or DEFAULT_ZONE, actor=actor,
            ),
        )  # fmt: skip

    @action("tag", "Add tags", "To the chosen clients, beside the tags that they have.", "Add tags", form=TAGS_FORM,
            submit_btn_text="Add them")  # fmt: skip
    async def tag_action(self, request: Request, selection: ActionSelection) -> None:
        """Put tags on the chosen clients."""
        await self._mark(request, selection, clients.tag, "got a tag that they had not")

    @action("untag", "Take tags off", "Off the chosen clients.", "Take tags off", form=TAGS_FORM,
            submit_btn_text="Take them off")  # fmt: skip
    async def untag_action(self, request: Request, selection: ActionSelection) -> None:
        """Take tags off the chosen clients."""
        await self._mark(request, selection, clients.untag, "lost a tag")

    async def _mark(self, request: Request, selection: ActionSelection, mark: Callable[..., int], done: str) -> None:
        actor = operator(request).name
        names = [name for name in re.split(r"[,;\s]+", str((await request.form()).get("tags", ""))) if name]
        if not names:
            raise ActionFailed("Type at least one tag.")
        ids = chosen_ids(await selection.pks())
        changed = await self.write(request, lambda connection: mark(connection, ids, names, actor=actor))
        flash(request, f"{changed:,} of {len(ids):,} clients {done}.", "success")


class FindClient(CustomView):
    """The client with a number. A whole number stands in no address, so it is asked for by a form that is posted."""

    path = "/clients/find"
    route_name = "find-client"
    add_to_menu = False

    @route("", methods=["POST"])
    async def index(self, request: Request) -> Response:
        """To the client's page, or back to the list."""
        reader(request)
        number = str((await request.form()).get("number", ""))
        try:
            found = await in_database(lambda connection: clients.find(connection, number))
        except (NotFound, InvalidInput) as error:
            flash(request, "There is no client with this number." if isinstance(error, NotFound)
                  else "This is no phone number: wanted one of the form 7XXXXXXXXXX.", "warning")  # fmt: skip
            return RedirectResponse(view_list_url(request, ClientsView.key), 303)
        return RedirectResponse(detail_url(request, ClientsView.key, found.id), 303)
