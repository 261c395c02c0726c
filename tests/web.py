"""Airflow's own API server app with our plugin in it, in this process, and clients that are logged in to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from mailing import pool

JWT_SECRET = "of the tests " * 5  # Airflow's tokens are HS512, which wants 64 bytes
PASSWORDS = {name: f"{name}-password" for name in ("admin", "operator", "viewer")}


@pytest.fixture(scope="session")
def airflow_app(airflow_db):
    """The whole app, as `airflow api-server` serves it."""
    with pytest.MonkeyPatch.context() as patch:
        file = Path(os.environ["AIRFLOW_HOME"]) / "passwords.json"
        file.write_text(json.dumps(PASSWORDS))
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "admin:admin,operator:op,viewer:viewer")
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(file))
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", JWT_SECRET)
        from airflow.api_fastapi.app import create_app

        yield create_app()


@pytest.fixture(scope="session")
def server_client(airflow_app) -> Iterator[TestClient]:
    """Nobody's client: not logged in. A fault of ours is an answer with status 500, as people would get it."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MAILING_DAG_WATCH_S", "0")  # each test has a database of its own; tests/stack has the watch
            client = stack.enter_context(TestClient(airflow_app, raise_server_exceptions=False))
        yield client


@pytest.fixture(scope="session")
def tokens(server_client) -> dict[str, str]:
    """The bearer token of each role."""

    def token(name: str) -> str:
        answer = server_client.post("/auth/token", json={"username": name, "password": PASSWORDS[name]})
        return answer.json()["access_token"]

    return {name: token(name) for name in PASSWORDS}


@pytest.fixture
def app_database(database) -> Iterator[str]:
    """An empty database of this test's own, which the app works on."""
    pool.close()
    yield database
    pool.close()


class Caller:
    """Somebody who calls the API: paths count from /mailing."""

    def __init__(self, client: TestClient, token: str | None) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __call__(self, method: str, path: str, json: object = None, headers: dict[str, str] | None = None, **more):
        """The answer; `json`: the body."""
        headers = self._headers | (headers or {})
        return self._client.request(method, f"/mailing{path}", json=json, headers=headers, **more)

    def get(self, path: str, **more) -> httpx.Response:
        return self("GET", path, **more)

    def post(self, path: str, json: object = None, **more) -> httpx.Response:
        return self("POST", path, json, **more)

    def put(self, path: str, json: object = None, **more) -> httpx.Response:
        return self("PUT", path, json, **more)

    def patch(self, path: str, json: object = None, **more) -> httpx.Response:
        return self("PATCH", path, json, **more)

    def delete(self, path: str, **more) -> httpx.Response:
        return self("DELETE", path, **more)


@pytest.fixture
def nobody(server_client, app_database) -> Caller:
    return Caller(server_client, None)


@pytest.fixture
def viewer(server_client, tokens, app_database) -> Caller:
    return Caller(server_client, tokens["viewer"])


@pytest.fixture
def operator(server_client, tokens, app_database) -> Caller:
    return Caller(server_client, tokens["operator"])


@pytest.fixture
def admin(server_client, tokens, app_database) -> Caller:
    return Caller(server_client, tokens["admin"])


def problem(answer: httpx.Response, status: int, *said: str) -> dict:
    """The problem that an answer is, whose detail says all of this."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status
    for words in said:
        assert words in found["detail"], found
    return found
