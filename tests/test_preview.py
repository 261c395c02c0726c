"""Previews: whom a campaign would reach, by a hand count."""

from __future__ import annotations

from datetime import UTC, datetime, time

import pytest

from mailing import campaigns, messages, preview, runs
from mailing.errors import InvalidInput, NotFound
from mailing.local_hours import ZoneForecast
from tests.builders import HOUR, a_campaign, an_open_campaign, claim, kept, now, outcome_of, some_clients

DAY = datetime(2040, 6, 1, tzinfo=UTC)


@pytest.fixture
def people(connection):
    """Some clients: two operator codes, three zones, two tags."""
    art = some_clients(connection, 4, code="900", tags=("art",))
    both = some_clients(connection, 3, code="903", tags=("art", "vip"))
    some_clients(connection, 2, code="903")
    connection.execute("UPDATE clients SET timezone = 'Etc/GMT-5' WHERE id = ANY (%s)", (art[:3],))
    connection.execute("UPDATE clients SET timezone = 'Etc/GMT+8' WHERE id = ANY (%s)", (both[:2],))
    return {"art": art, "both": both}


def a_draft(**changes):
    """From 06:00 to 10:00 UTC on a day far ahead."""
    return {"text": "Hi", "sending_start": DAY + 6 * HOUR, "sending_stop": DAY + 10 * HOUR} | changes


def test_everybody_counts_where_nothing_is_filtered(connection, people):
    seen = preview.of_draft(connection, **a_draft())
    assert (seen.audience, seen.never, seen.is_open) == (9, 0, False)
    assert seen.operator_codes == {"900": 4, "903": 5}
    start = DAY + 6 * HOUR
    assert seen.zones == [
        ZoneForecast("Etc/GMT+8", 2, start, 0), ZoneForecast("Etc/GMT-5", 3, start, 0), ZoneForecast("UTC", 4, start, 0)
    ]  # fmt: skip


def test_a_filter_and_local_hours_count_as_they_would(connection, people):
    hours = {"local_from": time(9), "local_to": time(12)}
    seen = preview.of_draft(connection, **a_draft(filter_tags=["art"], **hours))
    assert (seen.audience, seen.never) == (7, 2)
    assert seen.operator_codes == {"900": 4, "903": 3}
    assert seen.zones == [
        ZoneForecast("Etc/GMT+8", 2, None, 2),
        ZoneForecast("Etc/GMT-5", 3, DAY + 6 * HOUR, 0),  # open since 04:00
        ZoneForecast("UTC", 2, DAY + 9 * HOUR, 0),
    ]
    seen = preview.of_draft(connection, **a_draft(filter_tags=["vip"], filter_operator_codes=["900"]))
    assert (seen.audience, seen.zones, seen.operator_codes, seen.sample) == (0, [], {}, [])


def test_a_preview_and_the_forecast_of_a_campaign_agree_before_and_after_it_opens(connection, people):
    campaign_id = a_campaign(connection, filter_tags=["art"], local_from=time(0), local_to=time(23, 59))
    before = preview.of_campaign(connection, campaign_id)
    assert [(zone.timezone, zone.clients) for zone in before.zones] == [
        (zone.timezone, zone.clients) for zone in runs.forecast(connection, campaign_id)
    ]
    connection.execute("UPDATE campaigns SET local_from = NULL, local_to = NULL")
    runs.select_audience(connection, campaign_id)
    token = messages.take_lease(connection, campaign_id, 1, "test")
    claims = claim(connection, campaign_id, token, limit=3)
    messages.record(connection, campaign_id, token, [outcome_of(each, "sent") for each in claims])
    after = preview.of_campaign(connection, campaign_id)
    assert (before.audience, after.audience) == (7, 4)
    assert (before.is_open, after.is_open) == (False, True)
    assert sum(zone.clients for zone in runs.forecast(connection, campaign_id)) == 4
    assert not {each.client_id for each in claims} & {client.id for client in after.sample}


def test_the_sample_is_of_ten_at_most_and_shows_no_phone_number(connection):
    ids = some_clients(connection, 12, code="900", tags=("vip", "art"))
    seen = preview.of_draft(connection, **a_draft())
    assert [client.id for client in seen.sample] == ids[:10]
    first = seen.sample[0]
    assert (first.phone_number, first.mobile_operator_code, first.timezone) == ("7900•••••01", "900", "UTC")
    assert first.tags == ["900", "art", "vip"]
    assert "79000000001" not in repr(seen)


def test_the_text_is_counted_in_characters(connection):
    seen = preview.of_draft(connection, **a_draft(text="Привет 👋"))
    assert (seen.text, seen.characters) == ("Привет 👋", 8)


def test_a_window_that_is_over_reaches_nobody(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    seen = preview.of_campaign(connection, campaign_id)
    assert (seen.audience, seen.never) == (2, 2)


def test_a_draft_leaves_nothing_behind_in_whatever_transaction_it_is_seen(connection, people):
    before = kept(connection)
    preview.of_draft(connection, **a_draft())
    with connection.transaction():
        good = a_campaign(connection)
        preview.of_draft(connection, **a_draft())
        assert campaigns.get(connection, good).id == good
    connection.execute("DELETE FROM campaigns")
    assert kept(connection, "campaigns", "messages", "audit_log") == {
        table: before[table] for table in ("campaigns", "messages", "audit_log")
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"filter_tags": ["nobody"]}, "filter_tags"),
        ({"sending_stop": DAY}, "sending_stop"),
        ({"local_from": time(9)}, "local_from"),
        ({"sending_start": now() - 2 * HOUR, "sending_stop": now() - HOUR}, "sending_stop"),
        ({"gateway": "nowhere"}, "gateway"),
    ],
)
def test_a_draft_that_could_not_be_created_is_refused_with_its_field(connection, changes, field):
    with pytest.raises(InvalidInput) as caught:
        preview.of_draft(connection, **a_draft(**changes))
    assert field in caught.value.fields


def test_a_campaign_that_is_not_there(connection):
    with pytest.raises(NotFound, match="^campaign 99: there is no such campaign$"):
        preview.of_campaign(connection, 99)


def test_a_draft_takes_no_id_of_a_campaigns(connection, people):
    first = a_campaign(connection)
    before = kept(connection)
    preview.of_draft(connection, **a_draft())
    with pytest.raises(InvalidInput):
        preview.of_draft(connection, **a_draft(text=""))
    assert kept(connection) == before
    assert a_campaign(connection) == first + 1
