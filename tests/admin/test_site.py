"""The site as a whole: who comes in, what it says when it cannot, what it loads, what it lets nobody do."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import psycopg
import psycopg_pool
import pytest
import structlog
from fastapi import FastAPI
from starlette.requests import Request
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette_admin import CustomView
from starlette_admin.routing import route

from local.settings import free_port
from mailing import errors, gate, headers, pool, web
from mailing.admin import errors as pages_of_errors
from mailing.admin.site import mount
from mailing.gate import User
from tests.builders import an_open_campaign, now, some_clients
from tests.test_spans import settle
from tests.web import Caller, problem

HOME = "/admin/campaigns"
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
SCRIPT = {"X-Requested-With": "XMLHttpRequest"}
CSRF_COOKIE = "starlette_admin_csrftoken"
TABLES = ("campaigns", "clients", "tags", "client_tags", "messages", "gateways", "audit_log", "test_sends")


class Links(HTMLParser):
    """What a page leads to or loads: its values of href, src and action."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.pages: list[str] = []
        self.others: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src", "action", "formaction", "data-alive", "data-login"):
                (self.pages if (tag, name) == ("a", "href") else self.others).append(value or "")


def crawl(caller: Caller, start: str = HOME) -> dict[str, str]:
    """The text of every page that the site leads to, by its address without the query: one of each."""
    found: dict[str, str] = {}
    ahead = [start]
    while ahead:
        address = ahead.pop()
        path = urlsplit(address).path
        if path in found:
            continue
        answer = caller.get(address)
        assert answer.status_code == 200, (address, answer.text)
        found[path] = answer.text
        if answer.headers["content-type"].startswith("text/html"):
            for link in Links(answer.text).pages:
                target = urljoin(f"/mailing{address}", link)
                if "/mailing/admin/" in target and "/static/" not in target:
                    ahead.append(target[target.index("/mailing/admin/") + len("/mailing") :])
    return found


def counts(connection) -> dict[str, int]:
    """How many rows there are, and the campaigns' and gateways' versions."""
    rows = {table: connection.execute(f"SELECT count(*) AS n FROM {table}").fetchone()["n"] for table in TABLES}  # noqa: S608
    updated = connection.execute("SELECT max(updated) AS at, string_agg(status, '') AS s FROM campaigns").fetchone()
    return rows | updated


def posts(app: FastAPI) -> list[str]:
    """Every address of the site that takes a POST, as of the first thing there is."""
    [site] = [each.app for each in app.routes if isinstance(each, Mount) and each.name == "admin"]
    keys = [view.key for view in web.VIEWS if hasattr(view, "key")]
    found = [each.path for each in site.routes if isinstance(each, Route) and "POST" in (each.methods or ())]
    paths = [path.replace("{key}", key) for path in found for key in (keys if "{key}" in path else ["-"])]
    return sorted({"/admin" + re.sub(r"\{[^}]*\}", "1", path) for path in paths})


@pytest.fixture
def campaign_id(connection):
    """A campaign whose name and text are markup, with clients, tags and messages in several states."""
    some_clients(connection, 3, code="911", tags=("red", "blue"))
    campaign_id, _ = an_open_campaign(connection, clients=1, name=EVIL, text=f"Dear {EVIL}")
    settle(connection, campaign_id, now(), "sent", "failed", "unknown")
    return campaign_id


class TestLogin:
    @pytest.mark.parametrize("path", ["/admin", "/admin/", HOME, "/admin/statistics?by=tag", "/admin/nowhere"])
    def test_a_page_leads_nobody_to_the_login_and_back(self, nobody, path):
        answer = nobody.get(path, follow_redirects=False)
        assert answer.status_code == 303
        login = urlsplit(answer.headers["location"])
        assert login.path == "/auth/login"
        assert (
            unescape(login.query.replace("%2F", "/").replace("%3F", "?").replace("%3D", "=")) == f"next=/mailing{path}"
        )

    @pytest.mark.parametrize("told", [SCRIPT, {"Sec-Fetch-Dest": "empty"}])
    def test_a_script_is_told_so_instead(self, nobody, told):
        problem(nobody.get(HOME, headers=told, follow_redirects=False), 401)
        problem(nobody.get("/admin/alive", headers=told), 401)

    def test_every_page_can_say_that_the_session_has_ended(self, viewer, campaign_id):
        for path, page in crawl(viewer).items():
            if page.startswith("<!DOCTYPE html>"):
                assert 'data-login="/auth/login"' in page, path
                assert re.search(r'<a [^>]*data-login-link[^>]*target="_top"', page), path

    def test_scripts_can_ask_whether_all_is_well(self, viewer):
        assert viewer.get("/admin/alive", headers=SCRIPT).status_code == 204


