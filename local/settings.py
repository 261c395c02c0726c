"""What can be set about the embedded stack, and the environment its processes get."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import sys
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_VAR = ROOT / "var"
HOST = "127.0.0.1"
"""Everything listens here only: the passwords lie in a file beside the data, which is no protection on a network."""

MARKER = "MAILING_STACK"
"""Environment variable that tells a stack's processes from all others: its value is the stack's state folder."""

_LONGEST_SOCKET_PATH = 90  # the kernel takes 104 to 108 bytes, and supervisord binds to a name with its pid added


class SettingError(ValueError):
    """A setting has a value that cannot be used; the message names the variable, the value and what was wanted."""


def _key() -> str:
    return secrets.token_hex(24)


def _fernet_key() -> str:
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True, repr=False)
class Secrets:
    """Passwords and keys of one stack, made once and kept in `var/secrets.json` (mode 0600)."""

    postgres: str = field(default_factory=_key)
    airflow: str = field(default_factory=_key)
    mailing: str = field(default_factory=_key)
    mailing_reader: str = field(default_factory=_key)
    admin: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    operator: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    viewer: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    gateway: str = field(default_factory=lambda: secrets.token_hex(32))
    jwt: str = field(default_factory=lambda: secrets.token_hex(32))
    api: str = field(default_factory=lambda: secrets.token_hex(32))
    fernet: str = field(default_factory=_fernet_key)

    @classmethod
    def kept_in(cls, path: Path) -> Secrets:
        """The secrets of this file, made now where it, or one of them, is missing."""
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found = cls(**{f.name: known[f.name] for f in fields(cls) if f.name in known})
        if asdict(found) != known:
            write_private(path, json.dumps(asdict(found), indent=2) + "\n")
        return found


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; a reader meanwhile sees the old text or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp creates it 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(unfinished).replace(path)


def free_port() -> int:
    """A TCP port that nothing on this machine listens on now, from below the range that outgoing connections take."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


