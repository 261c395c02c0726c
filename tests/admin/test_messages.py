"""The pages of messages."""

from __future__ import annotations

import csv
import re
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from mailing import messages
from tests.admin.forms import act, act_on, links, send, text_of
from tests.builders import (
    a_campaign,
    an_open_campaign,
    audited,
    claim,
    kept,
    ledger,
    now,
    outcome_of,
    some_clients,
    states,
)

LIST = "/admin/messages/list"
XSS = "<script>alert(1)</script>"


@pytest.fixture
def opened(connection):
    """A campaign of six: two unknown, two failed, one sent, one pending. Its id, and theirs."""
    campaign_id, _ = an_open_campaign(connection, clients=6)
    token = messages.take_lease(connection, campaign_id, 1, "test")
    claims = claim(connection, campaign_id, token, limit=5)
    came_to = ["unknown", "unknown", "failed", "failed", "sent"]
    said = [outcome_of(each, state, error=XSS, reply=XSS) for each, state in zip(claims, came_to, strict=True)]
    messages.record(connection, campaign_id, token, said)
    messages.release_lease(connection, token)
    return campaign_id, [row["id"] for row in ledger(connection, campaign_id)]


def ids(answer):
    """The messages that a list shows."""
    return [int(pk) for pk in re.findall(r'data-sa-pk="(\d+)"', answer.text)]


class TestList:
    def test_no_message_says_where_they_come_from(self, viewer):
        assert "There is no message yet: a campaign writes one for each" in text_of(viewer.get(LIST))

    def test_of_an_archived_campaign_it_says_when_its_messages_were_dropped(self, connection, opened, viewer):
        campaign_id, _ = opened
        connection.execute("DELETE FROM messages WHERE campaign_id = %s", (campaign_id,))
        connection.execute("UPDATE campaigns SET archived_at = '2026-01-02 03:04Z' WHERE id = %s", (campaign_id,))
        answer = viewer.get(f"{LIST}?campaign={campaign_id}")
        assert answer.status_code == 409
        assert f"campaign {campaign_id}: its messages were dropped at 2026-01-02 03:04 UTC" in text_of(answer)

    def test_it_is_narrowed_by_campaign_client_state_and_reason(self, connection, opened, viewer):
        campaign_id, all_ids = opened
        other, _ = an_open_campaign(connection, clients=1)
        client_id = ledger(connection, campaign_id)[0]["client_id"]

        assert ids(viewer.get(f"{LIST}?campaign={campaign_id}")) == all_ids[::-1]
        assert ids(viewer.get(f"{LIST}?campaign={campaign_id}&state=unknown")) == all_ids[1::-1]
        assert ids(viewer.get(f"{LIST}?reason=test&state=failed")) == all_ids[3:1:-1]
        assert ids(viewer.get(f"{LIST}?client={client_id}&campaign={campaign_id}")) == all_ids[:1]
        assert len(ids(viewer.get(f"{LIST}?campaign={other}"))) == 7

    @pytest.mark.parametrize("query", ["campaign=x", "client=0", "campaign=99999999999999999999", "state=odd"])
    def test_a_wrong_question_is_told_in_the_page(self, opened, viewer, query):
        page = viewer.get(f"{LIST}?{query}")

        assert (page.status_code, ids(page)) == (200, [])
        assert "wanted" in text_of(page)

    def test_pages_follow_each_other(self, connection, viewer):
        an_open_campaign(connection, clients=30)
        first = viewer.get(LIST)
        second = viewer.get(links(first, "Next")[0])

        assert (len(ids(first)), len(ids(second)), links(second, "Next")) == (25, 5, [])
        assert set(ids(first)).isdisjoint(ids(second))

    def test_the_list_can_be_taken_away_as_a_file(self, opened, viewer):
        campaign_id, _ = opened
        answer = act(viewer, "messages", "export", [], f"?campaign={campaign_id}&state=failed", scope="all")

        rows = list(csv.DictReader(answer.text.splitlines()))
        assert [(row["campaign_id"], row["state"]) for row in rows] == [(str(campaign_id), "failed")] * 2


