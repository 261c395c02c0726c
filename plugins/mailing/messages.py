"""The ledger: leases, claims, outcomes. Functions take a connection and never commit; durations: seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from operator import attrgetter
from typing import Any

import structlog
from psycopg.rows import args_row

from mailing import db
from mailing.errors import NotFound
from mailing.local_hours import LocalHours, Span
from mailing.models import MAX_REPLY

SQL = db.queries("messages")

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=30)
"""How long a task that says nothing is believed to be alive: many missed renewals are forgiven."""

RENEW_S = 2.0
"""How often a task renews its lease and learns the terms anew: so soon a change of its gateway's row takes effect."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A range of message ids, `size` of them the campaign's, the first being its `first_position`-th (from 1)."""

    first_id: int
    last_id: int
    size: int
    first_position: int

    @property
    def id_range(self) -> dict[str, int]:
        """The range as parameters of a statement."""
        return {"first_id": self.first_id, "last_id": self.last_id}

    def parts(self, size: int) -> Iterator[Batch]:
        """The same range in parts of so many ids, in order; of `size` and place the parts have the whole's."""
        for first_id in range(self.first_id, self.last_id + 1, size):
            yield replace(self, first_id=first_id, last_id=min(self.last_id, first_id + size - 1))

    @property
    def label(self) -> str:
        """For people: "messages 1–5,000"."""
        return f"messages {self.first_position:,}–{self.first_position + self.size - 1:,}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a task sends on, as of its last renewal: the gateway, who shares it, and what the campaign asks for.

    `campaigns`: how many hold live leases on the gateway; `siblings`: the live leases of this campaign, this one
    included; `is_paced`: a limit of messages per second applies; `breaker_changed_s`: since it last opened or closed;
    `mapped_at`: the moment that the latest scheduled run stands for which has named what is left to send (aware).
    """

    gateway: str
    connection_id: str
    endpoint: str
    requests_in_flight: int
    timeout_s: float
    repeat_codes: list[int]
    token_warning_s: int
    breaker_state: str
    breaker_reason: str | None
    breaker_changed_s: float | None
    breaker_probe_s: float | None
    is_paced: bool
    local_from: time | None
    local_to: time | None
    status: str
    audience_stale: bool
    campaigns: int
    siblings: int
    mapped_at: datetime | None

    @property
    def local_hours(self) -> LocalHours | None:
        """The campaign's local hours, or None."""
        if self.local_from is None or self.local_to is None:
            return None
        return LocalHours(self.local_from, self.local_to)

    @property
    def route(self) -> tuple[str, str, str]:
        """What an open session was opened for."""
        return self.gateway, self.connection_id, self.endpoint


@dataclass(frozen=True, slots=True)
class Claim:
    """One message to post now.

    `left_s`: seconds until the campaign's stop, as of the claim; `begin_s`: until the request must have begun (the
    stop, or the end of its client's local hours).
    """

    id: int
    client_id: int
    attempts: int
    phone_number: str
    text: str
    left_s: float
    begin_s: float


@dataclass(slots=True)
class Outcome:
    """What became of one attempt. `age_s`: how long ago the reply came; `wait_s`: not to be claimed again sooner."""

    id: int
    attempt: int
    state: str  # sent, failed, unknown, or pending: to be tried again
    reason: str | None = None
    age_s: float = 0.0
    wait_s: float | None = None
    burn: bool = True  # False: this attempt does not count (the token was wrong, not the message)
    duration_ms: int | None = None
    status_code: int | None = None
    error: str | None = None
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """Why a claim came back empty: what is left in the batch, when it is due, and whether anything lets it go."""

    status: str
    audience_stale: bool
    breaker_state: str
    breaker_reason: str | None
    breaker_probe_s: float | None
    closes_s: float
    updated: float  # epoch seconds: when the campaign's row was last written
    pending: int
    sending: int
    due_s: float | None
    lease_s: float | None

    @property
    def is_due(self) -> bool:
        """Whether something is pending that waits for nothing of its own."""
        return self.pending > 0 and (self.due_s or 0.0) <= 0.0


