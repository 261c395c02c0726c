"""The form that makes a campaign or changes one: what it takes, keeps, refuses, and what it tells beforehand."""

from __future__ import annotations

import html
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta

import pytest

from mailing import campaigns, db, runs, tags
from tests.admin.forms import links, send, text_of
from tests.builders import HOUR, a_campaign, an_open_campaign, audited, kept, now, some_clients
from tests.waiting import wait_until, waiting_for_locks

NEW = "/admin/campaigns/new"
PREVIEW = "/admin/campaigns/preview"
TWICE = "2040-10-28T02:30"
"""What clocks in Berlin show at 00:30 UTC and at 01:30."""

EVIL = "</textarea><script>alert(1)</script>"
TOMORROW = (now() + timedelta(days=1)).replace(hour=9, minute=0, second=0, microsecond=0)
GOOD = {
    "name": "Spring", "text": "Hello", "tags": "", "codes": "", "timezone": "UTC",
    "sending_start": f"{TOMORROW:%Y-%m-%dT%H:%M}", "sending_stop": f"{TOMORROW + 8 * HOUR:%Y-%m-%dT%H:%M}",
    "sending_start_fold": "", "sending_stop_fold": "", "local_from": "", "local_to": "", "messages_per_second": "",
    "gateway": "default", "audience": "snapshot", "on_doubt": "hold", "form_key": "k", "step": "save",
}  # fmt: skip


def save(caller, path=NEW, **changes):
    return send(caller, path, GOOD | changes)


def id_of(answer):
    """Of the campaign that was saved."""
    assert answer.status_code == 303, text_of(answer)
    return int(answer.headers["location"].rpartition("/")[2])


def edit_of(campaign_id):
    return f"/admin/campaigns/{campaign_id}/edit"


def beside(answer, field):
    """What stands beside the field, as the domain says it (the page begins it with a capital); None: nothing."""
    found = re.search(rf'id="{field}-error">(.*?)</div>', answer.text, re.DOTALL)
    said = html.unescape(found[1]) if found else None
    return said and said[:1].lower() + said[1:]


def filled(page):
    """What a browser would send of the form as it is shown."""
    form = {}
    for tag in re.findall(r"<input[^>]*>", page.text):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        if "name" in attributes and (attributes.get("type") != "radio" or " checked" in tag):
            form[attributes["name"]] = html.unescape(attributes.get("value", ""))
    for name, options in re.findall(r'<select[^>]* name="(\w+_fold)"[^>]*>(.*?)</select>', page.text, re.DOTALL):
        chosen = re.search(r'value="(\d)"[^>]* selected', options)
        form[name] = chosen[1] if chosen else ""
    form["text"] = html.unescape(re.search(r"<textarea[^>]*>\n?(.*?)</textarea>", page.text, re.DOTALL)[1])
    form["gateway"] = html.unescape(re.search(r"<option selected>(.*?)</option>", page.text)[1])
    return form


