"""The window of a campaign: `sending_start <= now < sending_stop`. Pure; every moment is aware.

The rule is enforced where a byte could leave: in the claim (include/sql/queries/messages.sql, by the database's
clock) and in the time given to each request (`sender`), which never outlives the stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

LEAD = timedelta(days=1)
"""How long before its start a campaign gets its DAG: enough to see tomorrow's campaigns in Airflow's list."""

LAST_CALL = timedelta(seconds=1)
"""A request that would have less time than this before the stop is not begun: the gateway answers in 0.25 to 0.75 s,
and what the stop cuts off is in doubt for ever, while what stays pending is simply expired."""

TRAIL = timedelta(days=1)
"""How long after its stop it keeps it: a run whose DAG is gone hangs, so stragglers need time to close."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` (included) to `stop` (excluded)."""

    start: datetime
    stop: datetime

    def is_open(self, now: datetime) -> bool:
        """Whether messages may leave at `now`."""
        return self.start <= now < self.stop

    def is_over(self, now: datetime) -> bool:
        """Whether nothing may leave any more."""
        return now >= self.stop

    def is_relevant(self, now: datetime) -> bool:
        """Whether the campaign is to have a DAG at `now`."""
        return self.start - LEAD <= now < self.stop + TRAIL


def next_run(window: Window, wake_at: datetime | None, last_run: datetime | None, now: datetime) -> datetime | None:
    """When the campaign's DAG is to run next, or None.

    It runs once for its start (at once, if that is past: `now` may be any time inside the window) and once more for
    each later `wake_at`. A start or wake-up that is not after `last_run` has had its run. Nothing runs once the
    window is over.
    """
    if window.is_over(now):
        return None
    due = [at for at in (window.start, wake_at) if at is not None and (last_run is None or at > last_run)]
    return min((at for at in due if at < window.stop), default=None)
