"""Statistics over REST."""

from __future__ import annotations

import pytest

from mailing import campaigns, gateways, messages
from mailing.breaker import TOLERANCE, Report
from mailing.models import CAMPAIGN_STATUSES, MESSAGE_STATES
from tests.builders import HOUR, a_campaign, an_open_campaign, claim, now, outcome_of
from tests.web import problem


def settle_some(connection, campaign_id, *ends):
    """One message after the other ends like this."""
    token = messages.take_lease(connection, campaign_id, 1, "test")
    for state in ends:
        [one] = claim(connection, campaign_id, token, limit=1)
        messages.record(connection, campaign_id, token, [outcome_of(one, state)])
    messages.release_lease(connection, token)


@pytest.fixture
def some_campaigns(connection):
    """One that runs, one that is scheduled, one that is cancelled; in this order."""
    running, _ = an_open_campaign(connection, clients=5, name="spring")
    settle_some(connection, running, "sent", "sent", "failed")
    scheduled = a_campaign(connection, sending_start=now() + HOUR / 2)
    cancelled = a_campaign(connection)
    campaigns.cancel(connection, cancelled, actor="anna")
    return running, scheduled, cancelled


class TestOverall:
    def test_campaigns_are_counted_by_status_and_messages_by_state(self, viewer, some_campaigns):
        found = viewer.get("/api/statistics/").json()
        assert found["campaigns"] == dict.fromkeys(CAMPAIGN_STATUSES, 0) | {
            "running": 1,
            "scheduled": 1,
            "cancelled": 1,
        }
        assert found["messages"] == dict.fromkeys(MESSAGE_STATES, 0) | {"sent": 2, "failed": 1, "pending": 2}
        assert found["totals"] == {"campaigns": 3, "messages": 5}

    def test_where_there_is_nothing_every_count_is_0(self, viewer):
        found = viewer.get("/api/statistics/").json()
        assert {*found["campaigns"].values(), *found["messages"].values(), *found["totals"].values()} == {0}

    def test_nobody_sees_them_without_a_login(self, nobody):
        for path in ("", "campaigns/", "campaigns/1/", "running"):
            problem(nobody.get(f"/api/statistics/{path}"), 401)


class TestPerCampaign:
    def test_each_campaign_has_its_window_its_status_and_its_counts(self, viewer, connection, some_campaigns):
        found = viewer.get("/api/statistics/campaigns/").json()
        assert [item["campaign_id"] for item in found["items"]] == sorted(some_campaigns, reverse=True)
        item = found["items"][-1]
        assert (item["campaign_name"], item["status"], item["audience"]) == ("spring", "running", 5)
        assert {state: item[state] for state in MESSAGE_STATES if item[state]} == {"sent": 2, "failed": 1, "pending": 2}
        row = connection.execute("SELECT * FROM reporting.campaign_statistics ORDER BY campaign_id").fetchone()
        assert set(item) == set(row)
        assert viewer.get(f"/api/statistics/campaigns/{some_campaigns[0]}/").json() == item

    def test_pages_are_sorted_filtered_and_hold_each_campaign_once(self, viewer, some_campaigns):
        running, scheduled, cancelled = some_campaigns

        def listed(query):
            answer = viewer.get(f"/api/statistics/campaigns/?{query}").json()
            return [item["campaign_id"] for item in answer["items"]], answer["next_cursor"]

        first, cursor = listed("limit=2&sort=id")
        second, end = listed(f"limit=2&sort=id&cursor={cursor}")
        assert (first + second, end) == ([running, scheduled, cancelled], None)
        assert listed("sort=-sending_start")[0][0] == scheduled
        assert listed("status=running&status=cancelled&sort=id")[0] == [running, cancelled]
        assert listed("status=paused")[0] == []

    @pytest.mark.parametrize(
        "query", ["status=lost", "limit=101", "limit=0", "sort=sent", "cursor=x", "fields=text", "x=1"]
    )
    def test_a_query_that_makes_no_sense_is_422(self, viewer, query):
        problem(viewer.get(f"/api/statistics/campaigns/?{query}"), 422, query.partition("=")[0])

    def test_only_some_fields(self, viewer, some_campaigns):
        found = viewer.get("/api/statistics/campaigns/?fields=campaign_id,sent&sort=id&limit=1").json()
        assert found["items"] == [{"campaign_id": some_campaigns[0], "sent": 2}]

    def test_a_campaign_that_is_not_there_is_404(self, viewer):
        problem(viewer.get("/api/statistics/campaigns/7/"), 404, "campaign 7: there is no such campaign")
        problem(viewer.get("/api/statistics/campaigns/0/"), 422, "campaign_id")


class TestRunning:
    def test_a_running_campaign_says_how_far_it_is_and_how_fast(self, viewer, connection, some_campaigns):
        [found] = viewer.get("/api/statistics/running").json()["items"]
        assert (found["campaign_id"], found["standing"]) == (some_campaigns[0], "running")
        assert (found["audience"], found["pending"], found["sent"]) == (5, 2, 2)
        assert found["share_done"] == 0.6
        assert 0 < found["messages_per_second"] <= 2
        assert found["eta_s"] > 0
        assert found["breaker_state"] == "closed"

    def test_what_was_sent_long_ago_is_no_speed(self, viewer, connection, some_campaigns):
        connection.execute("UPDATE messages SET sent_at = sent_at - interval '1 minute' WHERE state = 'sent'")
        [found] = viewer.get("/api/statistics/running").json()["items"]
        assert (found["messages_per_second"], found["eta_s"]) == (0, None)

    def test_what_is_done_has_nothing_left(self, viewer, connection, some_campaigns):
        settle_some(connection, some_campaigns[0], "sent", "sent")
        [found] = viewer.get("/api/statistics/running").json()["items"]
        assert (found["share_done"], found["eta_s"]) == (1, 0)

    def test_it_says_what_keeps_it_from_sending(self, viewer, connection, some_campaigns):
        met = Report()
        for _ in range(TOLERANCE):
            met.failed("http_503", None, False)
        with connection.transaction():
            gateways.report(connection, "default", met)
        [found] = viewer.get("/api/statistics/running").json()["items"]
        assert found["standing"] == "running; waits for gateway default (http_503)"
        assert (found["breaker_state"], found["breaker_reason"]) == ("open", "http_503")

    def test_campaigns_that_run_come_in_pages(self, viewer, connection):
        ids = [an_open_campaign(connection, clients=1)[0] for _ in range(3)]
        first = viewer.get("/api/statistics/running?limit=2").json()
        second = viewer.get(f"/api/statistics/running?limit=2&cursor={first['next_cursor']}").json()
        assert [item["campaign_id"] for item in first["items"] + second["items"]] == ids
        assert second["next_cursor"] is None
        problem(viewer.get("/api/statistics/running?cursor=x"), 422, "cursor")
        problem(viewer.get("/api/statistics/running?fields=id"), 422, "fields")
