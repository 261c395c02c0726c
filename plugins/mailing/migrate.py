"""Brings a database to what this version needs: tables, zones, reporting views, the read-only role.

Safe to run again, and from several hosts at once (an advisory lock lets one do it).
"""

from __future__ import annotations

import zoneinfo
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mailing import db

MIGRATIONS = Path(__file__).parent / "migrations"
READER_ROLE = "mailing_reader"
_LOCK = 7_262_464_546  # any number, the same for every release


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
    """(Re)create the views of include/sql/reporting in the order of their names, and grant them to the reader."""
    connection.execute(sa.text("CREATE SCHEMA IF NOT EXISTS reporting"))
    for file in sorted((db.SQL_FOLDER / "reporting").glob("*.sql")):
        connection.exec_driver_sql(file.read_text(encoding="utf-8").replace("%", "%%"))
    exists = connection.scalar(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": READER_ROLE})
    if not exists:
        connection.exec_driver_sql(f"CREATE ROLE {READER_ROLE} NOLOGIN")
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA reporting TO {READER_ROLE}")
    connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO {READER_ROLE}")
