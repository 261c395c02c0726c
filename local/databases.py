"""The two databases and their owners, on any PostgreSQL server: the embedded one, or a cluster's."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from local.settings import Secrets

_RIGHTS: dict[str, LiteralString] = {"airflow": "", "mailing": "CREATEROLE"}


def create(connection: psycopg.Connection[Any], secrets: Secrets) -> None:
    """Make sure that roles and databases `airflow` and `mailing` are there, with the passwords of `secrets`.

    `mailing` may create roles, for its migration makes the read-only `mailing_reader`. `connection` is a superuser's.
    """
    connection.autocommit = True  # CREATE DATABASE cannot run in a transaction
    for name, right in _RIGHTS.items():
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
        verb: LiteralString = "ALTER" if known else "CREATE"
        connection.execute(
            sql.SQL("{} ROLE {} LOGIN {} PASSWORD {}").format(
                sql.SQL(verb), sql.Identifier(name), sql.SQL(right), sql.Literal(getattr(secrets, name))
            )
        )
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
