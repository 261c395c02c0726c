"""Starts and stops the embedded stack: PostgreSQL, Airflow's four processes and the gateway simulator."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from local import postgres
from local.settings import DEFAULT_VAR, Settings
from local.stack_processes import (
    STOP_ORDER,
    Process,
    StackError,
    State,
    Supervisor,
    busy_ports,
    end,
    leftovers,
    ports,
    processes,
)
from local.stack_start import Start

__all__ = ["Stack", "StackError", "Status"]


@dataclass(frozen=True)
class Status:
    """One process, for people: `state` is `running`, `stopped`, or another word of the supervisor's."""

    name: str
    state: str
    pid: int | None
    uptime_s: float | None
    port: int | None

    @classmethod
    def of(cls, name: str, port: int | None, state: State | None) -> Status:
        """The supervisor's word about a process; None when there is no supervisor."""
        if state is None or state.name != "RUNNING":
            return cls(name, state.name.lower() if state else "stopped", None, None, port)
        return cls(name, "running", state.pid, max(0.0, time.time() - state.started), port)


class Stack:
    """The embedded stack of some settings. Nothing is started before `up`.

    `say` takes one line of progress at a time.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None] = print):
        self.settings = settings
        self._say = say
        self._supervisor = Supervisor(settings)

    def up(self, limit_s: float = 120.0) -> None:
        """Start everything, and return when it is healthy; at once if it is already.

        Sets up, and migrates, what is missing. When it fails, is interrupted, or takes over `limit_s` seconds, nothing
        stays behind. Raises StackError, PostgresError or SettingError.
        """
        settings = self.settings
        settings.environment()  # makes the secrets, and refuses a folder that is not ours
        at = postgres.place(settings)
        with self._alone():
            if self._supervisor.answers() and self._is_as_wanted(processes(settings, at)):
                return
            self._clear_leftovers()
            if busy := busy_ports(settings):
                raise StackError("\n".join(busy))
            started = time.monotonic()
            try:
                Start(settings, self._supervisor, self._say, limit_s).run(at)
            except BaseException:  # Ctrl-C too: half a stack is of no use
                self._say("stopping what was started")
                self.down()
                raise
            self._say(f"up in {time.monotonic() - started:.0f} s: {self.address}")

    def down(self) -> bool:
        """Stop everything, tasks and what a crash left included; then no process, port or pid file is left.

        True if there was something to stop. Ctrl-C does not interrupt it.
        """
        with _uninterrupted():
            stopped = self._supervisor.answers()
            if stopped:
                for group in STOP_ORDER:
                    self._supervisor.stop(*group)
                    end(self._supervisor.strays())
                self._supervisor.shutdown()
            return self._clear_leftovers() or stopped

    def status(self) -> list[Status]:
        """Each process as it is now; all are `stopped` when the stack is down."""
        states = self._supervisor.states()
        return [Status.of(name, port, states.get(name)) for name, port in ports(self.settings).items()]

    def is_up(self) -> bool:
        """True if every process runs."""
        return all(each.state == "running" for each in self.status())

    def clean(self) -> None:
        """Stop the stack and delete its data, logs and secrets. A folder that is not a stack's is left alone."""
        settings = self.settings
        if not settings.secrets_file.exists() and settings.var != DEFAULT_VAR:
            return
        self.down()
        shutil.rmtree(settings.var, ignore_errors=True)
        for folder in postgres.outside_folders(settings):
            if not _runs_from(folder):
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """The web UI's address, and where a person finds out how to log in."""
        return f"{self.settings.ui_url} (user admin; its password is in {_short(self.settings.passwords_file)})"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.settings.var / "up.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"another start is under way in {self.settings.var}: wait for it, or end it") from None
            yield

    def _is_as_wanted(self, programs: list[Process]) -> bool:
        """True if the stack that runs is whole; False if it must be started anew, and then it is down."""
        if not self._supervisor.runs_as(programs):
            raise StackError(f"a stack with other settings is running in {self.settings.var}: `make down` first")
        if not self.is_up():
            self._say("runs in part only: starting anew")
            self.down()
            return False
        self._say(f"already running: {self.address}")
        return True

    def _clear_leftovers(self) -> bool:
        """End the processes and remove the files that a killed stack left. True if a process was left."""
        settings, data = self.settings, postgres.data_folder(self.settings)
        found = leftovers(settings)
        if found:
            self._say(f"ending {len(found)} processes that outlived their supervisor")
            end(found)
        left = postgres.stop(data) or bool(found)
        for file in (self._supervisor.pid_file, *settings.airflow_home.glob("*.pid")):
            if file.exists():
                self._say(f"removing {_short(file)}: its process is gone")
                file.unlink()
        if postgres.remove_stale_pid_file(data):
            self._say(f"removing {_short(data / 'postmaster.pid')}: its process is gone")
        settings.control_socket.unlink(missing_ok=True)
        if settings.control_socket.parent != settings.var:
            with suppress(OSError):
                settings.control_socket.parent.rmdir()
        return left


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and a polite kill wait until the block is done; only the main thread hears of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _runs_from(folder: Path) -> bool:
    """True if a program in this folder is running: another stack of the same clone, or a test's server."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if folder in Path(process.exe()).parents:
                return True
    return False


def _short(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(os.getcwd()) if path.is_relative_to(os.getcwd()) else path
