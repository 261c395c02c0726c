"""What holds for every path: the login, roles, other sites' writes, sizes, errors, documents."""

from __future__ import annotations

import json
import re
import time

import jwt
import pytest

from local.settings import free_port
from mailing import gate, pool
from tests.web import JWT_SECRET, problem

TAGS = "/api/tags/"
SITE = "http://testserver"


class TestLogin:
    def test_who_is_not_logged_in_learns_nothing_but_that_the_server_lives(self, nobody):
        assert nobody.get("/health").json() == {"status": "alive"}
        for path in (TAGS, "/api/nowhere", "/openapi.json", "/assets/swagger-ui.css"):
            answer = nobody.get(path)
            problem(answer, 401, "Not authenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
        problem(nobody.post(TAGS, {"name": "art"}), 401)
        problem(nobody("POST", TAGS, content="no JSON at all"), 401)

    @pytest.mark.parametrize("path", ["/docs", "/redoc"])
    def test_a_page_leads_people_to_the_login_and_back(self, nobody, path):
        answer = nobody.get(path, follow_redirects=False)
        assert answer.status_code == 303
        assert re.match(r"/auth/login\?next=.*mailing%2F" + path.strip("/"), answer.headers["location"])

    @pytest.mark.parametrize(
        "token", ["", "x", "a.b.c", jwt.encode({"sub": "admin"}, "another key, of 32 bytes or more")]
    )
    def test_a_token_that_is_none_is_401(self, nobody, token):
        problem(nobody.get(TAGS, headers={"Authorization": f"Bearer {token}"}), 401)

    def test_a_token_that_has_run_out_is_401(self, nobody, tokens):
        claims = jwt.decode(tokens["viewer"], options={"verify_signature": False})
        for exp, status in ((time.time() + 60, 200), (time.time() - 60, 401)):
            token = jwt.encode(claims | {"exp": int(exp)}, JWT_SECRET, algorithm="HS512")
            assert nobody.get(TAGS, headers={"Authorization": f"Bearer {token}"}).status_code == status


class TestRoles:
    def test_who_may_not_even_see_dags_reads_nothing(self, nobody, tokens):
        claims = jwt.decode(tokens["viewer"], options={"verify_signature": False})
        token = jwt.encode(claims | {"sub": "guest", "role": None}, JWT_SECRET, algorithm="HS512")
        for method, path in (("GET", TAGS), ("POST", TAGS), ("GET", "/api/campaigns/full")):
            answer = nobody(method, path, {"name": "art"}, headers={"Authorization": f"Bearer {token}"})
            problem(answer, 403, "user guest: wanted the right to see DAGs")

    def test_a_viewer_reads_and_does_not_write(self, viewer, operator):
        made = operator.post(TAGS, {"name": "art"}).json()
        assert viewer.get(f"{TAGS}{made['id']}/").status_code == 200
        for method, path in (("POST", TAGS), ("PUT", f"{TAGS}{made['id']}/"), ("PATCH", f"{TAGS}{made['id']}/")):
            problem(viewer(method, path, {"name": "other"}), 403, "user viewer: wanted the right to start runs")
        assert viewer.get(f"{TAGS}{made['id']}/").json() == made

    def test_an_operator_deletes_nothing(self, operator, admin):
        path = f"{TAGS}{operator.post(TAGS, {'name': 'art'}).json()['id']}/"
        problem(operator.delete(path), 403, "user operator: wanted the right to administer")
        assert admin.delete(path).status_code == 204


class TestCookie:
    """The web UI's login: browsers add its cookie also to what other sites make them send."""

    @pytest.fixture
    def with_cookie(self, nobody, tokens):
        def call(method, path, body=None, **headers):
            return nobody(method, path, body, headers={"Cookie": f"_token={tokens['operator']}"} | headers)

        return call

    def test_it_reads(self, with_cookie):
        assert with_cookie("GET", TAGS, Origin="http://evil.example").status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [{"Origin": SITE}, {"Referer": f"{SITE}/mailing/docs"}, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}],
    )
    def test_it_writes_from_a_page_of_this_site(self, with_cookie, headers):
        assert with_cookie("POST", TAGS, {"name": "art"}, **headers).status_code == 201

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "null"},
            {"Origin": "http://evil.example"},
            {"Referer": f"http://evil.example/?{SITE}"},
            {"Origin": "http://testserver.evil.example"},
            {"Sec-Fetch-Site": "cross-site", "Origin": SITE},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "none"},
        ],
    )
    @pytest.mark.parametrize(("method", "path"), [("POST", TAGS), ("DELETE", f"{TAGS}1/")])
    def test_it_does_not_write_for_another_site(self, with_cookie, operator, headers, method, path):
        problem(with_cookie(method, path, {"name": "art"}, **headers), 403, "was not sent from a page of this site")
        assert operator.get(TAGS).json()["items"] == []

    def test_a_bearer_token_needs_no_origin_whatever_cookie_comes_with_it(self, operator):
        assert operator.post(TAGS, {"name": "art"}, headers={"Cookie": "_token=x"}).status_code == 201


