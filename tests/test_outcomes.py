from __future__ import annotations

import random

import pytest

from mailing import outcomes
from mailing.gateway import Attempt
from mailing.messages import Claim, Outlook
from mailing.replies import Judgement, Verdict

CLAIM = Claim(id=7, client_id=3, attempts=2, phone_number="71030000001", text="Hello", left_s=100.0, begin_s=100.0)
RNG = random.Random(1)


def of(verdict, **judgement):
    attempt = Attempt(Judgement(verdict, "why", **judgement), 0.25, 503, "http_503", "busy")
    return outcomes.of_attempt(CLAIM, attempt, RNG)


@pytest.mark.parametrize(
    ("verdict", "state", "waits", "counts"),
    [
        (Verdict.SENT, "sent", False, True),
        (Verdict.FAILED, "failed", False, True),
        (Verdict.REPEAT, "pending", True, True),
        (Verdict.IN_DOUBT, "unknown", True, True),
        (Verdict.UNAUTHORIZED, "pending", True, False),
    ],
)
def test_a_verdict_becomes_a_state_of_the_ledger(verdict, state, waits, counts):
    outcome = of(verdict)
    assert (outcome.id, outcome.attempt, outcome.state) == (7, 2, state)
    assert (outcome.wait_s is not None) == waits
    assert outcome.burn is counts


def test_evidence_is_kept_for_every_attempt_that_was_not_good():
    assert of(Verdict.SENT).reply is None
    for verdict in set(Verdict) - {Verdict.SENT}:
        outcome = of(verdict)
        assert (outcome.status_code, outcome.error, outcome.reply, outcome.duration_ms) == (
            503,
            "http_503",
            "busy",
            250,
        )


def test_the_gateways_wish_for_a_pause_is_granted():
    assert of(Verdict.REPEAT, retry_after_s=120.0).wait_s >= 120


def look(**changes):
    seen = {"status": "running", "audience_stale": False, "breaker_state": "closed", "breaker_reason": None,
            "breaker_probe_s": None, "closes_s": 1_000.0, "updated": 0.0, "pending": 0, "sending": 0,
            "due_s": None, "lease_s": None}  # fmt: skip
    return outcomes.next_look(Outlook(**(seen | changes)))


@pytest.mark.parametrize(
    ("seen", "wait_s", "said"),
    [
        ({"pending": 3, "due_s": 40.0}, 40.0, "3 pending"),
        ({"pending": 3, "due_s": -2.0}, outcomes.CROWDED_S, "3 pending"),
        ({"pending": 3, "due_s": 5_000.0}, 1_000.0 + outcomes.SETTLED_S, "3 pending"),
        ({"sending": 2, "lease_s": 12.0}, 12.0 + outcomes.SETTLED_S, "2 claimed by other tasks"),
        ({"sending": 2, "lease_s": -3.0}, outcomes.SETTLED_S, "2 claimed by other tasks"),
        ({"sending": 2, "lease_s": 12.0, "pending": 1, "due_s": 4.0}, 4.0, "1 pending"),
        ({"pending": 3, "due_s": 0.0, "status": "paused"}, 1_000.0 + outcomes.SETTLED_S, "the campaign is paused"),
        ({"pending": 3, "due_s": 0.0, "audience_stale": True}, outcomes.SETTLED_S, "following an edited filter"),
        ({"sending": 2, "lease_s": 5.0, "breaker_state": "open"}, 5.0 + outcomes.SETTLED_S, "2 claimed by other tasks"),
        ({"pending": 3, "due_s": 40.0, "breaker_state": "open"}, 40.0, "3 pending"),
    ],
)
def test_a_batch_is_looked_at_again_when_that_may_help_and_never_past_the_stop(seen, wait_s, said):
    wait = look(**seen)
    assert wait.seconds == wait_s
    assert said in wait.said
    assert not wait.for_gateway


@pytest.mark.parametrize("state", ["open", "half_open"])
def test_what_is_pending_waits_for_a_gateway_that_is_left_alone(state):
    wait = look(pending=3, due_s=0.0, breaker_state=state, breaker_reason="http_503")
    assert (wait.for_gateway, wait.said) == (True, "the gateway is left alone (http_503)")


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({}, "nothing is left to send"),
        ({"breaker_state": "open"}, "nothing is left to send"),
        ({"pending": 3, "due_s": 0.0, "closes_s": 0.0}, "the window is over"),
        ({"pending": 3, "due_s": 0.0, "status": "paused", "closes_s": -1.0}, "the window is over"),
        ({"pending": 3, "due_s": 0.0, "status": "cancelled"}, "the campaign is cancelled"),
    ],
)
def test_a_batch_that_will_never_be_sent_is_not_waited_for(seen, said):
    assert look(**seen) == said