class TestPages:
    def test_the_menu_leads_to_every_view(self, viewer):
        links = Links(viewer.get(HOME).text).pages
        for view in web.VIEWS:
            if getattr(view, "add_to_menu", True):
                path = f"/{view.key}/list" if hasattr(view, "key") else view.path
                assert f"/mailing/admin{path}" in links

    def test_the_sites_own_address_leads_to_the_campaigns(self, viewer):
        answer = viewer.get("/admin/", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/mailing/admin/campaigns")

    def test_pages_are_dark_or_light_before_anything_is_painted(self, viewer, campaign_id):
        for path, page in crawl(viewer).items():
            if page.startswith("<!DOCTYPE html>"):
                head = page[: page.index("</head>")]
                assert head.index("/static/look.js") < head.index("<link"), path

    @pytest.mark.parametrize("role", ["viewer", "admin"])
    def test_names_and_texts_with_markup_are_text_on_every_page(self, role, request, campaign_id):
        pages = crawl(request.getfixturevalue(role))
        assert len(pages) > 5
        for path, page in pages.items():
            if page.startswith("<!DOCTYPE html>"):
                assert "<script>alert(" not in page, path
                assert "<img src=x" not in page, path
        for path in (HOME, f"/admin/campaigns/{campaign_id}"):
            assert EVIL in unescape(pages[path]), path


class TestLinks:
    @pytest.mark.parametrize("prefix", ["", "/proxy/airflow"])
    def test_nothing_leaves_the_host_and_a_proxys_prefix_is_kept(
        self, airflow_app, tokens, campaign_id, app_database, prefix
    ):
        """As Airflow does with a path in [api] base_url: the whole path comes, root_path tells the prefix."""
        client = TestClient(airflow_app, base_url=f"http://testserver{prefix}", root_path=prefix)
        pages = crawl(Caller(client, tokens["admin"]))
        assert len(pages) > 5
        for path, page in pages.items():
            if not page.startswith("<!DOCTYPE html>"):
                continue
            links = Links(page)
            for link in (*links.pages, *links.others):
                parts = urlsplit(link)
                assert not parts.netloc, (path, link)
                assert parts.scheme in ("", "data"), (path, link)
                if link.startswith("/") and not link.startswith("/auth/"):  # of which Airflow's configuration tells
                    assert link.startswith(f"{prefix}/"), (path, link)

    def test_redirects_keep_the_prefix_and_name_no_host(self, airflow_app, tokens, app_database):
        client = TestClient(airflow_app, base_url="https://public.example/proxy", root_path="/proxy")
        answer = Caller(client, tokens["viewer"]).get("/admin/", follow_redirects=False)
        assert answer.headers["location"] == "/proxy/mailing/admin/campaigns"
        answer = Caller(client, None).get(HOME, follow_redirects=False)
        assert answer.headers["location"].endswith("next=%2Fproxy%2Fmailing%2Fadmin%2Fcampaigns")

    def test_over_https_cookies_are_for_https_only(self, airflow_app, tokens, app_database):
        for base, is_secure in (("https://testserver", True), ("http://testserver", False)):
            answer = Caller(TestClient(airflow_app, base_url=base), tokens["viewer"]).get(HOME)
            [cookie] = [each for each in answer.headers.get_list("set-cookie") if each.startswith(CSRF_COOKIE)]
            assert ("; Secure" in cookie) == is_secure

    def test_what_pages_load_is_there(self, viewer, campaign_id):
        loaded = {link for page in crawl(viewer).values() for link in Links(page).others if "/static/" in link}
        assert any("/vendor/chart.umd.min.js" in link for link in loaded)
        assert not any("apexcharts" in link for link in loaded)  # not open source, and in starlette-admin's wheel
        assert viewer.get("/admin/static/js/vendor/apexcharts.min.js").status_code == 404
        assert viewer.get("/admin/static/js/vendor/js.cookie.min.js").status_code == 200
        for link in loaded:
            assert viewer.get(link.removeprefix("/mailing")).status_code == 200, link

    def test_the_chart_library_has_its_licence_beside_it_and_needs_no_eval(self, viewer):
        script = viewer.get("/admin/static/vendor/chart.umd.min.js").text
        assert "Released under the MIT License" in script[:500]
        assert not re.search(r"\beval\(|new Function\b", script)
        version = re.search(r"Chart\.js v(\S+)", script)[1]
        for name, said in (("README.md", version), ("LICENSE.md", "MIT"), ("LICENSE.kurkle-color.md", "MIT")):
            assert said in viewer.get(f"/admin/static/vendor/{name}").text
        pages = crawl(viewer).values()
        assert {link for page in pages for link in Links(page).others if "chart.umd" in link} == {
            f"/mailing/admin/static/vendor/chart.umd.min.js?v={version}"
        }

    def test_our_own_scripts_and_styles_name_no_other_host(self, viewer):
        for name in ("site.js", "look.js", "charts.js", "chart_look.js", "campaign_chart.js", "mailing.css"):
            assert "//" not in re.sub(r"(?m)^\s*//.*$|\s// .*$", "", viewer.get(f"/admin/static/{name}").text)


class TestHeaders:
    @pytest.mark.parametrize("path", [HOME, "/admin/static/site.js", "/admin/nowhere", "/api/tags/", "/docs"])
    def test_browsers_are_told_to_load_and_frame_nothing_foreign(self, viewer, nobody, path):
        for caller in (viewer, nobody):
            found = caller.get(path, follow_redirects=False).headers
            for name, value in headers.HEADERS.items():
                assert found[name] == value
        rules = dict(rule.split(" ", 1) for rule in found["content-security-policy"].split("; "))
        assert rules["default-src"] == rules["frame-ancestors"] == "'self'"
        assert "http" not in found["content-security-policy"]
        assert "unsafe-eval" not in found["content-security-policy"]

    def test_browsers_keep_files_and_no_page(self, viewer):
        for path in (HOME, "/admin/nowhere", "/api/clients/"):
            assert viewer.get(path).headers["cache-control"] == headers.UNKEPT
        assert "cache-control" not in viewer.get("/admin/static/site.js").headers


class TestForgery:
    """A write wants both: a page of ours as its origin, and the token that only our pages know."""

    @pytest.fixture
    def client(self, airflow_app, tokens, app_database):
        """A browser of an admin that has our pages open."""
        client = TestClient(airflow_app, raise_server_exceptions=False)
        client.cookies.set("_token", tokens["admin"])
        client.get(f"/mailing{HOME}")
        return client

    def test_without_the_token_nothing_is_written_anywhere(self, client, connection, campaign_id, airflow_app):
        before = counts(connection)
        paths = posts(mailing_of(airflow_app))
        assert len(paths) > 3
        for path in paths:
            for body in ({}, {"csrftoken": "forged"}, {"csrftoken": ""}):
                answer = client.post(f"/mailing{path}", data=body, headers={"Origin": "http://testserver"})
                assert answer.status_code == 403, (path, body, answer.text)
        assert counts(connection) == before

    @pytest.mark.parametrize("told", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}])
    def test_from_another_site_nothing_is_written_though_the_token_is_right(
        self, client, connection, campaign_id, airflow_app, told
    ):
        before = counts(connection)
        token = {"X-CSRFToken": client.cookies[CSRF_COOKIE]}
        for path in posts(mailing_of(airflow_app)):
            problem(client.post(f"/mailing{path}", headers=token | told), 403, "not sent from a page of this site")
        assert counts(connection) == before

    def test_a_viewer_writes_nothing_though_all_is_right(self, client, tokens, connection, campaign_id, airflow_app):
        client.cookies.set("_token", tokens["viewer"])
        before = counts(connection)
        told = {"X-CSRFToken": client.cookies[CSRF_COOKIE], "Origin": "http://testserver"}
        for path in posts(mailing_of(airflow_app)):
            for query in ("?name=delete&pk=1", "?name=nonsense&pk=1"):
                answer = client.post(f"/mailing{path}{query}", headers=told, data={"name": "x"})
                assert answer.status_code < 500, (path, query, answer.text)
        assert counts(connection) == before


