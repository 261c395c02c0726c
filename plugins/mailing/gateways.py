"""Gateways as rows: the breaker and the throttle that all tasks share, limits, expiry of the token.

Functions take a connection and never commit. Speaking to a gateway is `gateway`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from mailing import audit, breaker, db, throttle
from mailing.breaker import Breaker, Report
from mailing.errors import InvalidInput, NotFound
from mailing.throttle import Booking, Schedule

SQL = db.queries("gateways")

CHANGEABLE = ("messages_per_second", "requests_in_flight", "timeout_s", "repeat_codes", "token_warning_s")

WRONG_VALUES = {
    "gateways_messages_per_second_positive_check": "messages_per_second: wanted a number above 0, or none",
    "gateways_requests_in_flight_range_check": "requests_in_flight: wanted 1 to 10000",
    "gateways_timeout_s_range_check": "timeout_s: wanted seconds, above 0 and up to 300",
    "gateways_token_warning_s_range_check": "token_warning_s: wanted seconds, 0 or more",
}
"""What was wanted, by the constraint that a value broke."""


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """A gateway as it stands: where it is, its limits (`messages_per_second`: None is none), breaker and token."""

    name: str
    connection_id: str
    endpoint: str
    messages_per_second: float | None
    requests_in_flight: int
    timeout_s: float
    repeat_codes: list[int]
    breaker_state: str
    breaker_reason: str | None
    breaker_changed_at: datetime | None
    breaker_probe_at: datetime | None
    token_expires_at: datetime | None
    token_warning_s: int


def all_gateways(connection: db.Connection) -> list[GatewayRow]:
    """Every gateway, by name."""
    return [GatewayRow(**row) for row in connection.execute(SQL["gateways"], {"gateway": None})]


def get(connection: db.Connection, name: str) -> GatewayRow:
    """One gateway. Raises NotFound."""
    row = db.one(connection, SQL["gateways"], {"gateway": name})
    if row is None:
        raise NotFound(f"gateway {name}: there is no such gateway")
    return GatewayRow(**row)


def change(connection: db.Connection, name: str, *, actor: str, **changes: Any) -> None:
    """Change some of `CHANGEABLE`; tasks that are sending follow within seconds.

    Raises NotFound, and InvalidInput for values that break a rule; then nothing is written.
    """
    thing = f"gateway {name}"
    audit.check_actor(thing, actor)
    if unknown := sorted(set(changes) - set(CHANGEABLE)):
        raise InvalidInput(f"{thing}: {', '.join(unknown)}: wanted some of {', '.join(CHANGEABLE)}")
    values = dict.fromkeys(CHANGEABLE) | changes
    try:
        with connection.transaction():
            row = db.one(connection, SQL["change_gateway"], {"gateway": name, "given": list(changes), **values})
    except psycopg.IntegrityError as error:
        wanted = WRONG_VALUES.get(error.diag.constraint_name or "", error.diag.message_primary or "")
        column = error.diag.column_name or wanted.partition(":")[0]
        raise InvalidInput(f"{thing}: {wanted}, got {changes.get(column)}", [column]) from error
    except (psycopg.DataError, psycopg.errors.DatatypeMismatch) as error:
        raise InvalidInput(f"{thing}: {error.diag.message_primary or error}") from error
    if row is None:
        raise NotFound(f"{thing}: there is no such gateway")
    audit.record(connection, actor, "change_gateway", gateway=name, changed=sorted(changes))


def report(connection: db.Connection, gateway: str, met: Report, *, is_probe: bool = False) -> Breaker | None:
    """Tell the breaker what a task met. The breaker as it is then, or None where all is well and nothing changed."""
    if not met.failures and not is_probe:
        if met.is_well:
            connection.execute(SQL["calm_breaker"], {"gateway": gateway})
        return None
    row = db.one(connection, SQL["lock_breaker"], {"gateway": gateway})
    if row is None:
        return None
    before = Breaker(**row)
    after, probe_in_s = breaker.after(before, met, is_probe)
    if after != before or probe_in_s is not None:
        connection.execute(SQL["save_breaker"], {"gateway": gateway, "probe_in_s": probe_in_s, **asdict(after)})
    return after


def take_probe(connection: db.Connection, gateway: str) -> bool:
    """Whether the caller may probe: the breaker is open, the time has come, and nobody else was first."""
    parameters = {"gateway": gateway, "probe": timedelta(seconds=breaker.PROBE_S)}
    return db.one(connection, SQL["take_probe"], parameters) is not None


def return_probe(connection: db.Connection, gateway: str) -> None:
    """Of a task that may probe and has nothing to probe with."""
    connection.execute(SQL["return_probe"], {"gateway": gateway})


def lock_schedule(connection: db.Connection, campaign_id: int, gateway: str) -> tuple[Schedule, float] | None:
    """Where campaign and gateway stand in the queue for slots, and the database's clock (epoch seconds).

    Locked until the transaction ends: keep it short. None: the campaign sends through another gateway by now.
    """
    parameters = {"campaign_id": campaign_id, "gateway": gateway, "hungry_s": throttle.HUNGRY_S}
    connection.execute(SQL["lock_gateway_throttle"], parameters)
    connection.execute(SQL["lock_campaign_throttle"], parameters)
    row = db.one(connection, SQL["schedule"], parameters)
    if row is None:
        return None
    now = row.pop("now")
    return Schedule(**row), now


def save_schedule(connection: db.Connection, campaign_id: int, gateway: str, booking: Booking) -> None:
    """Keep the slots that were booked."""
    parameters = {
        "campaign_id": campaign_id, "gateway": gateway, "is_hungry": booking.is_hungry,
        "gateway_last": booking.schedule.gateway_last, "campaign_last": booking.schedule.campaign_last,
        "share_last": booking.schedule.share_last,
    }  # fmt: skip
    connection.execute(SQL["save_gateway_schedule"], parameters)
    connection.execute(SQL["save_campaign_schedule"], parameters)


def save_token_expiry(connection: db.Connection, gateway: str, expires: float | None) -> None:
    """Keep when the gateway's token expires (epoch seconds), as its connection says; None: it does not say."""
    connection.execute(SQL["save_token_expiry"], {"gateway": gateway, "expires": expires})
