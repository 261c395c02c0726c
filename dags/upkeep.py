"""What must happen though nobody asks: campaigns whose window closed while Airflow was down are closed.

Such a campaign sends nothing. Its audience enters the ledger as `expired`, and the campaign is `finished`: the report
says what did not happen, too.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task


@dag(
    dag_display_name="Mailing upkeep",
    schedule=timedelta(minutes=1),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["mailing"],
    doc_md=__doc__,
)
def upkeep() -> None:
    """Wire the tasks."""

    @task(retries=0)  # the next run is a minute away
    def close_overdue() -> list[int]:
        """Return the ids of the campaigns that were closed."""
        from mailing import operators

        return operators.close_overdue()

    close_overdue()


upkeep()
