"""A whole Airflow of the benchmarks' own, with our DAGs, a gateway simulator, and a bare DAG to compare with."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg
from psycopg.rows import dict_row

from benchmarks import ROOT
from benchmarks.database import Database
from benchmarks.gateways import Simulator
from benchmarks.row import BrokenMeasurement
from local.postgres import Server
from local.settings import HOST, MARKER, Settings
from local.simulator import make_token
from local.stack import Stack
from local.stack_airflow import call, log_in

T = TypeVar("T")

UP_S = 240.0
PARALLELISM = 8
POLL_S = 0.1
BARE = "/api/v2/dags/bare"


@dataclass(frozen=True)
class Airflow:
    """A stack that is up: its ledger, its gateway, and its REST API as the user admin."""

    settings: Settings
    database: Database
    gateway: Simulator
    token: str

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of an answer that is neither an error nor a redirect. Raises BrokenMeasurement."""
        status, answer = call(self.settings, method, path, body, self.token)
        if not 200 <= status < 300:
            raise BrokenMeasurement(f"{method} {path}: {status} {answer}")
        return answer

    def trigger_bare(self) -> str:
        """The id of a new run of the bare DAG."""
        return str(self.ask("POST", f"{BARE}/dagRuns", {"logical_date": None})["dag_run_id"])

    def pss(self) -> int:
        """Bytes that all its processes hold, shared ones by their share; PostgreSQL's sessions, too."""
        # A process that ended, or is nobody's that we may look at, has no figures.
        found = {process.pid: process for process in psutil.process_iter(["ppid", "environ"])}
        ours = {
            pid for pid, each in found.items() if (each.info["environ"] or {}).get(MARKER) == str(self.settings.var)
        }
        # PostgreSQL's sessions write over their environment.
        return sum(_pss(each) for pid, each in found.items() if pid in ours or each.info["ppid"] in ours)


@contextmanager
def whole_stack(folder: Path) -> Iterator[Airflow]:
    """A stack in this folder, on ports of its own, up until the block ends. Raises what `Stack.up` raises."""
    dags = folder / "dags"
    for source in (ROOT / "dags", ROOT / "benchmarks" / "dags"):
        shutil.copytree(source, dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    settings = replace(Settings.anywhere(folder / "stack", dags=dags), parallelism=PARALLELISM)
    stack = Stack(settings, say=lambda line: None)
    try:
        stack.up(limit_s=UP_S)
        server = Server(settings.db_port, settings.var, settings.secrets)
        gateway = Simulator(HOST, settings.gateway_port, make_token(settings.secrets.gateway, timedelta(hours=6)))
        with psycopg.connect(server.url("mailing"), autocommit=True, row_factory=dict_row) as connection:
            airflow = Airflow(settings, Database(server, "mailing", connection), gateway, log_in(settings))
            until(lambda: call(settings, "GET", BARE, token=airflow.token)[0] == 200, "the bare DAG is there", 60)
            yield airflow
    finally:
        stack.clean()


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def until(condition: Callable[[], T | None], what: str, seconds: float) -> T:
    """What the condition says once it says something. Raises BrokenMeasurement where that takes too long."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise BrokenMeasurement(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(POLL_S)
    return found


def epoch_s(moment: str | datetime) -> float:
    """A moment as Airflow's API or PostgreSQL tells it, in seconds since 1970."""
    return (moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)).timestamp()