class TestANewCampaign:
    def test_it_is_saved_and_shown(self, operator, connection):
        connection.execute("INSERT INTO tags (name) VALUES ('vip'), ('новый')")
        campaign_id = id_of(
            save(
                operator, tags="vip, новый", codes="903 916", local_from="10:00", local_to="18:00", audience="live",
                on_doubt="resend", messages_per_second="2.5", text="Hello\r\nyou",
            )
        )  # fmt: skip
        row = campaigns.get(connection, campaign_id)
        assert (row.name, row.text, row.sending_start, row.sending_stop) == (
            "Spring", "Hello\nyou", TOMORROW, TOMORROW + 8 * HOUR,
        )  # fmt: skip
        assert (row.filter_tags, row.filter_operator_codes) == (["vip", "новый"], ["903", "916"])
        assert (row.local_from, row.local_to, row.messages_per_second) == (time(10), time(18), 2.5)
        assert (row.audience, row.on_doubt, row.gateway) == ("live", "resend", "default")
        assert audited(connection) == [("operator", "create", campaign_id, None, None)]
        assert "The campaign is saved" in text_of(operator.get(f"/admin/campaigns/{campaign_id}"))

    def test_a_form_that_is_sent_twice_makes_one_campaign(self, operator, connection):
        assert id_of(save(operator)) == id_of(save(operator))
        assert id_of(save(operator, text="another")) != id_of(save(operator))
        assert id_of(save(operator, form_key="other")) != id_of(save(operator))

    def test_every_form_has_a_key_of_its_own(self, operator):
        assert filled(operator.get(NEW))["form_key"] != filled(operator.get(NEW))["form_key"]

    @pytest.mark.parametrize(
        ("field", "typed", "said"),
        [
            ("text", "", "wanted a text"),
            ("text", " \n ", "wanted a text"),
            ("text", "x" * 256, "wanted 1 to 255 characters, got 256 characters"),
            ("text", "a\x00b", ""),
            ("name", "x" * 201, "wanted 1 to 200 characters"),
            ("tags", "unknown", "wanted names of existing tags"),
            ("tags", "a <b>", "wanted names of tags"),
            ("codes", "12", "wanted codes of three digits"),
            ("codes", "90³", "wanted codes of three digits"),
            ("sending_start", "", "wanted a date and a time"),
            ("sending_start", "tomorrow", "wanted a date and a time"),
            ("sending_start", "2030-01-01T10:00+03:00", "wanted a date and a time"),
            ("sending_stop", "2001-01-01T10:00", "wanted a moment after sending_start"),
            ("sending_stop", "9999-12-31T23:59", "wanted moments from the years 2000 to 9998"),
            ("local_from", "10:00", "wanted both ends of the local hours"),
            ("local_to", "25:00", "wanted a time of day"),
            ("messages_per_second", "fast", "wanted a number"),
            ("messages_per_second", "0", "wanted a number"),
            ("messages_per_second", "NaN", "wanted a number"),
            ("messages_per_second", "1e30", "wanted a number"),
            ("gateway", "none", "wanted the name of an existing gateway"),
            ("audience", "all", "wanted snapshot or live"),
            ("on_doubt", "maybe", "wanted hold or resend"),
        ],
    )
    def test_what_is_wrong_is_told_beside_its_field_and_what_was_typed_is_kept(
        self, operator, connection, field, typed, said
    ):
        before = kept(connection)
        answer = save(operator, **{field: typed})
        assert answer.status_code == 422
        assert kept(connection) == before
        if said:
            assert said in beside(answer, field)
        kept_form = filled(answer)
        for name in ("name", "text", "tags", "codes", "sending_start", "sending_stop", "local_from", "form_key"):
            assert kept_form[name] == (typed if name == field else GOOD[name]), name

    def test_a_window_that_is_over_is_refused(self, operator):
        answer = save(operator, sending_start="2020-01-01T10:00", sending_stop="2020-01-02T10:00")
        assert "wanted a moment to come" in beside(answer, "sending_stop")

    def test_all_that_is_wrong_is_told_at_once(self, operator):
        answer = save(operator, text="", codes="x", sending_start="")
        assert all(beside(answer, field) for field in ("text", "codes", "sending_start"))

    def test_markup_is_text(self, operator):
        answer = save(operator, text=EVIL, name='"><script>', codes="<script>")
        assert answer.status_code == 422
        assert "<script>alert" not in answer.text
        assert filled(answer)["text"] == EVIL

    def test_fields_that_are_missing_are_empty(self, operator):
        assert send(operator, NEW, {"text": "x"}).status_code == 422

    def test_a_viewer_may_not(self, viewer, connection):
        before = kept(connection)
        assert viewer.get(NEW).status_code == 403
        assert save(viewer).status_code == 403
        assert send(viewer, PREVIEW, GOOD).status_code == 403
        assert viewer.get("/admin/campaigns/tags").status_code == 403
        assert kept(connection) == before

    def test_another_sites_page_may_not(self, operator, connection):
        before = kept(connection)
        assert operator.post(NEW, data=GOOD).status_code == 403
        assert kept(connection) == before


