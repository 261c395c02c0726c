from __future__ import annotations

import random

import pytest

from mailing import outcomes
from mailing.gateway import Attempt
from mailing.messages import Claim, Outlook
from mailing.replies import Judgement, Verdict

CLAIM = Claim(id=7, attempts=2, phone_number="71030000001", text="Hello", left_s=100.0)
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
    seen = {"status": "running", "closes_s": 1_000.0, "is_over": False, "pending": 0, "sending": 0,
            "due_s": None, "lease_s": None}  # fmt: skip
    return outcomes.next_look(Outlook(**(seen | changes)))


@pytest.mark.parametrize(
    ("seen", "wait_s", "said"),
    [
        ({}, None, "nothing is left to send"),
        ({"pending": 3, "due_s": 40.0}, 40.0, "3 pending"),
        ({"pending": 3, "due_s": -2.0}, outcomes.CROWDED_S, "3 pending"),
        ({"pending": 3, "due_s": 5_000.0}, outcomes.MAX_WAIT_S, "3 pending"),
        ({"pending": 3, "due_s": 5_000.0, "closes_s": 30.0}, 30.0 + outcomes.SETTLED_S, "3 pending"),
        ({"sending": 2, "lease_s": 12.0}, 12.0 + outcomes.SETTLED_S, "2 claimed by other tasks"),
        ({"sending": 2, "lease_s": -3.0}, outcomes.SETTLED_S, "2 claimed by other tasks"),
        ({"sending": 2, "lease_s": 12.0, "pending": 1, "due_s": 4.0}, 4.0, "1 pending"),
        ({"pending": 3, "due_s": 0.0, "is_over": True}, None, "the window is over"),
        ({"pending": 3, "due_s": 0.0, "status": "paused"}, None, "the campaign is paused"),
    ],
)
def test_a_batch_is_looked_at_again_when_that_may_help_and_never_past_the_stop(seen, wait_s, said):
    found_s, found = look(**seen)
    assert found_s == wait_s
    assert said in found
