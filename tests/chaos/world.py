"""A stack under attack: its ledger, gateway, processes and API, asked patiently, for any of them may be down."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import time
import xmlrpc.client
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import psutil
import psycopg
from psycopg.rows import dict_row

from local.settings import HOST, Settings
from local.simulator_behaviour import Behaviour, Chooser
from local.simulator_tokens import make_token
from local.stack_airflow import CONNECTION_ID, AirflowError, call, log_in
from local.stack_processes import Supervisor, leftovers
from mailing import db, gateways
from mailing.models import DEFAULT_GATEWAY

T = TypeVar("T")

ACTOR = "chaos"
POLL_S = 0.1
PATIENCE_S = 120.0
"""How long anything may be down. Only then it is said to be gone."""

ESTABLISHED_S = 2.0
"""A process that has run for so long counts as started: killed before, the supervisor would give it up in the end."""

SHARES = {"500": 0.05, "429": 0.05, "not_json": 0.05, "drop_after_read": 0.05}
"""How the gateway misbehaves all the time: a fifth of its replies."""

LATENCY = {"kind": "uniform", "low": 0.1, "high": 0.3}


class InVain(RuntimeError):
    """What was waited for did not happen; the message says what, and how things stood instead."""


class World:
    """The stack of some settings, as those see it who attack it. `say` takes a line when something is odd.

    `seed`: of the gateway's choices. What is odd but no promise, such as a process that the supervisor gave up, is kept
    in `oddities`.
    """

    def __init__(self, settings: Settings, seed: int, say: Callable[[str], None] = print):
        self.settings = settings
        self.supervisor = Supervisor(settings)
        self.oddities: list[str] = []
        self._say = say
        self._base = Behaviour(latency=LATENCY, shares=SHARES, seed=seed)
        self._chooser = Chooser(self._base)
        self._connection: db.Connection | None = None
        self._dropped = 0  # by outages of simulator processes that are gone
        self._well_behaved: list[tuple[float, float]] = []  # after a start, until told to misbehave

    def close(self) -> None:
        """Let go of the database."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def wait(self, condition: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
        """The first truth that `condition` tells. Raises InVain."""
        until = time.monotonic() + patience_s
        while not (found := condition()):
            if time.monotonic() > until:
                raise InVain(f"waited {patience_s:.0f} s in vain: {what}")
            self._revive()
            time.sleep(POLL_S)
        return found

    # -- the ledger

    def in_database(self, work: Callable[[db.Connection], T]) -> T:
        """What `work` returns, committed; with a new connection for as long as the database is away."""
        return self.wait(lambda: self._try(work), "the database answers")[0]

    def rows(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """What a statement returns."""
        return self.in_database(lambda connection: connection.execute(statement, parameters).fetchall())

    def _try(self, work: Callable[[db.Connection], T]) -> tuple[T] | None:
        try:
            if not self._connection:
                url = self.settings.database_url("mailing")
                self._connection = psycopg.connect(url, row_factory=dict_row, autocommit=True, connect_timeout=5)
            with self._connection.transaction():
                return (work(self._connection),)
        except (psycopg.OperationalError, psycopg.InterfaceError):
            self.close()
            return None

    def change_gateway(self, **changes: Any) -> None:
        """Change limits of the gateway's row."""
        self.in_database(lambda connection: gateways.change(connection, DEFAULT_GATEWAY, actor=ACTOR, **changes))

    # -- the gateway

    def ask_gateway(self, method: str, path: str, body: Any = None) -> Any:
        """The control plane's answer, as soon as it gives one."""
        return self.wait(lambda: self._ask(method, path, body), "the gateway's control plane answers")[0]

    def _ask(self, method: str, path: str, body: Any) -> tuple[Any] | None:
        connection = http.client.HTTPConnection(HOST, self.settings.gateway_port, timeout=60)
        try:
            connection.request(method, f"/_simulator/{path}", json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{method} {path}: the simulator answered {answer.status}: {text.decode()}")
        return (json.loads(text),)

    def behave(self, **changes: Any) -> None:
        """Have the gateway do what is said, and no more than that, on top of its usual misbehaviour."""
        self.ask_gateway("PUT", "behaviour", self._base.as_json() | changes)

    def change_behaviour(self, **changes: Any) -> None:
        """Have the gateway do this differently; `token_expired` stays in force, unless it is named."""
        self.ask_gateway("PATCH", "behaviour", changes)

    def usual_latency(self) -> None:
        """Answer as fast as ever."""
        self.change_behaviour(latency=LATENCY)

    def stop_gateway(self) -> None:
        """Its port refuses connections from now on."""
        self._dropped = self.dropped_by_outages()
        self.supervisor.stop("gateway")

    def start_gateway(self) -> None:
        """It remembers what it took, and not how it was to behave."""
        began = time.time()
        self.supervisor.launch("gateway")
        self.behave()
        self._well_behaved.append((began, time.time()))

    def dropped_by_outages(self) -> int:
        """How many requests met a gateway that ends every connection: whether they were taken, nobody can know."""
        return self._dropped + int(self.ask_gateway("GET", "stats")["not_taken"].get("outage", 0))

    def requests(self, first: int, last: int) -> dict[int, dict[str, Any]]:
        """What the gateway remembers of each msgId: see `RequestLog.requests`."""
        answer = self.ask_gateway("GET", f"requests?first={first}&last={last}")
        return {int(msg_id): each for msg_id, each in answer.items()}

    def was_in_doubt(self, msg_id: int, seen: dict[str, Any]) -> list[bool]:
        """Of each request for this message, whether the reply was none, or nonsense: by the seed, as it was served."""
        served = enumerate(zip(seen["arrivals"], seen["statuses"], strict=True))
        return [status == 0 or self._was_nonsense(msg_id, nth, at, status) for nth, (at, status) in served]

    def _was_nonsense(self, msg_id: int, nth: int, at: float, status: int) -> bool:
        if status != http.HTTPStatus.OK or any(began <= at <= ended for began, ended in self._well_behaved):
            return False
        return self._chooser.choose(msg_id, nth)[0] == "not_json"

    def mend_token(self) -> None:
        """Give Airflow's connection a token that is newer than any expiry, as soon as the API server takes it."""
        self.wait(self._give_token, "the API server takes a new token for the gateway's connection")

    def _give_token(self) -> bool:
        token = make_token(self.settings.secrets.gateway, timedelta(days=1))
        body = {"connection_id": CONNECTION_ID, "conn_type": "http", "password": token}
        path = f"/api/v2/connections/{CONNECTION_ID}?update_mask=password"
        try:
            status, _ = call(self.settings, "PATCH", path, body, log_in(self.settings))
        except (OSError, http.client.HTTPException, AirflowError):
            return False
        return status == http.HTTPStatus.OK

    # -- the processes

    def pid(self, name: str) -> int:
        """Of a process of the stack, as soon as it is established."""
        return self.wait(lambda: self.established(name), f"{name} runs")

    def established(self, name: str) -> int | None:
        """Its pid, if it has been running for a while."""
        state = self.supervisor.states().get(name)
        if state and state.name == "RUNNING" and time.time() - state.started > ESTABLISHED_S:
            return state.pid
        return None

    def sending_task(self, rng: random.Random) -> tuple[int, str]:
        """Pid and name of a task that sends now, one of them by lot."""
        return rng.choice(self.wait(self.sending_tasks, "a living task holds a lease"))

    def sending_tasks(self) -> list[tuple[int, str]]:
        """All that hold a lease and live."""
        leases = self.rows("SELECT * FROM leases WHERE expires_at > clock_timestamp() ORDER BY token")
        if not leases:
            return []
        ours = {process.pid for process in leftovers(self.settings)}
        tasks = [
            (int(lease["holder"].rpartition(":")[2]), f"campaign {lease['campaign_id']}, batch {lease['batch']}")
            for lease in leases
        ]
        return [task for task in tasks if task[0] in ours]

    def kill(self, pid: int) -> None:
        """As a machine does that has no memory left."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def parent(self, pid: int) -> int | None:
        """Airflow's supervisor of a task; None if that process is somebody else by now."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid).ppid()
            known = {state.pid for state in self.supervisor.states().values()}
            if parent in {process.pid for process in leftovers(self.settings)} - known:
                return parent
        return None

    def note_strays(self) -> None:
        """Keep in mind how many processes nobody answers for any more."""
        if strays := self.supervisor.strays():
            self.oddities.append(f"{len(strays)} processes outlived their scheduler")

    def _revive(self) -> None:
        """Start what the supervisor gave up; a person would. It is an oddity all the same."""
        for name, state in self.supervisor.states().items():
            if state.name == "FATAL":
                self.oddities.append(f"the supervisor gave {name} up")
                self._say(f"the supervisor gave {name} up: it is started by hand")
                with suppress(xmlrpc.client.Fault):  # it is starting by now
                    self.supervisor.launch(name)
