"""What tasks are run with. Importing this module is all that it is for: once, before processes are forked."""

from __future__ import annotations

import airflow.dag_processing.dagbag
import airflow.providers.postgres.hooks.postgres
import airflow.sdk.execution_time.supervisor

import mailing.operators
import mailing.roster

__all__ = ["airflow", "mailing"]
