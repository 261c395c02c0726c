"""Numbers from environment variables: who writes one wrong is told so, and nothing stops for it."""

from __future__ import annotations

import os

import structlog

log = structlog.get_logger(__name__)


def number(name: str, default: float, unit: str) -> float:
    """What the variable says, in its unit (plural: `seconds`), or the default where it is not set or empty.

    Below 0, and where it is no number (`2m`, `8MiB`), the log names it and the default is taken: Airflow reads these
    while it starts its API server, without which no task runs.
    """
    given = os.environ.get(name)
    if not given:
        return default
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        log.error(f"{name}={given}: wanted a number of {unit}; it is taken for {default:.15g}")
        return default
    return value
