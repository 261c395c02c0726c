"""What happened yesterday: tables, charts, one HTML file; kept in a folder, and mailed.

| task | what it does |
|---|---|
| `collect` | counts the day and keeps its tables (CSV, `figures.json`) |
| `write` | draws the charts (PNG) and `report.html`; the report is whole when `manifest.json` is there |
| `mail` | mails it to those of `MAILING_REPORT_TO` who have not got it; skipped where that is not set |

It runs by itself half an hour after midnight in the zone `MAILING_REPORT_TIMEZONE` (UTC). Days since the last report
that have none (all was down) are written by the next run, 31 at most, each with a mail of its own. To write a day
anew, trigger it with that `day`: the figures are the same, until somebody settles what was in doubt, or has messages
sent again.

**When it fails.** A folder (`MAILING_REPORTS`) that cannot be written or a mail server that refuses is tried again
three times, then the task fails and says what was refused. What `collect` and `write` have kept stays; clear `mail`
alone, and only those get it who have not. All settings: docs/reports.md.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from mailing import daily_report


@dag(
    dag_id="daily_report",
    dag_display_name="Mailing daily report",
    schedule=CronTriggerTimetable("30 0 * * *", timezone=daily_report.zone()),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["mailing"],
    doc_md=__doc__,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    params={
        "day": Param(
            default=None,
            type=["null", "string"],
            format="date",
            title="Day",
            description="In the zone of the reports; empty: the day before the run, and what was missed before.",
        )
    },
)
def report() -> None:
    """Wire the tasks: what they hand on are the folders, one for each day."""

    @task
    def collect() -> list[str]:
        """Return the folders."""
        from datetime import date

        from mailing.errors import InvalidInput, Unusable

        context = get_current_context()
        wanted = context["params"]["day"]
        try:
            if wanted:
                return [daily_report.collect(date.fromisoformat(wanted))]
            days = daily_report.days_to_write(daily_report.day_before(context["dag_run"].run_after))
            return [daily_report.collect(day) for day in days]
        except InvalidInput as error:
            raise AirflowFailException(str(error)) from None  # the message says it all
        except Unusable as error:
            raise AirflowException(str(error)) from None

    @task
    def write(folders: list[str]) -> list[str]:
        """Return the folders."""
        from mailing.errors import Unusable

        try:
            return [daily_report.write(folder) for folder in folders]
        except Unusable as error:
            raise AirflowException(str(error)) from None

    @task
    def mail(folders: list[str]) -> int:
        """Return how many mails were sent, one of each day to each recipient."""
        from mailing.errors import Unusable

        sent, refused = 0, []
        for folder in folders:
            try:
                sent += len(daily_report.mail(folder))
            except Unusable as error:
                refused.append(f"{error}; the report is kept in {folder}")
        if refused:
            raise AirflowException("; ".join(refused))
        if not sent:
            raise AirflowSkipException("MAILING_REPORT_TO names nobody who has not got this report")
        return sent

    mail(write(collect()))  # type: ignore[arg-type]


report()
