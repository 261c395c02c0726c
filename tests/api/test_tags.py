"""Tags over REST."""

from __future__ import annotations

import pytest

from mailing.listing import cursor_after
from tests.builders import a_campaign
from tests.web import problem


@pytest.fixture
def tag(operator):
    """A tag that is there."""
    return operator.post("/api/tags/", {"name": "art"}).json()


class TestTags:
    def test_a_tag_is_created_read_renamed_and_deleted(self, operator, admin):
        made = operator.post("/api/tags/", {"name": "art"})
        assert (made.status_code, made.json()["name"]) == (201, "art")
        path = f"/api/tags/{made.json()['id']}/"
        assert operator.get(path).json() == made.json()
        assert operator.put(path, {"name": "arts"}).json() == made.json() | {"name": "arts"}
        assert operator.patch(path, {"name": "art2"}).json()["name"] == "art2"
        assert admin.delete(path).status_code == 204
        problem(operator.get(path), 404, "there is no such tag")

    def test_whoever_is_not_logged_in_gets_401(self, nobody):
        for method, path in (
            ("GET", "/api/tags/"), ("POST", "/api/tags/"), ("GET", "/api/tags/1/"), ("PUT", "/api/tags/1/"),
            ("PATCH", "/api/tags/1/"), ("DELETE", "/api/tags/1/"),
        ):  # fmt: skip
            problem(nobody(method, path, {"name": "art"}), 401)

    def test_a_viewer_reads_an_operator_writes_and_an_admin_deletes(self, viewer, operator, tag):
        path = f"/api/tags/{tag['id']}/"
        assert viewer.get(path).status_code == viewer.get("/api/tags/").status_code == 200
        problem(viewer.post("/api/tags/", {"name": "b"}), 403, "start runs")
        problem(viewer.put(path, {"name": "b"}), 403)
        problem(viewer.patch(path, {"name": "b"}), 403)
        problem(operator.delete(path), 403, "admin")

    def test_a_tag_that_is_not_there_is_404(self, admin):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            problem(admin(method, "/api/tags/7/", {"name": "art"}), 404, "tag 7: there is no such tag")

    def test_a_taken_name_is_409(self, operator, tag):
        other = operator.post("/api/tags/", {"name": "b"}).json()
        problem(operator.post("/api/tags/", {"name": "art"}), 409, "there is a tag 'art' already")
        problem(operator.put(f"/api/tags/{other['id']}/", {"name": "art"}), 409, f"tag {other['id']}: name")

    def test_a_tag_of_a_live_campaign_s_filter_is_neither_renamed_nor_deleted(self, admin, tag, connection):
        campaign_id = a_campaign(connection, filter_tags=["art"])
        path = f"/api/tags/{tag['id']}/"
        problem(admin.put(path, {"name": "b"}), 409, f"campaign {campaign_id}")
        problem(admin.patch(path, {"name": "b"}), 409, f"campaign {campaign_id}")
        problem(admin.delete(path), 409, f"campaign {campaign_id}")
        assert admin.get(path).json() == tag

    @pytest.mark.parametrize(
        "body",
        [
            None, [], {}, {"name": None}, {"name": 5}, {"name": ""}, {"name": "a b"}, {"name": "900"},
            {"name": "x" * 201}, {"name": "a\0"}, {"name": "\u200b"}, {"name": "e\u0301"}, {"name": "😀"},
            {"name": "a", "more": 1},
        ],
    )  # fmt: skip
    def test_a_body_that_breaks_a_rule_is_422_and_names_the_field(self, operator, tag, body):
        for answer in (operator.post("/api/tags/", body), operator.put(f"/api/tags/{tag['id']}/", body)):
            found = problem(answer, 422)
            field = "more" if body and "more" in body else "name"
            assert field in found["errors"][0]["field"] or not body

    def test_a_lone_surrogate_and_what_is_no_json_are_refused(self, operator):
        headers = {"Content-Type": "application/json"}
        for content in (b'{"name": "\\ud800"}', b'{"name": ', b"NaN", b'{"name": Infinity}'):
            problem(operator("POST", "/api/tags/", content=content, headers=headers), 422)
        problem(operator("POST", "/api/tags/", content=b"\xff", headers=headers), 400)

    @pytest.mark.parametrize("tag_id", ["0", "-1", "x", str(2**63), "1" * 400, "1.5", "%00"])
    def test_an_id_that_is_none_is_422(self, operator, tag_id):
        problem(operator.get(f"/api/tags/{tag_id}/"), 422)