@dataclass(frozen=True)
class Settings:
    """One embedded stack: where it keeps its state, and the ports it listens on.

    Two stacks with different state folders and ports do not meet. Raises SettingError for a port that is none, and for
    one port wanted twice.
    """

    var: Path = DEFAULT_VAR
    dags: Path = ROOT / "dags"
    ui_port: int = 8080
    db_port: int = 5439
    gateway_port: int = 8090
    parallelism: int = 8
    """Tasks at a time (LocalExecutor's workers, forked at start)."""
    reports: str | None = None
    """Where the daily reports are kept, a path or an object store's URL; None: below `var`."""
    broker_url: str = ""
    """Redis, as a URL: tasks then go to Celery workers, which somebody else starts. Empty: LocalExecutor."""
    ui_host: str = HOST
    gateway_host: str = HOST
    """Where the API server and the gateway answer: elsewhere only in a cluster (local/cluster.py)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "var", Path(os.path.abspath(self.var)))
        taken: dict[int, str] = {}
        for variable, port in self.ports().items():
            if not 1 <= port <= 65535:
                raise SettingError(f"{variable}={port}: wanted {_WANTED[variable]}")
            if port in taken:
                raise SettingError(f"{variable}={port}: wanted another port than {taken[port]}={port}")
            taken[port] = variable
        if not 1 <= self.parallelism <= 128:
            raise SettingError(f"MAILING_PARALLELISM={self.parallelism}: wanted {_WANTED['MAILING_PARALLELISM']}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """The settings that `MAILING_…` variables name; an empty variable counts as none."""
        return cls(
            var=Path(environ.get("MAILING_VAR") or DEFAULT_VAR),
            ui_port=_number(environ, "MAILING_UI_PORT", cls.ui_port),
            db_port=_number(environ, "MAILING_DB_PORT", cls.db_port),
            gateway_port=_number(environ, "MAILING_GATEWAY_PORT", cls.gateway_port),
            parallelism=_number(environ, "MAILING_PARALLELISM", cls.parallelism),
            reports=environ.get("MAILING_REPORTS") or None,
        )

    @classmethod
    def anywhere(cls, var: Path, dags: Path = ROOT / "dags") -> Settings:
        """A stack in this folder, on ports that are free now: for tests beside a stack that runs."""
        ports: set[int] = set()
        while len(ports) < 3:
            ports.add(free_port())
        ui, db, gateway = ports
        return cls(var=var, ui_port=ui, db_port=db, gateway_port=gateway, parallelism=4, dags=dags)

    def ports(self) -> dict[str, int]:
        """Each port by the variable that changes it."""
        return {
            "MAILING_UI_PORT": self.ui_port,
            "MAILING_DB_PORT": self.db_port,
            "MAILING_GATEWAY_PORT": self.gateway_port,
        }

    @property
    def ui_url(self) -> str:
        """Where the web UI and the REST API answer, without a slash at the end."""
        return f"http://{self.ui_host}:{self.ui_port}"

    @property
    def gateway_url(self) -> str:
        """Where the gateway simulator answers, without a slash at the end."""
        return f"http://{self.gateway_host}:{self.gateway_port}"

    @property
    def logs(self) -> Path:
        """One file per process, and Airflow's task logs below `tasks/`."""
        return self.var / "logs"

    @property
    def airflow_home(self) -> Path:
        """Airflow's own folder."""
        return self.var / "airflow"

    @property
    def secrets_file(self) -> Path:
        """Every password and key of this stack, as JSON."""
        return self.var / "secrets.json"

    @property
    def passwords_file(self) -> Path:
        """Who may log in to the web UI: user name to password, as Airflow's SimpleAuthManager reads it."""
        return self.airflow_home / "passwords.json"

    @property
    def gateway_secret_file(self) -> Path:
        """The key that the gateway checks its bearer tokens with."""
        return self.var / "gateway.secret"

    @cached_property
    def control_socket(self) -> Path:
        """The socket of supervisord: in the state folder, or below the temporary one where that path were too long."""
        wanted = self.var / "supervisor.sock"
        if len(os.fsencode(wanted)) <= _LONGEST_SOCKET_PATH:
            return wanted
        name = hashlib.sha256(os.fsencode(self.var)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"mailing-{os.getuid()}-{name}" / "supervisor.sock"

    @cached_property
    def secrets(self) -> Secrets:
        """Passwords and keys of this stack; the first reader makes them.

        Raises SettingError where they would be put among somebody else's files, which `make clean` would then delete.
        """
        if self.var != DEFAULT_VAR and not self.secrets_file.exists() and self.var.exists() and any(self.var.iterdir()):
            raise SettingError(f"MAILING_VAR={self.var}: holds other files; wanted a folder that is empty or not there")
        return Secrets.kept_in(self.secrets_file)

    def database_url(self, database: str, role: str | None = None, scheme: str = "postgresql") -> str:
        """The URL of an embedded database, password included, for its owner or for another role."""
        role = role or database
        password = getattr(self.secrets, role)
        return f"{scheme}://{role}:{password}@{HOST}:{self.db_port}/{database}"

    def environment(self) -> dict[str, str]:
        """What to add to the environment so that `airflow` and `mailing` find this stack; contains its secrets."""
        return {
            "MAILING_VAR": str(self.var),
            **{variable: str(port) for variable, port in self.ports().items()},
            "MAILING_PARALLELISM": str(self.parallelism),
            "MAILING_REPORTS": self.reports or str(self.var / "reports"),
            "AIRFLOW_HOME": str(self.airflow_home),
            "AIRFLOW_CONN_MAILING_DB": self._mailing_connection(),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(ROOT)]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "",  # where it is set, Airflow compiles itself anew at each start: 4 s a process
            "SPT_NOENV": "1",  # setproctitle would overwrite /proc/<pid>/environ, by which leftovers are found
            **dict.fromkeys(("NO_PROXY", "no_proxy"), _without_proxy()),
            **{f"AIRFLOW__{name}": value for name, value in self._airflow().items()},
        }

    def _mailing_connection(self) -> str:
        """JSON, for in a URI Airflow would take every extra for text."""
        connection = {
            "conn_type": "postgres",
            "host": HOST,
            "port": self.db_port,
            "login": "mailing",
            "password": self.secrets.mailing,
            "schema": "mailing",
        }
        return json.dumps(connection)

    def _airflow(self) -> dict[str, str]:
        return {
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            **self._executor(),
            "CORE__PARALLELISM": str(self.parallelism),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.ui_url}/execution/",
            "CORE__FERNET_KEY": self.secrets.fernet,
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,operator:op,viewer:viewer",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.passwords_file),
            # A DNS that does not answer would hold up every start.
            "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            # What was parsed is kept, however short a time ago it was parsed before: an edit comes when it comes.
            "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
            # Workers share the scheduler's imports; Python 3.14 would import them anew in each.
            **({"CORE__MP_START_METHOD": "fork"} if sys.platform == "linux" else {}),
            "DATABASE__SQL_ALCHEMY_CONN": self.database_url("airflow", scheme="postgresql+psycopg"),
            "API__HOST": HOST,
            "API__PORT": str(self.ui_port),
            "API__BASE_URL": self.ui_url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": self.secrets.api,
            "API__INSTANCE_NAME": "Mailing Service",
            "API_AUTH__JWT_SECRET": self.secrets.jwt,
            "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            # A file that was changed is parsed at once, and campaigns are when one was written (dag_watch.py).
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
            "DAG_PROCESSOR__PRINT_STATS_INTERVAL": "300",
            "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.airflow_home / "bundles"),
            # What a killed scheduler or worker leaves is taken up within a minute, not within five.
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            # A supervisor may see a heartbeat late that its task has ended, and keeps the slot so long. LocalExecutor
            # even fails a task that it was given anew (after a wait) before. A cluster's tasks share one API server.
            "WORKERS__MIN_HEARTBEAT_INTERVAL": "2" if self.broker_url else "1",
            "LOGGING__BASE_LOG_FOLDER": str(self.logs / "tasks"),
            "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(self.logs / "dag_processor"),
            "LOGGING__COLORED_CONSOLE_LOG": "False",
        }

    def _executor(self) -> dict[str, str]:
        if not self.broker_url:
            return {"CORE__EXECUTOR": "LocalExecutor"}
        return {
            "CORE__EXECUTOR": "CeleryExecutor",
            "CELERY__BROKER_URL": self.broker_url,
            "CELERY__RESULT_BACKEND": f"db+{self.database_url('airflow', scheme='postgresql+psycopg')}",
            "CELERY__WORKER_CONCURRENCY": str(self.parallelism),
            "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
            "CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": ["mailing.needed"]}),
            # To wait for a worker's slot is no fault. By default it is one after three times TASK_QUEUED_TIMEOUT, and
            # the task is failed, whatever retries it has. (LocalExecutor is never asked: it cannot take a task back.)
            "SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "1000000",
        }


_WANTED = {
    "MAILING_UI_PORT": "a whole number from 1 to 65535",
    "MAILING_DB_PORT": "a whole number from 1 to 65535",
    "MAILING_GATEWAY_PORT": "a whole number from 1 to 65535",
    "MAILING_PARALLELISM": "a whole number from 1 to 128",
}


def _number(environ: Mapping[str, str], variable: str, default: int) -> int:
    value = environ.get(variable)
    if not value:
        return default
    try:
        return int(value)
    except ValueError:
        raise SettingError(f"{variable}={value!r}: wanted {_WANTED[variable]}") from None


def _without_proxy() -> str:
    """NO_PROXY as it is, and this machine: a proxy could not reach the stack's loopback addresses."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    return ",".join(part for part in (known, HOST, "localhost") if part)
