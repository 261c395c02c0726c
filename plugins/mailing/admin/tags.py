"""Tags: the list and the form of their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette_admin import IntegerField, StringField
from starlette_admin.fields import BaseField

from mailing import db, listing, tags
from mailing.admin.asked import Filter
from mailing.admin.common import operator
from mailing.admin.fields import typed_id
from mailing.admin.rows import Rows


class TagsView(Rows):
    """By which filters choose clients."""

    key = "tags"
    table = "tags"
    menu_label = "Tags"
    display_name = "tag"
    icon = "fa-solid fa-tags"
    pk_attr = "id"
    form_field = "name"
    empty = "There is no tag yet: create one, or import clients who have some."
    detail_template = "tag.html"
    fields: tuple[BaseField, ...] = (
        IntegerField("id", label="Id"),
        StringField("name", label="Name", required=True, maxlength=200,
                    help_text="Letters, digits, - and _; three digits are an operator code, which every client has."),
    )  # fmt: skip
    sortable_fields = ("id", "name")
    fields_default_sort = ("name",)
    filters = (Filter("part", "Part of the name"),)

    def page(
        self, connection: db.Connection, asked: Mapping[str, str], sort: str, cursor: str | None, limit: int
    ) -> listing.Page:
        """Those whose name has the part."""
        return tags.page(connection, part=asked.get("part"), sort=sort, cursor=cursor, limit=limit)

    def row(self, item: dict[str, Any]) -> tags.TagRow:
        """A tag."""
        return tags.TagRow(**item)

    def one(self, connection: db.Connection, pk: str) -> tags.TagRow:
        """A tag."""
        return tags.get(connection, typed_id(pk))

    def remove(self, connection: db.Connection, row_id: int, actor: str) -> None:
        """All clients lose it, unless a campaign's filter names it."""
        tags.delete(connection, row_id, actor=actor)

    async def create(self, request: Request, data: dict[str, Any]) -> tags.TagRow:
        """A new tag."""
        actor = operator(request).name
        return await self.write(request, lambda connection: tags.create(connection, data["name"], actor=actor))

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> tags.TagRow:
        """Another name; its clients keep it."""
        actor = operator(request).name
        return await self.write(
            request, lambda connection: tags.rename(connection, typed_id(pk), data["name"], actor=actor)
        )
