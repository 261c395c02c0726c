"""The stack's processes: what they are, the supervisor that keeps them up, and how leftovers of a crash are found."""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from local import postgres
from local.settings import HOST, MARKER, ROOT, Settings

STOP_ORDER = (("scheduler",), ("dag-processor", "triggerer", "api-server", "gateway"), ("postgres",))
"""Groups that stop together. Tasks go first, while they can still write down what the gateway answered."""

_STOP_LIMIT_S = 15  # then the whole process group is killed
_LARGE_LOG = 10 << 20  # bytes; the supervisor begins another file then, what a program writes itself waits for `up`
_CHECKPOINT_LIMIT_S = 60  # PostgreSQL writes its cache down; killed, it would replay the log at the next start


class StackError(RuntimeError):
    """The stack cannot be started; the message says what is in the way, or has the last log lines of what failed."""


@dataclass(frozen=True)
class Process:
    """One program under the supervisor."""

    name: str
    command: tuple[str, ...]
    user: str | None = None
    stop_signal: str = "TERM"
    stop_limit_s: int = _STOP_LIMIT_S
    signal_group: bool = True
    directory: Path = ROOT
    log: Path | None = None  # written by itself; None: the supervisor keeps one


@dataclass(frozen=True)
class State:
    """What the supervisor says of a process: RUNNING, STARTING, BACKOFF, EXITED, FATAL, STOPPED and a few more."""

    name: str
    pid: int
    started: float
    """Seconds since 1970, 0 if it never started."""

    @property
    def has_failed(self) -> bool:
        """True if it ended by itself."""
        return self.name in ("BACKOFF", "EXITED", "FATAL", "UNKNOWN")


def ports(settings: Settings) -> dict[str, int | None]:
    """Every process of the stack, in the order of `make status`, and the port it listens on."""
    return {
        "postgres": settings.db_port,
        "gateway": settings.gateway_port,
        "api-server": settings.ui_port,
        "scheduler": None,
        "dag-processor": None,
        "triggerer": None,
    }


def processes(settings: Settings, at: postgres.Place) -> list[Process]:
    """Everything that the stack runs, by its command."""
    # Without an environment: PostgreSQL must follow neither a PGPORT of the caller's nor know the other secrets.
    bare = ("/usr/bin/env", "-i", f"PATH={os.defpath}", "LC_ALL=C.UTF-8", f"{MARKER}={settings.var}")
    database = Process(
        "postgres",
        (*bare, *at.command),
        user=at.user,
        stop_signal="INT",  # "fast": ends sessions, writes a checkpoint
        stop_limit_s=_CHECKPOINT_LIMIT_S,
        signal_group=False,
        directory=Path("/"),
    )
    simulator = (
        *(sys.executable, "-m", "local.simulator", "--port", str(settings.gateway_port)),
        *("--secret-file", str(settings.gateway_secret_file), "--journal", str(settings.var / "gateway.journal")),
    )
    airflow = (sys.executable, "-m", "airflow")
    # Its tasks outlive it if it is killed. The supervisor's pipe does not: a task would die of the next line it logs.
    log = settings.logs / "scheduler.log"
    scheduler = ("/bin/sh", "-c", 'exec "$@" >>"$0" 2>&1', str(log), *airflow, "scheduler", "--skip-serve-logs")
    return [
        database,
        Process("gateway", simulator),
        Process("api-server", (*airflow, "api-server")),
        # The API server reads the logs from disk: nobody needs to serve them on further ports.
        # It waits for running tasks, which may send for hours; cut short, the next scheduler starts them again.
        Process("scheduler", scheduler, stop_limit_s=5, log=log),
        Process("dag-processor", (*airflow, "dag-processor")),
        # Now and then it does not notice that its child has ended, and waits ten seconds for it.
        Process("triggerer", (*airflow, "triggerer", "--skip-serve-logs"), stop_limit_s=4),
    ]


