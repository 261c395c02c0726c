"""Waiting for what happens beside the test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mailing import db

T = TypeVar("T")


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def in_a_thread(
    work: Callable[[], object], may_raise: type[BaseException] | tuple[type[BaseException], ...] = ()
) -> Iterator[list[BaseException]]:
    """Run `work` beside the block and until it is done. What it raised is in the list then, or raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield errors
    thread.join(60)
    assert not thread.is_alive()
    for error in errors:
        if not isinstance(error, may_raise):
            raise error


@contextlib.contextmanager
def held_up(connection: db.Connection, work: Callable[[db.Connection], object], lock: str) -> Iterator[None]:
    """Run `work` in a transaction of its own, held up by `lock` for the time of the block: what the block writes comes
    between two statements of `work`, which is committed after it.

    `lock`: a statement that takes a lock which `work` runs into.
    """

    def run() -> None:
        with db.transaction() as own:
            work(own)

    with db.connect() as holder:
        holder.execute(lock)  # type: ignore[arg-type]
        with in_a_thread(run) as errors:
            try:
                wait_until(lambda: waiting_for_locks(connection) or errors)
                yield
            finally:
                holder.rollback()


def broken_off(connection: db.Connection, table: str, ask: Callable[[], T]) -> T:
    """What `ask` returns when its statement that reads `table` is broken off, as the statement timeout does it."""
    with db.connect() as holder, ThreadPoolExecutor(1) as threads:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")  # type: ignore[arg-type]
        asking = threads.submit(ask)
        wait_until(lambda: waiting_for_locks(connection) == 1)
        connection.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return asking.result()


def waiting_for_locks(connection: db.Connection) -> int:
    """How many sessions of this database wait for a lock."""
    row = connection.execute(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return row["n"] if row else 0
