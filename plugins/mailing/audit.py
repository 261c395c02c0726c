"""Who did what, and when: one row per decision of a person, or of a program for them."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from mailing import db
from mailing.errors import InvalidInput

MAX_ACTOR = 200

SQL = db.queries("audit")


def check_actor(thing: str, actor: str) -> None:
    """Raise InvalidInput unless `actor` names somebody, in at most 200 characters. `thing`: what the error is about."""
    if not actor.strip() or len(actor) > MAX_ACTOR:
        raise InvalidInput(f"{thing}: actor: wanted the name of who decides, of 1 to {MAX_ACTOR} characters")


def record(
    connection: db.Connection,
    actor: str,
    action: str,
    *,
    campaign_id: int | None = None,
    message_id: int | None = None,
    **detail: Any,
) -> None:
    """Keep that `actor` took `action`; `detail`: what JSON can hold, never a phone number or a text."""
    parameters = {
        "actor": actor, "action": action, "campaign_id": campaign_id, "message_id": message_id,
        "detail": Jsonb(detail or None),
    }  # fmt: skip
    connection.execute(SQL["record_action"], parameters)
