"""Messages over REST."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from mailing import campaigns, messages
from tests.builders import (
    a_campaign,
    an_open_campaign,
    audited,
    claim,
    evidence,
    kept,
    ledger,
    now,
    outcome_of,
    some_clients,
    states,
)
from tests.web import problem

MINUTE = timedelta(minutes=1)

FIELDS = [
    "id", "created", "send_status", "mail_sender", "client", "state", "reason", "attempts", "sent_at", "not_before",
    "revision",
]  # fmt: skip


def path_of(message, more=""):
    return f"/api/messages/{message['id']}/{more}"


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def settle_as(connection, campaign_id, state, reason=None, limit=1):
    token = messages.take_lease(connection, campaign_id, 1, "test")
    claims = claim(connection, campaign_id, token, limit=limit)
    messages.record(connection, campaign_id, token, [outcome_of(each, state, reason) for each in claims])
    messages.release_lease(connection, token)
    return [each.id for each in claims]


@pytest.fixture
def opened(connection):
    """An open campaign of three clients, and its messages."""
    campaign_id, _ = an_open_campaign(connection, clients=3)
    return campaign_id, ledger(connection, campaign_id)


class TestMessages:
    def test_a_message_has_the_fields_of_the_old_service_and_ours(self, viewer, connection, opened):
        campaign_id, [first, *_] = opened
        settle_as(connection, campaign_id, "sent")
        found = viewer.get(path_of(first)).json()
        assert list(found) == FIELDS
        assert found["send_status"] is True
        assert (found["mail_sender"], found["client"]) == (campaign_id, first["client_id"])
        assert (found["state"], found["attempts"], found["revision"]) == ("sent", 1, 1)
        assert found["sent_at"]
        pending = viewer.get(path_of(opened[1][1])).json()
        assert (pending["send_status"], pending["sent_at"], pending["state"]) == (False, None, "pending")

    def test_pages_hold_each_message_once(self, viewer, connection, opened):
        some_clients(connection, 2)
        campaign_id = opened[0]
        first = viewer.get(f"/api/messages/?mail_sender={campaign_id}&limit=2")
        cursor = first.json()["next_cursor"]
        second = viewer.get(f"/api/messages/?mail_sender={campaign_id}&limit=2&cursor={cursor}")
        assert ids(first) + ids(second) == [row["id"] for row in opened[1]]
        assert second.json()["next_cursor"] is None
        assert ids(viewer.get("/api/messages/?sort=-id")) == [row["id"] for row in opened[1]][::-1]
        assert viewer.get("/api/messages/?limit=1&fields=id,state").json()["items"] == [
            {"id": opened[1][0]["id"], "state": "pending"}
        ]

    def test_messages_are_filtered(self, viewer, connection, opened):
        campaign_id, [first, second, third] = opened
        settle_as(connection, campaign_id, "sent")
        settle_as(connection, campaign_id, "failed", "http_400")
        hour = {"created_from": (now() - 60 * MINUTE).isoformat(), "created_to": (now() + MINUTE).isoformat()}
        for query, wanted in (
            ({"state": ["sent", "failed"]}, [first, second]),
            ({"state": "pending", "mail_sender": campaign_id}, [third]),
            ({"reason": "http_400"}, [second]),
            ({"client": third["client_id"]}, [third]),
            ({"mail_sender": campaign_id + 1}, []),
            (hour, [first, second, third]),
            ({"sent_from": hour["created_from"]}, [first]),
            ({"sent_to": hour["created_from"]}, []),
        ):
            assert ids(viewer.get("/api/messages/", params=query)) == [row["id"] for row in wanted], query

    @pytest.mark.parametrize(
        "query",
        [
            "state=lost", "sort=created", "created_from=yesterday", "created_from=2030-01-01T00:00:00", "client=0",
            "mail_sender=9223372036854775808", "reason=%00", "cursor=nonsense", "fields=phone_number", "limit=0",
            "colour=red",
        ],
    )  # fmt: skip
    def test_a_query_that_makes_no_sense_is_422(self, viewer, query):
        problem(viewer.get(f"/api/messages/?{query}"), 422, query.partition("=")[0])

    def test_the_messages_of_an_archived_campaign_are_told_to_be_gone(self, viewer, connection, opened):
        campaign_id, _ = opened
        connection.execute("DELETE FROM messages WHERE campaign_id = %s", (campaign_id,))
        connection.execute("UPDATE campaigns SET archived_at = '2026-01-02 03:04Z' WHERE id = %s", (campaign_id,))
        said = f"campaign {campaign_id}: its messages were dropped at 2026-01-02 03:04 UTC"
        problem(viewer.get(f"/api/messages/?mail_sender={campaign_id}"), 409, said, "/api/statistics/campaigns/")
        assert viewer.get("/api/messages/").json()["items"] == []

    def test_a_message_that_is_not_there_is_404(self, viewer, operator, admin):
        there = "message 7: there is no such message"
        problem(viewer.get("/api/messages/7/"), 404, there)
        problem(viewer.get("/api/messages/7/attempts"), 404, there)
        problem(operator.patch("/api/messages/7/", {"not_before": None}), 404, there)
        problem(operator.post("/api/messages/7/verdict", {"verdict": "give_up"}), 404, there)
        problem(admin.delete("/api/messages/7/"), 404, there)
        problem(viewer.get("/api/messages/0/"), 422, "message_id")
        problem(viewer.get(f"/api/messages/{2**63}/"), 422, "message_id")

    def test_nobody_reads_or_writes_without_a_login(self, nobody):
        problem(nobody.get("/api/messages/"), 401)
        problem(nobody.post("/api/messages/", {"mail_sender": 1, "client": 1}), 401)
        problem(nobody.delete("/api/messages/1/"), 401)

    def test_a_viewer_does_not_write_and_an_operator_does_not_delete(self, viewer, operator, connection, opened):
        path = path_of(opened[1][0])
        before = kept(connection)
        problem(viewer.post("/api/messages/", {"mail_sender": 1, "client": 1}), 403, "viewer")
        problem(viewer.patch(path, {"not_before": None}), 403)
        problem(viewer.put(path, {"not_before": None}), 403)
        problem(viewer.post(f"{path}verdict", {"verdict": "give_up"}), 403)
        problem(operator.delete(path), 403, "operator")
        assert kept(connection) == before


class TestEnrolling:
    def test_a_client_is_enrolled_into_a_campaign_that_has_opened(self, operator, connection, opened):
        [late] = some_clients(connection, 1)
        made = operator.post("/api/messages/", {"mail_sender": opened[0], "client": late})
        assert made.status_code == 201, made.text
        assert list(made.json()) == FIELDS
        assert (made.json()["client"], made.json()["state"]) == (late, "pending")
        assert operator.get(path_of(made.json())).json() == made.json()
        assert audited(connection) == [("operator", "enrol", opened[0], made.json()["id"], {"client_id": late})]

    def test_of_several_who_enrol_the_same_client_at_once_one_gets_a_message(self, operator, connection, opened):
        [late] = some_clients(connection, 1)
        body = {"mail_sender": opened[0], "client": late}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: operator.post("/api/messages/", body), range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        assert states(connection, opened[0]) == {"pending": 4}

    def test_the_same_key_enrols_once(self, operator, connection, opened):
        [late, other] = some_clients(connection, 2)
        body, key = {"mail_sender": opened[0], "client": late}, {"Idempotency-Key": "one"}
        first = operator.post("/api/messages/", body, headers=key)
        again = operator.post("/api/messages/", body, headers=key)
        assert (again.status_code, again.json()) == (201, first.json())
        assert states(connection, opened[0]) == {"pending": 4}
        problem(operator.post("/api/messages/", body | {"client": other}, headers=key), 422, "another body")

    def test_what_forbids_enrolling_is_409(self, operator, connection, opened):
        [late] = some_clients(connection, 1)
        soon = a_campaign(connection, sending_start=now() + MINUTE)
        filtered = a_campaign(connection, filter_operator_codes=["999"])
        connection.execute("UPDATE campaigns SET status = 'running', opened_at = now() WHERE id = %s", (filtered,))
        for campaign_id, client, said in (
            (opened[0], opened[1][0]["client_id"], "already: message"),
            (soon, late, "it has not opened yet"),
            (filtered, late, f"client {late} does not match the filter of campaign {filtered}"),
        ):
            problem(operator.post("/api/messages/", {"mail_sender": campaign_id, "client": client}), 409, said)
        campaigns.cancel(connection, opened[0], actor="anna")
        problem(operator.post("/api/messages/", {"mail_sender": opened[0], "client": late}), 409, "it is cancelled")

    def test_a_campaign_or_client_that_is_not_there_is_404(self, operator, opened):
        problem(operator.post("/api/messages/", {"mail_sender": 99, "client": 1}), 404, "campaign 99")
        problem(operator.post("/api/messages/", {"mail_sender": opened[0], "client": 99}), 404, "client 99")

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"mail_sender": 1}, {"mail_sender": 1, "client": None}, {"mail_sender": 1, "client": 0},
            {"mail_sender": 2**63, "client": 1}, {"mail_sender": 1, "client": 1, "send_status": True},
            {"mail_sender": 1, "client": 1, "state": "sent"}, [], None,
        ],
    )  # fmt: skip
    def test_a_body_that_makes_no_sense_is_422(self, operator, body):
        problem(operator.post("/api/messages/", body), 422, "body")


class TestPostponing:
    def test_a_message_is_postponed_and_sent_sooner(self, operator, connection, opened):
        path = path_of(opened[1][0])
        at = now() + 30 * MINUTE
        later = operator.patch(path, {"not_before": at.isoformat()})
        assert later.status_code == 200, later.text
        assert later.json()["reason"] == "postponed"
        assert ledger(connection, opened[0])[0]["not_before"] == at
        assert operator.get(path).json() == later.json()
        sooner = operator.put(path, later.json() | {"not_before": None})
        assert (sooner.json()["not_before"], sooner.json()["reason"]) == (None, None)
        assert [entry[1] for entry in audited(connection)] == ["postpone", "postpone"]

    def test_the_whole_object_may_come_back_as_it_is(self, operator, connection, opened):
        settle_as(connection, opened[0], "sent")
        before = kept(connection)
        for message in opened[1]:
            whole = operator.get(path_of(message)).json()
            of_the_old_service = {
                name: whole[name] for name in ("id", "created", "send_status", "mail_sender", "client")
            }
            for body in (whole, of_the_old_service, {}):
                assert operator.put(path_of(message), body).json() == whole
        assert kept(connection) == before

    @pytest.mark.parametrize(
        "forged",
        [
            {"send_status": True}, {"state": "sent"}, {"client": 99}, {"mail_sender": 99}, {"client": None},
            {"attempts": 3}, {"reason": "assumed_sent"}, {"sent_at": "2030-01-01T00:00:00Z"}, {"id": 99},
            {"revision": 7}, {"created": "2030-01-01T00:00:00Z"},
        ],
    )  # fmt: skip
    def test_nothing_but_not_before_can_be_changed(self, operator, connection, opened, forged):
        before = kept(connection)
        path = path_of(opened[1][0])
        for method in ("PUT", "PATCH"):
            problem(
                operator(method, path, forged), 409, *forged, "only not_before can be changed; an outcome is settled"
            )
        problem(operator.patch(path, forged | {"not_before": now().isoformat()}), 409)
        assert kept(connection) == before

    def test_what_is_not_pending_is_not_postponed(self, operator, connection, opened):
        settle_as(connection, opened[0], "failed", "http_400")
        problem(operator.patch(path_of(opened[1][0]), {"not_before": now().isoformat()}), 409, "it is failed")

    @pytest.mark.parametrize(
        "not_before",
        [
            "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2030-01-01T00:00:00", "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z", "tomorrow", "", "\x00", [], {},
        ],
    )  # fmt: skip
    def test_a_moment_outside_the_window_is_422(self, operator, opened, not_before):
        path = path_of(opened[1][0])
        found = problem(operator.patch(path, {"not_before": not_before}), 422, "not_before")
        assert "not_before" in found["errors"][0]["field"]

    def test_an_unknown_field_is_422(self, operator, opened):
        problem(operator.patch(path_of(opened[1][0]), {"text": "Hi"}), 422, "text")


class TestDeleting:
    def test_a_message_that_never_left_is_deleted(self, admin, connection, opened):
        path = path_of(opened[1][0])
        assert admin.delete(path).status_code == 204
        problem(admin.get(path), 404)
        assert states(connection, opened[0]) == {"pending": 2}
        assert audited(connection)[0][:4] == ("admin", "remove", opened[0], opened[1][0]["id"])

    def test_a_message_that_was_tried_is_not(self, admin, connection, opened):
        settle_as(connection, opened[0], "sent")
        problem(admin.delete(path_of(opened[1][0])), 409, "it is sent after 1 attempts")


class TestAttemptsAndVerdicts:
    def test_the_attempts_of_a_message_are_its_evidence(self, viewer, connection, opened):
        campaign_id, [first, second, _] = opened
        settle_as(connection, campaign_id, "unknown", "no_answer")
        found = viewer.get(path_of(first, "attempts")).json()
        assert found["next_cursor"] is None
        [attempt], [row] = found["items"], evidence(connection, campaign_id)
        assert (attempt["attempt"], attempt["state"], attempt["reason"]) == (1, "unknown", "no_answer")
        assert set(attempt) == set(row) - {"id", "campaign_id", "message_id"}
        assert viewer.get(path_of(second, "attempts")).json()["items"] == []

    @pytest.mark.parametrize(
        ("verdict", "state", "reason"),
        [("send_again", "pending", None), ("assume_sent", "sent", "assumed_sent"), ("give_up", "failed", "given_up")],
    )
    def test_a_verdict_settles_a_message_that_is_unknown(self, operator, connection, opened, verdict, state, reason):
        [id_] = settle_as(connection, opened[0], "unknown", "no_answer")
        found = operator.post(f"/api/messages/{id_}/verdict", {"verdict": verdict})
        assert found.status_code == 200, found.text
        assert (found.json()["state"], found.json()["reason"]) == (state, reason)
        assert found.json()["send_status"] == (state == "sent")
        problem(operator.post(f"/api/messages/{id_}/verdict", {"verdict": verdict}), 409, f"it is {state}")
        assert audited(connection) == [("operator", verdict, opened[0], id_, None)]

    def test_a_repeated_verdict_settles_once(self, operator, connection, opened):
        [id_] = settle_as(connection, opened[0], "unknown", "no_answer")
        path, key = f"/api/messages/{id_}/verdict", {"Idempotency-Key": "settle"}
        first = operator.post(path, {"verdict": "send_again"}, headers=key)
        assert (first.status_code, first.json()["state"]) == (200, "pending")
        connection.execute("UPDATE messages SET state = 'unknown', reason = 'test' WHERE id = %s", (id_,))
        again = operator.post(path, {"verdict": "send_again"}, headers=key)
        assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
        assert operator.get(f"/api/messages/{id_}/").json()["state"] == "unknown"
        assert audited(connection) == [("operator", "send_again", opened[0], id_, None)]
        problem(operator.post(path, {"verdict": "give_up"}, headers=key), 422, "another body")

    @pytest.mark.parametrize("body", [{}, {"verdict": "forget"}, {"verdict": None}, {"verdict": "give_up", "why": "x"}])
    def test_a_verdict_that_is_none_is_422(self, operator, opened, body):
        problem(operator.post(path_of(opened[1][0], "verdict"), body), 422, "body")
