"""The command line: `python -m mailing.cli --help`; needs the Airflow connection mailing_db."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy.exc

from mailing import campaigns, client_import, db, exports, migrate, recount, runs, verdicts
from mailing.errors import InvalidInput, MailingError, Unusable

HISTORY_DAYS = 90
"""For how long Airflow's own history is kept, unless `tidy` is told otherwise."""

TRANSITIONS = {"pause": campaigns.pause, "resume": campaigns.resume, "cancel": campaigns.cancel}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or 1 for an error that is said in one line."""
    parser = argparse.ArgumentParser(prog="mailing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring the database to what this version needs")
    importing = commands.add_parser("import", help="bring a client list (CSV) into the database")
    importing.add_argument("file", type=Path)
    importing.add_argument("--reject-file", type=Path, help="default: beside FILE, as <name>.rejects.csv")
    _add_actor(importing)
    for name in TRANSITIONS:
        _add_campaign_command(commands, name, f"{name} a campaign")
    settling = _add_campaign_command(commands, "settle", "settle the messages of a campaign that are unknown")
    settling.add_argument("verdict", choices=verdicts.VERDICTS)
    settling.add_argument("--reason", help="only those that are unknown for this reason")
    verifying = commands.add_parser("verify", help="count the ledger anew, and tell where the kept counts differ")
    verifying.add_argument("--campaign", type=int, help="only this one")
    forecasting = commands.add_parser("forecast", help="whom a campaign can reach before its stop, by time zone")
    forecasting.add_argument("campaign", type=int)
    exporting = commands.add_parser("export", help="write the outcomes of a campaign to a file")
    exporting.add_argument("campaign", type=int)
    exporting.add_argument("file", type=Path, help="its suffix says what it is to be: .csv or .parquet")
    tidying = commands.add_parser("tidy", help="remove what Airflow keeps of runs and campaigns that are long over")
    tidying.add_argument("--days", type=float, default=HISTORY_DAYS, help="older than that (default: %(default)s)")
    tidying.add_argument("--dry-run", action="store_true", help="only tell which DAGs would go")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except MailingError as error:
        print(f"mailing: {error}", file=sys.stderr)
        return 1
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
        print(f"mailing: the database of connection {db.CONNECTION_ID} is away: {error}", file=sys.stderr)
        return 1


def _add_campaign_command(commands: Any, name: str, said: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=said)
    command.add_argument("campaign", type=int)
    _add_actor(command)
    return command


def _add_actor(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--actor", default=_you(), help="who decides, as the audit log is to have it; default: %(default)s"
    )


def _you() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container nobody may be called so
        return f"uid {os.getuid()}"


def _run(options: argparse.Namespace) -> int:
    """The exit code."""
    if options.command == "migrate":
        migrate.migrate(db.sqlalchemy_url())
    elif options.command == "import":
        _import(options.file, options.reject_file, options.actor)
    elif options.command == "settle":
        with db.transaction() as connection:
            settled = verdicts.settle_all(
                connection, options.campaign, options.verdict, actor=options.actor, reason=options.reason
            )
        print(f"campaign {options.campaign}: {settled:,} messages: {options.verdict}")
    elif options.command == "forecast":
        _forecast(options.campaign)
    elif options.command == "export":
        _export(options.campaign, options.file)
    elif options.command == "verify":
        return _verify(options.campaign)
    elif options.command == "tidy":
        _tidy(options.days, options.dry_run)
    else:
        _change(options.campaign, options.command, options.actor)
    return 0


def _change(campaign_id: int, action: str, actor: str) -> None:
    with db.transaction() as connection:
        TRANSITIONS[action](connection, campaign_id, actor=actor)
    if action == "cancel":
        with db.transaction() as connection:
            runs.sweep_cancelled(connection, campaign_id)
    with db.transaction() as connection:
        progress = campaigns.progress(connection, campaign_id)
    print(f"campaign {campaign_id}: {progress.standing}; {progress.counts}")


def _verify(campaign_id: int | None) -> int:
    """1 where a figure is not what the messages add up to."""
    with db.transaction() as connection:
        found = recount.differences(connection, campaign_id)
        total = recount.total(connection, campaign_id)
    for each in found:
        print(each)
    print(
        f"{total:,} messages counted anew: " + (f"{len(found):,} figures differ" if found else "every figure is right")
    )
    return 1 if found else 0


def _tidy(days: float, dry_run: bool) -> None:
    from mailing import history  # it takes a second, which is nobody else's

    if not days >= 0:
        raise InvalidInput(f"days: wanted a number from 0 on, got {days}")
    try:
        tidied = history.tidy(datetime.now(UTC) - timedelta(days=days), dry_run=dry_run)
    except sqlalchemy.exc.OperationalError as error:
        raise Unusable(f"Airflow's database is away: {error.orig}") from None
    for dag_id, why in tidied.kept.items():
        print(f"{dag_id} stays: {why}")
    if tidied.unfinished:
        print(f"a run of {tidied.unfinished} goes on for longer than that: what is younger than the run stays")
    will = "would go" if dry_run else "are gone"
    print(
        f"{len(tidied.dags):,} DAGs of campaigns, and runs and tasks before {tidied.before:%Y-%m-%d %H:%M} UTC, {will}"
    )


def _forecast(campaign_id: int) -> None:
    with db.transaction() as connection:
        zones = runs.forecast(connection, campaign_id)
    for zone in zones:
        reach = f"from {zone.opens_at:%Y-%m-%d %H:%M} UTC" if zone.opens_at else "not before the stop"
        print(f"{zone.timezone}: {zone.clients:,} clients, {reach}")
    print(f"never: {sum(zone.never for zone in zones):,} of {sum(zone.clients for zone in zones):,}")


def _export(campaign_id: int, file: Path) -> None:
    """The file is there when all of it is: until then it has another name."""
    form = file.suffix.removeprefix(".").lower()
    if form not in exports.FORMS:
        raise InvalidInput(f"file {file}: wanted a name that ends with .csv or .parquet")
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        try:
            with unfinished.open("wb") as out, db.transaction() as connection:
                out.writelines(exports.outcomes(connection, campaign_id, form))
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(f"file {file}: cannot be written: {error.strerror}") from None
    print(f"campaign {campaign_id}: {file}, {file.stat().st_size:,} bytes")


def _import(file: Path, reject_file: Path | None, actor: str) -> None:
    with db.transaction() as connection:
        figures = client_import.import_clients(connection, file, reject_file, actor=actor)
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