class TestRefusedForms:
    """What a browser sends for a person is refused by a page, which says how to go on."""

    PERSON = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Origin": "http://testserver"}
    FORM = f"/mailing{HOME}/new"

    @pytest.fixture
    def client(self, airflow_app, tokens, app_database):
        """A browser of an operator that has the form open."""
        client = TestClient(airflow_app, raise_server_exceptions=False)
        client.cookies.set("_token", tokens["operator"])
        client.get(self.FORM)
        return client

    def a_page(self, answer, status, *said):
        """The refusal as a page, which says all of this."""
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["content-security-policy"] == headers.POLICY
        for words in (*said, "what you typed is still there"):
            assert words in answer.text

    def test_after_the_session_has_ended(self, client, connection):
        del client.cookies["_token"]
        answer = client.post(self.FORM, data={"text": "typed"}, headers=self.PERSON)
        self.a_page(answer, 401, "no longer logged in", "Log in again in another tab", 'href="/auth/login"')
        for told in (SCRIPT, {"Accept": "application/json"}):
            problem(client.post(self.FORM, headers=self.PERSON | told), 401)
        problem(client.post("/mailing/api/tags/", json={"name": "x"}, headers=self.PERSON), 401)

    @pytest.mark.parametrize("cookie", [None, "forged"])
    def test_after_the_browser_has_lost_the_cookie_of_the_forms_token(self, client, connection, cookie):
        token = client.cookies.pop(CSRF_COOKIE)
        if cookie:
            client.cookies.set(CSRF_COOKIE, cookie)
        answer = client.post(self.FORM, data={"text": "typed", "csrftoken": token}, headers=self.PERSON)
        self.a_page(answer, 403, "could not be checked", "mailing-menu")
        problem(client.post(self.FORM, data={"csrftoken": token}, headers=self.PERSON | SCRIPT), 403, "csrftoken")
        alive = client.get("/mailing/admin/alive", headers=SCRIPT)
        assert alive.status_code == 204
        assert CSRF_COOKIE in alive.headers["set-cookie"], "site.js takes it from there"

    def test_from_another_site(self, client, connection):
        answer = client.post(self.FORM, headers=self.PERSON | {"Origin": "http://evil.example"})
        self.a_page(answer, 403, "did not come from a page of this site")

    def test_one_that_is_too_large(self, client, connection):
        answer = client.post(self.FORM, content=b"x" * (gate.MAX_BODY + 1), headers=self.PERSON)
        assert answer.status_code == 413
        assert "This is too large" in answer.text


