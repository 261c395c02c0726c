"""Campaigns as rows: creating, editing, pausing, resuming, cancelling, reading."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from mailing import campaigns
from mailing.errors import InvalidInput
from tests.builders import HOUR, a_campaign, now


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ""}, "text: wanted 1 to 255 characters"),
        ({"text": "x" * 256}, "text: wanted 1 to 255 characters"),
        ({"sending_start": now() + 3 * HOUR}, "sending_stop: wanted a moment after sending_start"),
        ({"sending_start": datetime(2020, 1, 1)}, "sending_start: wanted a moment with a time zone, got 2020-01-01"),
        ({"filter_tags": ["nobody"]}, "filter_tags: wanted names of existing tags, .*no such tag: nobody"),
        ({"filter_operator_codes": ["1030"]}, "filter_operator_codes: wanted codes of three digits"),
        ({"audience": "all"}, "audience: wanted snapshot or live"),
        ({"on_doubt": "guess"}, "on_doubt: wanted hold or resend"),
        ({"gateway": "nowhere"}, "gateway: wanted the name of an existing gateway"),
        ({"name": ""}, "name: wanted 1 to 200 characters"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_wanted_and_nothing_is_written(connection, changes, message):
    with pytest.raises(InvalidInput, match=message):
        a_campaign(connection, **changes)
    assert connection.execute("SELECT count(*) AS n FROM campaigns").fetchone()["n"] == 0


def test_only_window_relevant_campaigns_are_listed(connection):
    soon = a_campaign(connection, sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR)
    live = a_campaign(connection)
    just_over = a_campaign(connection, sending_start=now() - 5 * HOUR, sending_stop=now() - HOUR)
    day = timedelta(days=1)
    a_campaign(connection, sending_start=now() + 2 * day, sending_stop=now() + 3 * day)
    a_campaign(connection, sending_start=now() - 3 * day, sending_stop=now() - 2 * day)
    assert [row["id"] for row in campaigns.relevant(connection)] == [soon, live, just_over]
