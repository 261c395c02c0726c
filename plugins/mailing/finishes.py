"""How campaigns ended: one row per end, written with it, and what is still to be told of it.

An end is `finished`, or `cancelled` with nothing left in flight. A campaign that is opened again ends again, under the
next number. Functions take a connection and never commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mailing import db

SQL = db.queries("finishes")

IN_HAND = timedelta(minutes=2)
"""How long a task may need between taking an end upon itself and telling Airflow: it is the last thing it does."""

AT_ONCE = 200
"""Ends that are confirmed in one go: each costs one question to Airflow."""

FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=1)
"""Until a webhook that failed is tried again: twice as long each time."""

GIVEN_UP_AFTER = timedelta(days=3)
"""How long a webhook is tried: over a weekend. So long an end waits for the webhook's connection, too."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An end that a task took upon itself to announce, and when: it may have died before it did."""

    campaign_id: int
    number: int
    announced_at: datetime
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Due:
    """An end that the webhook is to be told. `is_last`: if that fails, it is given up."""

    campaign_id: int
    number: int
    attempts: int
    figures: dict[str, Any]
    is_last: bool


def record(connection: db.Connection, campaign_id: int) -> bool:
    """Write down the end that the campaign has come to. False: it is known.

    The caller holds its row (`campaigns.lock`), and knows that nothing of it is pending or sending.
    """
    return connection.execute(SQL["record_finish"], {"campaign_id": campaign_id}).rowcount == 1


def standing(connection: db.Connection, campaign_id: int) -> dict[str, Any] | None:
    """The figures of the end that the campaign has come to; None: it goes on, or there is no such campaign.

    `event_id`, `campaign_id`, `name`, `status`, `finish` (which end, from 1), `revision`, `sending_start`,
    `sending_stop`, `opened_at`, `finished_at` (ISO 8601, UTC), `audience`, its eight states, and of `sent` what a
    person assumed so: `assumed_sent`. They are those of that moment: what was in doubt then may be settled since.
    """
    row = db.one(connection, SQL["standing_finish"], {"campaign_id": campaign_id})
    return row["figures"] if row else None


def take_unannounced(connection: db.Connection, campaign_id: int | None = None) -> list[dict[str, Any]]:
    """Figures of the ends (of one campaign, or of all) that nobody has announced: it is the caller's to do, at once."""
    return [row["figures"] for row in connection.execute(SQL["take_unannounced"], {"campaign_id": campaign_id})]


def to_confirm(connection: db.Connection) -> list[Taken]:
    """Ends that were taken a while ago, so that they must have been announced by now, unless their task died."""
    rows = connection.execute(SQL["finishes_to_confirm"], {"patience": IN_HAND, "limit": AT_ONCE})
    return [Taken(**row) for row in rows]


def confirm(connection: db.Connection, taken: Taken) -> None:
    """It was announced."""
    connection.execute(SQL["confirm_finish"], {"campaign_id": taken.campaign_id, "number": taken.number})


def take_again(connection: db.Connection, taken: Taken) -> bool:
    """It was not announced: the caller does it. False: somebody else was faster."""
    parameters = {"campaign_id": taken.campaign_id, "number": taken.number, "announced_at": taken.announced_at}
    return connection.execute(SQL["take_again"], parameters).rowcount == 1


def take_webhook(connection: db.Connection, campaign_id: int | None = None) -> Due | None:
    """The next end (of one campaign, or of all) that the webhook is to be told; None: none is due.

    It counts as an attempt, and is due again after a wait, unless it is settled.
    """
    parameters = {
        "campaign_id": campaign_id, "first_wait": FIRST_WAIT, "longest_wait": LONGEST_WAIT,
        "given_up_after": GIVEN_UP_AFTER,
    }  # fmt: skip
    row = db.one(connection, SQL["take_webhook"], parameters)
    if row is None:
        return None
    return Due(row["campaign_id"], row["number"], row["webhook_attempts"], row["figures"], row["is_last"])


def settle_webhook(connection: db.Connection, due: Due, error: str | None) -> None:
    """It was taken, or failed for this reason and is tried again, unless that was the last attempt."""
    state = "delivered" if error is None else "given_up" if due.is_last else "pending"
    parameters = {"campaign_id": due.campaign_id, "number": due.number, "state": state, "error": error}
    connection.execute(SQL["settle_webhook"], parameters)


def forgo_webhooks(connection: db.Connection) -> list[tuple[int, int]]:
    """No webhook is found: what has waited long enough for one, and was never tried, is not told. Campaign and number.

    Whatever was tried before stays pending: there is a webhook, and its connection will be found again.
    """
    rows = connection.execute(SQL["forgo_webhooks"], {"patience": GIVEN_UP_AFTER})
    return [(row["campaign_id"], row["number"]) for row in rows]
