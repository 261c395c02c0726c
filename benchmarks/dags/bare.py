"""What our campaigns are compared with: two tasks that do nothing, as any pipeline of Airflow has them."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None, is_paused_upon_creation=False, max_active_runs=1_000, max_active_tasks=1_000)
def bare() -> None:
    """Wire them."""

    @task
    def first() -> None:
        """Do nothing."""

    @task
    def second() -> None:
        """Do nothing."""

    first() >> second()


bare()