def batch(connection: db.Connection, campaign_id: int, number: int) -> Batch:
    """One batch of a campaign. Raises NotFound."""
    row = db.one(connection, SQL["batch"], {"campaign_id": campaign_id, "number": number})
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no batch {number}")
    return Batch(**row)


def plan_for_sending(connection: db.Connection) -> None:
    """Tie this session's plans to what sending needs, whatever the statistics say."""
    connection.execute(SQL["plan_for_sending"])


def take_lease(connection: db.Connection, campaign_id: int, number: int, holder: str) -> int:
    """The fencing token of a new lease on sending a batch. Raises NotFound.

    Several tasks may hold leases on one batch (a retry beside a task that is only presumed dead): row locks and tokens
    keep them apart.
    """
    parameters = {"campaign_id": campaign_id, "batch": number, "holder": holder, "lease": LEASE}
    row = db.one(connection, SQL["take_lease"], parameters)
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return int(row["token"])


def renew_lease(connection: db.Connection, token: int) -> Terms | None:
    """The terms to send on, or None: this lease ran out."""
    row = db.one(connection, SQL["renew_lease"], {"token": token, "lease": LEASE})
    return Terms(**row) if row else None


def release_lease(connection: db.Connection, token: int) -> None:
    """Give the lease back: its task has recorded everything it claimed."""
    connection.execute(SQL["release_lease"], {"token": token})


def end_lease(connection: db.Connection, token: int) -> None:
    """Give the lease up: what it still holds is to be settled like the claims of a dead task, by whoever comes by."""
    connection.execute(SQL["end_lease"], {"token": token})


def return_unposted(
    connection: db.Connection, campaign_id: int, token: int, batch: Batch, known: Collection[int]
) -> int:
    """Give back what the lease holds beyond the ids its task knows of. Returns how many."""
    parameters = {"campaign_id": campaign_id, "token": token, "known": list(known), **batch.id_range}
    return connection.execute(SQL["return_unposted"], parameters).rowcount


def claim(
    connection: db.Connection,
    campaign_id: int,
    token: int,
    terms: Terms,
    *,
    from_id: int,
    last_id: int,
    limit: int,
    last_call_s: float = 0.0,
    zones: Mapping[str, Span] | None = None,
    is_probe: bool = False,
) -> list[Claim]:
    """Up to `limit` messages to post now, by id, from `from_id` on.

    None outside the window, in its last `last_call_s` seconds, while the campaign is not running, when the lease ran
    out, while the breaker is open (`is_probe`: this task probes), or where `terms` are no longer true. `zones`: of each
    time zone the span of local hours that holds now or comes next. The caller commits before it posts the first.
    """
    parameters = {
        "campaign_id": campaign_id, "token": token, "from_id": from_id, "last_id": last_id, "limit": limit,
        "last_call_s": last_call_s, "gateway": terms.gateway, "is_paced": terms.is_paced, "is_probe": is_probe,
        "local_from": terms.local_from, "local_to": terms.local_to, **_zones(zones),
    }  # fmt: skip
    with connection.cursor(row_factory=args_row(Claim)) as cursor:
        return cursor.execute(SQL["claim_messages"], parameters).fetchall()


def zones_of_batch(connection: db.Connection, campaign_id: int, batch: Batch) -> tuple[datetime, list[str]]:
    """The database's clock (aware), and the time zones of the clients whom a batch has still to reach."""
    row = db.one(connection, SQL["zones_of_batch"], {"campaign_id": campaign_id, **batch.id_range})
    assert row is not None  # noqa: S101 - a SELECT without FROM
    return row["now"], row["zones"]


def follow_local_hours(
    connection: db.Connection, campaign_id: int, batch: Batch, terms: Terms, zones: Mapping[str, Span] | None
) -> int:
    """Let a batch's pending messages wait for their clients' local hours, or expire. Returns how many changed.

    None where the hours are no longer those of `terms`: what a task still believes must not cost anybody the message.
    """
    parameters = {
        "campaign_id": campaign_id, "local_from": terms.local_from, "local_to": terms.local_to,
        **batch.id_range, **_zones(zones),
    }  # fmt: skip
    return connection.execute(SQL["follow_local_hours"], parameters).rowcount


