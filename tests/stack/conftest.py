"""The one stack that all tests of this folder share: it takes half a minute to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.settings import Settings
from local.stack import Stack
from mailing import db
from tests.stack.steps import behave


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack that is up, in a folder and on ports of its own."""
    settings = Settings.anywhere(tmp_path_factory.mktemp("stack"))
    stack = Stack(settings)
    stack.up(limit_s=240)
    yield settings
    stack.clean()


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
