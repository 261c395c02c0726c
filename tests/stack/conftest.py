"""Tests on the whole stack: each finds its gateway well behaved."""

from __future__ import annotations

import pytest

from tests.stack.steps import well_behaved


@pytest.fixture
def connection(settings, monkeypatch):
    with well_behaved(settings, monkeypatch) as connection:
        yield connection