def _zones(zones: Mapping[str, Span] | None) -> dict[str, list[Any] | None]:
    return {
        "zones": None if zones is None else list(zones),
        "opens_at": None if zones is None else [span.opens_at for span in zones.values()],
        "closes_at": None if zones is None else [span.closes_at for span in zones.values()],
    }


def record(connection: db.Connection, campaign_id: int, token: int, outcomes: Sequence[Outcome]) -> int:
    """Write outcomes. Returns how many counted: one whose message somebody else has claimed since changes nothing."""
    outcomes = sorted(outcomes, key=attrgetter("id"))  # the order in which everybody locks messages
    sent = [outcome for outcome in outcomes if outcome.state == "sent"]
    others = [outcome for outcome in outcomes if outcome.state != "sent"]
    counted = 0
    if sent:
        parameters = {"campaign_id": campaign_id, "token": token, **_columns(sent, "id", "attempt", "age_s")}
        counted += connection.execute(SQL["record_sent"], parameters).rowcount
    if others:
        names = ("id", "attempt", "state", "reason", "age_s", "wait_s", "burn", "duration_ms", "status_code")
        parameters = {"campaign_id": campaign_id, "token": token, **_columns(others, *names)}
        parameters["error"] = [storable(outcome.error) for outcome in others]
        parameters["reply"] = [storable(outcome.reply) for outcome in others]
        counted += connection.execute(SQL["record_outcomes"], parameters).rowcount
    return counted


def _columns(outcomes: Sequence[Outcome], *names: str) -> dict[str, Any]:
    return {name: [getattr(outcome, name) for outcome in outcomes] for name in names}


def recover_claims(
    connection: db.Connection, campaign_id: int, batch: Batch, tell: Callable[..., None] | None = None
) -> int:
    """Settle what dead tasks had claimed of a batch: `unknown`, or `pending` by the campaign's `on_doubt`. How many.

    `tell`: takes a log line for each while their rows are locked; None: the log of this module.
    """
    return recover_range(connection, campaign_id, **batch.id_range, tell=tell)


def recover_range(
    connection: db.Connection,
    campaign_id: int,
    first_id: int | None,
    last_id: int | None,
    tell: Callable[..., None] | None = None,
) -> int:
    """The same, of a range of ids; None: there is none."""
    parameters = {"campaign_id": campaign_id, "first_id": first_id, "last_id": last_id}
    recovered = connection.execute(SQL["recover_claims"], parameters).fetchall()
    for message in recovered:
        (tell or log.warning)("not sent", campaign_id=campaign_id, reason="task_died", **message)
    return len(recovered)


def outlook(
    connection: db.Connection, campaign_id: int, token: int, number: int, batch: Batch, last_call_s: float = 0.0
) -> Outlook:
    """What is left of a batch for the holder of `token`; `last_call_s` as for `claim`. Raises NotFound."""
    parameters = {
        "campaign_id": campaign_id, "token": token, "batch": number, "last_call_s": last_call_s, **batch.id_range
    }  # fmt: skip
    row = db.one(connection, SQL["batch_outlook"], parameters)
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return Outlook(**row)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that failed or is in doubt: what it made of the message, why, when it ended, how long it took."""

    attempt: int
    state: str
    reason: str
    ended_at: datetime
    duration_ms: int | None
    status_code: int | None
    error: str | None
    reply: str | None


def attempts(connection: db.Connection, message_id: int) -> list[Attempt]:
    """Every attempt at one message that failed or is in doubt, by time."""
    rows = connection.execute(SQL["attempts_of_message"], {"message_id": message_id})
    return [Attempt(**row) for row in rows]


def storable(text: str | None) -> str | None:
    """At most 1 KB, and no NUL, which PostgreSQL's text cannot hold."""
    return None if text is None else text[:MAX_REPLY].replace("\x00", "\N{REPLACEMENT CHARACTER}")
