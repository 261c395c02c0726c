"""A campaign's page: what it shows, what its script is told, and what its buttons do."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from urllib.parse import urlencode

import pytest

from mailing import campaigns, db, local_hours, messages, runs, test_send, verdicts, watch
from mailing.admin import campaign_words
from mailing.local_hours import LocalHours
from mailing.watch import Breaker
from tests.admin.forms import links, send, text_of
from tests.builders import (
    HOUR,
    a_campaign,
    an_open_campaign,
    audited,
    claim,
    kept,
    now,
    outcome_of,
    some_clients,
    states,
)

PATH = "/admin/campaigns"
EVIL = '<img src=x onerror="alert(1)">'


def page_of(campaign_id):
    return f"{PATH}/{campaign_id}"


def key_on(page):
    """The key of a page as an operator sees it; a made-up one where there is none, for a viewer."""
    found = set(re.findall(r'name="form_key" value="([^"]+)"', page.text))
    assert len(found) <= 1
    return found.pop() if found else "made-up-by-a-viewer"


def live(caller, campaign_id):
    answer = caller.get(f"{page_of(campaign_id)}/live")
    assert answer.status_code == 200, answer.text
    return answer.json()


def a_campaign_with(connection, *outcomes, more=1, **changes):
    """An open campaign whose first messages came to these outcomes (state, reason), and that has some more."""
    campaign_id, _ = an_open_campaign(connection, clients=len(outcomes) + more, **changes)
    token = messages.take_lease(connection, campaign_id, 1, "test")
    claims = claim(connection, campaign_id, token, limit=len(outcomes))
    told = [outcome_of(each, *outcome) for each, outcome in zip(claims, outcomes, strict=True)]
    messages.record(connection, campaign_id, token, told)
    messages.release_lease(connection, token)
    return campaign_id


class TestThePage:
    def test_it_says_that_the_messages_were_dropped_and_offers_nothing_any_more(self, operator, connection):
        campaign_id = a_campaign_with(connection, ("sent",), ("failed", "code_7"), more=0)
        connection.execute("UPDATE campaigns SET archived_at = '2026-01-02 03:04Z'")
        said = "Archived, running: its messages were dropped at 2026-01-02 03:04 UTC; its figures stay."
        assert said in text_of(operator.get(page_of(campaign_id)))
        assert live(operator, campaign_id)["standing"]["plain"] == said
        assert not any(live(operator, campaign_id)["may"].values())

    def test_it_shows_the_campaign(self, viewer, connection):
        campaign_id = a_campaign(connection, name="Spring", text="Hello, all", messages_per_second=2.5)
        said = text_of(viewer.get(page_of(campaign_id)))
        for words in ("Spring", "scheduled", "Hello, all", "10 characters, 1 SMS (GSM-7)", "2.5 per second"):
            assert words in said

    def test_markup_is_text_wherever_it_stands(self, operator, connection):
        campaign_id = a_campaign_with(connection, ("failed", "http_400"), name=EVIL, text=EVIL)
        campaigns.edit(connection, campaign_id, text="other", actor=EVIL)
        connection.execute("UPDATE attempts SET error = %s", (EVIL + "</script>",))
        page = operator.get(page_of(campaign_id))
        assert text_of(page).count(EVIL) >= 3
        assert EVIL not in page.text
        assert "<img" not in page.text
        assert page.text.count("</script>") == page.text.count("<script")

    def test_it_links_to_its_dag_while_that_is_there(self, viewer, connection):
        campaign_id = a_campaign(connection)
        page = viewer.get(page_of(campaign_id))
        assert f'href="/dags/campaign_{campaign_id}" target="_top"' in page.text
        assert f'href="/dags/campaign_{campaign_id}/runs" target="_top"' in page.text
        far = a_campaign(connection, sending_start=now() + timedelta(days=3), sending_stop=now() + timedelta(days=4))
        assert "/dags/" not in viewer.get(page_of(far)).text

    def test_a_viewer_sees_no_button_and_no_form(self, viewer, connection):
        page = viewer.get(page_of(a_campaign_with(connection, ("unknown", "no_answer"))))
        assert '<button type="button" class="btn' not in page.text
        assert 'method="post"' not in page.text
        assert links(page, "Edit") == []

    def test_the_buttons_that_make_sense_are_shown(self, operator, connection):
        told = live(operator, a_campaign_with(connection, ("unknown", "no_answer"), ("failed", "http_400")))["may"]
        assert told == {
            "pause": True, "resume": False, "cancel": True, "resend": True, "settle": True, "send_again": True,
            "edit": True, "test": True, "delete": False,
        }  # fmt: skip
        over = a_campaign(connection)
        campaigns.cancel(connection, over, actor="test")
        assert [name for name, may in live(operator, over)["may"].items() if may] == ["delete"]

    def test_confirmations_name_the_figures(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=1_204)
        assert "1,204 messages wait; they are never sent." in text_of(operator.get(page_of(campaign_id)))

    def test_revisions_and_decisions_are_shown(self, viewer, connection):
        campaign_id = a_campaign(connection, text="the first", actor="Ann")
        campaigns.edit(connection, campaign_id, text="the second", actor="Bob")
        said = text_of(viewer.get(page_of(campaign_id)))
        for words in ("Ann created it", "Bob edited it (text)", "the first", "the second"):
            assert words in said

    def test_a_verdict_on_many_messages_is_one_decision(self, viewer, connection):
        campaign_id = a_campaign_with(connection, *[("unknown", "no_answer")] * 3)
        verdicts.settle_all(connection, campaign_id, "give_up", actor="Ann")
        assert "Ann settled doubts: give up: 3 messages" in text_of(viewer.get(page_of(campaign_id)))

    def test_a_verdict_on_however_many_messages_hides_no_decision_before_it(self, viewer, connection):
        campaign_id = a_campaign(connection, actor="Ann")
        connection.execute(
            "INSERT INTO audit_log (actor, action, campaign_id, message_id)"
            " SELECT 'Bob', 'give_up', %s, n FROM generate_series(1, 12_000) n",
            (campaign_id,),
        )
        campaigns.pause(connection, campaign_id, actor="Cid")
        decisions = [(entry["actor"], entry["messages"]) for entry in watch.trail(connection, campaign_id)]
        assert decisions == [("Cid", 0), ("Bob", 12_000), ("Ann", 0)]
        assert "Bob settled doubts: give up: 12,000 messages" in text_of(viewer.get(page_of(campaign_id)))

    def test_decisions_of_one_transaction_are_told_apart_and_only_the_last_are_read(self, connection):
        campaign_id = a_campaign(connection)
        for number in range(watch.MAX_DECISIONS):
            campaigns.edit(connection, campaign_id, name=f"v{number}", actor="Ann")
        with connection.transaction():
            campaigns.pause(connection, campaign_id, actor="Bob")
            campaigns.resume(connection, campaign_id, actor="Bob")
        trail = watch.trail(connection, campaign_id)
        assert [entry["action"] for entry in trail] == ["resume", "pause"] + ["edit"] * (watch.MAX_DECISIONS - 2)
        assert watch.trail(connection, 99) == []

    def test_test_sends_are_listed_the_newest_first_without_numbers_and_texts(self, viewer, connection, gateway):
        campaign_id = a_campaign(connection, text="Try me")
        first, second = some_clients(connection, 2)
        with db.transaction() as own:
            planned = test_send.plan(own, campaign_id, [first, second], actor="Ann")
        gateway.set(shares={"400": 1})
        test_send.send(planned, db.transaction)
        connection.execute("UPDATE test_sends SET reply = 'SECRET', error = 'SECRET'")
        page = viewer.get(page_of(campaign_id))
        listed = text_of(page).partition("HTTP status")[2].partition("Revisions")[0]
        assert re.findall(r"Ann (\d+) (failed: it answered 400) (400)", listed) == [
            (str(client), "failed: it answered 400", "400") for client in (second, first)
        ]
        numbers = [row["phone_number"] for row in connection.execute("SELECT phone_number FROM clients")]
        assert not [word for word in (*numbers, "SECRET") if word in page.text]

    def test_a_test_send_that_nobody_settled_says_so(self, viewer, connection):
        campaign_id = a_campaign(connection)
        for minutes in (20, 0):
            connection.execute(
                "INSERT INTO test_sends (id, campaign_id, client_id, actor, created)"
                " VALUES (%s, %s, 7, 'Ann', now() - make_interval(mins => %s))",
                (100 - minutes, campaign_id, minutes),
            )
        said = text_of(viewer.get(page_of(campaign_id)))
        assert "Ann 7 on its way" in said
        assert "Ann 7 nobody knows: the server that sent it died meanwhile; it may have arrived" in said

    def test_only_the_last_test_sends_are_listed(self, connection):
        campaign_id = a_campaign(connection)
        connection.execute(
            "INSERT INTO test_sends (id, campaign_id, client_id, actor) SELECT n, %s, n, 'Ann'"
            " FROM generate_series(1, 30) n",
            (campaign_id,),
        )
        assert [row["client_id"] for row in watch.test_sends(connection, campaign_id)] == list(range(30, 10, -1))

    @pytest.mark.parametrize("suffix", ["", "/live"])
    @pytest.mark.parametrize("campaign_id", [99, 0, 2**63])
    def test_one_that_is_not_there(self, viewer, connection, campaign_id, suffix):
        assert viewer.get(page_of(campaign_id) + suffix).status_code == 404


class TestLive:
    def test_figures_are_counted_from_the_ledger(self, viewer, connection):
        campaign_id = a_campaign_with(
            connection, ("sent",), ("sent",), ("failed", "http_400"), ("unknown", "no_answer"), more=6
        )
        told = live(viewer, campaign_id)
        assert told["audience"] == 10
        assert {state: count for state, count in told["counts"].items() if count} == states(connection, campaign_id)
        assert sum(told["counts"].values()) == 10
        assert not told["is_over"]

    def test_speed_and_time_left_follow_from_what_was_sent_of_late(self, connection):
        campaign_id = a_campaign_with(connection, *[("sent",)] * 20, more=40)
        connection.execute("UPDATE messages SET claimed_at = now() - interval '1 minute' WHERE claimed_at IS NOT NULL")
        seen = watch.campaign(connection, campaign_id)
        assert 20 / 15 <= seen.messages_per_second <= 20 / 10  # 20 in the last 10 to 15 seconds
        assert seen.eta_s == 40 / seen.messages_per_second
        assert str(campaign_words.eta(seen)) in {f"about {s} s" for s in range(20, 31)}

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE campaigns SET status = 'paused'",
            "UPDATE gateways SET breaker_state = 'open', breaker_probe_at = now(), breaker_changed_at = now()",
        ],
    )
    def test_no_time_is_left_to_tell_while_nothing_may_leave(self, connection, change):
        campaign_id = a_campaign_with(connection, *[("sent",)] * 20, more=40)
        connection.execute(change)
        assert str(campaign_words.eta(watch.campaign(connection, campaign_id))) == "stands still"

    def test_one_that_stands_still_says_so(self, viewer, connection):
        campaign_id = a_campaign_with(connection, ("sent",), more=4)
        connection.execute("UPDATE messages SET sent_at = now() - interval '1 minute' WHERE state = 'sent'")
        assert live(viewer, campaign_id)["eta"]["plain"] == "stands still"

    def test_one_whose_window_is_too_short_says_so(self, viewer, connection):
        campaign_id = a_campaign_with(connection, ("sent",), more=100, sending_stop=now() + timedelta(seconds=20))
        connection.execute("UPDATE messages SET claimed_at = now() - interval '1 minute' WHERE claimed_at IS NOT NULL")
        assert live(viewer, campaign_id)["eta"]["plain"] == "more than its window"

    def test_outcomes_over_time_are_all_outcomes(self, viewer, connection):
        campaign_id = a_campaign_with(
            connection, ("sent",), ("sent",), ("failed", "http_400"), ("unknown", "no_answer")
        )
        series = live(viewer, campaign_id)["chart"]["series"]
        assert {state: sum(count for _, count in points) for state, points in series.items()} == {
            "sent": 2, "failed": 1, "unknown": 1,
        }  # fmt: skip

    @pytest.mark.parametrize(("hours", "width_s"), [(0.01, 5), (0.5, 30), (1, 60), (24, 3_600), (24 * 90, 86_400)])
    def test_the_chart_has_no_more_columns_than_can_be_seen(self, connection, hours, width_s):
        campaign_id, _ = an_open_campaign(connection)
        connection.execute("UPDATE campaigns SET opened_at = now() - %s", (timedelta(hours=hours * 0.99),))
        assert watch.campaign(connection, campaign_id).chart.width_s == width_s

    def test_errors_are_counted_by_reason_and_status(self, viewer, connection):
        outcomes = [("failed", "http_400")] * 2 + [("unknown", "no_answer")]
        campaign_id = a_campaign_with(connection, *outcomes)
        connection.execute("UPDATE attempts SET status_code = 400 WHERE reason = 'http_400'")
        a_campaign_with(connection, ("failed", "http_418"))  # another campaign's
        errors = live(viewer, campaign_id)["errors"]
        assert [(error["reason"], error["status"], error["count"]) for error in errors] == [
            ("it answered 400", 400, 2),
            ("it did not answer in time", None, 1),
        ]

    def test_who_waits_for_local_hours_is_told_by_time_zone(self, viewer, connection):
        some_clients(connection, 3)
        connection.execute("UPDATE clients SET timezone = 'Asia/Tokyo' WHERE id % 3 = 0")
        campaign_id, _ = an_open_campaign(
            connection, clients=0, local_from=time(0, 0), local_to=time(0, 1),
            sending_stop=now() + timedelta(days=2),
        )  # fmt: skip
        zones = {zone["timezone"]: zone for zone in live(viewer, campaign_id)["zones"]}
        assert {name: zone["clients"] for name, zone in zones.items()} == {"Asia/Tokyo": 1, "UTC": 2}
        opens_at = datetime.fromisoformat(zones["Asia/Tokyo"]["opens_at"])
        assert opens_at.astimezone(UTC).hour == 15  # midnight in Tokyo

    def test_zones_whose_hours_are_open_wait_for_nothing(self, viewer, connection):
        hours = {"local_from": (now() - HOUR).time(), "local_to": (now() + HOUR).time()}
        campaign_id, _ = an_open_campaign(connection, clients=2, **hours)
        assert live(viewer, campaign_id)["zones"] == [{"timezone": "UTC", "clients": 2, "never": 0, "opens_at": None}]

    @pytest.mark.parametrize(
        ("hours", "tokyo", "stop", "figure", "note"),
        [
            ((time(0), time(20)), 40, 48 * HOUR, "about 30 s", ""),
            (
                (time(10), time(20)), 40, 48 * HOUR, "not before 2040-06-01 10:00 UTC",
                "40 are due now: about 20 s. "
                "20 wait for local hours, the last until 2040-06-01 10:00 UTC (10:00 in UTC).",
            ),
            (
                (time(10, 30), time(10, 45)), 60, 48 * HOUR, "not before 2040-06-02 01:30 UTC",
                "60 wait for local hours, the last until 2040-06-02 01:30 UTC (10:30 in Asia/Tokyo).",
            ),
            (
                (time(13), time(14)), 59, 48 * HOUR, "not before 2040-06-01 13:00 UTC",
                "60 wait for local hours, the last until 2040-06-01 13:00 UTC (13:00 in UTC).",
            ),
            (
                (time(10), time(11, 0, 15)), 60, 48 * HOUR, "more than local hours",
                "The local hours of some close first, at 2040-06-01 02:00 UTC.",
            ),
            ((time(10), time(20)), 40, HOUR, "about 20 s", "20 cannot be reached before the stop."),
            ((time(20), time(21)), 0, HOUR, "more than its window", "60 cannot be reached before the stop."),
        ],
    )  # fmt: skip
    def test_the_time_left_promises_nothing_that_local_hours_forbid(self, connection, hours, tokyo, stop, figure, note):
        """At 02:00 UTC, 11:00 in Tokyo, of a campaign that sends two a second: 60 are left, `tokyo` of them there."""
        campaign_id = a_campaign_with(connection, *[("sent",)] * 20, more=60)
        at = datetime(2040, 6, 1, 2, tzinfo=UTC)
        clients = {name: count for name, count in (("Asia/Tokyo", tokyo), ("UTC", 60 - tokyo)) if count}
        seen = replace(
            watch.campaign(connection, campaign_id), now=at, sending_start=at - HOUR, sending_stop=at + stop,
            local_from=hours[0], local_to=hours[1], messages_per_second=2.0,
            zones=local_hours.forecast(clients, LocalHours(*hours), at, at + stop),
        )  # fmt: skip
        assert (str(campaign_words.eta(seen)), str(campaign_words.eta_note(seen))) == (figure, note)

    def test_several_pages_of_a_campaign_read_its_ledger_once(self, viewer, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        told = live(viewer, campaign_id)
        seen = urlencode({"seen": told["at"]})
        assert viewer.get(f"{page_of(campaign_id)}/live?{seen}").json() == told
        assert operator.get(f"{page_of(campaign_id)}/live?{seen}").json() == told
        later = urlencode({"seen": live(operator, campaign_id)["at"]})
        assert operator.get(f"{page_of(campaign_id)}/live?{later}").json()["at"] > told["at"]

    def test_who_pressed_a_button_sees_what_it_did_at_once(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        live(operator, campaign_id)
        send(operator, f"{page_of(campaign_id)}/turn", {"verb": "pause"})
        page = operator.get(page_of(campaign_id))
        seen = re.search(r'"at": ?"([^"]*)"', html.unescape(page.text))[1]
        answer = operator.get(f"{page_of(campaign_id)}/live?{urlencode({'seen': seen})}")
        assert answer.json()["status"] == "paused"

    @pytest.mark.parametrize("seen", ["", "x", "2040-01-01T00:00:00", "9999-01-01T00:00:00Z"])
    def test_who_has_seen_nothing_that_makes_sense_gets_the_latest(self, viewer, connection, seen):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        told = live(viewer, campaign_id)
        assert viewer.get(f"{page_of(campaign_id)}/live?seen={seen}").json()["at"] > told["at"]

    def test_the_gateway_is_told_in_words(self, viewer, connection):
        campaign_id, _ = an_open_campaign(connection)
        assert live(viewer, campaign_id)["gateway"]["plain"] == "Gateway default takes messages."
        connection.execute(
            "UPDATE gateways SET breaker_state = 'open', breaker_reason = 'http_500', breaker_changed_at = now(),"
            " breaker_probe_at = now() + interval '12 seconds'"
        )
        told = live(viewer, campaign_id)
        assert told["gateway"]["text"] == (
            "Waiting for the gateway default since {since} (it answered 500); next probe in {wait}."
        )
        assert 10 < told["gateway"]["wait_s"] <= 12
        assert "It waits for its gateway" in told["standing"]["plain"]

    def test_one_that_is_over_says_so(self, viewer, connection):
        campaign_id, _ = an_open_campaign(connection, clients=2)
        campaigns.cancel(connection, campaign_id, actor="test")
        assert not live(viewer, campaign_id)["is_over"]  # what waits is yet to be cancelled
        runs.close(connection, campaign_id)
        assert live(viewer, campaign_id)["is_over"]

    def test_nobody_is_told_without_a_login(self, nobody, connection):
        campaign_id = a_campaign(connection)
        answer = nobody.get(f"{page_of(campaign_id)}/live", headers={"X-Requested-With": "XMLHttpRequest"})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("breaker", "said"),
    [
        (Breaker("g", "closed", None, None, None), "Gateway g takes messages."),
        (
            Breaker("g", "open", "not_reached", datetime(2026, 1, 2, 14, 2, tzinfo=UTC), 12.0),
            "Waiting for the gateway g since 2026-01-02 14:02 UTC (it could not be reached); next probe in 12 s.",
        ),
        (
            Breaker("g", "open", "http_401", datetime(2026, 1, 2, 14, 2, tzinfo=UTC), 12.0),
            "Gateway g refuses the token of its connection since 2026-01-02 14:02 UTC: an admin must renew it;"
            " next probe in 12 s.",
        ),
        (
            Breaker("g", "open", "code_7", None, -1),
            "Waiting for the gateway g (it refused with code 7); the next probe is due.",
        ),
        (Breaker("{g}", "half_open", "{x}", None, 3), "Waiting for the gateway {g} (x); a probe is on its way."),
    ],
)  # fmt: skip
def test_a_breaker_in_words(breaker, said):
    assert str(campaign_words.gateway(breaker)) == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sending_start": now() + 2 * HOUR, "sending_stop": now() + 3 * HOUR}, "Its window opens at "),
        ({}, "Its window is open; Airflow is about to take its audience."),
    ],
)
def test_one_that_has_not_begun_says_when_it_will(viewer, connection, changes, said):
    assert live(viewer, a_campaign(connection, **changes))["standing"]["plain"].startswith(said)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (600, "10 min"), (5_400, "1 h 30 min"), (200_000, "2 days")],
)
def test_a_duration_in_words(seconds, said):
    assert campaign_words.duration(seconds) == said


class TestButtons:
    BUTTONS = {
        "turn": {"verb": "pause"}, "resend": {"expected": 1}, "settle": {"verdict": "give_up", "expected": 1},
        "test-send": {"clients": "1"}, "delete": {},
    }  # fmt: skip

    def press(self, caller, campaign_id, button, **form):
        """What the page says after the button was pressed, on a page that was shown for it or has this `form_key`."""
        form = {"form_key": key_on(caller.get(page_of(campaign_id)))} | (form or self.BUTTONS[button])
        answer = send(caller, f"{page_of(campaign_id)}/{button}", form)
        assert (answer.status_code, answer.headers["location"].endswith(page_of(campaign_id))) == (303, True)
        return text_of(caller.get(page_of(campaign_id)))

    def test_each_page_has_a_key_of_its_own(self, operator, connection):
        campaign_id = a_campaign(connection)
        assert len({key_on(operator.get(page_of(campaign_id))) for _ in range(3)}) == 3

    @pytest.mark.parametrize("button", BUTTONS)
    def test_a_viewer_may_press_none(self, viewer, connection, button):
        campaign_id = a_campaign_with(connection, ("unknown", "no_answer"), ("failed", "http_400"))
        before = kept(connection)
        assert send(viewer, f"{page_of(campaign_id)}/{button}", self.BUTTONS[button]).status_code == 403
        assert kept(connection) == before

    @pytest.mark.parametrize("button", BUTTONS)
    def test_another_sites_page_may_press_none(self, operator, connection, button):
        campaign_id = a_campaign_with(connection, ("unknown", "no_answer"), ("failed", "http_400"))
        before = kept(connection)
        assert operator.post(f"{page_of(campaign_id)}/{button}", data=self.BUTTONS[button]).status_code == 403
        assert kept(connection) == before

    def test_pause_resume_cancel(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=2)
        assert "Paused." in self.press(operator, campaign_id, "turn", verb="pause")
        assert campaigns.get(connection, campaign_id).status == "paused"
        assert "Resumed." in self.press(operator, campaign_id, "turn", verb="resume")
        assert campaigns.get(connection, campaign_id).status == "running"
        assert "Cancelled." in self.press(operator, campaign_id, "turn", verb="cancel")
        assert states(connection, campaign_id) == {"cancelled": 2}
        assert [entry[:3] for entry in audited(connection)] == [
            ("operator", verb, campaign_id) for verb in ("pause", "resume", "cancel")
        ]

    def test_what_the_campaign_refuses_is_told(self, operator, connection):
        campaign_id = a_campaign(connection)
        campaigns.cancel(connection, campaign_id, actor="test")
        said = self.press(operator, campaign_id, "turn", verb="resume")
        assert f"campaign {campaign_id}: resume: wanted paused, it is cancelled" in said

    def test_failed_messages_are_sent_again(self, operator, connection):
        campaign_id = a_campaign_with(connection, ("failed", "http_400"), ("unknown", "no_answer"), more=0)
        assert "1 failed messages are to be sent again" in self.press(operator, campaign_id, "resend")
        assert states(connection, campaign_id) == {"pending": 1, "unknown": 1}

    def test_what_was_confirmed_is_sent_again_or_nothing(self, operator, connection):
        campaign_id = a_campaign_with(connection, *[("failed", "http_400")] * 2)
        assert 'name="expected" value="2"' in operator.get(page_of(campaign_id)).text
        before = kept(connection)
        said = self.press(operator, campaign_id, "resend", expected=1)
        assert "resend: 2 are failed by now, 1 was confirmed: look again" in said
        assert kept(connection) == before
        assert "2 failed messages are to be sent again" in self.press(operator, campaign_id, "resend", expected=2)

    def test_what_was_confirmed_is_settled_or_nothing(self, operator, connection):
        campaign_id = a_campaign_with(connection, *[("unknown", "no_answer")] * 3)
        before = kept(connection)
        said = self.press(operator, campaign_id, "settle", verdict="give_up", expected=4)
        assert "give_up: 3 are in doubt by now, 4 were confirmed: look again" in said
        assert kept(connection) == before

    @pytest.mark.parametrize(
        ("state", "button", "first", "again", "said"),
        [
            ("failed", "resend", {}, {}, "1 failed messages are to be sent again."),
            (
                "unknown",
                "settle",
                {"verdict": "give_up"},
                {"verdict": "send_again"},
                "1 messages in doubt are given up.",
            ),
        ],
    )
    def test_pressed_again_on_the_same_page_it_does_nothing(
        self, operator, connection, state, button, first, again, said
    ):
        campaign_id = a_campaign_with(connection, (state, "no_answer"), more=0)
        once = {"expected": 1, "form_key": key_on(operator.get(page_of(campaign_id)))}
        assert said in self.press(operator, campaign_id, button, **first, **once)
        connection.execute("UPDATE messages SET state = %s, reason = 'no_answer'", (state,))
        before = kept(connection)
        told = self.press(operator, campaign_id, button, **again, **once)
        assert f"pressed before; nothing was done this time. What came of it: {said}" in told
        assert kept(connection) == before

    def test_what_was_refused_can_be_pressed_again(self, operator, connection):
        campaign_id = a_campaign_with(connection, ("unknown", "no_answer"))
        key = key_on(operator.get(page_of(campaign_id)))
        self.press(operator, campaign_id, "settle", verdict="give_up", expected=2, form_key=key)
        said = self.press(operator, campaign_id, "settle", verdict="give_up", expected=1, form_key=key)
        assert "1 messages in doubt are given up" in said

    @pytest.mark.parametrize(
        ("verdict", "state", "said"),
        [
            ("send_again", "pending", "2 messages in doubt are to be sent again"),
            ("assume_sent", "sent", "2 messages in doubt are assumed sent"),
            ("give_up", "failed", "2 messages in doubt are given up"),
        ],
    )
    def test_what_is_in_doubt_is_settled(self, operator, connection, verdict, state, said):
        campaign_id = a_campaign_with(connection, *[("unknown", "no_answer")] * 2, more=0)
        assert said in self.press(operator, campaign_id, "settle", verdict=verdict, expected=2)
        assert states(connection, campaign_id) == {state: 2}

    def test_a_test_is_sent(self, operator, connection, gateway):
        campaign_id = a_campaign(connection, text="Try me")
        first, second = some_clients(connection, 2)
        said = self.press(operator, campaign_id, "test-send", clients=f"{first}, {second}")
        assert f"Test send: client {first}: sent, client {second}: sent." in said
        assert connection.execute("SELECT count(*) AS count FROM messages").fetchone()["count"] == 0

    def test_a_test_is_not_sent_twice_from_one_page(self, operator, connection, gateway):
        campaign_id = a_campaign(connection)
        first, second = some_clients(connection, 2)
        key = key_on(operator.get(page_of(campaign_id)))
        self.press(operator, campaign_id, "test-send", clients=first, form_key=key)
        for clients in (first, second):
            said = self.press(operator, campaign_id, "test-send", clients=clients, form_key=key)
            assert f"nothing was done this time. What came of it: Test send: client {first}: sent." in said
        assert gateway.stats()["received"] == 1
        assert len(audited(connection)) == 1

        self.press(operator, campaign_id, "test-send", clients=first)  # of a page that was shown anew
        assert gateway.stats()["received"] == 2

    def test_while_nobody_knows_what_came_of_a_test_it_is_not_sent_again(self, operator, connection, gateway):
        campaign_id = a_campaign(connection)
        [client] = some_clients(connection, 1)
        key = key_on(operator.get(page_of(campaign_id)))
        self.press(operator, campaign_id, "test-send", clients=client, form_key=key)
        connection.execute("UPDATE idempotency_keys SET status = NULL, response = NULL")  # as if the server had died
        said = self.press(operator, campaign_id, "test-send", clients=client, form_key=key)
        assert "pressed before, and what comes of it is not known so far; nothing was done this time" in said
        assert gateway.stats()["received"] == 1

    @pytest.mark.parametrize("clients", ["", "x", "1 1", "7" * 30, "999", " ".join(map(str, range(1, 12)))])
    def test_a_test_to_nobody_is_refused(self, operator, connection, clients):
        campaign_id = a_campaign(connection)
        some_clients(connection, 1)
        assert "test send: clients:" in self.press(operator, campaign_id, "test-send", clients=clients, more="x")
        assert connection.execute("SELECT count(*) AS count FROM test_sends").fetchone()["count"] == 0

    @pytest.mark.parametrize(
        ("button", "form"),
        [
            ("turn", {"verb": "delete"}),
            ("turn", {"x": "y"}),
            ("settle", {"verdict": "forget", "expected": 1}),
            ("settle", {"verdict": "give_up"}),
            ("settle", {"verdict": "give_up", "expected": "-1"}),
            ("settle", {"verdict": "give_up", "expected": 1, "form_key": ""}),
            ("resend", {}),
            ("resend", {"expected": 1, "form_key": "x"}),
            ("test-send", {"clients": 1, "form_key": "x" * 65}),
        ],
    )
    def test_a_form_that_makes_no_sense_is_refused(self, operator, connection, button, form):
        form = {"form_key": "k" * 22} | form
        assert send(operator, f"{page_of(a_campaign(connection))}/{button}", form).status_code == 422


class TestDeletion:
    def delete(self, caller, campaign_id):
        return send(caller, f"{page_of(campaign_id)}/delete")

    def test_an_admin_deletes_what_never_left_and_is_back_at_the_list(self, admin, connection):
        campaign_id, other = a_campaign(connection, name="Gone"), a_campaign(connection, name="Stays")
        campaigns.cancel(connection, campaign_id, actor="test")
        assert "Delete the campaign for good? Nothing of it ever left." in text_of(admin.get(page_of(campaign_id)))
        answer = self.delete(admin, campaign_id)
        assert (answer.status_code, answer.headers["location"].endswith(PATH)) == (303, True)
        said = text_of(admin.get(PATH))
        assert f"Campaign {campaign_id} is deleted." in said
        assert ("Gone" in said, "Stays" in said) == (False, True)
        assert [row["id"] for row in connection.execute("SELECT id FROM campaigns")] == [other]
        assert audited(connection)[-1] == ("admin", "delete", campaign_id, None, None)

    def test_one_that_is_gone_already_is_told_on_the_list(self, admin, connection):
        answer = self.delete(admin, 99)
        assert (answer.status_code, answer.headers["location"].endswith(PATH)) == (303, True)
        assert "campaign 99: there is no such campaign" in text_of(admin.get(PATH))

    def test_one_of_which_something_left_stays(self, admin, connection):
        campaign_id = a_campaign_with(connection, ("sent",), more=0)
        runs.close(connection, campaign_id)
        before = kept(connection)
        answer = self.delete(admin, campaign_id)
        assert answer.headers["location"].endswith(page_of(campaign_id))
        assert "delete: wanted one of which nothing left" in text_of(admin.get(page_of(campaign_id)))
        assert kept(connection) == before

    @pytest.mark.parametrize("role", ["viewer", "operator"])
    def test_who_is_no_admin_sees_no_button_and_may_not(self, role, request, connection):
        caller = request.getfixturevalue(role)
        campaign_id = a_campaign(connection)
        campaigns.cancel(connection, campaign_id, actor="test")
        before = kept(connection)
        assert "ask-delete" not in caller.get(page_of(campaign_id)).text
        assert self.delete(caller, campaign_id).status_code == 403
        assert kept(connection) == before

    @pytest.mark.parametrize(
        ("changes", "more", "may"),
        [
            ({"sending_start": now() + HOUR, "sending_stop": now() + 2 * HOUR}, "", True),
            ({}, "", False),
            ({}, "status = 'cancelled', finished_at = now()", True),
        ],
    )
    def test_the_button_is_there_while_it_makes_sense(self, admin, connection, changes, more, may):
        campaign_id = a_campaign(connection, **changes)
        if more:
            connection.execute(f"UPDATE campaigns SET {more}")  # noqa: S608
        assert live(admin, campaign_id)["may"]["delete"] is may


class TestTheTabOfADag:
    def test_it_leads_to_the_campaigns_page(self, viewer):
        answer = viewer.get("/admin/of-dag/campaign_17", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/mailing/admin/campaigns/17")

    @pytest.mark.parametrize("dag_id", ["import_clients", "campaign_", "campaign_x", "campaign_01", "campaign_²"])
    def test_of_another_dag_it_says_that_it_is_none(self, viewer, dag_id):
        page = viewer.get(f"/admin/of-dag/{dag_id}")
        assert page.status_code == 200
        assert "This DAG is no campaign" in text_of(page)

    def test_markup_in_a_dags_name_is_text(self, viewer):
        assert "<b>" not in viewer.get("/admin/of-dag/%3Cb%3Ex").text
