"""Tells what its processes had imported before they came to this file."""

from __future__ import annotations

import sys

from airflow.sdk import dag, task

NEEDED = {
    "airflow.providers.http.hooks.http",
    "airflow.providers.postgres.hooks.postgres",
    "mailing.operators",
    "mailing.sender",
}
BEFORE = sorted(NEEDED & sys.modules.keys())


@dag(schedule=None, is_paused_upon_creation=False, doc_md=" ".join(BEFORE))
def forked() -> None:
    """`doc_md` is what the DAG processor had, the task's result what the task had."""

    @task
    def before() -> list[str]:
        return BEFORE

    before()


forked()
