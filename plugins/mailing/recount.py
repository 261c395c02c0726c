"""Counts the ledger anew, and tells where the counts that are kept with it say something else."""

from __future__ import annotations

from dataclasses import dataclass

from mailing import db

SQL = db.queries("recount")


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of a campaign (`state sent`, `operator code 903 open`, …) that is not what its messages add up to."""

    campaign_id: int
    figure: str
    kept: int
    found: int


def differences(connection: db.Connection, campaign_id: int | None = None) -> list[Difference]:
    """Where kept counts and messages differ: nowhere, unless somebody wrote around the triggers.

    Reads all messages, or those of one campaign; campaigns whose messages were dropped are left out.
    """
    rows = connection.execute(SQL["differences"], {"campaign_id": campaign_id})
    return [Difference(**row) for row in rows]


def total(connection: db.Connection, campaign_id: int | None = None) -> int:
    """How many messages there are, by the kept counts."""
    row = db.one(connection, SQL["messages_counted"], {"campaign_id": campaign_id})
    return int(row["count"]) if row else 0
