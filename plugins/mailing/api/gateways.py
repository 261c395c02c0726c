"""Gateways: where messages are sent through, how fast, and whether they are well. Tokens are Airflow's to keep."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from mailing import gate, gateways, pool
from mailing.api.common import NOT_FOUND, READS, WRITES, Body, Page, Storable

router = APIRouter(prefix="/api/gateways", tags=["gateways"])

Name = Annotated[str, Storable, Path(min_length=1, max_length=200)]

MAX_INT = 2**31 - 1
MAX_CODES = 100


class Gateway(BaseModel):
    """A gateway as it stands."""

    name: str
    endpoint: str = Field(description="Where messages are posted, below the host of its connection.")
    messages_per_second: float | None = Field(description="Of all campaigns together; null: as fast as it takes them.")
    requests_in_flight: int = Field(description="Of all campaigns together, at a time.")
    timeout_s: float
    repeat_codes: list[int] = Field(description="The codes of a reply after which a message is tried again.")
    token_warning_s: int = Field(description="How many seconds before its token expires to warn.")
    token_expires_at: datetime | None = Field(description="As its token says, if it does; looked at every minute.")
    breaker_state: Literal["closed", "open", "half_open"] = Field(
        description="Closed: all is well. Open: nobody sends. Half open: one task probes it."
    )
    breaker_reason: str | None = Field(description="Of the last failure.")
    breaker_changed_at: datetime | None = Field(description="When it last opened or closed.")
    breaker_probe_at: datetime | None = Field(description="Open: when it is probed next.")


class GatewayLimits(Body):
    """The limits to change; what is left out stays as it is. Only `messages_per_second` may be null: no limit."""

    # Their defaults are never read, and no null: that would be in the documents as something to send.
    messages_per_second: float | None = Field(None, gt=0, lt=1e9, allow_inf_nan=False)
    requests_in_flight: int = Field(default_factory=int, ge=1, le=10_000)
    timeout_s: float = Field(default_factory=float, gt=0, le=300, allow_inf_nan=False)
    repeat_codes: list[Annotated[int, Field(ge=-MAX_INT, le=MAX_INT)]] = Field(
        default_factory=list, max_length=MAX_CODES
    )
    token_warning_s: int = Field(default_factory=int, ge=0, le=MAX_INT)


@router.get("/", responses=READS)
def list_gateways(user: gate.Reader) -> Page[Gateway]:
    """All gateways, by name; there are few."""
    with pool.transaction() as connection:
        found = gateways.all_gateways(connection)
    return Page(items=[_gateway(each) for each in found], next_cursor=None)


@router.get("/{name}/", responses=READS | NOT_FOUND)
def get_gateway(name: Name, user: gate.Reader) -> Gateway:
    """One gateway."""
    with pool.transaction() as connection:
        return _gateway(gateways.get(connection, name))


@router.patch("/{name}/", responses=WRITES | NOT_FOUND)
def change_gateway(name: Name, body: GatewayLimits, user: gate.Admin) -> Gateway:
    """Change limits while messages are being sent: tasks follow within seconds."""
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    with pool.transaction() as connection:
        if changes:
            gateways.change(connection, name, actor=user.name, **changes)
        return _gateway(gateways.get(connection, name))


def _gateway(row: gateways.GatewayRow) -> Gateway:
    return Gateway.model_validate(row, from_attributes=True)
