"""Figures of a span of time: they add up to the audience, whichever way they are broken down."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from mailing import clients, runs, spans
from mailing.errors import InvalidInput
from tests.builders import HOUR, a_campaign, an_open_campaign, now, settle, some_clients

DAY = timedelta(days=1)


def choose(connection, since=None, until=None, campaign_id=None):
    return spans.choose(connection, since, until or now() + DAY, campaign_id)


class TestChoose:
    @pytest.mark.parametrize(
        ("since", "until", "is_chosen"),
        [
            (None, 0, True),
            (-2, -1, False),
            (-2, 0, True),
            (0, 1, True),
            (None, -1, False),
            (2, 3, False),
        ],
    )
    def test_a_campaign_is_chosen_when_its_window_meets_the_span(self, connection, since, until, is_chosen):
        campaign_id = a_campaign(connection)  # from a minute ago for an hour
        moment = now()
        first = None if since is None else moment + since * HOUR
        with connection.transaction():
            assert choose(connection, first, moment + until * HOUR).ids == [campaign_id] * is_chosen

    def test_the_newest_window_is_first_and_statuses_are_counted(self, connection):
        later = a_campaign(connection, sending_start=now() + HOUR / 2)
        running, _ = an_open_campaign(connection, clients=1)
        with connection.transaction():
            found = choose(connection)
        assert found.ids == [later, running]
        assert found.statuses == {"scheduled": 1, "running": 1, "paused": 0, "cancelled": 0, "finished": 0}

    def test_one_campaign_can_be_asked_for(self, connection):
        one, _ = a_campaign(connection), a_campaign(connection)
        with connection.transaction():
            assert choose(connection, campaign_id=one).ids == [one]

    def test_it_writes_nothing(self, connection):
        with connection.transaction(force_rollback=True):
            choose(connection)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("DELETE FROM campaigns")


class TestBreakdowns:
    @pytest.fixture
    def campaign_id(self, connection):
        """Two clients of 911 with two tags, one of 999 with one, one of 103 with none: sent, sent, failed, pending."""
        some_clients(connection, 2, code="911", tags=("red", "blue"))
        some_clients(connection, 1, code="999", tags=("red",))
        campaign_id, _ = an_open_campaign(connection, clients=1)
        settle(connection, campaign_id, now(), "sent", "sent", "failed")
        return campaign_id

    def states(self, counts):
        return {state: count for state, count in counts.states.items() if count}

    def test_by_day_they_add_up_with_what_has_no_day(self, connection, campaign_id):
        today = now().date()
        with connection.transaction():
            found = spans.by_day(connection, choose(connection), spans.midnights(today - DAY, today + DAY, "UTC"))
        assert [self.states(day) for day in found.days] == [{}, {"sent": 2, "failed": 1}, {}]
        assert self.states(found.undated) == {"open": 1}
        assert self.states(found.total) == {"sent": 2, "failed": 1, "open": 1}
        assert found.total.audience == 4

    def test_what_happened_on_other_days_is_before_or_after(self, connection, campaign_id):
        for distance, where in ((3, "before"), (-3, "after")):
            day = now().date() + distance * DAY
            with connection.transaction():
                found = spans.by_day(connection, choose(connection), spans.midnights(day, day, "UTC"))
            assert self.states(getattr(found, where)) == {"sent": 2, "failed": 1}
            assert found.total.audience == 4

    def test_by_operator_code_they_add_up_also_when_a_client_is_gone(self, connection, campaign_id):
        gone = connection.execute("SELECT id FROM clients WHERE mobile_operator_code = '999'").fetchone()["id"]
        clients.delete(connection, gone, actor="test")
        with connection.transaction():
            found = spans.by_operator_code(connection, choose(connection))
        assert {code: self.states(counts) for code, counts in found.items()} == {
            "911": {"sent": 2},
            "103": {"open": 1},
            "999": {"failed": 1},
        }
        assert next(iter(found)) == "911"

    def test_by_tag_each_tag_of_a_client_counts(self, connection, campaign_id):
        with connection.transaction():
            found = spans.by_tag(connection, choose(connection))
        assert {tag: self.states(counts) for tag, counts in found.items()} == {
            "red": {"sent": 2, "failed": 1},
            "blue": {"sent": 2},
            None: {"open": 1},
        }

    def test_campaigns_that_were_not_chosen_do_not_count(self, connection, campaign_id):
        other = a_campaign(connection)
        with connection.transaction():
            runs.select_audience(connection, other, batch_size=10)
        with connection.transaction():
            chosen = choose(connection, campaign_id=campaign_id)
            sums = [
                spans.Counts.sum(spans.by_operator_code(connection, chosen).values()),
                spans.by_day(connection, chosen, spans.midnights(date(2026, 1, 1), date(2026, 1, 2), "UTC")).total,
            ]
        assert [each.audience for each in sums] == [4, 4]

    def test_a_count_that_takes_too_long_is_given_up_with_advice(self, connection, database, campaign_id):
        with psycopg.connect(database) as other:
            other.execute("LOCK TABLE client_tags")  # what counts by tag has to wait
            with connection.transaction(force_rollback=True):
                chosen = choose(connection)
                connection.execute("SET LOCAL statement_timeout = '50ms'")
                with pytest.raises(InvalidInput, match="wanted a shorter span") as refused:
                    spans.by_tag(connection, chosen)
        assert refused.value.fields == ("from",)


class TestMidnights:
    def test_they_are_local_and_one_more_than_there_are_days(self):
        found = spans.midnights(date(2026, 6, 1), date(2026, 6, 2), "Europe/Berlin")
        assert [at.astimezone(UTC) for at in found] == [
            datetime(2026, 5, 31, 22, tzinfo=UTC),
            datetime(2026, 6, 1, 22, tzinfo=UTC),
            datetime(2026, 6, 2, 22, tzinfo=UTC),
        ]

    @pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
    def test_a_day_on_which_clocks_change_is_shorter_or_longer(self, day, hours):
        first, second = (at.astimezone(UTC) for at in spans.midnights(day, day, "Europe/Berlin"))
        assert second - first == timedelta(hours=hours)