class TestTheWindow:
    def window(self, connection, answer):
        row = campaigns.get(connection, id_of(answer))
        return row.sending_start, row.sending_stop

    def test_it_is_of_the_zone_that_the_form_is_in(self, operator, connection):
        answer = save(
            operator, timezone="Asia/Tokyo", sending_start="2040-01-10T09:00", sending_stop="2040-01-10T18:00"
        )
        assert self.window(connection, answer) == (
            datetime(2040, 1, 10, 0, tzinfo=UTC),
            datetime(2040, 1, 10, 9, tzinfo=UTC),
        )

    @pytest.mark.parametrize("cookie", ["Asia/Tokyo", "UTC"])
    def test_a_form_is_in_the_zone_that_the_cookie_says_and_says_so(self, operator, cookie):
        page = operator.get(NEW, headers={"Cookie": f"timezone={cookie}"})
        assert filled(page)["timezone"] == cookie
        assert f"Times are of the zone {cookie}" in text_of(page)

    @pytest.mark.parametrize(("fold", "hour"), [("0", 0), ("1", 1)])
    def test_of_two_hours_that_clocks_show_the_same_the_chosen_one_is_meant(self, operator, connection, fold, hour):
        typed = {"timezone": "Europe/Berlin", "sending_start": TWICE, "sending_stop": "2040-10-28T04:00"}
        answer = save(operator, **typed, sending_start_fold=fold)
        assert self.window(connection, answer)[0] == datetime(2040, 10, 28, hour, 30, tzinfo=UTC)

    def test_of_two_hours_that_clocks_show_the_same_one_is_to_be_chosen(self, operator, connection):
        typed = {"timezone": "Europe/Berlin", "sending_start": TWICE, "sending_stop": "2040-10-28T04:00"}
        answer = save(operator, **typed)
        assert "show 2040-10-28 02:30 twice: choose which" in beside(answer, "sending_start")
        said = text_of(answer)
        assert "The first: 2040-10-28 00:30 UTC" in said
        assert "The second: 2040-10-28 01:30 UTC" in said
        hidden = re.findall(r'<select[^>]*_fold"[^>]* hidden>', answer.text)
        assert len(hidden) == 1  # the stop's
        assert self.window(connection, send(operator, NEW, filled(answer) | {"sending_start_fold": "1"}))[0].hour == 1

    def test_an_hour_that_clocks_leave_out_is_refused(self, operator):
        typed = {"sending_start": "2040-03-25T02:30", "sending_stop": "2040-03-25T09:00"}
        answer = save(operator, timezone="Europe/Berlin", **typed)
        assert "there is no 2040-03-25 02:30 in Europe/Berlin" in beside(answer, "sending_start")
        assert filled(answer)["sending_start"] == "2040-03-25T02:30"

    @pytest.mark.parametrize("zone", ["Nowhere/Land", "../etc/passwd", "x\x00", "UTC" * 200])
    def test_a_zone_that_is_none_is_refused(self, operator, zone):
        assert "time zone" in beside(save(operator, timezone=zone), "sending_start")