class TestList:
    @pytest.fixture(autouse=True)
    def five(self, operator):
        for name in ("d", "a", "c", "e", "b"):
            operator.post("/api/tags/", {"name": name})

    @pytest.mark.parametrize("sort", ["name", "-name", "id", "-id"])
    def test_its_pages_hold_all_of_them(self, viewer, sort):
        found, cursor = [], None
        while True:
            query = {"sort": sort, "limit": 2} | ({"cursor": cursor} if cursor else {})
            answer = viewer.get("/api/tags/", params=query).json()
            found += [item["name"] for item in answer["items"]]
            cursor = answer["next_cursor"]
            if cursor is None:
                break
        expected = list("abcde") if "name" in sort else list("daceb")
        assert found == (expected[::-1] if sort.startswith("-") else expected)

    def test_fields_choose_what_is_said(self, viewer):
        items = viewer.get("/api/tags/", params={"fields": "name"}).json()["items"]
        assert items == [{"name": name} for name in "abcde"]

    def test_a_cursor_is_good_for_its_own_sort_only(self, viewer):
        cursor = viewer.get("/api/tags/", params={"sort": "name", "limit": 2}).json()["next_cursor"]
        for sort in ("-name", "id"):
            found = problem(viewer.get("/api/tags/", params={"sort": sort, "cursor": cursor}), 422, "cursor")
            assert found["errors"][0]["field"] == "cursor"

    @pytest.mark.parametrize(
        "query",
        [
            {"cursor": "x"}, {"cursor": ""}, {"cursor": "é"}, {"cursor": "a\0"}, {"cursor": "W10"}, {"limit": 0},
            {"limit": 1001}, {"limit": "x"}, {"sort": "size"}, {"fields": "size"}, {"fields": ""}, {"more": 1},
            {"cursor": cursor_after("name", ["\ud800", 1])}, {"cursor": cursor_after("name", ["a\0", 1])},
        ],
    )  # fmt: skip
    def test_a_query_that_breaks_a_rule_is_422(self, viewer, query):
        problem(viewer.get("/api/tags/", params=query), 422)


class TestIdempotency:
    def test_the_same_key_gets_the_same_answer_and_one_tag(self, operator, viewer):
        first = operator.post("/api/tags/", {"name": "art"}, headers={"Idempotency-Key": "k"})
        again = operator.post("/api/tags/", {"name": "art"}, headers={"Idempotency-Key": "k"})

        assert (again.status_code, again.json()) == (201, first.json())
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(viewer.get("/api/tags/").json()["items"]) == 1

    def test_with_another_body_it_is_422(self, operator):
        operator.post("/api/tags/", {"name": "art"}, headers={"Idempotency-Key": "k"})
        found = problem(
            operator.post("/api/tags/", {"name": "b"}, headers={"Idempotency-Key": "k"}), 422, "another body"
        )
        assert found["errors"][0]["field"] == "Idempotency-Key"

    def test_a_request_that_failed_may_be_sent_again_with_its_key(self, operator, admin, tag):
        headers = {"Idempotency-Key": "k"}
        problem(operator.post("/api/tags/", {"name": "art"}, headers=headers), 409)
        admin.delete(f"/api/tags/{tag['id']}/")
        assert operator.post("/api/tags/", {"name": "art"}, headers=headers).status_code == 201
