"""Requests that may be repeated: who sends the same key again gets the same answer, and nothing is done twice.

The key is kept in the transaction that does the work, so both are there or neither. Source of the behaviour: the IETF's
draft "The Idempotency-Key HTTP Header Field".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from mailing import db
from mailing.errors import Conflict, InvalidInput

SQL = db.queries("idempotency")

KEPT = timedelta(days=7)
"""How long a key is remembered: longer than anybody retries."""


@dataclass(frozen=True, slots=True)
class Key:
    """Whose key it is, for what (method and path), the key itself, and what was asked (the body as it came)."""

    actor: str
    route: str
    key: str
    body: bytes

    @property
    def _parameters(self) -> dict[str, Any]:
        return {
            "actor": self.actor, "route": self.route, "key": self.key,
            "fingerprint": hashlib.sha256(self.body).digest(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered: HTTP status, and the body as JSON can hold it."""

    status: int
    body: Any


def recall(connection: db.Connection, key: Key) -> Answer | None:
    """The answer that was given to this key, or None: the work is to be done, and `keep` called in this transaction.

    Of several at once one goes on; the others wait for its transaction. Raises InvalidInput for a key that came with
    another body.
    """
    connection.execute(SQL["forget_keys"], {"kept": KEPT})
    if db.one(connection, SQL["take_key"], key._parameters):
        return None
    row = db.one(connection, SQL["key"], key._parameters)
    if row is None:
        raise InvalidInput(
            f"idempotency key {key.key!r}: was forgotten this moment; wanted another key", ["Idempotency-Key"]
        )
    if not row["is_same"]:
        raise InvalidInput(
            f"idempotency key {key.key!r}: came with another body before; wanted the same body, or another key",
            ["Idempotency-Key"],
        )
    if row["status"] is None:
        raise Conflict(
            f"idempotency key {key.key!r}: what it asked for has begun and not ended; its outcome is in the ledger"
        )
    return Answer(row["status"], row["response"])


def keep(connection: db.Connection, key: Key, answer: Answer) -> None:
    """Remember what is about to be answered."""
    connection.execute(SQL["keep_answer"], {**key._parameters, "status": answer.status, "response": Jsonb(answer.body)})