class TestThePreview:
    def test_without_scripts_the_page_shows_it_and_saves_nothing(self, operator, connection):
        some_clients(connection, 3, code="903")
        before = kept(connection)
        answer = save(operator, step="preview")
        assert answer.status_code == 200
        assert "All 3 can be reached before the stop." in text_of(answer)
        assert "7903•••••01" in text_of(answer)
        assert filled(answer)["text"] == "Hello"
        assert kept(connection) == before

    def test_it_tells_whom_the_window_cannot_reach(self, operator, connection):
        some_clients(connection, 12)
        connection.execute("UPDATE clients SET timezone = 'Asia/Tokyo' WHERE id % 3 = 0")
        typed = {"local_from": "09:00", "local_to": "18:00"}  # the window is 09:00 to 17:00 UTC: night in Tokyo
        assert "4 of 12 cannot be reached before the stop." in text_of(save(operator, step="preview", **typed))
        told = send(operator, PREVIEW, GOOD | typed).json()
        assert (told["audience"], told["preview"]["never"], told["errors"]) == (12, 4, {})
        assert {zone["timezone"]: zone["never"] for zone in told["preview"]["zones"]} == {"Asia/Tokyo": 4, "UTC": 0}

    def test_the_audience_is_counted_before_anything_else_is_typed(self, operator, connection):
        some_clients(connection, 3, code="903", tags=("vip",))
        some_clients(connection, 4, code="916")
        told = send(operator, PREVIEW, {"tags": "vip", "codes": "903"}).json()
        assert (told["audience"], told["preview"]) == (3, None)
        assert "sending_start" in told["errors"]
        assert send(operator, PREVIEW, {}).json()["audience"] == 7
        assert send(operator, PREVIEW, {"codes": "x"}).json()["audience"] is None

    def test_the_text_need_not_be_there_yet(self, operator, connection):
        some_clients(connection, 1)
        assert send(operator, PREVIEW, GOOD | {"text": ""}).json()["preview"]["audience"] == 1

    def test_it_saves_nothing(self, operator, connection):
        before = kept(connection)
        send(operator, PREVIEW, GOOD)
        assert kept(connection) == before


class TestTheTags:
    def found(self, caller, part):
        return caller.get(f"/admin/campaigns/tags?q={part}").json()

    def test_they_are_found_by_a_part_of_the_name(self, operator, connection):
        for name in ("vip", "VIP-gold", "not_vip", "other", "Новый"):
            tags.create(connection, name, actor="test")
        assert self.found(operator, "vip") == ["VIP-gold", "vip", "not_vip"]
        assert self.found(operator, "нов") == ["Новый"]
        assert self.found(operator, "%25") == []
        assert len(self.found(operator, "")) == 5

    def test_no_more_are_told_than_one_reads(self, operator, connection):
        connection.execute("INSERT INTO tags (name) SELECT 'tag' || n FROM generate_series(1, 100) n")
        assert len(self.found(operator, "tag")) == 20


