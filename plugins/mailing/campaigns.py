"""Campaigns: creating, reading, opening, closing. Functions take a connection and never commit; times are aware."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from mailing import db
from mailing.errors import InvalidInput, NotFinished, NotFound
from mailing.models import DEFAULT_GATEWAY, MAX_TEXT, MESSAGE_STATES
from mailing.window import LEAD, TRAIL, Window

SQL = db.queries("campaigns")

BATCH_SIZE = 5_000
"""Messages per mapped task, unless asked otherwise: a task costs 0.2 s, so it should carry seconds of sending."""

MAX_BATCHES = 1_000
"""Airflow's limit of a mapping is 1,024; a large audience gets larger batches instead."""

CLAIM_PATIENCE_S = 10.0
"""How soon to look again whether claims that a live task may still speak for are settled."""

WRONG_VALUES = {
    "campaigns_text_length_check": f"text: wanted 1 to {MAX_TEXT} characters",
    "campaigns_name_length_check": "name: wanted 1 to 200 characters, or none",
    "campaigns_window_order_check": "sending_stop: wanted a moment after sending_start",
    "campaigns_window_range_check": "sending_start, sending_stop: wanted moments from the years 2000 to 9998",
    "campaigns_filter_operator_codes_form_check": "filter_operator_codes: wanted codes of three digits",
    "campaigns_filter_tags_known": "filter_tags: wanted names of existing tags",
    "campaigns_audience_known_check": "audience: wanted snapshot or live",
    "campaigns_on_doubt_known_check": "on_doubt: wanted hold or resend",
    "campaigns_gateway_fkey": "gateway: wanted the name of an existing gateway",
}
"""What was wanted, by the constraint that a value broke."""


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """What a campaign's DAG needs to know of its row."""

    id: int
    name: str | None
    window: Window
    wake_at: datetime | None

    @classmethod
    def from_json(cls, campaign: Mapping[str, Any]) -> CampaignRow:
        """Read one object of `relevant`. Raises ValueError, KeyError or TypeError for one that makes no sense."""
        wake_at = campaign["wake_at"]
        return cls(
            id=int(campaign["id"]),
            name=campaign["name"],
            window=Window(
                datetime.fromisoformat(campaign["sending_start"]), datetime.fromisoformat(campaign["sending_stop"])
            ),
            wake_at=datetime.fromisoformat(wake_at) if wake_at else None,
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening a campaign came to: the batches to send, why there are none, and seconds until its start (or 0)."""

    batches: list[int]
    said: str
    opens_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How a campaign stands: `audience` is the sum of the eight states, always."""

    id: int
    name: str | None
    status: str
    audience: int
    pending: int
    sending: int
    sent: int
    failed: int
    unknown: int
    expired: int
    cancelled: int
    excluded: int
    opened_at: datetime | None
    finished_at: datetime | None
    first_claimed_at: datetime | None
    last_sent_at: datetime | None

    @property
    def counts(self) -> dict[str, int]:
        """The audience and its states, without those that nobody is in."""
        states = {state: getattr(self, state) for state in MESSAGE_STATES}
        return {"audience": self.audience} | {state: count for state, count in states.items() if count}


def relevant(connection: db.Connection) -> list[dict[str, Any]]:
    """The campaigns that are DAGs now, by id, as JSON objects for `CampaignRow.from_json`: one query."""
    rows = connection.execute(SQL["relevant_campaigns"], {"lead": LEAD, "trail": TRAIL})
    return [row["campaign"] for row in rows]


def for_dag(connection: db.Connection, campaign_id: int) -> list[dict[str, Any]]:
    """The one campaign, in the form of `relevant`; an empty list where there is none."""
    rows = connection.execute(SQL["campaign_for_dag"], {"campaign_id": campaign_id})
    return [row["campaign"] for row in rows]


def create(
    connection: db.Connection,
    *,
    text: str,
    sending_start: datetime,
    sending_stop: datetime,
    name: str | None = None,
    filter_tags: Iterable[str] = (),
    filter_operator_codes: Iterable[str] = (),
    audience: str = "snapshot",
    on_doubt: str = "hold",
    gateway: str = DEFAULT_GATEWAY,
) -> int:
    """The id of a new campaign. Raises InvalidInput for values that break a rule; then nothing is written."""
    values = {
        "name": name, "text": text, "sending_start": sending_start, "sending_stop": sending_stop,
        "filter_tags": list(filter_tags), "filter_operator_codes": list(filter_operator_codes),
        "audience": audience, "on_doubt": on_doubt, "gateway": gateway,
    }  # fmt: skip
    for end in (sending_start, sending_stop):
        if end.tzinfo is None:
            raise InvalidInput(f"new campaign: sending_start, sending_stop: wanted moments with a time zone, got {end}")
    try:
        with connection.transaction():
            row = db.one(connection, SQL["insert_campaign"], values)
    except psycopg.errors.IntegrityError as error:
        raise InvalidInput(_what_was_wanted(error)) from error
    assert row is not None  # noqa: S101 - INSERT … RETURNING
    return int(row["id"])


def _what_was_wanted(error: psycopg.errors.IntegrityError) -> str:
    constraint = error.diag.constraint_name or ""
    return f"new campaign: {WRONG_VALUES.get(constraint, constraint)} ({error.diag.message_primary})"


def progress(connection: db.Connection, campaign_id: int) -> Progress:
    """How the campaign stands now, counted from the ledger. Raises NotFound."""
    row = db.one(connection, SQL["campaign_progress"], {"campaign_id": campaign_id})
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return Progress(**row)


def select_audience(
    connection: db.Connection,
    campaign_id: int,
    *,
    batch_size: int = BATCH_SIZE,
    max_batches: int = MAX_BATCHES,
    newcomers: bool = False,
) -> Opening:
    """Open the campaign: those who match its filter enter the ledger, and the batches to send are named.

    Running it again adds nobody twice. A `snapshot` audience is taken once, when the campaign opens; `newcomers` asks
    for those who match by now (a run that a person triggered). Once the window is over there is nothing to send: the
    audience enters the ledger all the same, and `close` says what became of it.
    """
    campaign = _lock(connection, campaign_id)
    if campaign["opens_in_s"] > 0:
        return Opening([], f"its window opens at {campaign['sending_start']}", campaign["opens_in_s"])
    is_first, is_over = campaign["opened_at"] is None, campaign["is_over"]
    if campaign["status"] == "cancelled" or (campaign["status"] == "paused" and not is_over):
        return Opening([], f"it is {campaign['status']}")
    enrolled = 0
    if is_first or (not is_over and (newcomers or campaign["audience"] == "live")):
        # What is unfinished already takes its share of what one run can map.
        free = max(1, max_batches - len(_unfinished_batches(connection, campaign_id)))
        sizes = {"batch_size": batch_size, "max_batches": free}
        row = db.one(connection, SQL["enrol_audience"], {"campaign_id": campaign_id, **sizes})
        enrolled = row["enrolled"] if row else 0
    batches = _unfinished_batches(connection, campaign_id)
    if batches or is_first:
        connection.execute(SQL["start_campaign"], {"campaign_id": campaign_id})
    if is_over:
        return Opening([], f"its window closed at {campaign['sending_stop']}")
    return Opening(batches, f"{enrolled} clients joined its audience")


def close(connection: db.Connection, campaign_id: int) -> Progress:
    """Finish the campaign: what its window closed on becomes `expired`. Returns the final figures.

    One whose window passed without a run is opened first: whoever would have been its audience ends as `expired`.
    What dead tasks had claimed is recovered first (see `messages.recover_claims`). Raises NotFinished while something
    is left to do: the audience to be taken, pending messages while the window is open, or claims that a live task may
    still speak for.
    """
    campaign = _lock(connection, campaign_id)
    parameters = {"campaign_id": campaign_id}
    _recover_claims(connection, campaign_id)
    if campaign["is_over"] and campaign["opened_at"] is None:
        select_audience(connection, campaign_id)
    if campaign["is_over"] and campaign["status"] != "cancelled":
        connection.execute(SQL["expire_leftovers"], parameters)
    connection.execute(SQL["finish_campaign"], parameters)
    standing = progress(connection, campaign_id)
    _raise_if_unfinished(standing, campaign)
    return standing


def _raise_if_unfinished(standing: Progress, campaign: dict[str, Any]) -> None:
    if standing.pending or standing.sending:
        left = f"{standing.pending} messages are pending and {standing.sending} sending"
    elif standing.opened_at is None and campaign["opens_in_s"] <= 0:
        left = "its audience was not taken yet"
    else:
        return
    raise NotFinished(
        f"campaign {standing.id} ({standing.status}): {left}; its window closes at {campaign['sending_stop']}",
        # Claims are settled by themselves, by their task or when its lease has run out.
        again_in_s=CLAIM_PATIENCE_S if standing.sending else None,
    )


def _unfinished_batches(connection: db.Connection, campaign_id: int) -> list[int]:
    rows = connection.execute(SQL["unfinished_batches"], {"campaign_id": campaign_id})
    return [row["number"] for row in rows]


def _recover_claims(connection: db.Connection, campaign_id: int) -> None:
    parameters = {"campaign_id": campaign_id}
    span = db.one(connection, SQL["message_range"], parameters)
    connection.execute(db.queries("messages")["recover_claims"], {**parameters, **(span or {})})
    connection.execute(SQL["forget_dead_leases"], parameters)


def overdue(connection: db.Connection) -> list[int]:
    """Campaigns whose window closed and that nobody closed."""
    return [row["id"] for row in connection.execute(SQL["overdue_campaigns"])]


def _lock(connection: db.Connection, campaign_id: int) -> dict[str, Any]:
    row = db.one(connection, SQL["lock_campaign"], {"campaign_id": campaign_id})
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return row
