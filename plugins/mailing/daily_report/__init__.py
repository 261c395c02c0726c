"""What happened on one day in the operator's zone: tables, charts and one HTML file, kept in a folder, mailed.

Three steps, each of which can be repeated alone: `collect` counts and keeps the figures, `write` makes the rest of the
report of them, `mail` sends it to whoever has not got it yet. They hand on nothing but the folder. Phone numbers and
texts are in none of it.
"""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import structlog

from mailing.errors import InvalidInput

SUBJECT = "Mailing report for {day}"

MAX_MISSED = 31
"""Days without a report that a run writes besides its own."""

log = structlog.get_logger(__name__)


def zone() -> str:
    """The setting `MAILING_REPORT_TIMEZONE`. Raises InvalidInput for what is no time zone."""
    name = os.environ.get("MAILING_REPORT_TIMEZONE") or "UTC"
    if name not in available_timezones():
        raise InvalidInput(f"MAILING_REPORT_TIMEZONE={name!r}: wanted an IANA name such as Europe/Samara")
    return name


def day_before(moment: datetime) -> date:
    """The day before the one that this (aware) moment is in, in the operator's zone."""
    return moment.astimezone(ZoneInfo(zone())).date() - timedelta(days=1)


def days_to_write(day: date) -> list[date]:
    """The day, and before it those since the last report that is kept: for them nobody ran (all was down, say).

    At most MAX_MISSED of them, and none where there is no report yet. Raises Unusable for a folder that cannot be read.
    """
    from mailing.daily_report import folder

    last = folder.last_before(day)
    missed = min((day - last).days - 1, MAX_MISSED) if last else 0
    days = [day - timedelta(days=n) for n in range(missed, -1, -1)]
    if missed:
        log.warning("days have no report, and get one", first=str(days[0]), last=str(days[-2]), days=missed)
    return days


def collect(day: date) -> str:
    """Count a day, keep its tables. Returns the folder.

    Raises InvalidInput for a day that has not begun, Unusable for a folder that cannot be written.
    """
    from mailing import db
    from mailing.daily_report import figures, folder

    place = folder.of_day(day)
    folder.begin(place)  # before the long way through the ledger
    with db.transaction() as connection:
        counted = figures.count(connection, day, zone())
    tables = {f"{name}.csv": counted.csv(name).encode() for name in figures.TABLES}
    folder.write(place, tables | {folder.FIGURES: counted.json().encode()})
    return place


def write(place: str) -> str:
    """Make charts and page of what `collect` left in this folder; it is whole then. Returns the folder.

    Raises Unusable for one that cannot be read or written.
    """
    from mailing.daily_report import charts, figures, folder, page

    counted = figures.Figures.from_json(folder.read(place, folder.FIGURES))
    drawn = charts.of(counted)
    files = {f"{chart.name}.png": chart.light for chart in drawn}
    files["report.html"] = page.html(counted, drawn).encode()
    folder.write(place, files)
    folder.finish(place, [folder.FIGURES, *(f"{name}.csv" for name in figures.TABLES), *files])
    return place


def mail(place: str) -> list[str]:
    """Mail the report to those of `MAILING_REPORT_TO` who have not got it. Returns to whom.

    Raises Unusable for a report that is not whole, and where the mail server does not take it for all of them.
    """
    from mailing.daily_report import charts, figures, folder, mailer, page

    files = folder.whole(place)
    counted = figures.Figures.from_json(files.pop(folder.FIGURES))
    version = counted.as_of.isoformat()
    done = folder.mailed(place, version)
    missing = [address for address in mailer.recipients() if address not in done]
    if missing:

        def on_sent(address: str) -> None:
            done.append(address)
            folder.note_mailed(place, version, done)

        body = page.mail_body(counted, charts.of(counted))
        mailer.send(missing, SUBJECT.format(day=counted.day), body, files, on_sent)
    return missing
