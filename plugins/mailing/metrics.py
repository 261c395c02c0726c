"""The figures of the metrics, as the mailing database has them now. Functions take a connection and never commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mailing import db, throttle
from mailing.metric_list import MAX_CAMPAIGNS, MAX_REASONS, PREFIX
from mailing.models import BREAKER_STATES, CAMPAIGN_STATUSES, MESSAGE_STATES, WEBHOOK_STATES

SQL = db.queries("metrics")

PATIENCE = "1s"
"""Of one statement. Prometheus waits 10 s for all of them."""

LABELS = ("gateway", "state", "reason", "status", "campaign")

PARAMETERS = {
    "states": list(MESSAGE_STATES),
    "statuses": list(CAMPAIGN_STATUSES),
    "breaker_states": list(BREAKER_STATES),
    "webhook_states": list(WEBHOOK_STATES),
    "campaigns": MAX_CAMPAIGNS,
    "reasons": MAX_REASONS,
    "hungry_s": throttle.HUNGRY_S,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure: a metric's name, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


def read(connection: db.Connection) -> list[Sample]:
    """Every figure, as of one moment: wants a transaction that has just begun.

    Raises psycopg.errors.QueryCanceled where a statement takes longer than PATIENCE.
    """
    connection.execute(db.queries("statistics")["one_moment"])
    connection.execute(db.queries("statistics")["as_of"], {"patience": PATIENCE})
    samples: list[Sample] = []
    for statement in SQL.values():
        for row in connection.execute(statement, PARAMETERS):
            samples.extend(_of_row(row))
    return samples


def _of_row(row: Mapping[str, Any]) -> list[Sample]:
    """Each column that is no label is a metric of its own."""
    labels = {name: str(value) for name, value in row.items() if name in LABELS and value is not None}
    return [
        Sample(PREFIX + name, labels, float(value))
        for name, value in row.items()
        if name not in LABELS and value is not None
    ]