class TestBodies:
    def test_a_body_over_the_limit_is_413_whether_its_length_is_told_or_not(self, operator):
        large = json.dumps({"name": "x" * gate.MAX_BODY}).encode()
        problem(operator("POST", TAGS, content=large), 413, f"wanted at most {gate.MAX_BODY}")

        def pieces():
            for start in range(0, len(large), 100_000):
                yield large[start : start + 100_000]

        problem(operator("POST", TAGS, content=pieces()), 413, f"wanted at most {gate.MAX_BODY}")

    def test_what_is_no_json_is_422_without_a_word_of_it(self, operator):
        answer = operator("POST", TAGS, content=b"{not json", headers={"Content-Type": "application/json"})
        found = problem(answer, 422)
        assert [each["field"].split(".")[0] for each in found["errors"]] == ["body"]

    def test_a_field_that_is_not_known_is_refused_by_name(self, operator):
        found = problem(operator.post(TAGS, {"name": "art", "nmae": "x"}), 422)
        assert [each["field"] for each in found["errors"]] == ["body.nmae"]
        found = problem(operator.get(TAGS, params={"limti": 3}), 422)
        assert [each["field"] for each in found["errors"]] == ["query.limti"]

    def test_what_does_not_exist_and_what_is_not_done_there_are_problems_too(self, operator):
        problem(operator.get("/api/nowhere"), 404)
        problem(operator("PUT", TAGS, {}), 405)


class TestDatabaseAway:
    def test_it_is_503_with_when_to_ask_again_and_the_server_lives_on(self, operator, monkeypatch):
        assert operator.get(TAGS).status_code == 200
        pool.close()
        with monkeypatch.context() as patch:
            settings = {
                "conn_type": "postgres",
                "host": "127.0.0.1",
                "port": free_port(),
                "login": "x",
                "password": "x",
            }
            patch.setenv("AIRFLOW_CONN_MAILING_DB", json.dumps(settings))
            for answer in (operator.get(TAGS), operator.post(TAGS, {"name": "art"})):
                problem(answer, 503, "the mailing database is away")
                assert answer.headers["retry-after"] == "5"
            assert operator.get("/health").status_code == 200
        assert operator.post(TAGS, {"name": "art"}).status_code == 201

    def test_a_restart_of_the_database_costs_nobody_an_error(self, operator, connection):
        assert operator.get(TAGS).status_code == 200
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert operator.get(TAGS).status_code == 200

    def test_a_connection_that_is_not_defined_is_503(self, operator, monkeypatch):
        pool.close()
        monkeypatch.delenv("AIRFLOW_CONN_MAILING_DB")
        problem(operator.get(TAGS), 503)


class TestDocuments:
    @pytest.mark.parametrize("path", ["/docs", "/redoc"])
    def test_all_they_load_comes_from_this_server(self, viewer, path):
        page = viewer.get(path)
        assert page.status_code == 200
        loaded = re.findall(
            r"""(?:src|href)=["']([^"']+)["']|url: ["']([^"']+)["']|spec-url=["']([^"']+)["']""", page.text
        )
        links = [next(filter(None, each)) for each in loaded]
        assert len(links) >= 3
        assert [link for link in links if not link.startswith("/mailing/")] == []
        for link in links:
            answer = viewer.get(link.removeprefix("/mailing"))
            assert (answer.status_code, len(answer.content) > 1_000) == (200, True), link

    def test_every_path_that_can_be_called_is_in_the_openapi_document_with_its_problems(self, viewer):
        document = viewer.get("/openapi.json").json()
        assert document["info"]["title"] == "Mailing Service"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if path != "/health":
                    assert {"401", "403", "503"} <= set(operation["responses"]), (method, path)
                    assert operation["summary"]
                    assert operation["description"], (method, path)

    def test_there_are_no_other_assets(self, viewer):
        problem(viewer.get("/assets/core.py"), 404)
        problem(viewer.get("/assets/..%2Fcore.py"), 404)
