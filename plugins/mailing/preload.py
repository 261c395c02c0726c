"""Imports what tasks need before Airflow forks their processes: each shares it then, and none imports it again.

A listener of Airflow's (plugins/mailing_plugin.py); Celery's workers do it by their configuration. What it gave:
docs/decisions/0022-imports-before-forks.md.
"""

from __future__ import annotations

import sys
from typing import Any

from airflow.listeners import hookimpl

FORKING = ("airflow.jobs.scheduler_job_runner", "airflow.jobs.dag_processor_job_runner")
"""What runs the jobs that fork: LocalExecutor's workers, and the processes that parse."""


@hookimpl
def on_starting(component: Any) -> None:
    """Import it, where a job begins that forks; Airflow logs what is raised here, and goes on.

    `component`: the job, which does not know its type yet; what runs it has been imported, though.
    """
    if any(runner in sys.modules for runner in FORKING):
        from mailing import needed  # noqa: F401
