"""Buttons that act once for each page that showed them: pressed again (Back, a double click), they say what came of it.

The page carries a key, a new one each time it is shown, and a press keeps it as the API keeps an `Idempotency-Key`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mailing import db, idempotency
from mailing.admin.common import who
from mailing.errors import Conflict
from mailing.idempotency import Answer, Key

FIELD = "form_key"


class PressedBefore(Exception):
    """What came of the first press. Nothing was done this time."""


def fresh() -> str:
    """A key for a page that is about to be shown."""
    return secrets.token_urlsafe(16)


def key_of(request: Request, form: FormData) -> Key:
    """The key of the page on which the button was pressed; 422 where it carries none.

    Not told apart by what else the form holds: one page, one press of each button.
    """
    given = form.get(FIELD)
    if not isinstance(given, str) or not re.fullmatch(r"[\w-]{16,64}", given, re.ASCII):
        raise HTTPException(422, f"{FIELD}: wanted that of a page; load the page again")
    return Key(who(request).name, f"{request.method} {request.scope['path']}", given, b"")


def check(connection: db.Connection, key: Key) -> None:
    """Take the key: what it is for is to be done in this transaction, or begun, and `keep` called.

    Raises PressedBefore, and Conflict while nobody knows what comes of the first press.
    """
    try:
        answer = idempotency.recall(connection, key)
    except Conflict:
        raise Conflict(
            "This button was pressed before, and what comes of it is not known so far; nothing was done this time."
        ) from None
    if answer is not None:
        raise PressedBefore(
            f"This button was pressed before; nothing was done this time. What came of it: {answer.body}"
        )


def keep(connection: db.Connection, key: Key, said: str) -> None:
    """Remember what came of it, in words."""
    idempotency.keep(connection, key, Answer(200, said))


def once(connection: db.Connection, key: Key, work: Callable[[], str]) -> str:
    """What `work` says, which is all done in this transaction. Raises as `check` does, and then does nothing."""
    check(connection, key)
    said = work()
    keep(connection, key, said)
    return said
