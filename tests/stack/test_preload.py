"""What tasks and parses need is there before their processes are forked, on the whole stack."""

from __future__ import annotations

import subprocess
import sys

import pytest

from local.stack_airflow import call, log_in
from local.stack_processes import process_environment
from tests.stack.steps import ended, trigger, wait_until

pytestmark = pytest.mark.stack

NEEDED = [
    "airflow.providers.http.hooks.http",
    "airflow.providers.postgres.hooks.postgres",
    "mailing.operators",
    "mailing.sender",
]


def test_tasks_and_parses_begin_with_what_they_need(settings):
    token = log_in(settings)
    found = wait_until(lambda: _details(settings, token), "its DAG is there")
    assert found["doc_md"].split() == NEEDED

    run = trigger(settings, token, "forked")

    assert ended(settings, token, "forked", run, "before") == ("success", NEEDED)


def _details(settings, token):
    status, found = call(settings, "GET", "/api/v2/dags/forked/details", token=token)
    return found if status == 200 else None


def test_who_does_not_fork_imports_nothing_for_others(settings):
    program = (
        "import sys; from airflow.listeners.listener import get_listener_manager;"
        "get_listener_manager().hook.on_starting(component=object());"
        "assert 'mailing.preload' in sys.modules; print('mailing.operators' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], env=process_environment(settings), capture_output=True)
    assert run.stdout.split()[-1:] == [b"False"], run.stderr
