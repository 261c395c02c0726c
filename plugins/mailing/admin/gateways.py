"""Gateways: how well they are, in words, and their limits. Which there are is no matter of this page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette_admin import StringField
from starlette_admin.exceptions import FormValidationError
from starlette_admin.fields import BaseField

from mailing import db, gateways, listing
from mailing.admin import campaign_words
from mailing.admin.common import admin, who
from mailing.admin.fields import Codes, Moment, Number, brief_moment
from mailing.admin.rows import Rows
from mailing.gateways import GatewayRow
from mailing.watch import Breaker

MAX_INT = 2**31 - 1


def _is_limit(value: float) -> bool:
    return 0 < value < 1e9


LIMITS: dict[str, tuple[Callable[[str], Any], Callable[[Any], bool], str]] = {
    "messages_per_second": (float, _is_limit, "a number above 0, or nothing: no limit"),
    "requests_in_flight": (int, lambda value: 1 <= value <= 10_000, "a whole number from 1 to 10,000"),
    "timeout_s": (float, lambda value: 0 < value <= 300, "seconds, above 0 and up to 300"),
    "token_warning_s": (int, lambda value: 0 <= value <= MAX_INT, "whole seconds, 0 or more"),
}
"""How each is read, what holds of it, and what was wanted."""


class GatewaysView(Rows):
    """Where messages are sent through."""

    key = "gateways"
    menu_label = "Gateways"
    display_name = "gateway"
    icon = "fa-solid fa-tower-broadcast"
    pk_attr = "name"
    empty = "There is no gateway: `python -m mailing.cli migrate` makes the first one."
    fields: tuple[BaseField, ...] = (
        StringField("name", label="Name", exclude_from_edit=True),
        BaseField("breaker_state", label="Now", exclude_from_edit=True, getter=lambda _, row: in_words(row),
                  list_template="fields/words.html", detail_template="fields/words.html"),
        StringField("endpoint", label="Endpoint", exclude_from_edit=True, exclude_from_list=True),
        StringField("connection_id", label="Airflow connection", exclude_from_edit=True, exclude_from_list=True),
        Number("messages_per_second", label="Messages per second", none="no limit",
               help_text="Of all campaigns together; empty: as fast as it takes them."),
        Number("requests_in_flight", label="Requests in flight", required=True,
               help_text="Of all campaigns together, at a time: 1 to 10,000."),
        Number("timeout_s", label="Timeout, s", required=True, help_text="How long to wait for an answer: up to 300."),
        Codes("repeat_codes", label="Codes to repeat at", exclude_from_list=True,
              help_text="Codes of a reply after which a message is tried again; others are final."),
        Moment("token_expires_at", label="Token expires", exclude_from_edit=True),
        Number("token_warning_s", label="Warn of its expiry, s before", required=True, exclude_from_list=True),
    )  # fmt: skip
    sortable_fields = ()
    fields_default_sort = ("name",)
    actions = ("export",)
    row_actions = ("view", "edit")

    def can_create(self, request: Request) -> bool:
        """Nobody: docs/gateway.md says how, by SQL; its connection is Airflow's."""
        return False

    def can_edit(self, request: Request) -> bool:
        """Admins."""
        return who(request).is_admin

    def can_delete(self, request: Request) -> bool:
        """Nobody."""
        return False

    def page(
        self, connection: db.Connection, asked: Mapping[str, str], sort: str, cursor: str | None, limit: int
    ) -> listing.Page:
        """All: there are few."""
        return listing.Page([{"row": row} for row in gateways.all_gateways(connection)], None)

    def row(self, item: dict[str, Any]) -> GatewayRow:
        """A gateway."""
        gateway: GatewayRow = item["row"]
        return gateway

    def one(self, connection: db.Connection, pk: str) -> GatewayRow:
        """A gateway."""
        return gateways.get(connection, pk)

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> GatewayRow:
        """Other limits; tasks that are sending follow within seconds."""
        actor, changes = admin(request).name, _typed(data)

        def change(connection: db.Connection) -> GatewayRow:
            before = gateways.get(connection, pk)
            changed = {name: value for name, value in changes.items() if getattr(before, name) != value}
            if changed:
                gateways.change(connection, pk, actor=actor, **changed)
            return gateways.get(connection, pk)

        return await self.write(request, change)


def in_words(gateway: GatewayRow) -> dict[str, str]:
    """How the gateway is: `text`, in the viewer's zone, and the `tone` it is said in."""
    now, probe_in_s = datetime.now(UTC), None
    if gateway.breaker_probe_at is not None:
        probe_in_s = (gateway.breaker_probe_at - now).total_seconds()
    words = campaign_words.gateway(
        Breaker(gateway.name, gateway.breaker_state, gateway.breaker_reason, gateway.breaker_changed_at, probe_in_s)
    )
    moments = {name: brief_moment(at, now) for name, at in words.moments.items()}
    text = words.text.format(wait=campaign_words.duration(words.wait_s or 0.0), **moments)
    return {"text": text, "tone": words.tone}


def _typed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that were typed. Raises FormValidationError, with all that are none."""
    values: dict[str, Any] = {}
    wrong: dict[str | int, Any] = {}
    for name, (read, holds, wanted) in LIMITS.items():
        text = (data[name] or "").strip()
        if name == "messages_per_second" and not text:
            values[name] = None
            continue
        try:
            values[name] = read(text)
        except ValueError:
            values[name] = math.nan
        if not holds(values[name]):
            wrong[name] = f"Wanted {wanted}."
    try:
        values["repeat_codes"] = [int(code) for code in data["repeat_codes"]]
    except ValueError:
        wrong["repeat_codes"] = "Wanted whole numbers."
    if any(abs(code) > MAX_INT for code in values.get("repeat_codes", ())):
        wrong["repeat_codes"] = f"Wanted numbers up to {MAX_INT:,}."
    if wrong:
        raise FormValidationError(wrong)
    return values
