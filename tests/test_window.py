from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing.window import LEAD, TRAIL, Window, next_run

START, STOP = datetime(2026, 5, 1, 9, tzinfo=UTC), datetime(2026, 5, 1, 18, tzinfo=UTC)
WINDOW = Window(START, STOP)
SECOND = timedelta(seconds=1)
moments = st.datetimes(datetime(2026, 4, 28), datetime(2026, 5, 5), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("now", "is_open"),
    [(START - SECOND, False), (START, True), (STOP - SECOND, True), (STOP, False), (STOP + SECOND, False)],
)
def test_the_window_includes_its_start_and_excludes_its_stop(now, is_open):
    assert WINDOW.is_open(now) is is_open


@pytest.mark.parametrize(
    ("now", "relevant"),
    [(START - LEAD - SECOND, False), (START - LEAD, True), (STOP + TRAIL - SECOND, True), (STOP + TRAIL, False)],
)
def test_a_campaign_has_a_dag_from_shortly_before_its_start_until_a_while_after_its_stop(now, relevant):
    assert WINDOW.is_relevant(now) is relevant


def test_a_campaign_in_the_future_runs_at_its_start():
    assert next_run(WINDOW, None, None, START - timedelta(days=3)) == START


def test_a_campaign_inside_its_window_runs_at_once():
    assert next_run(WINDOW, None, None, START + SECOND) == START


def test_a_campaign_that_is_wholly_past_never_runs():
    assert next_run(WINDOW, None, None, STOP) is None


def test_a_campaign_runs_once_for_its_start():
    assert next_run(WINDOW, None, START, START + SECOND) is None


def test_a_start_that_was_moved_after_its_run_runs_again():
    assert next_run(WINDOW, None, START - timedelta(hours=2), START - timedelta(hours=1)) == START


def test_a_campaign_that_was_woken_runs_once_more():
    woken = START + timedelta(hours=2)
    assert next_run(WINDOW, woken, START, woken) == woken
    assert next_run(WINDOW, woken, woken, woken + SECOND) is None


@given(now=moments, last_run=st.none() | moments, wake_at=st.none() | moments)
def test_no_run_is_for_a_moment_that_had_one_or_that_lies_after_the_stop(now, last_run, wake_at):
    at = next_run(WINDOW, wake_at, last_run, now)
    if at is not None:
        assert at < STOP
        assert now < STOP
        assert last_run is None or at > last_run
