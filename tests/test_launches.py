"""Campaigns that other pipelines launch: once per key, or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta

import pytest

from mailing import campaigns, db, launches
from mailing.errors import InvalidInput
from mailing.launches import Request
from tests.builders import HOUR, a_campaign, audited, now, some_clients


def a_request(**changes):
    return Request.of({"text": "Hello", "duration": "PT2H", **changes})


def launch(connection, key="k", **changes):
    with connection.transaction():
        return launches.launch(connection, key, a_request(**changes), actor="DAG sales")


def count(connection):
    return connection.execute("SELECT count(*) AS n FROM campaigns").fetchone()["n"]


def test_a_request_becomes_a_campaign_with_all_its_terms(connection):
    some_clients(connection, 1, tags=("art",))
    connection.execute("INSERT INTO gateways (name) VALUES ('other')")
    start = (now() + HOUR).replace(microsecond=0)
    launched = launch(
        connection, name="Sale", filter_tags=["art"], filter_operator_codes=["103"], audience="live",
        on_doubt="resend", local_from="10:00", local_to=time(20), messages_per_second="5.5", gateway="other",
        sending_start=start.isoformat(),
    )  # fmt: skip
    assert launched.is_new
    row = campaigns.get(connection, launched.campaign_id)
    assert (row.name, row.filter_tags, row.filter_operator_codes) == ("Sale", ["art"], ["103"])
    assert (row.audience, row.on_doubt, row.gateway, row.messages_per_second) == ("live", "resend", "other", 5.5)
    assert (row.local_from, row.local_to) == (time(10), time(20))
    assert (row.sending_start, row.sending_stop) == (start, start + 2 * HOUR)
    assert audited(connection) == [("DAG sales", "create", launched.campaign_id, None, None)]


def test_without_a_start_the_window_opens_now(connection):
    row = campaigns.get(connection, launch(connection, duration=timedelta(hours=2)).campaign_id)
    assert abs(row.sending_start - now()) < timedelta(seconds=5)
    assert row.sending_stop == row.sending_start + 2 * HOUR


def test_the_same_key_with_the_same_request_is_the_same_campaign(connection):
    some_clients(connection, 1, tags=("art", "sport"))
    at = now() + HOUR
    first = launch(connection, filter_tags=["art", "sport"], sending_start=at, messages_per_second=5)
    again = launch(
        connection,
        filter_tags=("sport", "art"),
        sending_start=at.astimezone().isoformat(),
        messages_per_second="5.0",
        name="",
        audience="snapshot",
    )
    assert (again.campaign_id, again.is_new) == (first.campaign_id, False)
    assert count(connection) == 1


def test_a_key_holds_when_the_window_is_over(connection):
    stop = now() + timedelta(hours=1)
    first = launch(connection, duration=None, sending_stop=stop)
    connection.execute("UPDATE campaigns SET sending_start = now() - interval '2 days', sending_stop = now()")
    connection.execute("UPDATE launches SET created = now() - interval '1 year'")
    assert launch(connection, duration=None, sending_stop=stop).campaign_id == first.campaign_id


def test_the_same_key_with_another_request_is_refused_and_says_what_differs(connection):
    first = launch(connection)
    with pytest.raises(InvalidInput) as refused:
        launch(connection, text="Most secret", audience="live")
    assert str(refused.value) == (
        f"key 'k': it launched campaign {first.campaign_id} with another audience, text;"
        " wanted the same request, or another key"
    )
    assert refused.value.fields == ("key", "audience", "text")
    assert count(connection) == 1


def test_another_key_is_another_campaign(connection):
    assert launch(connection, "k").campaign_id != launch(connection, "l").campaign_id
    assert launches.of_key(connection, "l") == launch(connection, "l").campaign_id


def test_of_several_at_once_one_creates_and_all_get_its_campaign(connection):
    def work(_):
        with db.transaction() as own:
            return launches.launch(own, "k", a_request(), actor="DAG sales")

    with ThreadPoolExecutor(8) as threads:
        launched = list(threads.map(work, range(8)))
    assert len({each.campaign_id for each in launched}) == 1
    assert sum(each.is_new for each in launched) == 1
    assert count(connection) == 1


def test_a_key_is_free_again_when_its_campaign_is_deleted(connection):
    start = (now() + HOUR).isoformat()
    first = launch(connection, sending_start=start)
    with connection.transaction():
        campaigns.delete(connection, first.campaign_id, actor="anna")
    assert launch(connection, sending_start=start).is_new


def test_a_key_that_nobody_used_is_not_found(connection):
    a_campaign(connection)
    assert launches.of_key(connection, "k") is None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 256}, "text"),
        ({"text": "\x00"}, None),
        ({"name": "x" * 201}, "name"),
        ({"filter_tags": ["no-such-tag"]}, "filter_tags"),
        ({"filter_tags": "art"}, "filter_tags"),
        ({"filter_operator_codes": ["1034"]}, "filter_operator_codes"),
        ({"gateway": "no-such-gateway"}, "gateway"),
        ({"audience": "all"}, "audience"),
        ({"on_doubt": "maybe"}, "on_doubt"),
        ({"messages_per_second": 0}, "messages_per_second"),
        ({"messages_per_second": "fast"}, "messages_per_second"),
        ({"messages_per_second": "nan"}, "messages_per_second"),
        ({"local_from": "10:00"}, "local_from"),
        ({"local_from": "10:00", "local_to": "10:00"}, "local_from"),
        ({"local_from": "25:00", "local_to": "10:00"}, "local_from"),
        ({"local_from": "10:00+03:00", "local_to": "12:00"}, "local_from"),
        ({"sending_start": "2030-01-01T10:00:00"}, "sending_start"),
        ({"sending_start": datetime(2030, 1, 1)}, "sending_start"),  # noqa: DTZ001
        ({"sending_start": "1700000000"}, "sending_start"),
        ({"sending_start": 1_700_000_000}, "sending_start"),
        ({"sending_start": "tomorrow"}, "sending_start"),
        ({"duration": None}, "duration"),
        ({"duration": ""}, "duration"),
        ({"duration": "PT0S"}, "duration"),
        ({"duration": "-PT1H"}, "duration"),
        ({"duration": "3600"}, "duration"),
        ({"duration": "P999999999D"}, "duration"),
        ({"sending_start": "2020-01-01T10:00:00Z"}, "duration"),
        ({"sending_stop": "2030-01-01T10:00:00Z"}, "sending_stop"),
        ({"duration": None, "sending_stop": "2020-01-01T10:00:00Z", "sending_start": "2019-01-01T10:00:00Z"},
         "sending_stop"),
        ({"duration": None, "sending_stop": "2035-01-01T10:00:00Z", "sending_start": "2036-01-01T10:00:00Z"},
         "sending_stop"),
        ({"filter": ["art"]}, "filter"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_name_and_nothing_is_created(connection, wrong, field):
    some_clients(connection, 1, tags=("art",))
    with pytest.raises(InvalidInput) as refused:
        launch(connection, **wrong)
    if field:
        assert field in refused.value.fields
        assert field in str(refused.value)
    assert "x" * 100 not in str(refused.value)
    assert count(connection) == 0
    assert connection.execute("SELECT * FROM launches").fetchall() == []


@pytest.mark.parametrize("key", ["", "x" * 1_001, "a\x00b"])
def test_a_key_must_be_one(connection, key):
    with pytest.raises(InvalidInput, match="launch: key: wanted 1 to 1000 characters"):
        launch(connection, key)


def test_moments_are_kept_in_utc():
    request = a_request(sending_start="2030-01-01 12:00:00+03:00")
    assert request.sending_start == datetime(2030, 1, 1, 9, tzinfo=UTC)