class TestOne:
    def test_its_page_shows_the_evidence_as_text(self, opened, operator):
        _, [unknown, *_] = opened
        page = operator.get(f"/admin/messages/detail?pk={unknown}")

        assert XSS in text_of(page)
        assert XSS not in page.text
        assert "It may have been taken, and was not answered." in text_of(page)
        for verdict in ("Send again", "Assume sent", "Give up"):
            assert verdict in text_of(page)
        assert "Postpone" not in text_of(page)

    def test_a_viewer_and_who_looks_at_a_settled_one_see_no_verdict(self, opened, viewer, operator):
        _, all_ids = opened

        for page in (viewer.get(f"/admin/messages/detail?pk={all_ids[0]}"),
                     operator.get(f"/admin/messages/detail?pk={all_ids[4]}")):  # fmt: skip
            assert "Send again" not in text_of(page)
        assert "There is none." in text_of(operator.get(f"/admin/messages/detail?pk={all_ids[4]}"))

    @pytest.mark.parametrize(
        ("verdict", "state"), [("send_again", "pending"), ("assume_sent", "sent"), ("give_up", "failed")]
    )
    def test_a_verdict_settles_it(self, connection, opened, operator, verdict, state):
        campaign_id, [unknown, *_] = opened
        answer = act_on(operator, "messages", verdict, unknown)

        assert answer.json()["redirect"].endswith(f"/admin/messages/detail?pk={unknown}")
        assert ledger(connection, campaign_id)[0]["state"] == state
        assert audited(connection) == [("operator", verdict, campaign_id, unknown, None)]

    def test_a_verdict_on_what_is_settled_is_refused(self, connection, opened, operator):
        campaign_id, all_ids = opened
        before = kept(connection)

        assert act_on(operator, "messages", "give_up", all_ids[4]).status_code == 400
        assert act_on(operator, "messages", "give_up", 999_999).status_code == 400
        assert act_on(operator, "messages", "give_up", "x").status_code == 400
        assert kept(connection) == before

    def test_a_pending_one_is_postponed_in_the_zone_of_whoever_does_it(self, connection, opened, operator):
        campaign_id, all_ids = opened
        later = (now() + timedelta(minutes=30)).replace(microsecond=0)
        typed = later.astimezone(ZoneInfo("Europe/Moscow")).replace(tzinfo=None).isoformat()
        operator._client.cookies.set("timezone", "Europe/Moscow")
        try:
            answer = send(operator, f"/admin/messages/edit?pk={all_ids[5]}", {"not_before": typed})
        finally:
            operator._client.cookies.delete("timezone")

        assert answer.status_code == 303
        assert ledger(connection, campaign_id)[5]["not_before"] == later
        assert send(operator, f"/admin/messages/edit?pk={all_ids[5]}", {"not_before": ""}).status_code == 303
        assert ledger(connection, campaign_id)[5]["not_before"] is None

    @pytest.mark.parametrize("typed", ["soon", "2001-01-01T10:00", "2999-01-01T10:00", '"><script>alert(1)</script>'])
    def test_a_moment_that_cannot_be_is_told_beside_the_field(self, connection, opened, operator, typed):
        _, all_ids = opened
        before = kept(connection)
        page = send(operator, f"/admin/messages/edit?pk={all_ids[5]}", {"not_before": typed})

        assert page.status_code == 422
        assert "wanted" in page.text.partition('id="not_before-error"')[2].partition("</div>")[0].lower()
        assert "<script>alert(1)" not in page.text
        assert kept(connection) == before

    def test_one_that_never_left_is_removed_by_an_admin(self, connection, opened, admin):
        campaign_id, all_ids = opened

        assert act_on(admin, "messages", "delete", all_ids[4]).status_code == 400
        assert act_on(admin, "messages", "delete", all_ids[5]).status_code == 200
        assert len(ledger(connection, campaign_id)) == 5


class TestEnrolment:
    def test_a_client_is_enrolled(self, connection, opened, operator):
        campaign_id, _ = opened
        [client_id] = some_clients(connection, 1)
        form = {"campaign_id": campaign_id, "client_id": client_id}

        assert send(operator, "/admin/messages/create", form).status_code == 303
        assert ledger(connection, campaign_id)[-1]["client_id"] == client_id
        again = send(operator, "/admin/messages/create", form)
        assert again.status_code == 422
        assert f"is in the ledger of campaign {campaign_id} already" in text_of(again)

    def test_what_is_wrong_is_told_and_kept(self, connection, operator):
        waiting = a_campaign(connection)
        page = send(operator, "/admin/messages/create", {"campaign_id": "1x", "client_id": "-3"})
        assert page.status_code == 422
        assert 'value="1x"' in page.text
        assert 'value="-3"' in page.text

        page = send(operator, "/admin/messages/create", {"campaign_id": waiting, "client_id": 5})
        assert (page.status_code, "it has not opened yet" in text_of(page)) == (422, True)
        page = send(operator, "/admin/messages/create", {"campaign_id": 99, "client_id": 5})
        assert (page.status_code, "there is no such campaign" in text_of(page)) == (422, True)


