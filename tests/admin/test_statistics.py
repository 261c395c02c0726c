"""The page of statistics: every breakdown adds up, in the viewer's zone, and shows names as text."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from mailing.models import MESSAGE_STATES, OUTCOMES
from tests.builders import a_campaign, an_open_campaign, now, some_clients
from tests.test_spans import settle
from tests.waiting import broken_off

PATH = "/admin/statistics"
COUNTED_FROM = {
    "day": "time_counts", "campaign": "state_counts", "operator": "operator_counts", "tag": "messages",
}  # fmt: skip
EVIL = "<script>alert('x')</script>\"&"


def lines(answer):
    """The rows of a CSV answer, as dicts."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.fixture
def campaign_id(connection):
    """Three clients of 911, tagged, one of 103: sent, sent, failed; one is pending."""
    some_clients(connection, 3, code="911", tags=("red", "blue"))
    campaign_id, _ = an_open_campaign(connection, clients=1, name=EVIL)
    settle(connection, campaign_id, now(), "sent", "sent", "failed")
    return campaign_id


class TestFigures:
    @pytest.mark.parametrize("by", ["day", "campaign", "operator", "tag"])
    def test_where_counting_takes_too_long_a_shorter_span_is_asked_for(self, viewer, connection, campaign_id, by):
        page = broken_off(connection, COUNTED_FROM[by], lambda: viewer.get(f"{PATH}?by={by}"))
        assert page.status_code == 422
        assert "wanted a shorter span" in page.text
        assert 'aria-label="Which campaigns to count"' in page.text

    @pytest.mark.parametrize("by", ["day", "campaign", "operator"])
    def test_the_lines_add_up_to_the_audience(self, viewer, campaign_id, by):
        found = lines(viewer.get(f"{PATH}/csv?by={by}"))
        states, left = (MESSAGE_STATES, "pending") if by == "campaign" else (OUTCOMES, "open")
        sums = {state: sum(int(line[state]) for line in found) for state in states}
        assert sums == dict.fromkeys(states, 0) | {"sent": 2, "failed": 1, left: 1}
        assert sum(int(line["audience"]) for line in found) == 4

    def test_a_client_counts_under_each_of_its_tags(self, viewer, campaign_id):
        found = {line["tag"]: line["audience"] for line in lines(viewer.get(f"{PATH}/csv?by=tag"))}
        assert found == {"red": "3", "blue": "3", "no tag, or client deleted": "1"}
        assert "the lines have no sum" in viewer.get(f"{PATH}?by=tag").text

    @pytest.mark.parametrize("by", ["day", "campaign", "operator", "tag"])
    def test_the_chart_shows_what_the_table_shows(self, viewer, campaign_id, by):
        page = viewer.get(f"{PATH}?by={by}").text
        figures = [json.loads(found) for found in re.findall(r"data-figures='([^']*)'", page)]
        series = {each["name"]: sum(each["data"]) for each in figures[-1]["series"]}
        marked = [line for line in lines(viewer.get(f"{PATH}/csv?by={by}")) if line.get("day") != "not sent (yet)"]
        for state in MESSAGE_STATES if by == "campaign" else OUTCOMES:
            assert series.get(state, 0) == sum(int(line[state]) for line in marked)

    def test_a_day_is_one_of_the_viewers_zone(self, viewer, connection):
        campaign_id, _ = an_open_campaign(connection, clients=1)
        late = datetime.now(UTC).replace(hour=23, minute=30) - timedelta(days=2)
        settle(connection, campaign_id, late, "sent")
        for zone, day in (("UTC", late), ("Europe/Berlin", late + timedelta(days=1))):
            answer = viewer.get(f"{PATH}/csv", headers={"Cookie": f"timezone={zone}"})
            assert [line["day"] for line in lines(answer) if line["sent"] == "1"] == [f"{day:%Y-%m-%d}"]

    def test_the_page_says_as_of_when_and_in_which_zone(self, viewer, campaign_id):
        page = viewer.get(PATH, headers={"Cookie": "timezone=Europe/Berlin"}).text
        assert re.search(r'As of <time datetime="20\d\d-[^"]+" title="20[^"]+ UTC">\d\d:\d\d:\d\d</time>', page)
        assert "days and times in Europe/Berlin" in page


