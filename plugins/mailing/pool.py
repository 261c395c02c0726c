"""The connections that a web server keeps open: each request takes one and gives it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore
from typing import Any, cast

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from mailing import db
from mailing.errors import Busy

MAX_CONNECTIONS = 16
PATIENCE_S = 3.0
"""How long a request waits for a connection before it is told that the database is away, or that it is busy."""

LOCK_TIMEOUT = "2s"
STATEMENT_TIMEOUT = "30s"
"""Nobody waits longer for a row that somebody else writes (an import does so for minutes), or for an answer: else those
who wait would take every connection, and a campaign could not be paused."""

MAX_WAITING = 32
"""Requests that wait for a connection; Airflow's own share the server's threads with them."""

AT_LENGTH = {what: BoundedSemaphore(2) for what in ("import", "full", "outcomes")}
"""What may take minutes, and how many of it at a time."""


class Full(Busy, psycopg.OperationalError):
    """Later: all connections are in use."""


@contextmanager
def transaction() -> Iterator[db.Connection]:
    """A connection for one transaction: committed at the end of the block, rolled back by an error, then given back.

    Raises Full when all are in use; psycopg_pool.PoolTimeout or TooManyRequests (each a psycopg.OperationalError, as
    Full is) when the database is away.
    """
    with _pool().connection() as connection, connection.transaction():  # as in db.transaction
        yield connection


@contextmanager
def at_length(what: str) -> Iterator[db.Connection]:
    """As `transaction`, for what may take minutes: on a connection of its own, without those limits.

    `what`: a key of AT_LENGTH. Raises Busy where as many are at it already as may be.
    """
    if not AT_LENGTH[what].acquire(blocking=False):
        raise Busy(f"{what}: others are at it; as many at a time as may be")
    try:
        with db.transaction() as connection:
            yield connection
    finally:
        AT_LENGTH[what].release()


def close() -> None:
    """Close what is open; the next transaction begins anew. For tests, each of which has a database of its own."""
    if _pool.cache_info().currsize:
        _pool().close()
        _pool.cache_clear()


@cache
def _pool() -> _Pool:
    """Made by the first request: API servers fork, and a pool does not survive that."""
    return _Pool(
        connection_class=cast("type[db.Connection]", _Connection),
        min_size=0,
        max_size=MAX_CONNECTIONS,
        timeout=PATIENCE_S,
        max_waiting=MAX_WAITING,
        reconnect_timeout=PATIENCE_S,
        check=ConnectionPool.check_connection,  # a restart of PostgreSQL costs nobody an error
        name="mailing",
        open=True,
    )


class _Pool(ConnectionPool[db.Connection]):
    """Knows how many of its connections are in use: those it has count also what it tries in vain to open."""

    def __init__(self, **options: Any) -> None:
        self._lent: set[db.Connection] = set()
        super().__init__(**options)

    def getconn(self, timeout: float | None = None) -> db.Connection:
        """As the pool's; raises Full."""
        try:
            connection = super().getconn(timeout)
        except (PoolTimeout, TooManyRequests) as error:
            if len(self._lent) > MAX_CONNECTIONS // 2:  # not all: some are just changing hands
                raise Full("the mailing database is busy: all connections are in use") from error
            raise
        self._lent.add(connection)
        return connection

    def putconn(self, conn: db.Connection) -> None:
        """As the pool's."""
        self._lent.discard(conn)
        super().putconn(conn)


class _Connection(psycopg.Connection[Any]):
    """Where the pool asks for a connection it gets ours: by Airflow's connection, with dicts for rows."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> db.Connection:  # type: ignore[override]
        connection = db.connect()
        for name, limit in (("lock_timeout", LOCK_TIMEOUT), ("statement_timeout", STATEMENT_TIMEOUT)):
            connection.execute("SELECT set_config(%s, %s, false)", (name, limit))
        connection.commit()
        return connection
