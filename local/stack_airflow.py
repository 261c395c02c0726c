"""What the stack does to its Airflow: sets up its database, keeps the gateway's connection, asks after its health."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from local.settings import HOST, Settings, write_private
from local.simulator_tokens import make_token

CONNECTION_ID = "mailing_gateway"
TOKEN_LIFE = timedelta(days=30)
_RENEW_BEFORE = timedelta(days=7)  # a stack that stays up over a long weekend keeps sending
_TIMEOUT_S = 60.0  # a machine that does much else answers slowly; whether it answers at all, `unhealthy` asks first


class AirflowError(RuntimeError):
    """Airflow's REST API refused what it should have taken; the message has its answer."""


def is_migrated(settings: Settings) -> bool:
    """True if the metadata database was set up by this very version of Airflow (`note_migrated` says so).

    Asking Airflow itself takes three seconds. The note is a comment on the database, so it cannot outlive it.
    """
    with psycopg.connect(settings.database_url("airflow")) as connection:
        row = connection.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    return bool(row and row[0] == _note())


def note_migrated(settings: Settings) -> None:
    """Remember that the metadata database is set up for this version of Airflow."""
    with psycopg.connect(settings.database_url("airflow")) as connection:
        connection.execute(sql.SQL("COMMENT ON DATABASE airflow IS {}").format(sql.Literal(_note())))


def _note() -> str:
    return f"set up by Airflow {version('apache-airflow-core')}"


def unhealthy(settings: Settings, since: datetime) -> list[str]:
    """Which of Airflow's parts are not up yet; empty when all are.

    A heartbeat from before `since` is a dead predecessor's: Airflow believes it for half a minute.
    """
    try:
        status, health = call(settings, "GET", "/api/v2/monitor/health")
    except (OSError, http.client.HTTPException):
        return ["api-server"]
    if status != http.HTTPStatus.OK:
        return ["api-server"]
    return [
        name
        for name, part in (("scheduler", "scheduler"), ("dag-processor", "dag_processor"), ("triggerer", "triggerer"))
        if not _beats(health[part], f"latest_{part}_heartbeat", since)
    ]


def _beats(part: dict[str, Any], heartbeat: str, since: datetime) -> bool:
    last = part.get(heartbeat)
    return bool(part["status"] == "healthy" and last and datetime.fromisoformat(last) >= since)


def warm_up(settings: Settings) -> None:
    """Let the API server build the interface that tasks talk to, which takes it five seconds.

    The first task would wait for it, run into its time limit and try again.
    """
    with suppress(TimeoutError):  # then it goes on building, and this stack is slow but not broken
        call(settings, "GET", "/execution/health")


def keep_gateway_connection(settings: Settings) -> str:
    """Make sure that Airflow's own store has the connection to the gateway simulator, with a token that is good.

    It lies there, not in the environment, so that an operator can mend it in the web UI: whoever has pointed it at
    another gateway keeps it. Returns what was done, for people. The API server must be up. Raises AirflowError.
    """
    stamp = settings.var / "gateway.connection.json"
    known: dict[str, Any] = json.loads(stamp.read_text("utf-8")) if stamp.exists() else {}
    wanted = {
        "port": settings.gateway_port,
        "secret": hashlib.sha256(settings.secrets.gateway.encode()).hexdigest()[:16],
        "expires": (datetime.now(UTC) + TOKEN_LIFE).isoformat(),
    }
    token = log_in(settings)
    path = f"/api/v2/connections/{CONNECTION_ID}"
    status, found = call(settings, "GET", path, token=token)
    if status == http.HTTPStatus.NOT_FOUND:
        _expect(201, *call(settings, "POST", "/api/v2/connections", _connection(settings), token))
        said = "made"
    else:
        _expect(200, status, found)
        if (found["host"], found["port"]) != (HOST, known.get("port")):
            return f"left as somebody set it: {found['host']}:{found['port']}"
        if _is_current(known, wanted):
            return "as it was"
        mask = "?update_mask=port&update_mask=password"
        _expect(200, *call(settings, "PATCH", path + mask, _connection(settings), token))
        said = "renewed"
    write_private(stamp, json.dumps(wanted) + "\n")
    return said


def _is_current(known: dict[str, Any], wanted: dict[str, Any]) -> bool:
    same = known["port"] == wanted["port"] and known["secret"] == wanted["secret"]
    return bool(same and datetime.fromisoformat(known["expires"]) > datetime.now(UTC) + _RENEW_BEFORE)


def _connection(settings: Settings) -> dict[str, Any]:
    return {
        "connection_id": CONNECTION_ID,
        "conn_type": "http",
        "description": "The gateway simulator of the embedded stack. Change the host, and `make up` leaves it alone.",
        "host": HOST,
        "port": settings.gateway_port,
        "schema": "http",
        "password": make_token(settings.secrets.gateway, TOKEN_LIFE),
    }


def address_of(settings: Settings, connection_id: str) -> tuple[str | None, int | None]:
    """Host and port of a connection: of the environment (JSON or URI), as for Airflow, before those of its own store.

    Raises AirflowError for one that is in neither.
    """
    if value := os.environ.get(f"AIRFLOW_CONN_{connection_id.upper()}"):
        if value.lstrip().startswith("{"):
            known = json.loads(value)
            return known.get("host"), known.get("port")
        uri = urlsplit(value)
        return uri.hostname, uri.port
    status, found = call(settings, "GET", f"/api/v2/connections/{connection_id}", token=log_in(settings))
    _expect(200, status, found)
    return found["host"], found["port"]


def log_in(settings: Settings) -> str:
    """A bearer token of the user admin, for `call`. Raises AirflowError."""
    status, answer = call(settings, "POST", "/auth/token", {"username": "admin", "password": settings.secrets.admin})
    _expect(201, status, answer)
    return str(answer["access_token"])


def _expect(wanted: int, status: int, answer: Any) -> None:
    if status != wanted:
        raise AirflowError(f"Airflow answered {status} instead of {wanted}: {answer}")


def call(
    settings: Settings, method: str, path: str, body: dict[str, Any] | None = None, token: str | None = None
) -> tuple[int, Any]:
    """Status and JSON of one request to the API server; its own small client, for it must not follow proxy settings."""
    connection = http.client.HTTPConnection(settings.ui_host, settings.ui_port, timeout=_TIMEOUT_S)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        return answer.status, json.loads(text) if text.startswith(("{", "[")) else text
    finally:
        connection.close()
