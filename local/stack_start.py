"""The start of the stack, step by step: what must be there before what, and what goes on at once."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from local import postgres, stack_airflow
from local.settings import HOST, Settings, write_private
from local.stack_processes import Command, StackError, Supervisor, end_of_log, ports, processes


class Start:
    """One start of a stack that is down. `say` takes a line when a step is done."""

    def __init__(self, settings: Settings, supervisor: Supervisor, say: Callable[[str], None], limit_s: float):
        self._settings = settings
        self._supervisor = supervisor
        self._say = say
        self._limit_s = limit_s
        self._pids: dict[str, int] = {}

    def run(self, at: postgres.Place) -> None:
        """Return when every process is healthy. Raises StackError or PostgresError; what was started goes on then."""
        self._until = time.monotonic() + self._limit_s
        self._since = datetime.now(UTC)
        self._write_files()
        postgres.prepare(at, self._settings.secrets, self._settings.db_port)
        self._supervisor.start(processes(self._settings, at))
        with self._step("PostgreSQL"):
            self._supervisor.launch("postgres", "gateway")
            self._await_postgres()
        with Command(self._settings, "mailing.cli", "migrate") as migration:
            with self._step("Airflow's tables"):
                self._migrate_airflow()
            self._supervisor.launch("api-server", "triggerer")
            with self._step("our tables"):
                migration.finish()
                postgres.let_reader_in(self._settings.secrets, self._settings.db_port)
        self._supervisor.launch("dag-processor")
        with self._step("Airflow's API"):
            self._await(lambda: [name for name in self._unhealthy() if name == "api-server"])
        # Before the scheduler: a campaign that is live already must not meet a gateway that nobody has named.
        with self._step(f"connection {stack_airflow.CONNECTION_ID}"):
            stack_airflow.keep_gateway_connection(self._settings)
        self._supervisor.launch("scheduler")
        with self._step("all healthy"):
            stack_airflow.warm_up(self._settings)
            self._await(self._unhealthy)

    def _write_files(self) -> None:
        secrets = self._settings.secrets
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        users = {"admin": secrets.admin, "operator": secrets.operator, "viewer": secrets.viewer}
        write_private(self._settings.passwords_file, json.dumps(users) + "\n")
        write_private(self._settings.gateway_secret_file, secrets.gateway)

    def _await_postgres(self) -> None:
        secrets, port = self._settings.secrets, self._settings.db_port
        try:
            postgres.wait_until_ready(secrets, port, alive=lambda: not self._ended("postgres"))
        except postgres.PostgresError as error:
            raise StackError(f"{error}\n{self._end_of_log('postgres')}") from error
        postgres.create_databases(secrets, port)

    def _migrate_airflow(self) -> None:
        if stack_airflow.is_migrated(self._settings):
            return
        with Command(self._settings, "airflow", "db", "migrate") as migration:
            migration.finish()
        stack_airflow.note_migrated(self._settings)

    def _unhealthy(self) -> list[str]:
        gateway = [] if _gateway_answers(self._settings.gateway_port) else ["gateway"]
        return gateway + stack_airflow.unhealthy(self._settings, self._since)

    def _await(self, missing: Callable[[], list[str]]) -> None:
        """Return once nothing is missing any more. Raises StackError when a process ends, or the time is up."""
        while names := missing():
            for name in ports(self._settings):
                if self._ended(name):
                    raise StackError(f"{name} ended while it started\n{self._end_of_log(name)}")
            if time.monotonic() > self._until:
                logs = "\n".join(self._end_of_log(name) for name in names)
                raise StackError(f"not healthy after {self._limit_s:.0f} s: {', '.join(names)}\n{logs}")
            time.sleep(0.2)  # a poll's pause

    def _ended(self, name: str) -> bool:
        """True if the process has ended since it was launched, though the supervisor may have started it again."""
        states = self._supervisor.states()
        if not states:
            raise StackError(f"supervisord ended\n{self._end_of_log('supervisord')}")
        state = states[name]
        restarted = state.pid and state.pid != self._pids.setdefault(name, state.pid)
        return bool(state.has_failed or restarted)

    def _end_of_log(self, name: str) -> str:
        return end_of_log(self._settings.logs / f"{name}.log")

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._say(f"  {name}: {time.monotonic() - started:.1f} s")


def _gateway_answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/_simulator/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
