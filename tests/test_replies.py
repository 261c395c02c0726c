from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing import replies
from mailing.replies import Judgement, Verdict, backoff_s, judge, parse_retry_after

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_sent_takes_2xx_and_an_object_whose_code_is_0(status):
    assert judge(status, b'{"code": 0, "message": "OK"}', None, now=NOW) == Judgement(Verdict.SENT)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "reply_not_json"),
        (b"OK", "reply_not_json"),
        (b'{"code": 0', "reply_not_json"),
        (b"\xff\xfe\x00", "reply_not_json"),
        (b"[" * 100_000, "reply_not_json"),
        (b"[0]", "reply_without_code"),
        (b"0", "reply_without_code"),
        (b"null", "reply_without_code"),
        (b"{}", "reply_without_code"),
        (b'{"code": "0"}', "reply_without_code"),
        (b'{"code": null}', "reply_without_code"),
        (b'{"code": false}', "reply_without_code"),
        (b'{"code": 0.0}', "reply_without_code"),
    ],
)
def test_2xx_with_a_body_that_makes_no_sense_is_in_doubt(body, reason):
    assert judge(200, body, None, now=NOW) == Judgement(Verdict.IN_DOUBT, reason)


def test_another_code_is_a_failure_with_that_code():
    assert judge(200, b'{"code": 17}', None, now=NOW) == Judgement(Verdict.FAILED, "code_17")


def test_a_gateway_may_list_codes_to_repeat():
    assert judge(200, b'{"code": 17}', None, repeat_codes=[17], now=NOW) == Judgement(Verdict.REPEAT, "code_17")


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        (Verdict.UNAUTHORIZED, [401, 403]),
        (Verdict.REPEAT, [301, 302, 307, 408, 425, 429, 500, 503]),
        (Verdict.FAILED, [400, 402, 404, 405, 409, 410, 413, 415, 422, 451]),
        (Verdict.IN_DOUBT, [303, 501, 502, 504, 505, 520, 524, 599, 100, 600]),
    ],
)
def test_each_status_has_its_verdict_whatever_the_body_says(verdict, statuses):
    assert {judge(status, b'{"code": 0}', None, now=NOW).verdict for status in statuses} == {verdict}


@given(status=st.integers(100, 699), body=st.binary(max_size=50), retry_after=st.none() | st.text(max_size=40))
def test_no_reply_raises_and_only_code_0_counts_as_sent(status, body, retry_after):
    judgement = judge(status, body, retry_after, now=NOW)
    if judgement.verdict is Verdict.SENT:
        assert 200 <= status < 300
        assert b"0" in body
    else:
        assert judgement.reason


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999999999", 3_600.0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Friday", None),
        ("-5", None),
        ("", None),
        ("٣", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@given(attempt=st.integers(1, 32_767), asked=st.none() | st.floats(0, 10_000), seed=st.integers())
def test_backoff_stays_between_its_bounds_and_never_below_what_was_asked_for(attempt, asked, seed):
    wait = backoff_s(attempt, asked, random.Random(seed))
    assert replies.FIRST_BACKOFF_S / 2 <= wait <= max(replies.MAX_BACKOFF_S, (asked or 0) + 1)
    assert wait >= (asked or 0)


def test_backoff_doubles_until_its_ceiling():
    ceilings = [max(backoff_s(n, None, random.Random(seed)) for seed in range(300)) for n in range(1, 12)]
    for expected, ceiling in zip([2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300], ceilings, strict=True):
        assert 0.95 * expected < ceiling <= expected
