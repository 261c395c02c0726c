"""The way to PostgreSQL: one Airflow connection, and the statements of include/sql by name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg.rows import DictRow, dict_row

CONNECTION_ID = "mailing_db"
"""The Airflow connection that holds our tables (environment, secrets backend or Admin → Connections)."""

PATIENCE = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 15_000}
"""libpq's parameters, unless the connection's extra says otherwise. A server that has fallen silent must be noticed: by
default a connect waits 130 s (Airflow gives 30 s to parsing a file), and a query for a quarter of an hour."""

SESSION = {
    # Whatever the server's or the role's default: text that BI and people read shows UTC.
    "timezone": "UTC",
    # The same the other way round: what a lost host has locked, all that share its gateway would wait for, for hours.
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15s",
}
"""PostgreSQL's settings of each session."""

SQL_FOLDER = Path(os.environ.get("MAILING_SQL_FOLDER") or Path(__file__).resolve().parents[2] / "include" / "sql")

Connection = psycopg.Connection[DictRow]


def connect() -> Connection:
    """A new psycopg connection whose rows are dicts. Nothing is committed until its caller does.

    Whoever leaves it in the middle of a transaction for a minute loses it (`SESSION`). Raises psycopg.OperationalError
    when the database is away, and Airflow's AirflowNotFoundException when the connection `mailing_db` is not defined.
    """
    # Imported here: the hook costs a second, and the pure floors are imported by tools that never connect.
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    settings = PostgresHook.get_connection(CONNECTION_ID)
    settings.extra = json.dumps(PATIENCE | settings.extra_dejson)
    connection = cast(Connection, PostgresHook(CONNECTION_ID, connection=settings).get_conn())
    connection.row_factory = dict_row
    connection.execute(
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
        (list(SESSION), list(SESSION.values())),
    )
    connection.commit()
    return connection


@contextmanager
def transaction() -> Iterator[Connection]:
    """A connection for one transaction: committed at the end of the block, rolled back by an error, then closed."""
    # Begun here: a `connection.transaction()` of the block that came first would else be one of its own, and commit.
    with connect() as connection, connection.transaction():
        yield connection


def sqlalchemy_url() -> str:
    """The same connection as a SQLAlchemy URL, password included: do not print it."""
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    return PostgresHook(CONNECTION_ID).sqlalchemy_url.render_as_string(hide_password=False)


@cache
def queries(noun: str) -> Mapping[str, LiteralString]:
    """The statements of include/sql/queries/<noun>.sql by name.

    A statement begins at a line `-- name: <name>` and ends at the next such line; its comments stay in it, so that
    pg_stat_statements and the server's log show them.
    """
    text = (SQL_FOLDER / "queries" / f"{noun}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: cast(LiteralString, body.strip()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def one(connection: Connection, statement: LiteralString, parameters: Mapping[str, Any]) -> DictRow | None:
    """The first row of what `statement` returns, or None."""
    return connection.execute(statement, parameters).fetchone()
