"""Tests on the whole stack: each finds its gateway well behaved, and as fast as it can be."""

from __future__ import annotations

import pytest

from mailing import db
from tests.stack.steps import behave


@pytest.fixture
def connection(settings, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", settings.environment()["AIRFLOW_CONN_MAILING_DB"])
    behave(settings)
    with db.connect() as connection:
        connection.autocommit = True
        connection.execute(
            "UPDATE gateways SET requests_in_flight = 100, messages_per_second = NULL, timeout_s = 10,"
            " breaker_state = 'closed', breaker_failures = 0, breaker_changed_at = NULL"
        )
        yield connection
