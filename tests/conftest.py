"""Real parts for the tests: a PostgreSQL server, a freshly cloned database for each test, the gateway simulator.

Nothing of ours is patched. The environment below is set before Airflow is imported, as a stack's would be.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="mailing-tests-airflow-"))
os.environ.update(
    {
        "AIRFLOW_HOME": str(AIRFLOW_HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME}/airflow.db",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
)

import psycopg  # noqa: E402
import pytest  # noqa: E402

from local.postgres import Server, throwaway_server  # noqa: E402
from local.settings import Settings  # noqa: E402
from local.simulator import RunningSimulator, running_simulator  # noqa: E402
from local.stack import Stack  # noqa: E402

# One app for tests/api and tests/admin: it takes seconds to build.
pytest_plugins = ["tests.web", "tests.receiver", "tests.parsing"]

TEMPLATE = "mailing_template"
MEMORY = Path("/dev/shm")  # noqa: S108  (a database there is cloned in 30 ms; on a disk that others use, in 500)
ENOUGH_MEMORY = 4 * 2**30
_numbers = itertools.count(1)


def is_of_the_stack(nodeid: str) -> bool:
    """Whether a test starts, shares or stops a whole stack (that of Celery has its own, and goes beside them)."""
    path = nodeid.partition("::")[0]
    return path.startswith(("tests/stack/", "tests/browser/", "tests/local/")) and path != "tests/stack/test_celery.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They wait most of the time, and longest: they begin at once."""
    items.sort(key=lambda item: not is_of_the_stack(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process takes all tests of the whole stack, another all others, file by file.

    Not `--dist loadgroup`: pytest-xdist 3.8 writes groups where pytest 9.2 no longer reads them.
    """
    from xdist.scheduler import LoadScopeScheduling

    class StackBesideOthers(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "the whole stack" if is_of_the_stack(nodeid) else nodeid.partition("::")[0]

    return StackBesideOthers(config, log)


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH_MEMORY:
                patch.setattr(tempfile, "tempdir", str(MEMORY))
            server = stack.enter_context(throwaway_server())
        yield server


@pytest.fixture(scope="session")
def migrated(server: Server) -> str:
    """The name of a database with our tables, to be cloned."""
    from mailing.migrate import migrate

    _as_superuser(server, f"CREATE DATABASE {TEMPLATE} OWNER mailing")
    migrate(server.url(TEMPLATE, scheme="postgresql+psycopg"))
    return TEMPLATE


@pytest.fixture
def database(server: Server, migrated: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty database of this test's own; Airflow's connection mailing_db points to it."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _as_superuser(server, f"CREATE DATABASE {name} TEMPLATE {migrated} OWNER mailing STRATEGY FILE_COPY")
    point_mailing_db_to(monkeypatch, server, name)
    yield server.url(name)
    _as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


def point_mailing_db_to(monkeypatch: pytest.MonkeyPatch, server: Server, name: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(server.url(name))
    connection = {
        "conn_type": "postgres",
        "host": parts["host"],
        "port": int(parts["port"] or 0),
        "login": parts["user"],
        "password": parts["password"],
        "schema": name,
    }
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", json.dumps(connection))


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[dict[str, object]]]:
    """An open connection to the test's database, in autocommit: what a test writes, everybody sees."""
    from mailing import db

    with db.connect() as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The one whole stack that all tests share which need it, up, in a folder and on ports of its own: it takes half a
    minute to start. Beside our DAGs it has those of tests/stack/dags."""
    dags = tmp_path_factory.mktemp("dags")
    for folder in (ROOT / "dags", ROOT / "tests" / "stack" / "dags"):
        shutil.copytree(folder, dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    settings = Settings.anywhere(tmp_path_factory.mktemp("stack"), dags=dags)
    stack = Stack(settings)
    with pytest.MonkeyPatch.context() as patch:
        # So that a campaign's DAG is there, or changes, only because somebody asked for it.
        patch.setenv("AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL", "600")
        stack.up(limit_s=240)
    yield settings
    stack.clean()


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningSimulator]:
    """A gateway simulator that answers at once; Airflow's connection mailing_gateway points to it."""
    with running_simulator(latency={"kind": "fixed", "seconds": 0}) as simulator:
        point_gateway_to(monkeypatch, simulator.url, simulator.token())
        yield simulator


def point_gateway_to(monkeypatch: pytest.MonkeyPatch, url: str, token: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    connection = {"conn_type": "http", "host": host, "port": int(port), "schema": "http", "password": token}
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_GATEWAY", json.dumps(connection))


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's own metadata database, migrated: for `dag.test()`."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)


def _as_superuser(server: Server, statement: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]
