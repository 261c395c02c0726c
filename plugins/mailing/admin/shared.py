"""What several open pages ask for at once, read once: for those that one server process serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from cachetools import TTLCache


class Dated(Protocol):
    """Something that was so at `now`."""

    @property
    def now(self) -> datetime:
        """By the clock of who was asked."""


T = TypeVar("T", bound=Dated)


class Shared(Generic[T]):
    """A value of each key, kept for `age_s` seconds; no more than `size` of them. Errors are not kept.

    One reads, the others wait for it. Nobody is given what is older than they have seen (`seen`, by the values' own
    clock): a page that was loaded after a button was pressed never goes back to before. For one event loop.
    """

    def __init__(self, age_s: float, size: int) -> None:
        self._kept: TTLCache[int, T] = TTLCache(size, age_s)
        self._reading: dict[int, asyncio.Task[T]] = {}

    async def get(self, key: int, seen: datetime | None, read: Callable[[], Awaitable[T]]) -> T:
        """What is kept, or what `read` returns. `seen` None: what is read from now on."""
        kept = self._kept.get(key)
        if kept is not None and seen is not None and kept.now >= seen:
            return kept
        if (reading := self._reading.get(key)) is not None:
            value = await asyncio.shield(reading)  # who goes away takes nothing from those who wait with them
            if seen is not None and value.now >= seen:
                return value
        if (reading := self._reading.get(key)) is None:  # else somebody who waited, too, was faster
            reading = self._reading[key] = asyncio.create_task(self._read(key, read))
        return await asyncio.shield(reading)

    async def _read(self, key: int, read: Callable[[], Awaitable[T]]) -> T:
        try:
            value = await read()
            self._kept[key] = value
            return value
        finally:
            del self._reading[key]