class TestMany:
    def test_the_unknown_among_the_chosen_are_settled(self, connection, opened, operator):
        campaign_id, all_ids = opened
        answer = act(operator, "messages", "settle", all_ids[1:], "?state=unknown", verdict="assume_sent")

        assert answer.json()["redirect"].endswith("/admin/messages/list?state=unknown")
        assert states(connection, campaign_id) == {"unknown": 1, "failed": 2, "sent": 2, "pending": 1}
        assert audited(connection) == [("operator", "assume_sent", campaign_id, all_ids[1], None)]
        said = text_of(operator.get(LIST))
        assert "1 message is taken for sent. 4 are not unknown and stay as they are." in said

    def test_the_failed_among_the_chosen_are_sent_again(self, connection, opened, operator):
        campaign_id, all_ids = opened

        assert act(operator, "messages", "resend", [*all_ids[:3], all_ids[5]]).status_code == 200
        assert states(connection, campaign_id) == {"unknown": 2, "failed": 1, "sent": 1, "pending": 2}
        assert audited(connection) == [("operator", "resend", campaign_id, all_ids[2], None)]

    def test_one_campaign_that_is_over_keeps_all_as_they_are(self, connection, opened, operator):
        campaign_id, all_ids = opened
        other, _ = an_open_campaign(connection, clients=0)
        connection.execute("UPDATE messages SET state = 'failed', reason = 'test' WHERE campaign_id = %s", (other,))
        connection.execute("UPDATE campaigns SET status = 'cancelled' WHERE id = %s", (other,))
        chosen = [*all_ids, *(row["id"] for row in ledger(connection, other))]
        before = kept(connection)

        answer = act(operator, "messages", "resend", chosen)
        assert (answer.status_code, f"ampaign {other}: resend" in answer.json()["msg"]) == (400, True)
        connection.execute("UPDATE messages SET state = 'unknown' WHERE campaign_id = %s", (other,))
        assert act(operator, "messages", "settle", chosen, verdict="send_again").status_code == 400
        assert {name: rows for name, rows in kept(connection).items() if name != "messages"} == {
            name: rows for name, rows in before.items() if name != "messages"
        }
        assert states(connection, campaign_id) == {"unknown": 2, "failed": 2, "sent": 1, "pending": 1}

    def test_none_that_fits_and_no_verdict_are_told(self, opened, operator):
        _, all_ids = opened

        answer = act(operator, "messages", "settle", all_ids[2:], verdict="give_up")
        assert (answer.status_code, "None of the 4 chosen is unknown" in answer.json()["msg"]) == (400, True)
        assert act(operator, "messages", "settle", all_ids).status_code == 400
        assert act(operator, "messages", "settle", all_ids, verdict="odd").status_code == 400
        assert act(operator, "messages", "settle", ["x"], verdict="give_up").status_code == 400


def test_only_operators_write(connection, opened, viewer):
    campaign_id, all_ids = opened
    before = kept(connection)

    assert viewer.get("/admin/messages/create").status_code == 403
    assert viewer.get(f"/admin/messages/edit?pk={all_ids[5]}").status_code == 403
    assert send(viewer, "/admin/messages/create", {"campaign_id": campaign_id, "client_id": 1}).status_code == 403
    assert send(viewer, f"/admin/messages/edit?pk={all_ids[5]}", {"not_before": ""}).status_code == 403
    for name in ("settle", "resend", "delete"):
        assert act(viewer, "messages", name, all_ids, verdict="give_up").status_code == 403
    for name in ("send_again", "assume_sent", "give_up", "delete"):
        assert act_on(viewer, "messages", name, all_ids[0]).status_code == 403
    assert kept(connection) == before


def test_an_action_without_the_token_of_a_page_is_refused(connection, opened, operator):
    _, all_ids = opened
    before = kept(connection)

    assert operator.post(f"/admin/_api/messages/row-action?name=give_up&pk={all_ids[0]}").status_code == 403
    assert operator.post(f"/admin/_api/messages/action?name=resend&pks={all_ids[2]}").status_code == 403
    assert kept(connection) == before