class Supervisor:
    """The stack's supervisord: started in the background, spoken to over a socket that only its owner can open."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._configuration = settings.var / "supervisord.conf"
        self.pid_file = settings.var / "supervisord.pid"

    @property
    def _rpc(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._settings.control_socket}")
        return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    def answers(self) -> bool:
        """True if it runs and takes commands."""
        try:
            return bool(self._rpc.getState()["statename"] == "RUNNING")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False

    def runs_as(self, programs: Iterable[Process]) -> bool:
        """True if it was started with these very programs."""
        return self._configuration.exists() and self._configuration.read_text("utf-8") == self._text(programs)

    def start(self, programs: Iterable[Process], limit_s: float = 20.0) -> None:
        """Start supervisord; the programs wait for `launch`. Raises StackError if it does not answer in time."""
        programs = list(programs)
        for program in programs:
            if program.log and program.log.exists() and program.log.stat().st_size > _LARGE_LOG:
                program.log.replace(f"{program.log}.1")
        self._configuration.write_text(self._text(programs), encoding="utf-8")
        self._settings.control_socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self._settings.logs / "supervisord.log"
        with log.open("ab") as output:
            started = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--silent", "-c", self._configuration],
                env=process_environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        _session_file(self._settings).write_text(str(started.pid), encoding="utf-8")
        until = time.monotonic() + limit_s
        while not self.answers():
            if started.poll() is not None or time.monotonic() > until:
                raise StackError(f"supervisord did not start\n{end_of_log(log)}")
            time.sleep(0.05)  # a poll's pause

    def launch(self, *names: str) -> None:
        """Start these programs, without waiting for them."""
        for name in names:
            self._rpc.startProcess(name, False)

    def stop(self, *names: str) -> None:
        """Stop these programs at once, and return when all have ended; past their limit they are killed."""
        for name in names:
            with suppress(xmlrpc.client.Fault):  # it does not run
                self._rpc.stopProcess(name, False)
        while any(self.states()[name].name in ("STOPPING", "RUNNING", "STARTING") for name in names):
            time.sleep(0.05)  # a poll's pause

    def states(self) -> dict[str, State]:
        """Every program's state by its name; empty when supervisord does not run."""
        try:
            found = self._rpc.getAllProcessInfo()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return {}
        return {each["name"]: State(each["statename"], each["pid"], each["start"]) for each in found}

    def strays(self) -> list[psutil.Process]:
        """Processes of this stack that no program of this supervisor answers for: tasks of a scheduler that is gone."""
        itself = psutil.Process(self._rpc.getPID())
        kept = {itself, *itself.children(recursive=True)}
        return [process for process in leftovers(self._settings) if process not in kept]

    def shutdown(self, limit_s: float = 20.0) -> None:
        """End supervisord itself, and whatever it still runs."""
        itself = psutil.Process(self._rpc.getPID())
        self._rpc.shutdown()
        postgres.still_alive([itself], limit_s)

    def _text(self, programs: Iterable[Process]) -> str:
        settings = self._settings
        general = [
            "[supervisord]",
            f"pidfile={self.pid_file}",
            f"logfile={settings.logs / 'supervisord.log'}",
            "logfile_maxbytes=1MB",
            "logfile_backups=1",
            *(["user=root"] if os.geteuid() == 0 else []),  # said aloud, or it warns
            "[unix_http_server]",
            f"file={settings.control_socket}",
            "chmod=0600",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        ]
        lines = [*general, *(line for program in programs for line in self._section(program))]
        return "\n".join(line.replace("%", "%%") for line in lines) + "\n"

    def _section(self, program: Process) -> list[str]:
        as_group = str(program.signal_group).lower()
        return [
            f"[program:{program.name}]",
            f"command={shlex.join(program.command)}",
            f"directory={program.directory}",
            *([f"user={program.user}"] if program.user else []),
            "autostart=false",
            "autorestart=true",
            "startsecs=1",
            "startretries=3",
            f"stopsignal={program.stop_signal}",
            f"stopwaitsecs={program.stop_limit_s}",
            f"stopasgroup={as_group}",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={'NONE' if program.log else self._settings.logs / f'{program.name}.log'}",
            f"stdout_logfile_maxbytes={_LARGE_LOG}",
            "stdout_logfile_backups=3",
        ]


def leftovers(settings: Settings) -> list[psutil.Process]:
    """Living processes of this stack, supervisord or not, except PostgreSQL's (see `postgres.processes`)."""
    session = _session(settings)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and _is_ours(process, settings, session):
                found.append(process)
    return found


def _is_ours(process: psutil.Process, settings: Settings, session: tuple[int, float] | None) -> bool:
    """True for what bears our marker; and for our tasks, whose environment Airflow hides from all but root."""
    try:
        return bool(process.environ().get(MARKER) == str(settings.var) and process.name() != "postgres")
    except psutil.AccessDenied:
        if not session or not " ".join(process.cmdline()).startswith("airflow worker"):
            return False
        leader, since = session
        return os.getsid(process.pid) == leader and bool(process.create_time() >= since)


def _session_file(settings: Settings) -> Path:
    """Holds the id of the session that supervisord leads, which all its offspring bear, however they are orphaned."""
    return settings.var / "supervisord.session"


def _session(settings: Settings) -> tuple[int, float] | None:
    """That id and the time from which on it is ours: numbers are given anew, after a reboot for one."""
    file = _session_file(settings)
    if not file.exists():
        return None
    return int(file.read_text("utf-8")), file.stat().st_mtime


def end(found: list[psutil.Process], limit_s: float = 5.0) -> None:
    """Ask these processes to end, and kill those that have not after `limit_s` seconds."""
    for sign, patience in ((signal.SIGTERM, limit_s), (signal.SIGKILL, 5.0)):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sign)
        found = postgres.still_alive(found, patience)


def busy_ports(settings: Settings) -> list[str]:
    """One line for each port that cannot be listened on: which, who has it, and the setting that changes it."""
    return [
        f"port {port} {trouble}: set {variable} to another one, or end that program"
        for variable, port in settings.ports().items()
        if (trouble := _trouble(port))
    ]


def _trouble(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT are no obstacle
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "is reserved for root"
        except OSError:
            return f"is taken by {_listener(port)}"
    return None


def _listener(port: int) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.laddr
                and connection.laddr.port == port
                and connection.status == psutil.CONN_LISTEN
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "a program of another user"


class Command:
    """A program of ours that does one thing and ends, beside whatever goes on; its output goes to a log file."""

    def __init__(self, settings: Settings, module: str, *arguments: str):
        self._what = " ".join([module, *arguments])
        self._log = settings.logs / f"{self._what.replace(' ', '-')}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=process_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        """End it if it still runs: what it was started for has failed."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def finish(self) -> None:
        """Wait for its end. Raises StackError with its last words if it failed."""
        if code := self._process.wait():
            raise StackError(f"`{self._what}` failed with exit code {code}\n{end_of_log(self._log)}")


def process_environment(settings: Settings) -> dict[str, str]:
    """The whole environment of a process of this stack: the caller's, ours over it, and the marker to find it by."""
    return {**os.environ, **settings.environment(), MARKER: str(settings.var)}


def end_of_log(log: Path) -> str:
    """The last lines of a log under their heading, for an error message."""
    return f"the end of {log}:\n{_tail(log)}"


def _tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file, empty if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
