"""The command line: `python -m mailing.cli migrate | import FILE`; needs the Airflow connection mailing_db."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg
import sqlalchemy.exc

from mailing import clients, db, migrate
from mailing.errors import MailingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or 1 for an error that is said in one line."""
    parser = argparse.ArgumentParser(prog="mailing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring the database to what this version needs")
    importing = commands.add_parser("import", help="bring a client list (CSV) into the database")
    importing.add_argument("file", type=Path)
    importing.add_argument("--reject-file", type=Path, help="default: beside FILE, as <name>.rejects.csv")
    options = parser.parse_args(arguments)
    try:
        if options.command == "migrate":
            migrate.migrate(db.sqlalchemy_url())
        else:
            _import(options.file, options.reject_file)
    except MailingError as error:
        print(f"mailing: {error}", file=sys.stderr)
        return 1
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
        print(f"mailing: the database of connection {db.CONNECTION_ID} is away: {error}", file=sys.stderr)
        return 1
    return 0


def _import(file: Path, reject_file: Path | None) -> None:
    with db.transaction() as connection:
        figures = clients.import_clients(connection, file, reject_file)
    print(
        f"{figures.rows:,} rows: {figures.clients:,} clients ({figures.inserted:,} new, {figures.updated:,} updated,"
        f" {figures.unchanged:,} unchanged), {figures.repeated_phone:,} repeated, {figures.normalised:,} normalised,"
        f" {sum(figures.rejected.values()):,} rejected"
    )
    for field, count in sorted(figures.rejected.items()):
        print(f"  rejected for {field}: {count:,}")
    if figures.reject_file:
        print(f"  see {figures.reject_file}")


if __name__ == "__main__":
    sys.exit(main())
