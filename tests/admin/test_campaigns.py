"""The list of campaigns: what it shows, finds and sorts, its pages, what is done to several, the file of it."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest

from mailing import campaigns
from mailing.admin.campaigns import PAGE_SIZE
from mailing.models import MESSAGE_STATES
from tests.admin.forms import links, send, text_of
from tests.builders import HOUR, a_campaign, an_open_campaign, audited, kept, now, states
from tests.waiting import broken_off

PATH = "/admin/campaigns"
EVIL = "<script>alert(1)</script>\"'&"


def names_in(page):
    """The names of the campaigns of the page, in its order."""
    return [line.split('data-name="')[1].split('"')[0] for line in page.text.splitlines() if "data-name=" in line]


class TestTheList:
    def test_an_empty_one_says_what_to_do_next(self, operator):
        page = operator.get(PATH)
        assert page.status_code == 200
        assert "There is no campaign yet" in text_of(page)
        assert links(page, "New campaign")[0] == f"{PATH}/new"

    def test_who_may_only_look_sees_no_button_that_they_may_not_press(self, viewer, connection):
        a_campaign(connection, name="Spring")
        page = viewer.get(PATH)
        assert "Spring" in text_of(page)
        for forbidden in ("New campaign", "Pause", "Cancel", '<form method="post"', "data-select"):
            assert forbidden not in page.text

    def test_a_campaign_is_shown_with_its_figures(self, viewer, connection):
        campaign_id, _ = an_open_campaign(connection, clients=1_234, name="Spring")
        page = viewer.get(PATH)
        assert links(page, "Spring") == [f"{PATH}/{campaign_id}"]
        assert "1,234 left" in text_of(page)
        assert 'aria-label="1,234 waiting"' in page.text

    def test_where_counting_takes_too_long_it_is_shown_without(self, viewer, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3, name="Spring")
        page = broken_off(connection, "state_counts", lambda: viewer.get(PATH))
        assert page.status_code == 200
        assert links(page, "Spring") == [f"{PATH}/{campaign_id}"]
        assert "too many to count" in text_of(page)

    def test_one_without_a_name_has_its_number(self, viewer, connection):
        campaign_id = a_campaign(connection)
        assert links(viewer.get(PATH), f"Campaign {campaign_id}") == [f"{PATH}/{campaign_id}"]

    def test_markup_in_a_name_is_text(self, operator, connection):
        a_campaign(connection, name=EVIL)
        page = operator.get(PATH)
        assert EVIL in text_of(page)
        assert EVIL not in page.text

    def test_only_campaigns_in_a_status(self, operator, connection):
        a_campaign(connection, name="waits")
        an_open_campaign(connection, name="runs")
        assert names_in(operator.get(f"{PATH}?status=running")) == ["runs"]

    def test_only_campaigns_whose_name_begins_so(self, operator, connection):
        for name in ("Spring offer", "100% off", "Summer"):
            a_campaign(connection, name=name)
        assert names_in(operator.get(f"{PATH}?name=Spring")) == ["Spring offer"]
        assert names_in(operator.get(f"{PATH}?name=1%25")) == []

    def test_nothing_found_is_not_no_campaign_at_all(self, operator, connection):
        a_campaign(connection)
        assert "No campaign is like that" in text_of(operator.get(f"{PATH}?status=finished"))

    @pytest.mark.parametrize(
        ("sort", "order"),
        [("id", "abc"), ("-id", "cba"), ("sending_start", "bca"), ("-sending_start", "acb"), ("sending_stop", "abc")],
    )
    def test_it_is_sorted(self, operator, connection, sort, order):
        for name, start, stop in (("a", 3, 4), ("b", 1, 5), ("c", 2, 6)):
            a_campaign(connection, name=name, sending_start=now() + start * HOUR, sending_stop=now() + stop * HOUR)
        assert "".join(names_in(operator.get(f"{PATH}?sort={sort}"))) == order

    def test_its_pages_hold_every_campaign_once(self, operator, connection):
        wanted = [f"c{number}" for number in range(PAGE_SIZE * 2 + 1)]
        for name in wanted:
            a_campaign(connection, name=name)
        found, page = [], operator.get(f"{PATH}?sort=id&name=c")
        while True:
            found += names_in(page)
            if not (following := links(page, "Next page")):
                break
            page = operator.get(following[0])
        assert found == wanted
        assert links(page, "First page") == [f"{PATH}?name=c&sort=id"]

    @pytest.mark.parametrize("query", ["sort=text", "cursor=nonsense", "status=lost", "name=a%00", "name=" + "x" * 201])
    def test_a_wrong_address_is_told(self, viewer, connection, query):
        assert viewer.get(f"{PATH}?{query}").status_code == 422


class TestTheFile:
    def rows(self, answer):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/csv")
        return list(csv.DictReader(io.StringIO(answer.text)))

    def test_it_has_all_campaigns_that_the_filter_lets_through(self, viewer, connection):
        for number in range(120):
            a_campaign(connection, name=f"c{number}")
        a_campaign(connection, name="other")
        rows = self.rows(viewer.get(f"{PATH}/export?name=c&sort=id"))
        assert [row["campaign_name"] for row in rows] == [f"c{number}" for number in range(120)]

    def test_it_has_the_figures(self, viewer, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        [row] = self.rows(viewer.get(f"{PATH}/export"))
        assert (row["campaign_id"], row["audience"], row["pending"]) == (str(campaign_id), "3", "3")
        assert set(MESSAGE_STATES) <= set(row)

    def test_of_no_campaigns_it_has_its_heading(self, viewer):
        assert viewer.get(f"{PATH}/export").text.startswith("campaign_id,campaign_name,status")

    def test_a_name_is_no_formula(self, viewer, connection):
        a_campaign(connection, name="=1+1")
        [row] = self.rows(viewer.get(f"{PATH}/export"))
        assert row["campaign_name"] == "'=1+1"


class TestSeveralAtOnce:
    BULK = f"{PATH}/bulk"

    @pytest.mark.parametrize(("verb", "status"), [("pause", "paused"), ("cancel", "cancelled")])
    def test_all_that_are_selected_are_turned(self, operator, connection, verb, status):
        selected = [a_campaign(connection) for _ in range(3)]
        other = a_campaign(connection)
        answer = send(operator, self.BULK, {"verb": verb, "id": selected})
        assert (answer.status_code, answer.headers["location"].endswith(PATH)) == (303, True)
        assert [campaigns.get(connection, each).status for each in selected] == [status] * 3
        assert campaigns.get(connection, other).status == "scheduled"
        assert audited(connection) == [("operator", verb, each, None, None) for each in selected]
        assert f"3 of 3 campaigns {status}" in text_of(operator.get(PATH))

    def test_they_are_resumed(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection)
        campaigns.pause(connection, campaign_id, actor="test")
        send(operator, self.BULK, {"verb": "resume", "id": [campaign_id]})
        assert campaigns.get(connection, campaign_id).status == "running"

    def test_what_waits_in_a_cancelled_one_is_cancelled_at_once(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        send(operator, self.BULK, {"verb": "cancel", "id": [campaign_id]})
        assert states(connection, campaign_id) == {"cancelled": 3}

    def test_one_that_refuses_keeps_no_other_back(self, operator, connection):
        good, gone = a_campaign(connection), 999
        over = a_campaign(connection, sending_stop=now() - timedelta(seconds=1))
        campaigns.cancel(connection, over, actor="test")
        send(operator, self.BULK, {"verb": "pause", "id": [gone, over, good]})
        assert campaigns.get(connection, good).status == "paused"
        said = text_of(operator.get(PATH))
        assert "1 of 3 campaigns paused" in said
        assert "campaign 999: there is no such campaign" in said
        assert f"campaign {over}: pause: wanted" in said

    @pytest.mark.parametrize(
        "form",
        [
            {"verb": "forget", "id": [1]},
            {"verb": "pause", "id": ["1; DROP"]},
            {"verb": "pause", "id": ["9" * 30]},
            {"verb": "pause", "id": list(range(1, 102))},
            {},
        ],
    )
    def test_what_makes_no_sense_changes_nothing(self, operator, connection, form):
        a_campaign(connection)
        before = kept(connection)
        assert send(operator, self.BULK, form).status_code == 422
        assert kept(connection) == before

    def test_an_admin_deletes_those_of_which_nothing_left(self, admin, connection):
        over = [a_campaign(connection) for _ in range(2)]
        for campaign_id in over:
            campaigns.cancel(connection, campaign_id, actor="test")
        opened, _ = an_open_campaign(connection)
        send(admin, self.BULK, {"verb": "delete", "id": [*over, opened]})
        assert [row["id"] for row in connection.execute("SELECT id FROM campaigns")] == [opened]
        said = text_of(admin.get(PATH))
        assert "2 of 3 campaigns deleted" in said
        assert f"campaign {opened}: delete: wanted one whose start is still ahead" in said

    @pytest.mark.parametrize("role", ["viewer", "operator"])
    def test_who_is_no_admin_deletes_none(self, role, request, connection):
        caller, campaign_id = request.getfixturevalue(role), a_campaign(connection)
        campaigns.cancel(connection, campaign_id, actor="test")
        assert 'data-dialog="bulk-delete"' not in caller.get(PATH).text
        assert send(caller, self.BULK, {"verb": "delete", "id": [campaign_id]}).status_code == 403
        assert campaigns.get(connection, campaign_id).status == "cancelled"

    def test_a_viewer_may_not(self, viewer, connection):
        campaign_id = a_campaign(connection)
        assert send(viewer, self.BULK, {"verb": "pause", "id": [campaign_id]}).status_code == 403
        assert campaigns.get(connection, campaign_id).status == "scheduled"

    def test_another_sites_page_may_not(self, operator, connection):
        campaign_id = a_campaign(connection)
        assert operator.post(self.BULK, data={"verb": "pause", "id": [campaign_id]}).status_code == 403
        assert campaigns.get(connection, campaign_id).status == "scheduled"


def test_nobody_sees_the_list_without_a_login(nobody):
    assert nobody.get(PATH, follow_redirects=False).status_code == 303
