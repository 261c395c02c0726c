"""The verbs of a campaign's life over REST."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailing import campaigns, messages, runs
from tests.api.test_campaigns import PATH, a_body, fields_of, path_of
from tests.builders import (
    HOUR,
    a_campaign,
    an_open_campaign,
    audited,
    claim,
    ledger,
    now,
    outcome_of,
    some_clients,
    states,
)
from tests.waiting import wait_until
from tests.web import problem

BODIES = {
    "pause": None, "resume": None, "cancel": None, "resend": {"states": ["failed"]}, "settle": {"verdict": "give_up"},
    "test-send": {"clients": [1]},
}  # fmt: skip
VERBS = [*BODIES, "preview"]


def verb(campaign_id, name):
    return f"{PATH}{campaign_id}/{name}"


def a_campaign_with(connection, *outcomes, **changes):
    """An open campaign whose first messages came to these outcomes, one each, and that has one more."""
    campaign_id, _ = an_open_campaign(connection, clients=len(outcomes) + 1, **changes)
    token = messages.take_lease(connection, campaign_id, 1, "test")
    claims = claim(connection, campaign_id, token, limit=len(outcomes))
    told = [outcome_of(each, outcome) for each, outcome in zip(claims, outcomes, strict=True)]
    messages.record(connection, campaign_id, token, told)
    messages.release_lease(connection, token)
    return campaign_id


class TestEveryVerb:
    @pytest.mark.parametrize("name", VERBS)
    def test_who_may(self, nobody, viewer, operator, connection, name):
        campaign_id = a_campaign(connection)
        problem(nobody.post(verb(campaign_id, name), BODIES.get(name)), 401)
        if name != "preview":
            problem(viewer.post(verb(campaign_id, name), BODIES.get(name)), 403)

    @pytest.mark.parametrize("name", BODIES)
    def test_a_campaign_whose_messages_were_dropped(self, operator, connection, name):
        some_clients(connection, 1)
        campaign_id = a_campaign(connection)
        connection.execute("UPDATE campaigns SET archived_at = '2026-01-02 03:04Z'")
        problem(operator.post(verb(campaign_id, name), BODIES[name]), 409, "its messages were dropped at 2026-01-02")
        assert operator.get(path_of(campaign_id)).json()["archived_at"] == "2026-01-02T03:04:00Z"

    @pytest.mark.parametrize("name", VERBS)
    def test_a_campaign_that_is_not_there(self, operator, connection, name):
        some_clients(connection, 1)
        problem(operator.post(verb(99, name), BODIES.get(name)), 404, "campaign 99: there is no such campaign")

    @pytest.mark.parametrize("name", VERBS)
    def test_an_id_that_is_none(self, operator, name):
        assert fields_of(operator.post(verb("x", name), BODIES.get(name))) == {"path.campaign_id"}

    @pytest.mark.parametrize("name", BODIES)
    def test_what_was_written_since_is_left_alone(self, operator, connection, name):
        some_clients(connection, 1)
        campaign_id = a_campaign(connection)
        tag = operator.get(path_of(campaign_id)).headers["etag"]
        operator.patch(path_of(campaign_id), {"name": "Spring"})
        before = audited(connection)
        answer = operator.post(verb(campaign_id, name), BODIES[name], headers={"If-Match": tag})
        problem(answer, 412, "it was written since")
        assert audited(connection) == before
        assert campaigns.get(connection, campaign_id).status == "scheduled"

    @pytest.mark.parametrize("name", ["resend", "settle", "test-send"])
    @pytest.mark.parametrize("body", [{}, [], {"odd": 1}, {"states": []}, {"clients": []}, {"verdict": "odd"}])
    def test_a_body_that_makes_no_sense(self, operator, connection, name, body):
        assert fields_of(operator.post(verb(a_campaign(connection), name), body))


class TestPauseResumeCancel:
    def test_a_campaign_is_paused_resumed_and_cancelled(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        paused = operator.post(verb(campaign_id, "pause"))
        assert (paused.status_code, paused.json()["status"]) == (200, "paused")
        assert paused.json() == operator.get(path_of(campaign_id)).json()
        resumed = operator.post(verb(campaign_id, "resume"), headers={"If-Match": paused.headers["etag"]})
        assert resumed.json()["status"] == "running"
        cancelled = operator.post(verb(campaign_id, "cancel"))
        assert cancelled.json()["status"] == "cancelled"
        assert states(connection, campaign_id) == {"cancelled": 3}
        assert cancelled.headers["etag"] == operator.get(path_of(campaign_id)).headers["etag"]
        assert [entry[:2] for entry in audited(connection)] == [
            ("operator", "pause"), ("operator", "resume"), ("operator", "cancel")
        ]  # fmt: skip

    def test_what_is_on_its_way_when_it_is_cancelled_is_left_to_its_task(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        token = messages.take_lease(connection, campaign_id, 1, "test")
        claim(connection, campaign_id, token, limit=1)
        assert operator.post(verb(campaign_id, "cancel")).json()["status"] == "cancelled"
        assert states(connection, campaign_id) == {"sending": 1, "cancelled": 2}

    def test_pressing_again_changes_nothing(self, operator, connection):
        campaign_id = a_campaign(connection)
        first = operator.post(verb(campaign_id, "pause"))
        again = operator.post(verb(campaign_id, "pause"))
        assert (again.status_code, again.json(), again.headers["etag"]) == (200, first.json(), first.headers["etag"])

    @pytest.mark.parametrize("name", ["pause", "resume", "cancel"])
    def test_what_is_finished_stays_so(self, operator, connection, name):
        campaign_id, _ = an_open_campaign(connection, clients=0)
        runs.close(connection, campaign_id)
        problem(operator.post(verb(campaign_id, name)), 409, f"campaign {campaign_id}: {name}", "it is finished")

    def test_after_its_window_nothing_is_resumed(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=1)
        campaigns.pause(connection, campaign_id, actor="test")
        connection.execute("UPDATE campaigns SET sending_stop = now()")
        problem(operator.post(verb(campaign_id, "resume")), 409, "its window closed at")


class TestResend:
    def test_what_failed_is_sent_again_under_the_same_ids(self, operator, connection):
        campaign_id = a_campaign_with(connection, "failed", "failed", "unknown", "sent")
        ids = [row["id"] for row in ledger(connection, campaign_id)]
        answer = operator.post(verb(campaign_id, "resend"), {"states": ["failed"]})
        assert (answer.status_code, answer.json()) == (200, {"messages": {"failed": 2}})
        assert states(connection, campaign_id) == {"pending": 3, "unknown": 1, "sent": 1}
        assert [row["id"] for row in ledger(connection, campaign_id)] == ids

    def test_both_kinds_at_once(self, operator, connection):
        campaign_id = a_campaign_with(connection, "failed", "unknown")
        answer = operator.post(verb(campaign_id, "resend"), {"states": ["failed", "unknown"]})
        assert answer.json() == {"messages": {"failed": 1, "unknown": 1}}

    def test_outside_its_window_nothing_is_sent_again(self, operator, connection):
        campaign_id = a_campaign_with(connection, "failed")
        connection.execute("UPDATE campaigns SET sending_stop = now()")
        problem(operator.post(verb(campaign_id, "resend"), {"states": ["failed"]}), 409, "its window open")

    def test_another_number_than_was_seen_is_not_sent_again(self, operator, connection):
        campaign_id = a_campaign_with(connection, "failed", "failed", "unknown")
        body, key = {"states": ["failed", "unknown"], "expected": 2}, {"Idempotency-Key": "again"}
        answer = operator.post(verb(campaign_id, "resend"), body, headers=key)
        problem(answer, 409, "3 are failed or unknown by now, 2 were confirmed: look again")
        assert (states(connection, campaign_id)["failed"], audited(connection)) == (2, [])
        answer = operator.post(
            verb(campaign_id, "resend"), body | {"expected": 3}, headers=key
        )  # a refusal keeps no key
        assert answer.json() == {"messages": {"failed": 2, "unknown": 1}}

    @pytest.mark.parametrize("wanted", [["sent"], [], ["failed"] * 3, "failed", None])
    def test_states_that_cannot_be_sent_again(self, operator, connection, wanted):
        answer = operator.post(verb(a_campaign(connection), "resend"), {"states": wanted})
        assert {field.partition(".")[0] for field in fields_of(answer)} == {"states"}

    def test_a_repeated_request_sends_again_once(self, operator, connection):
        campaign_id = a_campaign_with(connection, "failed")
        key = {"Idempotency-Key": "again"}
        first = operator.post(verb(campaign_id, "resend"), {"states": ["failed"]}, headers=key)
        connection.execute("UPDATE messages SET state = 'failed', reason = 'test' WHERE attempts > 0")
        again = operator.post(verb(campaign_id, "resend"), {"states": ["failed"]}, headers=key)
        assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
        assert states(connection, campaign_id) == {"failed": 1, "pending": 1}
        problem(operator.post(verb(campaign_id, "resend"), {"states": ["unknown"]}, headers=key), 422)


class TestSettle:
    @pytest.mark.parametrize(
        ("verdict", "state"), [("assume_sent", "sent"), ("give_up", "failed"), ("send_again", "pending")]
    )
    def test_one_word_on_all_that_are_unknown(self, operator, connection, verdict, state):
        campaign_id = a_campaign_with(connection, "unknown", "unknown", "failed")
        answer = operator.post(verb(campaign_id, "settle"), {"verdict": verdict})
        assert (answer.status_code, answer.json()) == (200, {"messages": 2})
        assert "unknown" not in states(connection, campaign_id)
        assert [row["state"] for row in ledger(connection, campaign_id)][:2] == [state] * 2

    def test_only_those_that_are_unknown_for_this_reason(self, operator, connection):
        campaign_id = a_campaign_with(connection, "unknown", "unknown")
        connection.execute("UPDATE messages SET reason = 'no_answer' WHERE id = (SELECT min(id) FROM messages)")
        answer = operator.post(verb(campaign_id, "settle"), {"verdict": "give_up", "reason": "no_answer"})
        assert answer.json() == {"messages": 1}

    def test_another_number_than_was_seen_is_not_settled(self, operator, connection):
        campaign_id = a_campaign_with(connection, "unknown", "unknown")
        path, body = verb(campaign_id, "settle"), {"verdict": "give_up", "reason": "test"}
        problem(operator.post(path, body | {"expected": 1}), 409, "2 are in doubt by now, 1 was confirmed: look again")
        assert (states(connection, campaign_id)["unknown"], audited(connection)) == (2, [])
        assert operator.post(path, body | {"expected": 2}).json() == {"messages": 2}

    @pytest.mark.parametrize("expected", [-1, "x", 2**63, 1.5])
    def test_a_number_that_nobody_can_have_seen(self, operator, connection, expected):
        body = {"verdict": "give_up", "expected": expected}
        assert fields_of(operator.post(verb(a_campaign(connection), "settle"), body)) == {"expected"}

    def test_none_are_sent_again_outside_the_window(self, operator, connection):
        campaign_id = a_campaign_with(connection, "unknown")
        connection.execute("UPDATE campaigns SET sending_stop = now()")
        problem(operator.post(verb(campaign_id, "settle"), {"verdict": "send_again"}), 409)

    def test_a_repeated_request_settles_once(self, operator, connection):
        campaign_id = a_campaign_with(connection, "unknown")
        path, key = verb(campaign_id, "settle"), {"Idempotency-Key": "settle"}
        first = operator.post(path, {"verdict": "send_again"}, headers=key)
        connection.execute("UPDATE messages SET state = 'unknown', reason = 'test' WHERE attempts > 0")
        again = operator.post(path, {"verdict": "send_again"}, headers=key)
        assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
        assert again.json() == {"messages": 1}
        assert states(connection, campaign_id) == {"unknown": 1, "pending": 1}
        assert len(audited(connection)) == 1
        problem(operator.post(path, {"verdict": "give_up"}, headers=key), 422, "another body")

    @pytest.mark.parametrize(
        "body", [{"verdict": "sent"}, {"reason": "x"}, {"verdict": "give_up", "reason": "nul\x00"}]
    )
    def test_a_verdict_that_is_none(self, operator, connection, body):
        problem(operator.post(verb(a_campaign(connection), "settle"), body), 422)


class TestPreview:
    def test_a_draft_is_previewed_and_not_saved(self, operator, viewer, connection):
        some_clients(connection, 12, code="903")
        some_clients(connection, 3, code="900")
        answer = operator.post(f"{PATH}preview", a_body(text="Привет", filters=["903"]))
        preview = answer.json()
        assert answer.status_code == 200
        assert (preview["is_open"], preview["audience"], preview["never"]) == (False, 12, 0)
        assert (preview["operator_codes"], preview["text"], preview["characters"]) == ({"903": 12}, "Привет", 6)
        [zone] = preview["zones"]
        assert (zone["timezone"], zone["clients"], zone["never"]) == ("UTC", 12, 0)
        assert len(preview["sample"]) == 10
        assert set(preview["sample"][0]) == {"id", "phone_number", "mobile_operator_code", "timezone", "tags"}
        assert all("•••••" in client["phone_number"] for client in preview["sample"])
        assert connection.execute("SELECT count(*) AS n FROM campaigns").fetchone() == {"n": 0}
        assert audited(connection) == []
        problem(viewer.post(f"{PATH}preview", a_body()), 403)

    @pytest.mark.parametrize(
        ("changes", "field"),
        [({"filters": ["nobody"]}, "filters"), ({"local_from": "10:00"}, "local_to"), ({"text": ""}, "text")],
    )
    def test_a_draft_is_judged_as_a_campaign_would_be(self, operator, changes, field):
        assert field in fields_of(operator.post(f"{PATH}preview", a_body(**changes)))

    def test_a_campaign_is_previewed_by_whoever_may_read(self, viewer, connection):
        campaign_id, _ = an_open_campaign(connection, clients=4)
        preview = viewer.post(verb(campaign_id, "preview")).json()
        assert (preview["is_open"], preview["audience"], preview["text"]) == (True, 4, "Hello")


class TestTestSend:
    def test_each_client_gets_it_once_and_the_campaign_knows_nothing_of_it(self, operator, connection, gateway):
        ids = some_clients(connection, 3)
        campaign_id = a_campaign(connection, sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR)
        answer = operator.post(verb(campaign_id, "test-send"), {"clients": ids[:2]})
        sends = answer.json()["test_sends"]
        assert answer.status_code == 200
        assert [(each["client_id"], each["state"], each["reason"]) for each in sends] == [
            (ids[0], "sent", None), (ids[1], "sent", None)
        ]  # fmt: skip
        assert gateway.counts() == {each["id"]: 1 for each in sends}
        assert states(connection, campaign_id) == {}
        assert operator.get(f"{PATH}{campaign_id}/detail").json()["counts"]["audience"] == 0

    @pytest.mark.parametrize("clients", [[], [1] * 11, [1, 1], [0], [2**63], ["x"], None])
    def test_one_to_ten_different_clients(self, operator, connection, clients):
        answer = operator.post(verb(a_campaign(connection), "test-send"), {"clients": clients})
        assert {field.partition(".")[0] for field in fields_of(answer)} == {"clients"}

    def test_clients_that_are_not_there_are_named(self, operator, connection, gateway):
        [client] = some_clients(connection, 1)
        answer = operator.post(verb(a_campaign(connection), "test-send"), {"clients": [client, 98, 99]})
        problem(answer, 422, "there is no client 98, 99")
        assert gateway.counts() == {}

    def test_what_is_cancelled_is_not_even_tried(self, operator, connection, gateway):
        [client] = some_clients(connection, 1)
        campaign_id = a_campaign(connection)
        campaigns.cancel(connection, campaign_id, actor="test")
        problem(operator.post(verb(campaign_id, "test-send"), {"clients": [client]}), 409, "not cancelled")

    @pytest.mark.parametrize("state", ["open", "half_open"])
    def test_a_gateway_that_is_left_alone_is_left_alone(self, operator, connection, gateway, state):
        [client] = some_clients(connection, 1)
        connection.execute(
            "UPDATE gateways SET breaker_state = %s, breaker_reason = 'http_503', breaker_probe_at = now()", (state,)
        )
        answer = operator.post(verb(a_campaign(connection), "test-send"), {"clients": [client]})
        problem(answer, 409, "gateway default is left alone (http_503)")
        assert gateway.counts() == {}

    def test_a_repeated_request_gets_the_same_answer_and_sends_nothing(self, operator, connection, gateway):
        ids = some_clients(connection, 2)
        path, key = verb(a_campaign(connection), "test-send"), {"Idempotency-Key": "try"}
        first = operator.post(path, {"clients": ids}, headers=key)
        again = operator.post(path, {"clients": ids}, headers=key)
        assert (again.status_code, again.json()) == (200, first.json())
        assert again.headers["idempotent-replayed"] == "true"
        assert sorted(gateway.counts().values()) == [1, 1]
        problem(operator.post(path, {"clients": ids[:1]}, headers=key), 422)

    def test_a_request_that_is_repeated_while_it_runs_is_told_so(self, operator, connection, gateway):
        gateway.set(latency={"kind": "fixed", "seconds": 1})
        [client] = some_clients(connection, 1)
        path, key = verb(a_campaign(connection), "test-send"), {"Idempotency-Key": "try"}
        begun = threading.Event()

        def post():
            begun.set()
            return operator.post(path, {"clients": [client]}, headers=key)

        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(post)
            wait_until(lambda: connection.execute("SELECT FROM test_sends").fetchone() is not None)
            problem(operator.post(path, {"clients": [client]}, headers=key), 409, "has begun and not ended")
            assert first.result().status_code == 200
        assert sorted(gateway.counts().values()) == [1]

    def test_a_request_that_was_refused_may_be_repeated_with_its_key(self, operator, connection, gateway):
        [client] = some_clients(connection, 1)
        path, key = verb(a_campaign(connection), "test-send"), {"Idempotency-Key": "try"}
        connection.execute("UPDATE gateways SET breaker_state = 'open', breaker_probe_at = now()")
        problem(operator.post(path, {"clients": [client]}, headers=key), 409)
        connection.execute("UPDATE gateways SET breaker_state = 'closed'")
        assert operator.post(path, {"clients": [client]}, headers=key).status_code == 200
