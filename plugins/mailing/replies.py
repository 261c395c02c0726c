"""What a reply of the gateway means for the message: one table, and how long to wait before trying again.

Source of the rules: docs/delivery.md, **Replies**. Pure: no socket, no row, and a clock only where none is given.
"""

from __future__ import annotations

import email.utils
import json
import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class Verdict(StrEnum):
    """What becomes of a message after one attempt."""

    SENT = "sent"  # the gateway took it
    FAILED = "failed"  # the gateway refused this message for good
    REPEAT = "repeat"  # it was surely not taken: safe to try again
    IN_DOUBT = "in_doubt"  # it may have been taken, and nobody said so
    UNAUTHORIZED = "unauthorized"  # the token is wrong, not the message: no attempt is burnt


STATUS_VERDICTS = {
    303: Verdict.IN_DOUBT,  # "done, see there": the one redirect that may mean success
    401: Verdict.UNAUTHORIZED,
    403: Verdict.UNAUTHORIZED,
    408: Verdict.REPEAT,
    425: Verdict.REPEAT,
    429: Verdict.REPEAT,
    500: Verdict.REPEAT,
    503: Verdict.REPEAT,
}
"""Statuses with a meaning of their own; `_CLASS_VERDICTS` has the rest."""

_CLASS_VERDICTS = {
    # A redirect is not an answer of the service: the endpoint is set wrong, which a person can mend within the window.
    3: Verdict.REPEAT,
    4: Verdict.FAILED,
    # 502, 504 and whatever else a proxy invents: the word of the service behind it is lost.
    5: Verdict.IN_DOUBT,
}

FIRST_BACKOFF_S = 2.0
MAX_BACKOFF_S = 300.0
MAX_RETRY_AFTER_S = 3600.0  # a gateway that asks for more is asked again after an hour all the same


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, its reason (one word, for `messages.reason`) and how many seconds the gateway asked to wait."""

    verdict: Verdict
    reason: str | None = None
    retry_after_s: float | None = None


_SENT = Judgement(Verdict.SENT)


def judge(
    status: int,
    body: bytes,
    retry_after: str | None = None,
    repeat_codes: Collection[int] = (),
    now: datetime | None = None,
) -> Judgement:
    """What one HTTP reply says of the message it answers.

    `status`: HTTP status; `body`: the reply as it came, whatever its content type says; `retry_after`: that header,
    seconds or an HTTP date, which counts from `now` (aware; None: now); `repeat_codes`: values of `code` that this
    gateway asks to try again.
    """
    if 200 <= status < 300:
        return _judge_body(body, repeat_codes)
    verdict = STATUS_VERDICTS.get(status) or _CLASS_VERDICTS.get(status // 100, Verdict.IN_DOUBT)
    wait_s = parse_retry_after(retry_after, now or datetime.now(UTC)) if verdict is Verdict.REPEAT else None
    return Judgement(verdict, f"http_{status}", wait_s)


def _judge_body(body: bytes, repeat_codes: Collection[int]) -> Judgement:
    """A message counts as sent only if the body is a JSON object whose `code` is the integer 0."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return Judgement(Verdict.IN_DOUBT, "reply_not_json")
    code = reply.get("code") if isinstance(reply, dict) else None
    if type(code) is not int:  # bool is an int to isinstance(), and 0.0 == 0
        return Judgement(Verdict.IN_DOUBT, "reply_without_code")
    if code == 0:
        return _SENT
    return Judgement(Verdict.REPEAT if code in repeat_codes else Verdict.FAILED, f"code_{code}")


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait (0 to 3,600), from a number of seconds or an HTTP date; None where it says neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_S)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), MAX_RETRY_AFTER_S)


def backoff_s(attempt: int, retry_after_s: float | None, rng: random.Random) -> float:
    """Seconds until the next attempt: doubling from 2 s up to 5 minutes, and never less than the gateway asked for.

    Half of it is chance, so that a crowd of messages that failed together does not come back together. `attempt`: how
    many were made, from 1.
    """
    ceiling = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 16))
    wait = ceiling * rng.uniform(0.5, 1.0)
    if retry_after_s is not None:
        wait = max(wait, retry_after_s + rng.uniform(0.0, 1.0))
    return wait
