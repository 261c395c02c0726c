"""Counts the ledger anew, and tells where the counts that are kept with it say something else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mailing import db

SQL = db.queries("recount")


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of a campaign (`state sent`, `operator code 903 open`, …) that is not what its messages add up to.

    `first claim`, `first sent`, `last sent` are moments (aware; None: none is kept), all others are counts.
    """

    campaign_id: int
    figure: str
    kept: int | datetime | None
    found: int | datetime

    def __str__(self) -> str:
        said = (f"{each:,}" if isinstance(each, int) else str(each) for each in (self.kept, self.found))
        return f"campaign {self.campaign_id}: {self.figure}: kept {next(said)}, found {next(said)}"


def differences(connection: db.Connection, campaign_id: int | None = None) -> list[Difference]:
    """Where kept counts and messages differ: nowhere, unless somebody wrote around the triggers.

    Reads all messages, or those of one campaign; campaigns whose messages were dropped are left out.
    """
    rows = connection.execute(SQL["differences"], {"campaign_id": campaign_id})
    return [
        Difference(row["campaign_id"], row["figure"], row["kept_at"], row["found_at"])
        if row["found_at"]
        else Difference(row["campaign_id"], row["figure"], row["kept"], row["found"])
        for row in rows
    ]


def total(connection: db.Connection, campaign_id: int | None = None) -> int:
    """How many messages those are that `differences` reads, by the kept counts."""
    row = db.one(connection, SQL["messages_counted"], {"campaign_id": campaign_id})
    return int(row["count"]) if row else 0
