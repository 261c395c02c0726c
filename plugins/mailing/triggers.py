"""What a task waits for without a worker slot: a moment, the gateway, or an operator. Runs in Airflow's triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import psycopg
import structlog
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from mailing import campaigns, db, gateways

T = TypeVar("T")

log = structlog.get_logger(__name__)

POLL_S = 2.0
"""How often the campaigns are looked at: by one query for all the triggers of this process."""


UNKNOWN_S = 30.0
"""After how long a task looks for itself where a campaign is not watched: it was deleted, or its stop is long ago."""


class CampaignTrigger(BaseTrigger):
    """Fires after `seconds`, or as soon as a campaign's task has a reason to look again.

    Reasons: the campaign's row was written (resumed, edited, cancelled), or its window is over; with `for_gateway`
    also: the breaker lets somebody try.

    `updated`: when the campaign's row was last written, epoch seconds, as the waiting task saw it; None: nothing
    but the moment counts. The event is `{"is_probe": …}`: true for the one that may probe the gateway.
    """

    def __init__(
        self,
        campaign_id: int,
        seconds: float,
        updated: float | None,
        for_gateway: bool = False,
        until: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.campaign_id = campaign_id
        self.updated = updated
        self.for_gateway = for_gateway
        self.until = time.time() + seconds if until is None else until  # a restarted triggerer goes on waiting

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow stores it."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "campaign_id": self.campaign_id, "seconds": 0.0, "updated": self.updated,
                "for_gateway": self.for_gateway, "until": self.until,
            },
        )  # fmt: skip

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once."""
        while (event := await self._look()) is None:
            await asyncio.sleep(max(0.1, min(POLL_S, self.until - time.time())))
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _look(self) -> dict[str, bool] | None:
        if time.time() >= self.until:
            return {"is_probe": False}
        if self.updated is None:
            return None
        signals = await _SIGNALS.read()
        if signals is None:
            return None
        signal = signals.get(self.campaign_id)
        if signal is None or signal["closes_s"] <= 0 or signal["updated"] != self.updated:
            return {"is_probe": False}
        if not self.for_gateway:
            return None
        if signal["breaker_state"] == "closed":
            return {"is_probe": False}
        if (signal["breaker_probe_s"] or 0.0) <= 0 and await _SIGNALS.take_probe(signal["gateway"]):
            return {"is_probe": True}
        return None


class CampaignEndTrigger(BaseTrigger):
    """Fires once a campaign has ended; also, after a while, where nothing is known of it, so that its task looks."""

    def __init__(self, campaign_id: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.campaign_id = campaign_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow stores it."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"campaign_id": self.campaign_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once."""
        unknown_until = time.monotonic() + UNKNOWN_S
        while not await self._has_ended(time.monotonic() >= unknown_until):
            await asyncio.sleep(POLL_S)
        yield TriggerEvent({"campaign_id": self.campaign_id})  # type: ignore[no-untyped-call]

    async def _has_ended(self, if_unknown: bool) -> bool:
        signals = await _SIGNALS.read()
        if signals is None:
            return False
        signal = signals.get(self.campaign_id)
        if signal is None:
            return if_unknown
        return bool(signal["has_ended"]) and signal["status"] in ("finished", "cancelled")


class _Signals:
    """The state of all campaigns as of at most `POLL_S` ago, read by whoever asks first; the others get what it got."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._read_at = -POLL_S
        self._signals: dict[int, dict[str, Any]] | None = None
        self._probed: set[str] = set()  # gateways whose probe was asked for since

    async def read(self) -> dict[int, dict[str, Any]] | None:
        """The signals by campaign; None: the database is away."""
        async with self._lock:
            if time.monotonic() - self._read_at >= POLL_S * 0.75:
                self._signals = await _unless_away(_read)
                self._read_at = time.monotonic()
                self._probed.clear()
        return self._signals

    async def take_probe(self, gateway: str) -> bool:
        """Whether the caller may probe the gateway. One of this process asks; whoever comes after it may not."""
        async with self._lock:
            if gateway in self._probed:
                return False
            self._probed.add(gateway)
            return bool(await _unless_away(lambda: _take_probe(gateway)))


_SIGNALS = _Signals()


async def _unless_away(work: Callable[[], T]) -> T | None:
    """What `work` returns, run in a thread; None where the database is away."""
    try:
        return await sync_to_async(work)()
    except psycopg.Error as error:
        log.warning("the database is away", error=type(error).__name__)
        return None


def _read() -> dict[int, dict[str, Any]]:
    with db.transaction() as connection:
        return campaigns.signals(connection)


def _take_probe(gateway: str) -> bool:
    with db.transaction() as connection:
        return gateways.take_probe(connection, gateway)
