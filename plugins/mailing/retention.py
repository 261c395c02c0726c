"""Old parts of the ledger go, their figures stay: the task of dags/retention.py.

A part goes when all its campaigns are finished or cancelled and neither their window nor their row has changed for so
many days (docs/reporting.md). Its campaigns are archived: they can only be read from then on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psycopg
import structlog
from psycopg import sql

from mailing import db
from mailing.errors import Busy, Conflict, InvalidInput

SQL = db.queries("retention")

SETTING = "MAILING_KEEP_MESSAGES_DAYS"

PATIENCE = "1s"
"""How long to wait for readers and writers, and with that how long others wait behind it, senders too."""

MAX_DAYS = 36_500
SAID_OF_EACH = 5
"""Reasons of a part that are told; the others are counted."""

How = Literal["drop", "detach"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the ledger: the campaigns from `first_campaign_id` until before `end_campaign_id`.

    `campaigns`: those of them that there are; `messages` and `bytes`: what lies in it, with its evidence and indexes.
    `kept_by`: what keeps it, in words (empty: it may go); `in_doubt`: campaigns with messages that nobody has settled.
    """

    first_campaign_id: int
    end_campaign_id: int
    campaigns: list[int]
    messages: int
    bytes: int
    kept_by: list[str]
    in_doubt: list[str]

    def as_json(self) -> dict[str, Any]:
        """For a task's result: of long lists the beginning."""
        campaigns, kept_by, in_doubt = (
            _beginning(each) for each in ([str(id_) for id_ in self.campaigns], self.kept_by, self.in_doubt)
        )
        return asdict(self) | {"campaigns": campaigns, "kept_by": kept_by, "in_doubt": in_doubt}


def kept_days(environ: Mapping[str, str] = os.environ) -> int | None:
    """For how many days messages are kept by the setting MAILING_KEEP_MESSAGES_DAYS; None: for ever. InvalidInput."""
    value = environ.get(SETTING)
    if not value:
        return None
    if not value.isascii() or not value.isdecimal():
        raise InvalidInput(f"{SETTING}={value!r}: wanted a whole number of days", [SETTING])
    return _checked(int(value))


def parts(connection: db.Connection, days: int) -> list[Part]:
    """Every part that is there, the oldest first, and whether it may go after so many days."""
    rows = connection.execute(SQL["parts"], {"days": _checked(days), "first_campaign_id": None})
    return [Part(**row) for row in rows]


def remove(connection: db.Connection, part: Part, days: int, how: How = "drop") -> None:
    """Take a part out of the ledger, in the caller's transaction (a short one, please).

    `detach`: its messages and attempts stay as tables of their own, messages_<first> and attempts_<first>. Raises Busy
    where somebody reads or writes the ledger for too long, and Conflict where something keeps the part by now; then
    nothing is changed once the caller rolls back.
    """
    span = {"first_campaign_id": part.first_campaign_id, "end_campaign_id": part.end_campaign_id}
    try:
        connection.execute(SQL["be_polite"], {"patience": PATIENCE})
        connection.execute(SQL["hold_campaigns"], span)
        _check_may_go(connection, part, days)
        for table in ("messages", "attempts"):
            connection.execute(_removal(table, part, how))
        for name in ("forget_batches", "forget_leases", "forget_throttles", "archive_campaigns", "note_dropped"):
            connection.execute(SQL[name], span)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise Busy(
            f"{_name(part)}: somebody reads or writes the ledger for longer than {PATIENCE}: tried again later"
        ) from None


def run(days: int, *, dry_run: bool, how: How = "drop") -> dict[str, list[dict[str, Any]]]:
    """Remove (`dry_run`: only name) every part that may go after so many days; each in a transaction of its own.

    The parts `removed` (or `would_go`) and `kept`, as JSON holds them. Raises Busy at the first part that is in use.
    """
    with db.transaction() as connection:
        found = parts(connection, days)
    going = [part for part in found if not part.kept_by]
    for part in found:
        _say(part, dry_run)
        if part.kept_by or dry_run:
            continue
        with db.transaction() as connection:
            remove(connection, part, days, how)
        log.info("removed", part=part.first_campaign_id, how=how)
    return {
        "would_go" if dry_run else "removed": [part.as_json() for part in going],
        "kept": [part.as_json() for part in found if part.kept_by],
    }


def run_by_setting(how: How = "drop") -> dict[str, list[dict[str, Any]]]:
    """As `run` for the days of the setting; nothing goes where it is not set."""
    days = kept_days()
    if days is None:
        log.info(f"{SETTING} is not set: messages are kept for ever")
        return {"removed": [], "kept": []}
    return run(days, dry_run=False, how=how)


def _say(part: Part, dry_run: bool) -> None:
    figures = {"campaigns": len(part.campaigns), "messages": part.messages, "bytes": part.bytes}
    said = "stays" if part.kept_by else "would go" if dry_run else "goes"
    more = {name: ", ".join(_beginning(value)) for name, value in (("kept_by", part.kept_by),) if value}
    log.info(f"{_name(part)}: {said}", **figures, **more)
    if part.in_doubt and not part.kept_by:
        log.warning(f"{_name(part)}: {said}, settled or not", in_doubt=", ".join(_beginning(part.in_doubt)))


def _check_may_go(connection: db.Connection, part: Part, days: int) -> None:
    parameters = {"days": days, "first_campaign_id": part.first_campaign_id}
    row = db.one(connection, SQL["parts"], parameters)
    if row is None:
        raise Conflict(f"{_name(part)}: it was removed already")
    if row["kept_by"]:
        raise Conflict(f"{_name(part)}: {', '.join(_beginning(row['kept_by']))}")


def _removal(table: str, part: Part, how: How) -> sql.Composed:
    name = sql.Identifier(f"{table}_{part.first_campaign_id}")
    if how == "detach":
        return sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(sql.Identifier(table), name)
    return sql.SQL("DROP TABLE {}").format(name)


def _checked(days: int) -> int:
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInput(f"retention: days: wanted 1 to {MAX_DAYS}, got {days}", ["days"])
    return days


def _name(part: Part) -> str:
    return f"messages_{part.first_campaign_id} (campaigns {part.first_campaign_id} to {part.end_campaign_id - 1})"


def _beginning(words: list[str]) -> list[str]:
    more = len(words) - SAID_OF_EACH
    return words if more <= 0 else [*words[:SAID_OF_EACH], f"and {more} more"]