class TestFilters:
    def test_only_campaigns_of_the_span_count(self, viewer, campaign_id):
        past = viewer.get(f"{PATH}?from=2020-01-01&to=2020-01-31")
        assert past.status_code == 200
        assert "No campaign" in past.text
        assert "Show everything" in past.text
        assert lines(viewer.get(f"{PATH}/csv?by=operator&from=2020-01-01&to=2020-01-31")) == []
        assert len(lines(viewer.get(f"{PATH}/csv?by=campaign&from=&to={now():%Y-%m-%d}"))) == 1

    def test_one_campaign_can_be_asked_for(self, viewer, connection, campaign_id):
        other = a_campaign(connection)
        found = lines(viewer.get(f"{PATH}/csv?by=campaign&campaign=%23{other}"))
        assert [line["campaign"] for line in found] == [str(other)]

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("from=2026-02-30&to=2026-03-01", "wanted a day, as"),
            ("from=1999-01-01&to=2026-03-01", "wanted a day of the years 2000 to 9998"),
            ("from=2026-03-02&to=2026-03-01", "wanted a day that is not before 2026-03-02"),
            ("campaign=seventeen", "wanted a number, as 17"),
            ("campaign=0", "wanted a number, as 17"),
            (f"campaign={'9' * 30}", "wanted a number, as 17"),
            ("page=-1", "wanted a number, as 17"),
        ],
    )
    def test_what_is_no_day_or_number_is_said_beside_its_field_and_kept(self, viewer, query, said):
        answer = viewer.get(f"{PATH}?{query}")
        assert answer.status_code == 422
        assert said in answer.text
        for pair in query.split("&"):
            name, value = pair.split("=")
            if name != "page":
                assert re.search(rf'name="{name}"[^>]*value="{value}"', answer.text)
        assert viewer.get(f"{PATH}/csv?{query}").status_code == 422

    def test_what_is_typed_is_text(self, viewer):
        answer = viewer.get(PATH, params={"campaign": EVIL, "from": EVIL, "to": "", "by": EVIL})
        assert answer.status_code == 422
        assert EVIL not in answer.text
        assert f'value="{EVIL}"' in unescape(answer.text)

    def test_campaigns_are_paged_and_only_those_of_the_page_shown(self, viewer, connection):
        ids = [a_campaign(connection) for _ in range(21)]
        first, second = (viewer.get(f"{PATH}?by=campaign&page={n}").text for n in (1, 2))
        shown = [re.findall(r'<th scope="row"[^>]*><a[^>]*>#(\d+)</a>', page) for page in (first, second)]
        assert sorted(int(found) for page in shown for found in page) == ids
        assert [len(page) for page in shown] == [20, 1]
        assert 'rel="next"' in first
        assert 'rel="prev"' in second
        assert 'rel="next"' not in second

    def test_a_long_span_shows_its_last_days_one_by_one(self, viewer, campaign_id):
        found = lines(viewer.get(f"{PATH}/csv?from=2020-01-01&to={now():%Y-%m-%d}"))
        assert sum(line["day"].startswith("20") for line in found) == 92


class TestPage:
    def test_without_campaigns_it_says_what_will_be_here(self, viewer):
        page = viewer.get(f"{PATH}?from=&to={now():%Y-%m-%d}").text
        assert "There is none so far" in page
        assert "Download as CSV" not in page

    def test_a_name_with_markup_is_text(self, viewer, campaign_id):
        page = viewer.get(f"{PATH}?by=campaign").text
        assert EVIL not in page
        assert EVIL in unescape(page)

    def test_a_name_that_is_a_formula_is_text_in_a_spreadsheet(self, viewer, connection):
        a_campaign(connection, name="=HYPERLINK(1)")
        assert lines(viewer.get(f"{PATH}/csv?by=campaign"))[0]["name"] == "'=HYPERLINK(1)"

    def test_many_lines_are_put_together_on_the_page_and_not_in_the_file(self, viewer, connection):
        for code in range(100, 160):
            some_clients(connection, 1, code=str(code))
        an_open_campaign(connection, clients=0)
        page = viewer.get(f"{PATH}?by=operator").text
        assert "10 others" in page
        assert len(lines(viewer.get(f"{PATH}/csv?by=operator"))) == 60

    def test_it_needs_a_login(self, nobody):
        assert nobody.get(PATH, follow_redirects=False).status_code == 303
