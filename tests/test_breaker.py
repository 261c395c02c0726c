"""When a gateway is left alone, and how it is tried again: the rule itself, without clock, socket or row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing.breaker import (
    FIRST_WAIT_S,
    MAX_WAIT_S,
    MEND_S,
    RAMP_DOUBLES_S,
    RAMP_FROM,
    TOLERANCE,
    Breaker,
    Report,
    after,
    ramp,
)

WORDS = st.sampled_from(["settled", "failed", "refused"])
MET = st.lists(st.sampled_from(["settled", "failed"]), min_size=1, max_size=30)


def a_report(*words, reason="http_503", wait_s=None):
    """What a task met, in this order."""
    report = Report()
    for word in words:
        if word == "settled":
            report.settled()
        else:
            report.failed("http_401" if word == "refused" else reason, wait_s, is_refused=word == "refused")
    return report


def tell(reports, breaker=Breaker(), is_probe=False):  # noqa: B008 - frozen
    """The breaker after several reports."""
    for report in reports:
        breaker, _ = after(breaker, report, is_probe)
    return breaker


def rows_of_failures(words):
    """How many failures in a row, at each word."""
    row = 0
    for word in words:
        row = 0 if word == "settled" else row + 1
        yield row


# Opening


@pytest.mark.parametrize(("failures", "state"), [(1, "closed"), (TOLERANCE - 1, "closed"), (TOLERANCE, "open")])
def test_so_many_failures_in_a_row_open_it(failures, state):
    breaker, probe_in_s = after(Breaker(), a_report(*["failed"] * failures), is_probe=False)
    assert (breaker.state, breaker.failures, breaker.reason) == (state, failures, "http_503")
    assert probe_in_s == (FIRST_WAIT_S if state == "open" else None)


@given(st.lists(MET, max_size=10))
def test_it_opens_exactly_when_the_failures_of_all_tasks_together_reach_the_tolerance(met):
    """It is told in reports, so a row that ended within one report, without having been told, does not count."""
    row = 0
    breaker = Breaker()
    for words in met:
        breaker, _ = after(breaker, a_report(*words), is_probe=False)
        last = list(rows_of_failures(words))[-1]
        row = last if "settled" in words else row + last
        assert breaker.failures == row
        if row >= TOLERANCE:
            assert breaker.state == "open"
            return
        assert breaker.state == "closed"


@given(st.lists(MET, max_size=10))
def test_it_never_opens_below_the_tolerance(met):
    words = [word for report in met for word in report]
    if max(rows_of_failures(words), default=0) < TOLERANCE:
        assert tell(a_report(*report) for report in met).state == "closed"


@given(st.lists(WORDS, max_size=9))
def test_a_refused_token_opens_it_at_once(before):
    breaker, probe_in_s = after(Breaker(), a_report(*before, "refused"), is_probe=False)
    assert (breaker.state, breaker.reason, probe_in_s) == ("open", "http_401", MEND_S)


def test_a_refusal_that_was_followed_by_a_good_reply_is_forgotten():
    """A token that is refused for one message in a thousand is not a wrong token."""
    assert tell([a_report("refused", "settled")]) == Breaker()


def test_a_good_reply_ends_the_row():
    nine = a_report(*["failed"] * (TOLERANCE - 1))
    assert tell([nine, a_report("settled"), nine]).state == "closed"
    assert tell([nine, a_report("failed")]).state == "open"


# Whose word counts while it is not closed


@pytest.mark.parametrize("state", ["open", "half_open"])
@given(words=st.lists(WORDS, min_size=1, max_size=20))
def test_while_it_is_not_closed_only_the_word_of_who_probes_counts(state, words):
    breaker = Breaker(state, TOLERANCE, 1, "no_answer")
    assert after(breaker, a_report(*words), is_probe=False) == (breaker, None)


@given(words=st.lists(WORDS, min_size=1, max_size=20))
def test_who_was_to_probe_and_has_lost_the_right_changes_nothing(words):
    breaker = Breaker("open", TOLERANCE, 1, "no_answer")
    assert after(breaker, a_report(*words), is_probe=True) == (breaker, None)


def test_a_probe_that_was_settled_closes_it():
    assert after(Breaker("half_open", 12, 3, "no_answer"), a_report("settled"), is_probe=True) == (Breaker(), None)


def test_a_probe_without_a_word_changes_nothing():
    breaker = Breaker("half_open", 12, 3, "no_answer")
    assert after(breaker, Report(), is_probe=True) == (breaker, None)


@pytest.mark.parametrize("words", [["failed"], ["settled", "failed"]])
def test_a_probe_that_failed_opens_it_for_longer(words):
    breaker, probe_in_s = after(Breaker("half_open", 12, 0, "no_answer"), a_report(*words), is_probe=True)
    assert breaker == Breaker("open", 13, 1, "http_503")
    assert probe_in_s == 2 * FIRST_WAIT_S


# How long it is left alone


def test_the_waits_double_up_to_the_limit():
    waits = []
    for probes in range(7):
        _, wait_s = after(Breaker("half_open", 10, probes), a_report("failed"), is_probe=True)
        waits.append(wait_s)
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]


@given(probes=st.integers(0, 10_000), is_refused=st.booleans())
def test_it_is_probed_once_a_minute_at_least_however_long_it_was_gone(probes, is_refused):
    word = "refused" if is_refused else "failed"
    _, wait_s = after(Breaker("half_open", 10, probes), a_report(word), is_probe=True)
    assert (wait_s == MEND_S) if is_refused else (FIRST_WAIT_S < wait_s <= MAX_WAIT_S)


@given(wait_s=st.floats(0, 3600), earlier_s=st.floats(0, 3600))
def test_what_the_gateway_asked_for_is_waited_for(wait_s, earlier_s):
    """The longest of what it asked for: a shorter one may be about another message."""
    report = a_report(*["failed"] * TOLERANCE, wait_s=earlier_s)
    report.failed("http_429", wait_s)
    _, probe_in_s = after(Breaker(), report, is_probe=False)
    assert probe_in_s == max(FIRST_WAIT_S, wait_s, earlier_s)


def test_what_it_asked_for_before_it_was_well_is_not_waited_for():
    report = a_report("failed", wait_s=3600)
    report.settled()
    for _ in range(TOLERANCE):
        report.failed("no_answer", None)
    assert after(Breaker(), report, is_probe=False)[1] == FIRST_WAIT_S


# The way back


@given(limit=st.integers(1, 10_000), moments=st.lists(st.floats(-5, 100), min_size=2))
def test_after_it_has_closed_ever_more_requests_are_in_flight_up_to_the_limit(limit, moments):
    allowed = [ramp(limit, moment) for moment in sorted(moments)]
    assert allowed == sorted(allowed)
    assert all(1 <= each <= limit for each in allowed)


@pytest.mark.parametrize(
    ("closed_for_s", "allowed"),
    [(0.0, RAMP_FROM), (RAMP_DOUBLES_S, 2 * RAMP_FROM), (3 * RAMP_DOUBLES_S, 8 * RAMP_FROM), (60.0, 100), (None, 100)],
)
def test_requests_in_flight_double_from_a_few(closed_for_s, allowed):
    assert ramp(100, closed_for_s) == allowed


@given(limit=st.integers(1, 10_000), moment=st.floats(0, 30))
def test_within_a_second_they_no_more_than_double(limit, moment):
    assert ramp(limit, moment + RAMP_DOUBLES_S) <= 2 * ramp(limit, moment) + 2


def test_a_gateway_that_never_was_gone_is_not_ramped_up():
    assert ramp(10_000, None) == 10_000