def mailing_of(airflow_app) -> FastAPI:
    """Our app inside Airflow's."""
    [found] = [each.app for each in airflow_app.routes if isinstance(each, Mount) and each.path == web.PREFIX]
    return found


class TestDatabaseAway:
    def test_a_page_says_so_and_loads_itself_again_and_all_goes_on(self, viewer, monkeypatch):
        assert viewer.get(HOME).status_code == 200
        pool.close()
        away = {"conn_type": "postgres", "host": "127.0.0.1", "port": free_port(), "login": "x", "password": "x"}
        with monkeypatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_MAILING_DB", json.dumps(away))
            page = viewer.get(HOME)
            script = viewer.get(HOME, headers=SCRIPT)
            alive = viewer.get("/admin/alive", headers=SCRIPT)
            pool.close()
        assert page.status_code == 503
        assert page.headers["retry-after"] == "5"
        assert "The database does not answer" in page.text
        assert "data-reload-when-alive" in page.text
        assert "mailing-menu" in page.text, "inside the frame"
        for answer in (script, alive):
            problem(answer, 503, "the mailing database is away")
        assert viewer.get("/admin/alive").status_code == 204
        assert viewer.get(HOME).status_code == 200

    @pytest.mark.parametrize(("method", "goes_on"), [("GET", True), ("POST", False)])
    def test_without_airflows_own_a_page_needs_nothing_else_and_is_not_sent_again(self, method, goes_on):
        page = pages_of_errors.alone(Request({"type": "http", "method": method, "headers": []}), 503, "it is away")
        assert (page.status_code, page.headers["retry-after"]) == (503, "5")
        assert (b'http-equiv="refresh"' in page.body) == goes_on
        assert (b"what you typed is still there" in page.body) != goes_on
        assert Links(page.body.decode()).others == []


