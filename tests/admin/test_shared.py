"""What several pages ask for at once is read once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from mailing.admin.shared import Shared

START = datetime(2040, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Value:
    now: datetime


class Ledger:
    """Something slow: it answers when it is let. Each of its answers is a second later."""

    def __init__(self, *, is_let: bool = True) -> None:
        self.reads = 0
        self.let = asyncio.Event()
        if is_let:
            self.let.set()

    async def read(self) -> Value:
        self.reads += 1
        value = Value(START + timedelta(seconds=self.reads))
        await self.let.wait()
        return value

    async def fail(self) -> Value:
        self.reads += 1
        await self.let.wait()
        raise OSError("away")


def test_what_was_read_is_kept_for_a_while():
    async def scene():
        shared, ledger = Shared(60, 10), Ledger()
        first = await shared.get(1, START, ledger.read)
        assert await shared.get(1, first.now, ledger.read) is first
        assert await shared.get(2, START, ledger.read) is not first
        short = Shared(0, 10)
        assert await short.get(1, START, ledger.read) is not await short.get(1, START, ledger.read)

    asyncio.run(scene())


def test_nobody_is_given_what_is_older_than_they_have_seen():
    async def scene():
        shared, ledger = Shared(60, 10), Ledger()
        first = await shared.get(1, START, ledger.read)
        later = await shared.get(1, first.now + timedelta(microseconds=1), ledger.read)
        assert later.now > first.now
        assert await shared.get(1, None, ledger.read) is not later
        assert (await shared.get(1, START + timedelta(days=9), ledger.read)).now == START + timedelta(seconds=4)

    asyncio.run(scene())


def test_of_many_who_ask_at_once_one_reads():
    async def scene():
        shared, ledger = Shared(60, 10), Ledger(is_let=False)
        asking = [asyncio.create_task(shared.get(1, START, ledger.read)) for _ in range(20)]
        await asyncio.sleep(0)
        newer = [asyncio.create_task(shared.get(1, None, ledger.read)) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()  # the one who reads goes away
        ledger.let.set()
        found = await asyncio.gather(*asking[1:], *newer)
        assert ledger.reads == 2
        assert [value.now.second for value in found] == [1] * 19 + [
            2
        ] * 20  # who has come later may have pressed a button

    asyncio.run(scene())


def test_an_error_is_everybodys_and_is_not_kept():
    async def scene():
        shared, ledger = Shared(60, 10), Ledger(is_let=False)
        asking = [asyncio.create_task(shared.get(1, START, ledger.fail)) for _ in range(3)]
        await asyncio.sleep(0)
        ledger.let.set()
        assert [type(each) for each in await asyncio.gather(*asking, return_exceptions=True)] == [OSError] * 3
        with pytest.raises(OSError, match="away"):
            await shared.get(1, START, ledger.fail)
        assert (await shared.get(1, START, ledger.read)).now == START + timedelta(seconds=3)
        assert ledger.reads == 3

    asyncio.run(scene())


def test_no_more_are_kept_than_were_asked_for():
    async def scene():
        shared, ledger = Shared(60, 10), Ledger()
        for key in range(100):
            await shared.get(key, START, ledger.read)
        assert len(shared._kept) == 10
        assert not shared._reading

    asyncio.run(scene())
