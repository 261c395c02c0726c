"""The connections that a web server keeps open: each request takes one and gives it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import psycopg
from psycopg_pool import ConnectionPool

from mailing import db

MAX_CONNECTIONS = 16
PATIENCE_S = 3.0
"""How long a request waits for a connection before it is told that the database is away."""


@contextmanager
def transaction() -> Iterator[db.Connection]:
    """A connection for one transaction: committed at the end of the block, rolled back by an error, then given back.

    Raises psycopg_pool.PoolTimeout (a psycopg.OperationalError) when the database is away, or all are in use.
    """
    with _pool().connection() as connection, connection.transaction():  # as in db.transaction
        yield connection


def close() -> None:
    """Close what is open; the next transaction begins anew. For tests, each of which has a database of its own."""
    if _pool.cache_info().currsize:
        _pool().close()
        _pool.cache_clear()


@cache
def _pool() -> ConnectionPool[db.Connection]:
    """Made by the first request: API servers fork, and a pool does not survive that."""
    return ConnectionPool(
        connection_class=cast("type[db.Connection]", _Connection),
        min_size=0,
        max_size=MAX_CONNECTIONS,
        timeout=PATIENCE_S,
        reconnect_timeout=PATIENCE_S,
        check=ConnectionPool.check_connection,  # a restart of PostgreSQL costs nobody an error
        name="mailing",
        open=True,
    )


class _Connection(psycopg.Connection[Any]):
    """Where the pool asks for a connection it gets ours: by Airflow's connection, with dicts for rows."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> db.Connection:  # type: ignore[override]
        return db.connect()