class Broken(CustomView):
    """A page that fails as it is told to."""

    path = "/broken"
    SECRET = "79991234567"
    KINDS = {
        "gone": errors.NotFound(f"thing 17: there is no {EVIL}"),
        "clash": errors.Conflict("thing 17: it is sending"),
        "old": errors.Stale("thing 17: it was written since"),
        "wrong": errors.InvalidInput("text: wanted at least a letter", ["text"]),
        "pool": psycopg_pool.PoolTimeout("couldn't get a connection after 3 sec"),
        "full": pool.Full("the mailing database is busy: all connections are in use"),
        "lock": psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"),
        "slow": psycopg.errors.QueryCanceled("canceling statement due to statement timeout"),
        "row": psycopg.errors.UniqueViolation(f"Key (phone_number)=({SECRET}) already exists."),
        "fault": ZeroDivisionError("no tags"),
    }

    @route("/{kind}", methods=["GET", "POST"], name="broken")
    async def fail(self, request):
        """Fail."""
        raise self.KINDS[request.path_params["kind"]]


@pytest.fixture(scope="module")
def broken(airflow_app):
    """The site with a page that fails, for somebody whom the gate let in."""
    app = FastAPI()
    mount((Broken, CustomView(path="/campaigns", route_name="campaigns")), app)

    async def let_in(scope, receive, send):
        if scope["type"] == "http":
            scope.setdefault("state", {})["mailing_user"] = User("anna", True, False, False)
        await app(scope, receive, send)

    return TestClient(let_in, raise_server_exceptions=False)


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "status", "said"),
        [
            ("gone", 404, f"thing 17: there is no {EVIL}"),
            ("clash", 409, "thing 17: it is sending"),
            ("old", 412, "thing 17: it was written since"),
            ("wrong", 422, "text: wanted at least a letter"),
            ("pool", 503, "The database does not answer"),
            ("full", 503, "Others are at it"),
            ("lock", 503, "Others are at it"),
            ("slow", 504, "This takes too long"),
            ("row", 500, "the server's log says more"),
            ("fault", 500, "the server's log says more"),
        ],
    )
    def test_each_is_a_page_inside_the_frame_and_a_problem_for_scripts(self, broken, kind, status, said):
        page = broken.get(f"/admin/broken/{kind}")
        assert page.status_code == status
        assert page.headers["content-type"].startswith("text/html")
        assert said in unescape(page.text)
        assert "mailing-menu" in page.text
        assert "<script>alert(" not in page.text
        found = problem(broken.get(f"/admin/broken/{kind}", headers=SCRIPT), status)
        assert found["msg"] == found["detail"]

    def test_only_what_may_be_there_in_a_moment_is_asked_for_again(self, broken):
        pages = {kind: broken.get(f"/admin/broken/{kind}") for kind in Broken.KINDS}
        again = {"pool", "full", "lock"}
        assert {kind for kind, page in pages.items() if "data-reload-when-alive" in page.text} == again
        assert {kind for kind, page in pages.items() if "retry-after" in page.headers} == again

    @pytest.mark.parametrize(("kind", "said"), [("full", "is busy"), ("lock", "is busy"), ("slow", "too long")])
    def test_scripts_are_told_apart_a_database_that_is_busy_slow_or_away(self, broken, kind, said):
        found = broken.get(f"/admin/broken/{kind}", headers=SCRIPT).json()
        assert said in found["detail"]
        assert "away" not in found["detail"]

    def test_a_write_that_found_others_at_it_is_told_how_to_go_on(self, broken):
        broken.get("/admin/broken/gone")
        token = {"X-CSRFToken": broken.cookies[CSRF_COOKIE]}
        for kind in ("full", "lock", "slow"):
            page = broken.post(f"/admin/broken/{kind}", headers=token)
            assert "what you typed is still there" in page.text, kind
            assert "data-reload-when-alive" not in page.text, kind

    def test_what_a_row_holds_is_neither_shown_nor_logged(self, broken):
        with structlog.testing.capture_logs() as logged:
            page = broken.get("/admin/broken/row")
        assert Broken.SECRET not in page.text
        assert Broken.SECRET not in str(logged)
        assert [(each["event"], each["error"], each["path"]) for each in logged] == [
            ("unforeseen", "UniqueViolation", "/admin/broken/row")
        ]

    def test_where_there_is_nothing_it_is_a_page_too(self, viewer):
        page = viewer.get("/admin/nowhere")
        assert page.status_code == 404
        assert "There is no such page" in page.text
        assert "mailing-menu" in page.text

    def test_after_a_write_it_does_not_send_it_again_by_itself(self, broken):
        broken.get("/admin/broken/gone")
        token = {"X-CSRFToken": broken.cookies[CSRF_COOKIE]}
        page = broken.post("/admin/broken/pool", headers=token)
        assert page.status_code == 503
        assert "data-reload-when-alive" not in page.text
        assert "look before you send it again" in page.text
