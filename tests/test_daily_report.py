"""The daily report: its figures against a hand count, what is kept, what is mailed."""

from __future__ import annotations

import email
import io
import json
import os
import re
from datetime import UTC, date, datetime, timedelta
from email.policy import default
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from aiosmtpd.controller import Controller

from local.settings import free_port
from mailing import campaigns, daily_report, finishes, runs, spans, verdicts
from mailing.daily_report import figures, folder, page
from mailing.errors import InvalidInput, Unusable
from tests.builders import HOUR, a_campaign, an_open_campaign, now, settle, some_clients

DAY = date(2026, 6, 10)
ZONE = "Europe/Berlin"
FILES = {"figures.json", *(f"{name}.csv" for name in figures.TABLES), "report.html"}
CHARTS = {f"{name}.png" for name in ("hours", "campaigns", "operator_codes", "reasons")}


def at(text, zone=ZONE):
    """A moment, as the clocks of the zone show it: "2026-06-10 09:30"."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def count(connection, day=DAY, zone=ZONE):
    with connection.transaction():
        return figures.count(connection, day, zone)


def rows(found, name):
    return json.loads(found.tables[name].to_json(orient="records"))


def past(connection, campaign_id, start, stop, finished=None):
    """As if the campaign had been there then, and had ended as it stands now."""
    connection.execute(
        "UPDATE campaigns SET sending_start = %s, sending_stop = %s, opened_at = %s, finished_at = %s,"
        " status = CASE WHEN %s::timestamptz IS NULL THEN status ELSE 'finished' END WHERE id = %s",
        (start, stop, start, finished, finished, campaign_id),
    )
    finishes.record(connection, campaign_id)


def all_of(found):
    return {name: found.csv(name) for name in figures.TABLES}


def end(connection, campaign_id, at):
    """As if the campaign had ended then, as it stands now."""
    connection.execute("UPDATE campaigns SET status = 'finished', finished_at = %s WHERE id = %s", (at, campaign_id))
    assert finishes.record(connection, campaign_id)


def go_on(connection, campaign_id, clients):
    """Trigger it by hand: so many newcomers join."""
    some_clients(connection, clients)
    with connection.transaction():
        runs.select_audience(connection, campaign_id, newcomers=True)


def close(connection, campaign_id):
    with connection.transaction():
        assert runs.close(connection, campaign_id).status == "finished"


@pytest.fixture
def ended(connection):
    """Three messages on this day, all that were to be sent; its window is open still. One client is gone."""
    campaign_id, _ = an_open_campaign(connection, clients=4, name="Once more")
    settle(connection, campaign_id, at("2026-06-10 09:00"), "sent", "failed", "sent")
    connection.execute("UPDATE messages SET state = 'excluded', reason = 'client_deleted' WHERE state = 'pending'")
    past(connection, campaign_id, at("2026-06-10 08:00"), now() + HOUR, at("2026-06-10 09:01"))
    return campaign_id


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.setenv("MAILING_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("MAILING_REPORT_TIMEZONE", ZONE)
    return tmp_path / "reports"


@pytest.fixture
def two_campaigns(connection):
    """One that sent on this day alone and ended; one over days: two messages before it, three on it, one after."""
    some_clients(connection, 2, code="911")
    short, _ = an_open_campaign(connection, clients=4, name="Short")  # 2 of 911, 4 of 103
    settle(connection, short, at("2026-06-10 00:00"), "sent", "sent")
    settle(connection, short, at("2026-06-10 23:59:59"), None, None, "failed", "unknown", "sent")
    connection.execute("UPDATE messages SET state = 'expired', reason = 'window' WHERE state = 'pending'")
    past(connection, short, at("2026-06-10 00:00"), at("2026-06-11 00:00"), at("2026-06-10 23:59:59.5"))
    long, _ = an_open_campaign(connection, clients=1, name="Long")  # these 6 and one more of 103
    settle(connection, long, at("2026-06-09 23:59:59"), "sent", "failed")
    settle(connection, long, at("2026-06-10 09:15"), None, None, "sent", "failed", "sent")
    settle(connection, long, at("2026-06-11 00:00"), None, None, None, None, None, "sent")
    past(connection, long, at("2026-06-09 12:00"), now() + HOUR)
    return short, long


class TestFigures:
    def test_they_are_what_a_hand_counts(self, connection, two_campaigns):
        short, long = two_campaigns
        found = count(connection)
        assert found.totals == {
            "campaigns": 2, "requests": 8, "sent": 5, "failed": 2, "unknown": 1, "expired": 1, "cancelled": 0,
            "excluded": 0,
        }  # fmt: skip
        counted = ("campaign", "audience", "earlier", "requests", "sent", "failed", "unknown", "expired", "open")
        assert [tuple(row[name] for name in counted) for row in rows(found, "campaigns")] == [
            (long, 7, 2, 3, 2, 1, 0, 0, 2),
            (short, 6, 0, 5, 3, 1, 1, 1, 0),
        ]
        hours = {row["hour"]: row["requests"] for row in rows(found, "hours")}
        assert len(hours) == 24
        assert {hour: requests for hour, requests in hours.items() if requests} == {"00:00": 2, "09:00": 3, "23:00": 3}
        assert rows(found, "operator_codes") == [
            {"operator_code": "103", "requests": 6, "sent": 3, "failed": 2, "unknown": 1},
            {"operator_code": "911", "requests": 2, "sent": 2, "failed": 0, "unknown": 0},
        ]
        assert rows(found, "reasons") == [
            {"outcome": "failed", "reason": "test", "messages": 2},
            {"outcome": "expired", "reason": "window", "messages": 1},
            {"outcome": "unknown", "reason": "test", "messages": 1},
        ]

    def test_they_are_what_pandas_counts_in_the_ledger(self, connection, two_campaigns):
        found = count(connection)
        ledger = pd.DataFrame(connection.execute("SELECT * FROM messages").fetchall())
        moments = pd.to_datetime(ledger["sent_at"].fillna(ledger["claimed_at"]), utc=True).dt.tz_convert(ZONE)
        ledger = ledger[(moments.dt.date == DAY) & ledger["state"].isin(figures.REQUESTED)]
        assert {name: found.totals[name] for name in figures.REQUESTED} == ledger["state"].value_counts().to_dict()
        by_hour = moments[ledger.index].dt.strftime("%H:00").value_counts().to_dict()
        assert {row["hour"]: row["requests"] for row in rows(found, "hours") if row["requests"]} == by_hour
        by_code = ledger["mobile_operator_code"].value_counts().to_dict()
        assert {row["operator_code"]: row["requests"] for row in rows(found, "operator_codes")} == by_code

    def test_each_table_adds_up_to_the_same(self, connection, two_campaigns):
        found = count(connection)
        for name in ("campaigns", "hours", "operator_codes"):
            assert {state: found.tables[name][state].sum() for state in figures.REQUESTED} == {
                state: found.totals[state] for state in figures.REQUESTED
            }

    def test_a_past_day_stays_what_it_was_when_sending_goes_on(self, connection, two_campaigns):
        _, long = two_campaigns
        first = count(connection)
        settle(connection, long, now(), *[None] * 6, "sent")
        runs.fold_counts(connection, long)
        again = count(connection)
        assert again.as_of > first.as_of
        assert {name: again.csv(name) for name in figures.TABLES} == {name: first.csv(name) for name in figures.TABLES}

    def test_a_campaign_that_was_of_one_day_and_goes_on_is_counted_the_same(self, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        past(connection, campaign_id, at("2026-06-10 08:00"), now() + HOUR)
        settle(connection, campaign_id, at("2026-06-10 08:01"), "sent", "failed")
        first = count(connection)  # from the kept counts
        settle(connection, campaign_id, at("2026-06-11 08:01"), None, None, "failed")
        again = count(connection)  # from the ledger
        assert {name: again.csv(name) for name in figures.TABLES} == {name: first.csv(name) for name in figures.TABLES}

    def test_a_later_verdict_shows(self, connection, two_campaigns):
        short, _ = two_campaigns
        verdicts.settle_all(connection, short, "give_up", actor="test")
        assert (count(connection).totals["unknown"], count(connection).totals["failed"]) == (0, 3)

    def test_an_archived_campaign_keeps_its_figures_where_they_are_known_by_day(self, connection, two_campaigns):
        before = count(connection)
        for campaign_id in two_campaigns:
            connection.execute("ALTER TABLE messages DISABLE TRIGGER ALL")
            connection.execute("DELETE FROM messages WHERE campaign_id = %s", (campaign_id,))
            connection.execute("UPDATE campaigns SET archived_at = now() WHERE id = %s", (campaign_id,))
        after = count(connection)
        assert after.totals == before.totals
        assert rows(after, "hours") == rows(before, "hours")
        assert {row["operator_code"]: row["requests"] for row in rows(after, "operator_codes")} == {
            "103": 3, "archived": 3, "911": 2,
        }  # fmt: skip
        assert {"outcome": "failed", "reason": "archived", "messages": 1} in rows(after, "reasons")

    def test_a_day_on_which_a_campaign_ended_stays_what_it_was_when_it_goes_on_with_newcomers(self, connection, ended):
        first = count(connection)
        [row] = rows(first, "campaigns")
        assert (row["audience"], row["requests"], row["excluded"], row["open"]) == (4, 3, 1, 0)
        assert row["ended_at"] == "2026-06-10T07:01:00+00:00"

        go_on(connection, ended, clients=3)
        assert all_of(count(connection)) == all_of(first)
        settle(connection, ended, now(), *[None] * 4, "sent", "failed")
        connection.execute("UPDATE messages SET state = 'excluded', reason = 'filter' WHERE state = 'pending'")
        campaigns.edit(connection, ended, name="Renamed", sending_stop=now() + 2 * HOUR, actor="anna")
        connection.execute("UPDATE campaigns SET name = 'Once more', audience_stale = false")
        close(connection, ended)
        assert all_of(count(connection)) == all_of(first)

        [row] = rows(count(connection, now().date(), "UTC"), "campaigns")
        told = ("audience", "earlier", "requests", "sent", "failed", "excluded", "open")
        assert tuple(row[name] for name in told) == (7, 3, 2, 1, 1, 1, 0)

    def test_what_was_not_sent_counts_once_over_all_days(self, connection, ended):
        go_on(connection, ended, clients=2)
        connection.execute("UPDATE messages SET state = 'expired', reason = 'window' WHERE state = 'pending'")
        close(connection, ended)
        of_days = [count(connection), count(connection, now().date(), "UTC")]
        assert [(found.totals["expired"], found.totals["excluded"]) for found in of_days] == [(0, 1), (2, 0)]
        assert [row for row in rows(of_days[1], "reasons") if row["outcome"] != "failed"] == [
            {"outcome": "expired", "reason": "window", "messages": 2}
        ]

    def test_what_expired_and_is_sent_after_all_stays_on_its_day_and_is_not_taken_from_another(self, connection, ended):
        connection.execute("UPDATE messages SET state = 'expired', reason = 'window' WHERE state = 'excluded'")
        end(connection, ended, at("2026-06-10 09:02"))
        first = count(connection)
        assert (first.totals["expired"], first.totals["excluded"]) == (1, 0)
        settle(connection, ended, now(), None, None, None, "sent")
        end(connection, ended, now())
        assert all_of(count(connection)) == all_of(first)
        assert count(connection, now().date(), "UTC").totals["expired"] == 0

    def test_of_a_campaign_that_was_opened_again_by_then_nobody_knows_the_audience(self, connection, ended):
        go_on(connection, ended, clients=3)
        settle(connection, ended, at("2026-06-11 09:00"), *[None] * 4, "sent")
        before, day = rows(count(connection), "campaigns"), date(2026, 6, 11)
        assert [(row["audience"], row["open"]) for row in before] == [(4, 0)]
        [row] = rows(count(connection, day), "campaigns")
        assert (row["audience"], row["open"], row["ended_at"]) == (None, None, "")
        assert (row["earlier"], row["requests"], row["excluded"]) == (3, 1, 0)
        settle(connection, ended, at("2026-06-11 10:00"), *[None] * 5, "sent", "sent")
        end(connection, ended, at("2026-06-11 10:01"))
        [row] = rows(count(connection, day), "campaigns")
        assert (row["audience"], row["open"], row["ended_at"]) == (7, 0, "2026-06-11T08:01:00+00:00")

    def test_a_live_audience_that_grows_is_left_empty(self, connection):
        campaign_id, _ = an_open_campaign(connection, clients=2, audience="live")
        past(connection, campaign_id, at("2026-06-10 08:00"), now() + HOUR)
        [row] = rows(count(connection), "campaigns")
        assert (row["audience"], row["open"]) == (None, None)

    @pytest.mark.parametrize(
        ("start", "stop", "finished", "is_listed"),
        [
            ("06-09 10:00", "06-10 00:00", "06-09 12:00", False),
            ("06-09 10:00", "06-10 00:00", "06-10 00:00:30", True),  # upkeep closed it: what expired counts here
            ("06-09 10:00", "06-20 00:00", "06-09 12:00", False),
            ("06-09 10:00", "06-20 00:00", "06-12 12:00", True),
            ("06-10 23:59", "06-20 00:00", None, True),
            ("06-11 00:00", "06-20 00:00", None, False),
        ],
    )
    def test_a_campaign_is_listed_that_was_open_or_ended_on_the_day(self, connection, start, stop, finished, is_listed):
        campaign_id = a_campaign(connection)
        past(connection, campaign_id, *(at(f"2026-{text}") if text else None for text in (start, stop, finished)))
        assert count(connection).totals["campaigns"] == is_listed

    def test_a_day_that_has_not_begun_is_refused_and_one_that_is_not_over_says_so(self, connection):
        today = now().date()
        with pytest.raises(InvalidInput, match="it has not begun in UTC"):
            count(connection, today + timedelta(days=2), "UTC")
        assert not count(connection, today, "UTC").is_over
        assert count(connection, today - timedelta(days=1), "UTC").is_over


class TestZones:
    @pytest.mark.parametrize(
        ("zone", "day"),
        [
            ("UTC", DAY),
            ("Asia/Kathmandu", DAY),  # +05:45
            ("Europe/Berlin", date(2026, 3, 29)),  # 23 hours
            ("Europe/Berlin", date(2026, 10, 25)),  # 25 hours
            ("Australia/Lord_Howe", date(2026, 4, 5)),  # half an hour more
            ("America/Havana", date(2026, 3, 8)),  # has no midnight
        ],
    )
    def test_what_began_within_the_day_counts_and_nothing_else(self, connection, zone, day):
        first = datetime.combine(day, datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
        last = datetime.combine(day + timedelta(days=1), datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
        campaign_id, _ = an_open_campaign(connection, clients=4)
        second = timedelta(seconds=1)
        for n, moment in enumerate((first - second, first, last - second, last)):
            settle(connection, campaign_id, moment, *[None] * n, "sent")
        past(connection, campaign_id, first - HOUR, last + HOUR)
        connection.execute("SELECT fold_counts(%s, '15 minutes')", (campaign_id,))
        with connection.transaction():
            found = figures.count(connection, day, zone)
        hours = list(found.tables["hours"]["requests"])
        assert (found.totals["requests"], hours[0], hours[-1]) == (2, 1, 1)

    def test_what_is_sent_counts_when_it_was_sent_and_what_failed_when_its_request_began(self, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        past(connection, campaign_id, at("2026-06-10 08:00"), now() + HOUR)
        settle(connection, campaign_id, at("2026-06-10 23:59:59"), "sent", "failed", "unknown")
        connection.execute("UPDATE messages SET sent_at = sent_at + interval '2 s'")
        counted = [count(connection, day) for day in (DAY, DAY + timedelta(days=1))]
        told = [tuple(found.totals[state] for state in figures.REQUESTED) for found in counted]
        assert told == [(0, 1, 1), (1, 0, 0)]
        for found in counted:
            assert "in which it was sent; one that failed or is in doubt, in that in which its" in page.html(found, [])

    def test_hours_are_as_the_clocks_showed_them(self):
        def hours(day, zone):
            since, until = (moment.astimezone(UTC) for moment in spans.midnights(day, day, zone))
            labels, borders = figures.hours_of(since, until, zone)
            assert len(borders) == len(labels) + 1
            return labels

        assert hours(DAY, "Asia/Kathmandu") == [f"{hour:02}:00" for hour in range(24)]
        assert hours(date(2026, 3, 29), "Europe/Berlin")[1:4] == ["01:00 +01:00", "03:00 +02:00", "04:00 +02:00"]
        assert hours(date(2026, 10, 25), "Europe/Berlin")[1:5] == [
            "01:00 +02:00", "02:00 +02:00", "02:00 +01:00", "03:00 +01:00",
        ]  # fmt: skip
        assert hours(date(2026, 4, 5), "Australia/Lord_Howe")[1:4] == ["01:00 +11:00", "01:00 +10:30", "02:00 +10:30"]

    def test_the_zone_is_a_setting_and_must_be_one(self, monkeypatch):
        assert daily_report.zone() == "UTC"
        monkeypatch.setenv("MAILING_REPORT_TIMEZONE", "Pacific/Auckland")
        assert daily_report.day_before(datetime(2026, 6, 9, 13, tzinfo=UTC)) == date(2026, 6, 9)
        monkeypatch.setenv("MAILING_REPORT_TIMEZONE", "Moscow")
        with pytest.raises(InvalidInput, match="MAILING_REPORT_TIMEZONE='Moscow': wanted an IANA name"):
            daily_report.zone()


@pytest.mark.usefixtures("database")
class TestKept:
    def test_a_report_is_tables_charts_and_a_page_that_needs_nothing_else(self, reports, two_campaigns):
        place = daily_report.write(daily_report.collect(DAY))
        assert place == str(reports / "2026-06-10")
        assert {path.name for path in (reports / "2026-06-10").iterdir()} == FILES | CHARTS | {"manifest.json"}
        assert set(folder.whole(place)) == FILES | CHARTS
        page = (reports / "2026-06-10" / "report.html").read_text()
        addresses = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', page) + re.findall(r"url\(", page)
        assert len(addresses) == 2 * len(CHARTS)
        assert {address[:22] for address in addresses} == {"data:image/png;base64,"}
        assert "<script" not in page
        campaigns = pd.read_csv(reports / "2026-06-10" / "campaigns.csv")
        assert list(campaigns["name"]) == ["Long", "Short"]
        assert list(campaigns["sending_start"]) == ["2026-06-09T10:00:00+00:00", "2026-06-09T22:00:00+00:00"]

    def test_the_same_day_again_is_the_same_to_the_byte_but_for_when_it_was_counted(self, reports, two_campaigns):
        first = folder.whole(daily_report.write(daily_report.collect(DAY)))
        again = folder.whole(daily_report.write(daily_report.collect(DAY)))
        changed = {name for name in first if first[name] != again[name]}
        assert changed <= {"figures.json", "report.html"}
        assert json.loads(first["figures.json"])["tables"] == json.loads(again["figures.json"])["tables"]

    def test_a_day_without_campaigns_says_so(self, reports):
        place = daily_report.write(daily_report.collect(DAY))
        files = folder.whole(place)
        assert set(files) == FILES
        assert b"No campaign was open on this day, and nothing was sent." in files["report.html"]
        assert files["totals.csv"].decode().splitlines()[1] == "0,0,0,0,0,0,0,0"

    def test_names_are_text_and_neither_html_nor_formulas_nor_mathematics(self, reports, connection):
        for name in ("<script>alert(1)</script>", "=1+1", "a $x$ \u202e"):
            campaign_id, _ = an_open_campaign(connection, clients=1, name=name, text="Secret words")
            past(connection, campaign_id, at("2026-06-10 08:00"), at("2026-06-10 09:00"))
            settle(connection, campaign_id, at("2026-06-10 08:30"), "failed")
            connection.execute("UPDATE messages SET reason = %s WHERE campaign_id = %s", (name, campaign_id))
        files = folder.whole(daily_report.write(daily_report.collect(DAY)))
        page = files["report.html"].decode()
        assert "<script" not in page
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2
        assert list(pd.read_csv(io.BytesIO(files["campaigns.csv"]))["name"])[1] == "'=1+1"
        phone = connection.execute("SELECT phone_number FROM clients LIMIT 1").fetchone()["phone_number"]
        everything = b"".join(files.values())
        assert phone.encode() not in everything
        assert b"Secret words" not in everything

    def test_many_campaigns_are_shortened_on_the_page_and_all_in_the_file(self, reports, connection):
        connection.execute(
            "INSERT INTO campaigns (name, text, sending_start, sending_stop)"
            " SELECT 'n' || n, 'x', '2026-06-10 10:00Z', '2026-06-10 11:00Z' FROM generate_series(1, 120) n"
        )
        files = folder.whole(daily_report.write(daily_report.collect(DAY)))
        assert b"And 70 others: all are in campaigns.csv." in files["report.html"]
        assert len(pd.read_csv(io.BytesIO(files["campaigns.csv"]))) == 120

    def test_a_folder_that_cannot_be_written_is_named(self, reports, monkeypatch):
        reports.write_text("a file")
        with pytest.raises(Unusable, match=re.escape(f"report folder {reports}/2026-06-10: ")):
            daily_report.collect(DAY)
        monkeypatch.setenv("MAILING_REPORTS", "nosuch://bucket/reports")
        with pytest.raises(Unusable, match="nosuch"):
            daily_report.collect(DAY)

    @pytest.mark.parametrize("scheme", ["file://", ""])
    def test_a_folder_may_be_an_address(self, reports, monkeypatch, scheme):
        monkeypatch.setenv("MAILING_REPORTS", f"{scheme}{reports}/")
        daily_report.write(daily_report.collect(DAY))
        assert (reports / "2026-06-10" / "manifest.json").exists()

    def test_days_without_a_report_are_those_since_the_last_that_is_whole(self, reports):
        def days(*before):
            return [DAY - timedelta(days=n) for n in (*before, 0)]

        assert daily_report.days_to_write(DAY) == days()  # the first ever
        (reports / "of mine").mkdir(parents=True)
        (reports / "2026-06-09x").mkdir()
        assert daily_report.days_to_write(DAY) == days()
        daily_report.write(daily_report.collect(DAY - timedelta(days=50)))
        assert daily_report.days_to_write(DAY) == days(*range(31, 0, -1))
        daily_report.write(daily_report.collect(DAY - timedelta(days=4)))
        assert daily_report.days_to_write(DAY) == days(3, 2, 1)
        daily_report.collect(DAY - timedelta(days=1))  # not to its end
        daily_report.write(daily_report.collect(DAY))
        assert daily_report.days_to_write(DAY) == days(3, 2, 1)
        daily_report.write(daily_report.collect(DAY - timedelta(days=1)))
        assert daily_report.days_to_write(DAY) == days()

    def test_a_report_that_was_not_written_to_its_end_is_none(self, reports):
        place = daily_report.write(daily_report.collect(DAY))
        (reports / "2026-06-10" / "hours.csv").write_text("cut sho")
        with pytest.raises(Unusable, match=r"hours\.csv: not what manifest\.json says"):
            folder.whole(place)
        daily_report.collect(DAY)
        with pytest.raises(Unusable, match="it was not written to its end"):
            daily_report.mail(place)
        daily_report.write(place)
        assert set(folder.whole(place)) == FILES


class Mailbox:
    """What a mail server took, and whom it refuses."""

    def __init__(self):
        self.taken, self.refused = [], set()

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if "later@example.com" in envelope.rcpt_tos:
            return "451 come again"
        self.taken.append((envelope.rcpt_tos, email.message_from_bytes(envelope.content, policy=default)))
        return "250 OK"

    @property
    def recipients(self):
        return [address for addresses, _ in self.taken for address in addresses]


@pytest.fixture
def mailbox(monkeypatch):
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    point_smtp_to(monkeypatch, controller.port)
    yield box
    controller.stop()


def point_smtp_to(monkeypatch, port, name="MAILING_SMTP"):
    extra = {"from_email": "mailing@example.com", "disable_ssl": True, "disable_tls": True, "retry_limit": 0}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
    monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))


@pytest.fixture
def report(reports, two_campaigns):
    return daily_report.write(daily_report.collect(DAY))


class TestMail:
    def test_a_mail_has_the_report_as_its_body_and_all_files(self, report, mailbox, monkeypatch):
        monkeypatch.setenv("MAILING_REPORT_TO", "olga@example.com")
        assert daily_report.mail(report) == ["olga@example.com"]
        [(recipients, message)] = mailbox.taken
        assert recipients == ["olga@example.com"]
        assert (message["Subject"], message["From"]) == ("Mailing report for 2026-06-10", "mailing@example.com")
        attached = {part.get_filename(): part.get_content() for part in message.iter_attachments()}
        files = folder.whole(report)
        assert attached == {name: files[name] for name in (FILES | CHARTS) - {"figures.json"}}
        body = message.get_body(("html",)).get_content()
        assert "Mailing report for 2026-06-10" in body
        shown = set(re.findall(r'src="cid:([^"]+)"', body))
        assert {f"<{name}>" for name in shown} <= {part["Content-ID"] for part in message.iter_attachments()}
        assert shown == CHARTS
        assert "data:" not in body

    def test_a_day_without_campaigns_is_mailed_too(self, reports, database, mailbox, monkeypatch):
        monkeypatch.setenv("MAILING_REPORT_TO", "olga@example.com")
        daily_report.mail(daily_report.write(daily_report.collect(DAY)))
        [(_, message)] = mailbox.taken
        assert "No campaign was open on this day" in message.get_body(("html",)).get_content()

    def test_whoever_is_refused_is_named_the_others_get_it_and_only_the_missing_are_tried_again(
        self, report, mailbox, monkeypatch
    ):
        monkeypatch.setenv("MAILING_REPORT_TO", "gone@example.com, later@example.com; olga@example.com")
        mailbox.refused = {"gone@example.com"}
        with pytest.raises(Unusable) as refused:
            daily_report.mail(report)
        assert "gone@example.com: 550 no such mailbox" in str(refused.value)
        assert "later@example.com: 451 come again" in str(refused.value)
        assert mailbox.recipients == ["olga@example.com"]
        assert set(folder.whole(report)) == FILES | CHARTS  # the figures are not lost

        mailbox.refused = set()
        monkeypatch.setenv("MAILING_REPORT_TO", "gone@example.com olga@example.com")
        assert daily_report.mail(report) == ["gone@example.com"]
        assert daily_report.mail(report) == []
        assert mailbox.recipients == ["olga@example.com", "gone@example.com"]

    def test_a_report_that_was_written_anew_is_mailed_anew(self, report, mailbox, monkeypatch):
        monkeypatch.setenv("MAILING_REPORT_TO", "olga@example.com")
        daily_report.mail(report)
        daily_report.mail(daily_report.write(daily_report.collect(DAY)))
        assert mailbox.recipients == ["olga@example.com"] * 2

    def test_a_server_that_is_away_is_said_so(self, report, monkeypatch):
        monkeypatch.setenv("MAILING_REPORT_TO", "olga@example.com")
        point_smtp_to(monkeypatch, free_port())
        with pytest.raises(Unusable, match="connection mailing_smtp: the mail server: ConnectionRefusedError"):
            daily_report.mail(report)

    def test_the_usual_connection_will_do_and_none_is_said_so(self, report, mailbox, monkeypatch):
        monkeypatch.setenv("MAILING_REPORT_TO", "olga@example.com")
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", os.environ["AIRFLOW_CONN_MAILING_SMTP"])
        monkeypatch.delenv("AIRFLOW_CONN_MAILING_SMTP")
        assert daily_report.mail(report) == ["olga@example.com"]
        monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT")
        daily_report.collect(DAY)
        daily_report.write(report)
        with pytest.raises(Unusable, match="no connection mailing_smtp or smtp_default is"):
            daily_report.mail(report)

    def test_nobody_is_mailed_where_nobody_is_named(self, report, mailbox):
        assert daily_report.mail(report) == []
        assert mailbox.taken == []
