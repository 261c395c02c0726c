"""The ledger: leases, claims, outcomes. Functions take a connection and never commit; durations are in seconds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from mailing import db
from mailing.errors import NotFound
from mailing.models import MAX_REPLY

SQL = db.queries("messages")

LEASE = timedelta(seconds=30)
"""How long a task that says nothing is believed to be alive: two missed renewals are forgiven."""

RENEW_S = 10.0


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

    @property
    def label(self) -> str:
        """For people: "messages 1–5,000"."""
        return f"messages {self.first_position:,}–{self.first_position + self.size - 1:,}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A task's right to claim, with the fencing token that its claims carry, and the gateway to post them to."""

    token: int
    gateway: str
    connection_id: str
    endpoint: str
    requests_in_flight: int
    timeout_s: float
    repeat_codes: list[int]


@dataclass(frozen=True, slots=True)
class Claim:
    """One message to post now. `left_s`: seconds until the campaign's stop, as of the claim."""

    id: int
    attempts: int
    phone_number: str
    text: str
    left_s: float


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
    """Why a claim came back empty: what is left in the batch, when it is due, and whether the campaign lets it go."""

    status: str
    closes_s: float
    is_over: bool
    pending: int
    sending: int
    due_s: float | None
    lease_s: float | None


def batch(connection: db.Connection, campaign_id: int, number: int) -> Batch:
    """One batch of a campaign. Raises NotFound."""
    row = db.one(connection, SQL["batch"], {"campaign_id": campaign_id, "number": number})
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no batch {number}")
    return Batch(**row)


def plan_for_sending(connection: db.Connection) -> None:
    """Tie this session's plans to what sending needs, whatever the statistics say."""
    connection.execute(SQL["plan_for_sending"])


def take_lease(connection: db.Connection, campaign_id: int, number: int, holder: str) -> Lease:
    """A lease on sending a batch, with a token of its own. Raises NotFound.

    Several tasks may hold leases on one batch (a retry beside a task that is only presumed dead): row locks and tokens
    keep them apart.
    """
    parameters = {"campaign_id": campaign_id, "batch": number, "holder": holder, "lease": LEASE}
    row = db.one(connection, SQL["take_lease"], parameters)
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return Lease(**row)


def renew_lease(connection: db.Connection, token: int) -> int | None:
    """How many live leases share the gateway (this one included), or None: this one ran out."""
    row = db.one(connection, SQL["renew_lease"], {"token": token, "lease": LEASE})
    return int(row["sharers"]) if row else None


def release_lease(connection: db.Connection, token: int) -> None:
    """Give the lease back. What it still holds is settled like the claims of a dead task."""
    connection.execute(SQL["release_lease"], {"token": token})


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
    *,
    from_id: int,
    last_id: int,
    limit: int,
    last_call_s: float = 0.0,
) -> list[Claim]:
    """Up to `limit` messages to post now, by id, from `from_id` on.

    None outside the window, in its last `last_call_s` seconds, while the campaign is not running, or when the lease
    ran out. The caller commits before it posts the first of them.
    """
    parameters = {
        "campaign_id": campaign_id, "token": token, "from_id": from_id, "last_id": last_id, "limit": limit,
        "last_call_s": last_call_s,
    }  # fmt: skip
    return [Claim(**row) for row in connection.execute(SQL["claim_messages"], parameters)]


def record(connection: db.Connection, campaign_id: int, token: int, outcomes: Sequence[Outcome]) -> int:
    """Write outcomes. Returns how many counted: one whose message somebody else has claimed since changes nothing."""
    parameters: dict[str, object] = {
        name: [getattr(outcome, name) for outcome in outcomes]
        for name in ("id", "attempt", "state", "reason", "age_s", "wait_s", "burn", "duration_ms", "status_code")
    }
    parameters["error"] = [_storable(outcome.error) for outcome in outcomes]
    parameters["reply"] = [_storable(outcome.reply) for outcome in outcomes]
    return connection.execute(
        SQL["record_outcomes"], {"campaign_id": campaign_id, "token": token, **parameters}
    ).rowcount


def recover_claims(connection: db.Connection, campaign_id: int, batch: Batch) -> int:
    """Settle what dead tasks had claimed of a batch: `unknown`, or `pending` by the campaign's `on_doubt`. How many."""
    return connection.execute(SQL["recover_claims"], {"campaign_id": campaign_id, **batch.id_range}).rowcount


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


def _storable(text: str | None) -> str | None:
    """At most 1 KB, and no NUL, which PostgreSQL's text cannot hold."""
    return None if text is None else text[:MAX_REPLY].replace("\x00", "\N{REPLACEMENT CHARACTER}")
