"""Brings a database to what this version needs: tables, zones, reporting views, and the roles that read them.

Safe to run again, and from several hosts at once (an advisory lock lets one do it).
"""

from __future__ import annotations

import zoneinfo
from pathlib import Path

import psycopg
import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config

from mailing import db

MIGRATIONS = Path(__file__).parent / "migrations"
ROLES = db.SQL_FOLDER / "roles.sql"
READERS = ["mailing_reader", "mailing_reader_pii"]
"""Who may read the schema `reporting`; docs/reporting.md."""

_LOCK = 7_262_464_546  # any number, the same for every release

log = structlog.get_logger(__name__)


def alembic_config(connection: sa.Connection) -> Config:
    """Alembic's configuration for our migrations, on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def migrate(url: str) -> None:
    """Bring the database at `url` (SQLAlchemy form) up to date, in one transaction: all of it or nothing."""
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            command.upgrade(alembic_config(connection), "head")
            _refresh_zones(connection)
            _refresh_reporting(connection)
    finally:
        engine.dispose()


def _refresh_zones(connection: sa.Connection) -> None:
    """Zones that both PostgreSQL and Python know: a client's zone must mean the same to each of them."""
    connection.execute(
        sa.text(
            "INSERT INTO timezones (name) SELECT name FROM pg_timezone_names WHERE name = ANY(:known)"
            " ON CONFLICT DO NOTHING"
        ),
        {"known": sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})},
    )


def _refresh_reporting(connection: sa.Connection) -> None:
    """(Re)create the views of include/sql/reporting in the order of their names, and let their readers in."""
    connection.execute(sa.text("CREATE SCHEMA IF NOT EXISTS reporting"))
    for file in sorted((db.SQL_FOLDER / "reporting").glob("*.sql")):
        _execute(connection, file)
    _make_roles(connection)
    for role in connection.scalars(sa.text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:r)"), {"r": READERS}):
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA reporting TO {role}")
        connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO {role}")


def _make_roles(connection: sa.Connection) -> None:
    """The readers' roles; where we may not make them, nothing else fails for it: an administrator is told how."""
    try:
        with connection.begin_nested():
            _execute(connection, ROLES)
    except sa.exc.ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        log.warning(
            f"roles {' and '.join(READERS)} could not be made: an administrator of PostgreSQL runs"
            f" psql -f {ROLES}, and then migrate is run again",
            error=str(error.orig),
        )


def _execute(connection: sa.Connection, file: Path) -> None:
    connection.exec_driver_sql(file.read_text(encoding="utf-8").replace("%", "%%"))
