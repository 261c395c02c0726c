"""The sender's decisions without its machinery: what the ledger is to say of an attempt, and when to look again.

Pure: no clock, no socket, no row. All durations are in seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mailing import replies
from mailing.breaker import MEND_S, Report
from mailing.gateway import Attempt
from mailing.messages import Claim, Outcome, Outlook
from mailing.replies import Verdict

CROWDED_S = 0.2
"""A pause before the next claim where messages are due and none could be claimed: somebody else holds their rows."""

SETTLED_S = 1.0
"""How long after a lease or the window has run out to look: surely after, and not much."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Until when to wait, at most, and why; `for_gateway`: or until its breaker lets somebody try."""

    seconds: float
    said: str
    for_gateway: bool = False


def of_attempt(claim: Claim, attempt: Attempt, rng: random.Random) -> Outcome:
    """What the ledger is to say of an attempt. `rng` spreads the retries."""
    verdict = attempt.judgement.verdict
    outcome = Outcome(claim.id, claim.attempts, verdict.value, attempt.judgement.reason)
    if verdict is Verdict.SENT:
        return outcome
    if verdict in (Verdict.REPEAT, Verdict.IN_DOUBT):
        outcome.state = "pending" if verdict is Verdict.REPEAT else "unknown"
        outcome.wait_s = replies.backoff_s(claim.attempts, attempt.judgement.retry_after_s, rng)
    elif verdict is Verdict.UNAUTHORIZED:
        # Not at once: if the refusal is about this very message, the next probe must be another one.
        outcome.state, outcome.wait_s, outcome.burn = "pending", 2 * MEND_S, False
    outcome.duration_ms = round(attempt.duration_s * 1000)
    outcome.status_code, outcome.error, outcome.reply = attempt.status_code, attempt.error, attempt.reply
    return outcome


def note(met: Report, attempt: Attempt) -> None:
    """Add an attempt to what the breaker is to be told: well is whatever settled the message."""
    judgement = attempt.judgement
    if judgement.verdict in (Verdict.SENT, Verdict.FAILED):
        met.settled()
    else:
        met.failed(judgement.reason, judgement.retry_after_s, judgement.verdict is Verdict.UNAUTHORIZED)


def too_late(claim: Claim) -> Outcome:
    """For a message that was claimed and, too much time having passed, not posted."""
    return Outcome(claim.id, claim.attempts, "pending", reason="too_late", wait_s=0.0, burn=False)


def stopped(claim: Claim) -> Outcome:
    """For a message that was posted by a task which will not hear the answer any more."""
    return Outcome(claim.id, claim.attempts, "unknown", "task_stopped", wait_s=replies.FIRST_BACKOFF_S)


def unforeseen(claim: Claim, error: Exception) -> Outcome:
    """For a message whose attempt ran into a fault of ours: it may have left."""
    return Outcome(
        claim.id, claim.attempts, "unknown", "unforeseen", wait_s=replies.MAX_BACKOFF_S, error=type(error).__name__
    )


def next_look(look: Outlook) -> Wait | str:
    """How long to wait with a batch of which nothing can be claimed now; or, for good, why there is nothing to do."""
    if look.closes_s <= 0:
        return "the window is over"
    rest_s = look.closes_s + SETTLED_S  # never past the stop: the run has to end
    if look.status == "paused":
        return Wait(rest_s, "the campaign is paused")
    if look.status != "running":
        return f"the campaign is {look.status}"
    if not look.pending and not look.sending:
        return "nothing is left to send"
    if look.is_due and look.breaker_state != "closed":
        return Wait(rest_s, f"the gateway is left alone ({look.breaker_reason})", for_gateway=True)
    if look.audience_stale:
        return Wait(SETTLED_S, "the audience is following an edited filter")
    waits = []
    if look.pending:
        waits.append(max(look.due_s or 0.0, CROWDED_S))
    if look.sending:  # claimed by somebody else: settled by them, or by us once their lease has run out
        waits.append(max(look.lease_s or 0.0, 0.0) + SETTLED_S)
    return Wait(min(*waits, rest_s), f"{look.pending} pending, {look.sending} claimed by other tasks")