class TestAnEdit:
    def test_the_form_holds_the_campaign(self, operator, connection):
        connection.execute("INSERT INTO tags (name) VALUES ('vip')")
        campaign_id = a_campaign(
            connection, name='"quoted"', text="\nHello <b>", filter_tags=["vip"], filter_operator_codes=["903"],
            local_from=time(9), local_to=time(18, 30), messages_per_second=10, audience="live", on_doubt="resend",
        )  # fmt: skip
        form = filled(operator.get(edit_of(campaign_id)))
        assert {name: form[name] for name in ("name", "text", "tags", "codes", "local_from", "local_to")} == {
            "name": '"quoted"', "text": "\nHello <b>", "tags": "vip", "codes": "903", "local_from": "09:00",
            "local_to": "18:30",
        }  # fmt: skip
        assert (form["messages_per_second"], form["audience"], form["on_doubt"]) == ("10", "live", "resend")

    def test_saved_as_it_is_nothing_changes(self, operator, connection):
        campaign_id = a_campaign(connection, name="x", messages_per_second=0.5, local_from=time(9), local_to=time(10))
        form = filled(operator.get(edit_of(campaign_id)))
        before = kept(connection)
        answer = send(operator, edit_of(campaign_id), form)
        assert answer.status_code == 303
        assert kept(connection) == before
        assert "Nothing was changed" in text_of(operator.get(f"/admin/campaigns/{campaign_id}"))

    def test_only_what_was_changed_is_written(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, name="x")
        before = campaigns.get(connection, campaign_id)
        form = filled(operator.get(edit_of(campaign_id))) | {"text": "Other"}
        assert send(operator, edit_of(campaign_id), form).status_code == 303
        after = campaigns.get(connection, campaign_id)
        assert (after.text, after.sending_stop) == ("Other", before.sending_stop)
        assert audited(connection) == [("operator", "edit", campaign_id, None, {"changed": ["text"]})]

    def test_who_was_slower_is_told_and_keeps_what_they_typed(self, operator, connection):
        campaign_id = a_campaign(connection)
        form = filled(operator.get(edit_of(campaign_id))) | {"text": "mine"}
        campaigns.edit(connection, campaign_id, text="theirs", actor="Ann")
        answer = send(operator, edit_of(campaign_id), form)
        assert answer.status_code == 422
        assert "Somebody else changed this campaign since you opened the form: text." in text_of(answer)
        assert "changed this to “theirs”" in beside(answer, "text")
        assert campaigns.get(connection, campaign_id).text == "theirs"
        again = filled(answer)
        assert again["text"] == "mine"
        assert send(operator, edit_of(campaign_id), again).status_code == 303
        assert campaigns.get(connection, campaign_id).text == "mine"

    def test_what_another_editor_changed_is_not_taken_back(self, operator, connection):
        campaign_id = a_campaign(connection, name="before", messages_per_second=5)
        form = filled(operator.get(edit_of(campaign_id))) | {"text": "mine"}
        start, stop = now() + 2 * HOUR, now() + 5 * HOUR
        theirs = {"name": "theirs", "sending_start": start, "sending_stop": stop, "messages_per_second": None}
        campaigns.edit(connection, campaign_id, actor="Ann", **theirs)
        answer = send(operator, edit_of(campaign_id), form)
        assert "opened the form: name, opening, closing, own limit." in text_of(answer)
        assert campaigns.get(connection, campaign_id).text != "mine"
        assert (filled(answer)["name"], filled(answer)["text"]) == ("theirs", "mine")
        assert send(operator, edit_of(campaign_id), filled(answer)).status_code == 303
        row = campaigns.get(connection, campaign_id)
        assert (row.text, row.name, row.sending_start, row.sending_stop, row.messages_per_second) == (
            "mine", "theirs", start, stop, None,
        )  # fmt: skip

    def test_who_changes_the_same_to_the_same_is_in_nobodys_way(self, operator, connection):
        campaign_id = a_campaign(connection)
        form = filled(operator.get(edit_of(campaign_id))) | {"text": "ours"}
        campaigns.edit(connection, campaign_id, text="ours", actor="Ann")
        assert send(operator, edit_of(campaign_id), form).status_code == 303

    def test_what_the_campaigns_own_run_writes_is_in_nobodys_way(self, operator, connection):
        campaign_id = a_campaign(connection)
        form = filled(operator.get(edit_of(campaign_id))) | {"text": "mine"}
        runs.select_audience(connection, campaign_id)
        assert send(operator, edit_of(campaign_id), form).status_code == 303
        assert campaigns.get(connection, campaign_id).text == "mine"

    def test_of_two_who_save_at_once_the_slower_is_told(self, operator, connection):
        campaign_id = a_campaign(connection)
        form = filled(operator.get(edit_of(campaign_id)))
        with db.connect() as other, ThreadPoolExecutor() as threads:
            campaigns.edit(other, campaign_id, text="theirs", actor="Ann")
            answer = threads.submit(send, operator, edit_of(campaign_id), form | {"text": "mine"})
            wait_until(lambda: waiting_for_locks(connection))
            other.commit()
        assert answer.result().status_code == 422
        assert campaigns.get(connection, campaign_id).text == "theirs"

    @pytest.mark.parametrize("shown", ["", "x", "[]", '{"text": 1}'])
    def test_a_form_that_does_not_say_what_it_showed_takes_nothing_back(self, operator, connection, shown):
        campaign_id = a_campaign(connection)
        form = filled(operator.get(edit_of(campaign_id))) | {"text": "mine", "shown": shown}
        before = kept(connection)
        assert send(operator, edit_of(campaign_id), form).status_code == 422
        assert kept(connection) == before

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
    @pytest.mark.parametrize("hour", [0, 1])
    def test_a_window_that_was_not_touched_is_not_moved(self, operator, connection, zone, hour):
        start = datetime(2040, 10, 28, hour, 30, 7, 123456, tzinfo=UTC)  # twice 02:30 in Berlin
        campaign_id = a_campaign(connection, sending_start=start, sending_stop=start + 30 * HOUR)
        form = filled(operator.get(edit_of(campaign_id), headers={"Cookie": f"timezone={zone}"}))
        assert form["timezone"] == zone
        assert send(operator, edit_of(campaign_id), form | {"text": "mine"}).status_code == 303
        row = campaigns.get(connection, campaign_id)
        assert (row.text, row.sending_start, row.sending_stop) == ("mine", start, start + 30 * HOUR)
        form = filled(operator.get(edit_of(campaign_id), headers={"Cookie": f"timezone={zone}"}))
        assert send(operator, edit_of(campaign_id), form | {"sending_stop": "2040-11-01T10:00:00"}).status_code == 303
        row = campaigns.get(connection, campaign_id)
        assert (row.sending_start, row.sending_stop.date().day) == (start, 1)

    def test_the_other_of_two_hours_can_be_chosen(self, operator, connection):
        start = datetime(2040, 10, 28, 0, 30, tzinfo=UTC)
        campaign_id = a_campaign(connection, sending_start=start, sending_stop=start + 30 * HOUR)
        form = filled(operator.get(edit_of(campaign_id), headers={"Cookie": "timezone=Europe/Berlin"}))
        assert (form["sending_start"], form["sending_start_fold"]) == ("2040-10-28T02:30", "0")
        assert send(operator, edit_of(campaign_id), form | {"sending_start_fold": "1"}).status_code == 303
        assert campaigns.get(connection, campaign_id).sending_start == start + HOUR

    def test_line_ends_of_a_program_are_no_change(self, operator, connection):
        campaign_id = a_campaign(connection, text="one\r\ntwo\rthree")
        form = filled(operator.get(edit_of(campaign_id)))
        before = kept(connection)
        assert send(operator, edit_of(campaign_id), form).status_code == 303
        assert kept(connection) == before

    def test_what_the_campaign_refuses_is_told(self, operator, connection):
        campaign_id = a_campaign(connection)
        campaigns.cancel(connection, campaign_id, actor="test")
        form = filled(operator.get(edit_of(campaign_id))) | {"text": "mine"}
        answer = send(operator, edit_of(campaign_id), form)
        assert answer.status_code == 422
        assert "wanted a campaign that is not cancelled" in text_of(answer)
        assert filled(answer)["text"] == "mine"

    def test_what_is_wrong_is_told_beside_its_field(self, operator, connection):
        campaign_id = a_campaign(connection)
        form = filled(operator.get(edit_of(campaign_id)))
        answer = send(operator, edit_of(campaign_id), form | {"tags": "unknown"})
        assert "wanted names of existing tags" in beside(answer, "tags")
        assert links(answer, f"#{campaign_id}") == [f"/admin/campaigns/{campaign_id}"]

    def test_who_may(self, viewer, connection):
        campaign_id = a_campaign(connection)
        before = kept(connection)
        assert viewer.get(edit_of(campaign_id)).status_code == 403
        assert send(viewer, edit_of(campaign_id), GOOD).status_code == 403
        assert kept(connection) == before

    def test_one_that_is_not_there(self, operator, connection):
        assert operator.get(edit_of(99)).status_code == 404
        assert save(operator, edit_of(99)).status_code == 404
