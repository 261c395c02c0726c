"""Campaigns over REST: created, read, listed, edited, deleted."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from mailing import campaigns, messages, runs
from tests.builders import HOUR, a_campaign, an_open_campaign, audited, claim, now, outcome_of, some_clients, states
from tests.parsing import forget_requests, in_airflow_waits
from tests.web import problem

PATH = "/api/campaigns/"
EVERY_FIELD = {
    "id", "sending_start", "text", "sending_stop", "filters", "name", "audience", "on_doubt", "local_from", "local_to",
    "messages_per_second", "gateway", "status", "revision", "created", "updated", "opened_at", "finished_at",
    "archived_at",
}  # fmt: skip


def a_body(**changes):
    """A campaign of tomorrow, as it is posted."""
    start = now() + 24 * HOUR
    values = {"text": "Hello", "sending_start": start.isoformat(), "sending_stop": (start + HOUR).isoformat()}
    return values | changes


def made(operator, **changes):
    answer = operator.post(PATH, a_body(**changes))
    assert answer.status_code == 201, answer.text
    return answer.json()


def path_of(campaign):
    return f"{PATH}{campaign['id'] if isinstance(campaign, dict) else campaign}/"


def fields_of(answer):
    return {error["field"].removeprefix("body.") for error in problem(answer, 422)["errors"]}


class TestCreate:
    def test_a_campaign_is_created_with_its_defaults_and_read_back(self, operator, connection):
        answer = operator.post(PATH, a_body())
        campaign = answer.json()
        assert answer.status_code == 201
        assert set(campaign) == EVERY_FIELD
        defaults = {"filters": [], "name": None, "audience": "snapshot", "on_doubt": "hold", "local_from": None,
                    "local_to": None, "messages_per_second": None, "gateway": "default", "status": "scheduled",
                    "revision": 1, "opened_at": None, "finished_at": None,
                    "archived_at": None}  # fmt: skip
        assert {name: campaign[name] for name in defaults} == defaults
        read = operator.get(path_of(campaign))
        assert (read.status_code, read.json()) == (200, campaign)
        assert read.headers["etag"] == answer.headers["etag"]
        assert audited(connection) == [("operator", "create", campaign["id"], None, None)]

    def test_every_field_is_taken_and_filters_are_tags_and_operator_codes(self, operator, connection):
        connection.execute("INSERT INTO tags (name) VALUES ('art'), ('vip')")
        given = {"name": "Spring", "filters": ["vip", "903", "art", "900"], "audience": "live", "on_doubt": "resend",
                 "local_from": "22:00", "local_to": "06:30:00", "messages_per_second": 2.5}  # fmt: skip
        campaign = made(operator, **given)
        wanted = given | {"filters": ["900", "903", "art", "vip"], "local_from": "22:00:00"}
        assert {name: campaign[name] for name in wanted} == wanted
        row = campaigns.get(connection, campaign["id"])
        assert (row.filter_tags, row.filter_operator_codes) == (["art", "vip"], ["900", "903"])

    def test_moments_are_told_in_utc_whatever_zone_they_were_given_in(self, operator):
        campaign = made(operator, sending_start="2040-01-31T12:00:00+03:00", sending_stop="2040-01-31T12:00:00.5-10:30")
        assert campaign["sending_start"] == "2040-01-31T09:00:00Z"
        assert campaign["sending_stop"] == "2040-01-31T22:30:00.500000Z"

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"text": ""}, "text"),
            ({"text": "x" * 256}, "text"),
            ({"text": "nul\x00"}, "text"),
            ({"text": None}, "text"),
            ({"text": 7}, "text"),
            ({"name": ""}, "name"),
            ({"name": "x" * 201}, "name"),
            ({"sending_stop": "2020-01-01T00:00:00Z"}, "sending_stop"),  # before the start
            (
                {"sending_start": "2020-01-01T00:00:00Z", "sending_stop": "2020-01-02T00:00:00Z"},
                "sending_stop",
            ),  # over
            ({"sending_start": "2040-01-01T00:00:00"}, "sending_start"),  # no time zone
            ({"sending_stop": "2040-01-01T00:00:00"}, "sending_stop"),
            ({"sending_start": 1_893_456_000}, "sending_start"),
            ({"sending_start": "1893456000"}, "sending_start"),
            ({"sending_start": "soon"}, "sending_start"),
            ({"sending_start": "1970-01-01T00:00:00Z"}, "sending_start"),
            ({"sending_start": "0001-01-01T00:00:00+14:00"}, "sending_start"),
            ({"sending_stop": "9999-12-31T23:59:59-14:00"}, "sending_stop"),
            ({"sending_stop": "9999-01-01T00:00:00Z"}, "sending_stop"),
            ({"filters": ["nobody"]}, "filters"),
            ({"filters": [""]}, "filters.0"),
            ({"filters": "903"}, "filters"),
            ({"filters": None}, "filters"),
            ({"filters": ["nul\x00"]}, "filters.0"),
            ({"filters": ["٣٣٣"]}, "filters"),
            ({"audience": "all"}, "audience"),
            ({"on_doubt": "guess"}, "on_doubt"),
            ({"gateway": "nowhere"}, "gateway"),
            ({"gateway": None}, "gateway"),
            ({"local_from": "10:00"}, "local_to"),
            ({"local_to": "10:00"}, "local_from"),
            ({"local_from": "10:00", "local_to": "10:00"}, "local_from"),
            ({"local_from": "24:00", "local_to": "10:00"}, "local_from"),
            ({"local_from": "09:00Z", "local_to": "10:00"}, "local_from"),
            ({"local_from": 36_000, "local_to": "11:00"}, "local_from"),
            ({"messages_per_second": 0}, "messages_per_second"),
            ({"messages_per_second": -1}, "messages_per_second"),
            ({"messages_per_second": 0.0001}, "messages_per_second"),
            ({"messages_per_second": 1e300}, "messages_per_second"),
            ({"messages_per_second": "5"}, "messages_per_second"),
            ({"messages_per_second": True}, "messages_per_second"),
            ({"status": "running"}, "status"),
            ({"id": 7}, "id"),
        ],
    )
    def test_a_wrong_value_is_named_and_nothing_is_written(self, operator, connection, changes, field):
        answer = operator.post(PATH, a_body(**changes))
        assert field in fields_of(answer)
        assert connection.execute("SELECT count(*) AS n FROM campaigns").fetchone() == {"n": 0}
        assert audited(connection) == []

    def test_an_offset_that_postgresql_does_not_know_is_taken(self, operator):
        campaign = made(operator, sending_stop="2040-01-02T00:00:00+23:59")
        assert campaign["sending_stop"] == "2040-01-01T00:01:00Z"

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
    def test_a_limit_that_is_no_number_is_refused(self, operator, value):
        content = json.dumps(a_body()).removesuffix("}") + f', "messages_per_second": {value}}}'
        answer = operator("POST", PATH, content=content, headers={"Content-Type": "application/json"})
        assert fields_of(answer) == {"messages_per_second"}

    def test_a_lone_surrogate_is_refused(self, operator):
        content = json.dumps(a_body(text="\ud800"))
        answer = operator("POST", PATH, content=content, headers={"Content-Type": "application/json"})
        assert fields_of(answer) == {"text"}

    @pytest.mark.parametrize("missing", ["text", "sending_start", "sending_stop"])
    def test_what_it_cannot_do_without_is_named(self, operator, missing):
        body = a_body()
        del body[missing]
        assert fields_of(operator.post(PATH, body)) == {missing}

    def test_the_text_is_not_told_in_an_error(self, operator):
        assert "secret" not in operator.post(PATH, a_body(text="secret" * 100)).text

    def test_who_may_create(self, nobody, viewer):
        problem(nobody.post(PATH, a_body()), 401)
        problem(viewer.post(PATH, a_body()), 403)

    def test_twenty_requests_with_one_key_create_one_campaign_and_get_one_answer(self, operator, connection):
        body = a_body()

        def post(_):
            return operator.post(PATH, body, headers={"Idempotency-Key": "spring"})

        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(post, range(20)))

        assert {answer.status_code for answer in answers} == {201}
        assert all(answer.json() == answers[0].json() for answer in answers)
        assert len({answer.headers["etag"] for answer in answers}) == 1
        assert sorted(answer.headers.get("idempotent-replayed", "") for answer in answers) == [""] + ["true"] * 19
        assert connection.execute("SELECT count(*) AS n FROM campaigns").fetchone() == {"n": 1}

    def test_the_same_key_with_another_body_is_refused(self, operator):
        key = {"Idempotency-Key": "spring"}
        assert operator.post(PATH, a_body(), headers=key).status_code == 201
        problem(operator.post(PATH, a_body(text="Other"), headers=key), 422, "came with another body before")

    def test_a_key_of_a_request_that_was_refused_may_be_used_again(self, operator):
        key = {"Idempotency-Key": "spring"}
        problem(operator.post(PATH, a_body(gateway="nowhere"), headers=key), 422)
        assert operator.post(PATH, a_body(), headers=key).status_code == 201


class TestPoke:
    def test_each_write_asks_airflow_to_parse_the_campaigns_at_once(self, operator, admin, upkeep_is_known):
        campaign = made(operator)
        assert in_airflow_waits() == 1
        for write in (
            lambda: operator.patch(path_of(campaign), {"name": "Spring"}),
            lambda: operator.put(path_of(campaign), a_body()),
            lambda: operator.post(f"{PATH}{campaign['id']}/pause"),
            lambda: operator.post(f"{PATH}{campaign['id']}/resume"),
            lambda: operator.post(f"{PATH}{campaign['id']}/settle", {"verdict": "give_up"}),
            lambda: operator.post(f"{PATH}{campaign['id']}/resend", {"states": ["failed"]}),
            lambda: operator.post(f"{PATH}{campaign['id']}/cancel"),
            lambda: admin.delete(path_of(campaign)),
        ):
            forget_requests()
            answer = write()
            assert answer.status_code in (200, 204), answer.text
            assert in_airflow_waits() == 1

    def test_what_was_refused_or_only_read_asks_for_nothing(self, operator, upkeep_is_known, connection):
        campaign_id = a_campaign(connection)
        operator.post(PATH, a_body(gateway="nowhere"))
        operator.patch(path_of(campaign_id), {"text": ""})
        operator.get(path_of(campaign_id))
        operator.post(f"{PATH}{campaign_id}/preview")
        assert in_airflow_waits() == 0

    def test_a_request_that_stands_already_is_enough(self, operator, upkeep_is_known):
        made(operator)
        made(operator)
        assert in_airflow_waits() == 1


class TestRead:
    def test_a_campaign_that_is_not_there(self, viewer):
        problem(viewer.get(f"{PATH}99/"), 404, "campaign 99: there is no such campaign")

    @pytest.mark.parametrize("campaign_id", ["0", "-1", str(2**63), "x", "1.5"])
    def test_an_id_that_is_none(self, viewer, campaign_id):
        assert problem(viewer.get(f"{PATH}{campaign_id}/"), 422)["errors"][0]["field"] == "path.campaign_id"

    def test_who_may_read(self, nobody, viewer, connection):
        campaign_id = a_campaign(connection)
        for path in (PATH, path_of(campaign_id), f"{PATH}full", f"{PATH}{campaign_id}/detail"):
            problem(nobody.get(path), 401)
            assert viewer.get(path).status_code == 200

    def test_what_one_has_already_is_not_sent_again(self, operator):
        campaign = made(operator)
        tag = operator.get(path_of(campaign)).headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            answer = operator.get(path_of(campaign), headers={"If-None-Match": known})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert operator.get(path_of(campaign), headers={"If-None-Match": '"other"'}).status_code == 200
        operator.patch(path_of(campaign), {"name": "Spring"})
        assert operator.get(path_of(campaign), headers={"If-None-Match": tag}).status_code == 200


class TestList:
    def ids(self, viewer, query=""):
        answer = viewer.get(f"{PATH}?{query}")
        assert answer.status_code == 200, answer.text
        return [campaign["id"] for campaign in answer.json()["items"]]

    def test_pages_go_on_where_the_one_before_ended(self, viewer, connection):
        made_ids = [a_campaign(connection) for _ in range(5)]
        seen, cursor = [], ""
        while cursor is not None:
            answer = viewer.get(f"{PATH}?limit=2&sort=-sending_start" + (f"&cursor={cursor}" if cursor else "")).json()
            seen += [campaign["id"] for campaign in answer["items"]]
            cursor = answer["next_cursor"]
        assert seen == made_ids[::-1]

    @pytest.mark.parametrize("sort", ["id", "sending_start", "sending_stop", "created"])
    def test_every_sort_and_its_reverse(self, viewer, connection, sort):
        for hours in (3, 1, 2):
            a_campaign(connection, sending_start=now() + hours * HOUR, sending_stop=now() + (4 + hours) * HOUR)
        listed = viewer.get(f"{PATH}?sort={sort}").json()["items"]
        assert [each[sort] for each in listed] == sorted(each[sort] for each in listed)
        assert viewer.get(f"{PATH}?sort=-{sort}").json()["items"] == listed[::-1]

    def test_filters(self, viewer, connection):
        connection.execute("INSERT INTO tags (name) VALUES ('art'), ('vip')")
        connection.execute("INSERT INTO gateways (name) VALUES ('other')")
        day = datetime(2040, 1, 1, tzinfo=UTC)
        spring = a_campaign(connection, name="Spring_sale", filter_tags=["art", "vip"], filter_operator_codes=["903"])
        other = a_campaign(connection, name="Springtime", gateway="other", filter_tags=["art"])
        far = a_campaign(connection, sending_start=day, sending_stop=day + 2 * HOUR)
        campaigns.pause(connection, other, actor="test")
        assert self.ids(viewer) == [spring, other, far]
        assert self.ids(viewer, "status=paused") == [other]
        assert self.ids(viewer, "status=paused&status=scheduled") == [spring, other, far]
        assert self.ids(viewer, "status=finished") == []
        assert self.ids(viewer, "tag=art") == [spring, other]
        assert self.ids(viewer, "tag=vip&status=scheduled") == [spring]
        assert self.ids(viewer, "operator_code=903") == [spring]
        assert self.ids(viewer, "gateway=other") == [other]
        assert self.ids(viewer, "name_prefix=Spring") == [spring, other]
        assert self.ids(viewer, "name_prefix=Spring_") == [spring]
        assert self.ids(viewer, "open_from=2040-01-01T01:59:59Z") == [far]
        assert self.ids(viewer, "open_from=2040-01-01T02:00:00Z") == []  # the stop is not in the window
        assert self.ids(viewer, "open_until=2040-01-01T00:00:00Z") == [spring, other]
        assert self.ids(viewer, "open_from=2039-12-31T00:00:00Z&open_until=2040-01-01T00:00:01Z") == [far]

    def test_only_some_fields(self, viewer, connection):
        a_campaign(connection, name="Spring", messages_per_second=2.5)
        answer = viewer.get(f"{PATH}?fields=name,messages_per_second").json()
        assert answer == {"items": [{"name": "Spring", "messages_per_second": 2.5}], "next_cursor": None}

    @pytest.mark.parametrize(
        "query",
        [
            "status=odd", "sort=text", "limit=0", "limit=1001", "cursor=x", "fields=secret", "operator_code=9030",
            "open_from=2040-01-01T00:00:00", "open_from=2040", "open_until=9999-12-31T23:59:59-14:00", "tag=", "page=2",
            "name_prefix=%00",
        ],
    )  # fmt: skip
    def test_a_query_that_makes_no_sense_is_refused(self, viewer, query):
        [error] = problem(viewer.get(f"{PATH}?{query}"), 422)["errors"]
        assert query.partition("=")[0] in error["field"]


class TestEdit:
    def test_put_replaces_every_field_and_what_is_absent_gets_its_default(self, operator, connection):
        connection.execute("INSERT INTO tags (name) VALUES ('art')")
        campaign = made(operator, name="Spring", filters=["art", "903"], local_from="09:00", local_to="21:00",
                        messages_per_second=5, on_doubt="resend")  # fmt: skip
        answer = operator.put(path_of(campaign), a_body(text="Other"))
        replaced = answer.json()
        assert answer.status_code == 200
        assert (replaced["text"], replaced["name"], replaced["filters"], replaced["local_from"]) == (
            "Other", None, [], None
        )  # fmt: skip
        assert (replaced["messages_per_second"], replaced["on_doubt"], replaced["revision"]) == (None, "hold", 2)
        assert operator.get(path_of(campaign)).json() == replaced
        assert operator.get(path_of(campaign)).headers["etag"] == answer.headers["etag"]

    def test_patch_changes_what_is_given(self, operator):
        campaign = made(operator, name="Spring", filters=["903"])
        changed = operator.patch(path_of(campaign), {"filters": ["900"], "name": None}).json()
        differs = {name for name in campaign if campaign[name] != changed[name]}
        assert differs == {"filters", "name", "revision", "updated"}
        assert (changed["filters"], changed["name"]) == (["900"], None)

    def test_an_empty_patch_changes_nothing(self, operator):
        campaign = made(operator)
        assert operator.patch(path_of(campaign), {}).json() == campaign

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"text": None}, "text"),
            ({"sending_start": None}, "sending_start"),
            ({"sending_stop": None}, "sending_stop"),
            ({"sending_stop": "2020-01-01T00:00:00Z"}, "sending_stop"),
            ({"filters": ["nobody"]}, "filters"),
            ({"gateway": "nowhere"}, "gateway"),
            ({"local_from": "10:00"}, "local_to"),
            ({"status": "paused"}, "status"),
        ],
    )
    def test_a_wrong_value_is_named_and_nothing_is_written(self, operator, changes, field):
        campaign = made(operator)
        assert field in fields_of(operator.patch(path_of(campaign), changes))
        assert operator.get(path_of(campaign)).json() == campaign

    @pytest.mark.parametrize("method", ["PUT", "PATCH"])
    def test_who_may_edit_what(self, nobody, viewer, operator, connection, method):
        campaign_id = a_campaign(connection)
        problem(nobody(method, path_of(campaign_id), a_body()), 401)
        problem(viewer(method, path_of(campaign_id), a_body()), 403)
        problem(operator(method, path_of(99), a_body()), 404)
        problem(operator(method, path_of(99), a_body(), headers={"If-Match": "*"}), 404)
        campaigns.cancel(connection, campaign_id, actor="test")
        problem(operator(method, path_of(campaign_id), a_body()), 409, "wanted a campaign that is not cancelled")

    def test_a_finished_campaign_is_edited_only_by_a_later_stop(self, operator, connection):
        campaign_id, _ = an_open_campaign(connection, clients=0)
        runs.close(connection, campaign_id)
        problem(operator.patch(path_of(campaign_id), {"text": "Other"}), 409, "it is finished")
        later = (now() + 5 * HOUR).isoformat()
        assert operator.patch(path_of(campaign_id), {"sending_stop": later}).status_code == 200

    @pytest.mark.parametrize("method", ["PUT", "PATCH"])
    def test_of_two_editors_one_wins_and_the_other_is_told(self, operator, connection, method):
        campaign = made(operator)
        tag = operator.get(path_of(campaign)).headers["etag"]

        def edit(name):
            return operator(method, path_of(campaign), a_body(name=name), headers={"If-Match": tag})

        with ThreadPoolExecutor(2) as threads:
            answers = dict(zip(["anna", "boris"], threads.map(edit, ["anna", "boris"]), strict=True))

        assert sorted(answer.status_code for answer in answers.values()) == [200, 412]
        [winner] = [name for name, answer in answers.items() if answer.status_code == 200]
        now_tag = answers[winner].headers["etag"]
        [loser] = [answer for answer in answers.values() if answer.status_code == 412]
        problem(loser, 412, "it was written since", now_tag)
        assert operator.get(path_of(campaign)).json()["name"] == winner
        assert edit("boris").status_code == 412
        answer = operator(method, path_of(campaign), a_body(), headers={"If-Match": now_tag})
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("if_match", "status"), [("*", 200), ("W/{}", 412), ('"x", {}', 200), ("odd", 412), ("", 412)]
    )
    def test_what_if_match_may_say(self, operator, if_match, status):
        campaign = made(operator)
        tag = operator.get(path_of(campaign)).headers["etag"]
        headers = {"If-Match": if_match.format(tag)}
        assert operator.patch(path_of(campaign), {"name": "x"}, headers=headers).status_code == status

    def test_a_run_that_opens_the_campaign_makes_what_was_read_stale(self, operator, connection):
        campaign_id = a_campaign(connection)
        tag = operator.get(path_of(campaign_id)).headers["etag"]
        runs.select_audience(connection, campaign_id)
        problem(operator.patch(path_of(campaign_id), {"text": "Other"}, headers={"If-Match": tag}), 412)


class TestDelete:
    def test_a_campaign_whose_start_is_ahead_is_deleted(self, operator, admin, connection):
        campaign = made(operator)
        assert admin.delete(path_of(campaign)).status_code == 204
        problem(operator.get(path_of(campaign)), 404)
        problem(admin.delete(path_of(campaign)), 404)
        assert audited(connection)[-1] == ("admin", "delete", campaign["id"], None, None)

    @pytest.mark.parametrize("status", ["running", "paused", "scheduled"])
    def test_one_that_may_still_send_is_to_be_cancelled_instead(self, admin, connection, status):
        campaign_id = a_campaign(connection)
        if status != "scheduled":
            some_clients(connection, 1)
            runs.select_audience(connection, campaign_id)
        if status == "paused":
            campaigns.pause(connection, campaign_id, actor="test")
        problem(admin.delete(path_of(campaign_id)), 409, f"campaign {campaign_id}: delete", "cancel it instead")
        assert campaigns.get(connection, campaign_id).status == status

    def test_one_that_is_over_goes_with_its_messages_if_none_ever_left(self, admin, connection):
        campaign_id, _ = an_open_campaign(connection, clients=5)
        other, _ = an_open_campaign(connection, clients=0)
        campaigns.cancel(connection, campaign_id, actor="test")
        runs.close(connection, campaign_id)
        assert admin.delete(path_of(campaign_id)).status_code == 204
        assert states(connection, campaign_id) == {}
        assert states(connection, other) == {"pending": 5}
        rows = connection.execute("SELECT campaign_id FROM batches UNION SELECT campaign_id FROM campaign_revisions")
        assert [row["campaign_id"] for row in rows] == [other]

    @pytest.mark.parametrize("outcome", ["sent", "failed", "unknown", "pending"])
    def test_one_of_which_something_was_ever_claimed_stays(self, admin, connection, outcome):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        token = messages.take_lease(connection, campaign_id, 1, "test")
        [first] = claim(connection, campaign_id, token, limit=1)
        messages.record(connection, campaign_id, token, [outcome_of(first, outcome, burn=False)])
        messages.release_lease(connection, token)
        campaigns.cancel(connection, campaign_id, actor="test")
        runs.close(connection, campaign_id)
        problem(admin.delete(path_of(campaign_id)), 409, "wanted one of which nothing left", f"message {first.id}")
        assert sum(states(connection, campaign_id).values()) == 3

    def test_one_that_a_task_is_at_stays(self, admin, connection):
        campaign_id, _ = an_open_campaign(connection, clients=3)
        messages.take_lease(connection, campaign_id, 1, "host:7")
        campaigns.cancel(connection, campaign_id, actor="test")
        problem(admin.delete(path_of(campaign_id)), 409, "host:7 is")

    def test_who_may_delete(self, nobody, operator, admin, connection):
        campaign_id = a_campaign(connection)
        problem(nobody.delete(path_of(campaign_id)), 401)
        problem(operator.delete(path_of(campaign_id)), 403)

    def test_what_was_written_since_is_not_deleted(self, operator, admin):
        campaign = made(operator)
        tag = operator.get(path_of(campaign)).headers["etag"]
        operator.patch(path_of(campaign), {"name": "Spring"})
        problem(admin.delete(path_of(campaign), headers={"If-Match": tag}), 412)
        assert admin.delete(path_of(campaign), headers={"If-Match": "*"}).status_code == 204


class TestFull:
    def test_every_campaign_comes_with_all_its_messages(self, viewer, connection):
        first, _ = an_open_campaign(connection, clients=1_200)
        empty = a_campaign(connection, name="empty", filter_operator_codes=["999"])
        last, _ = an_open_campaign(connection, clients=1_500)
        token = messages.take_lease(connection, first, 1, "test")
        claimed = claim(connection, first, token, limit=3)
        messages.record(connection, first, token, [outcome_of(each, "sent") for each in claimed])

        answer = viewer.get(f"{PATH}full")

        assert answer.headers["content-type"] == "application/json"
        full = answer.json()
        assert [(each["id"], len(each["messages"])) for each in full] == [(first, 1_200), (empty, 0), (last, 2_700)]
        told = {message["id"]: message for message in full[0]["messages"]}
        assert len(told) == 1_200
        sent = told[claimed[0].id]
        assert (sent["send_status"], sent["mail_sender"], sent["client"]) == (True, first, claimed[0].client_id)
        assert sum(message["send_status"] for message in told.values()) == 3
        alone = viewer.get(f"{PATH}{first}/").json()
        assert {name: full[0][name] for name in alone} == alone
        assert sent == viewer.get(f"/api/messages/{sent['id']}/").json()

    def test_nothing_is_an_empty_array(self, viewer):
        assert viewer.get(f"{PATH}full").json() == []

    def test_more_campaigns_than_are_read_at_once(self, viewer, connection):
        connection.execute(
            "INSERT INTO campaigns (text, sending_start, sending_stop)"
            " SELECT 'x', now(), now() + interval '1 hour' FROM generate_series(1, 2050)"
        )
        full = viewer.get(f"{PATH}full").json()
        assert [each["id"] for each in full] == sorted({each["id"] for each in full})
        assert len(full) == 2_050

    def test_while_the_database_is_away_it_says_so_instead_of_beginning(self, viewer, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", '{"conn_type": "postgres", "host": "127.0.0.1", "port": 1}')
        answer = viewer.get(f"{PATH}full")
        problem(answer, 503, "is away")
        assert int(answer.headers["retry-after"]) > 0

    def test_only_those_of_some_status(self, viewer, connection):
        a_campaign(connection)
        paused = a_campaign(connection)
        campaigns.pause(connection, paused, actor="test")
        assert [each["id"] for each in viewer.get(f"{PATH}full?status=paused").json()] == [paused]
        problem(viewer.get(f"{PATH}full?status=odd"), 422)
        problem(viewer.get(f"{PATH}full?stats=paused"), 422)


class TestDetail:
    def test_a_campaign_with_its_counts_and_its_messages_page_by_page(self, viewer, connection):
        campaign_id, _ = an_open_campaign(connection, clients=5)
        detail = viewer.get(f"{PATH}{campaign_id}/detail?limit=3").json()
        assert {name: detail[name] for name in EVERY_FIELD} == viewer.get(path_of(campaign_id)).json()
        assert detail["counts"] == {
            "audience": 5, "pending": 5, "sending": 0, "sent": 0, "failed": 0, "unknown": 0, "expired": 0,
            "cancelled": 0, "excluded": 0,
        }  # fmt: skip
        assert len(detail["messages"]["items"]) == 3
        cursor = detail["messages"]["next_cursor"]
        rest = viewer.get(f"{PATH}{campaign_id}/detail?limit=3&cursor={cursor}").json()["messages"]
        assert (len(rest["items"]), rest["next_cursor"]) == (2, None)
        told = detail["messages"]["items"] + rest["items"]
        assert len({message["client"] for message in told}) == 5
        assert {message["mail_sender"] for message in told} == {campaign_id}

    def test_of_none_and_of_a_page_that_is_none(self, viewer, connection):
        problem(viewer.get(f"{PATH}99/detail"), 404)
        campaign_id = a_campaign(connection)
        problem(viewer.get(f"{PATH}{campaign_id}/detail?cursor=x"), 422)
        problem(viewer.get(f"{PATH}{campaign_id}/detail?limit=0"), 422)


def test_the_stop_of_a_campaign_may_be_any_moment_of_the_calendar_before_the_year_9999(operator):
    far = datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    campaign = made(operator, sending_stop=far.isoformat())
    assert datetime.fromisoformat(campaign["sending_stop"]) - far == timedelta(0)
