"""What a measurement is given: the server, a folder, how thorough to be, and measured processes to start."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TypeVar

import psutil

from benchmarks import ROOT, gateways
from benchmarks.airflow import Airflow, whole_stack
from benchmarks.child import Child, started
from benchmarks.database import Campaign, Database, fresh_database, make_template
from benchmarks.gateways import Gateway, Simulator
from local.postgres import Server, throwaway_server

T = TypeVar("T")

_FOLDER = "mailing-bench-"
_logs = count(1)


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks. `say` takes a line that tells how a measurement goes on."""

    server: Server
    folder: Path
    quick: bool
    full: bool
    say: Callable[[str], None]
    airflow: Callable[[], Airflow]
    """The whole stack: started when it is asked for first, the same for all who ask, gone with the bench."""

    def pick(self, normal: T, quick: T) -> T:
        """The first value, or under `--quick` the second."""
        return quick if self.quick else normal

    def database(self) -> AbstractContextManager[Database]:
        """An empty database with our tables while the block lasts."""
        return fresh_database(self.server)

    def fast_gateway(self) -> AbstractContextManager[Gateway]:
        """nginx, or the simulator where there is no nginx; see `gateways.fastest`."""
        return gateways.fast_gateway(self.folder)

    def simulator(self) -> AbstractContextManager[Simulator]:
        """The gateway simulator in a process of its own."""
        return gateways.simulator(self.folder)

    def sender(
        self, database: Database, gateway: Gateway, campaign: Campaign, batch: int
    ) -> AbstractContextManager[Child]:
        """A fresh process that sends one batch when it is told to go."""
        return self.senders(database, gateway, [(campaign, batch)])

    def senders(
        self, database: Database, gateway: Gateway, batches: Sequence[tuple[Campaign, int]]
    ) -> AbstractContextManager[Child]:
        """A fresh process that sends all of these batches at once when it is told to go."""
        named = [f"{campaign.id}:{batch}" for campaign, batch in batches]
        return self.working("child_sender", named, database, AIRFLOW_CONN_MAILING_GATEWAY=gateway.airflow_connection)

    def working(
        self, module: str, arguments: list[str], database: Database, **environment: str
    ) -> AbstractContextManager[Child]:
        """A fresh process of this module of ours, with the ledger's connection."""
        connections = {"AIRFLOW_CONN_MAILING_DB": database.airflow_connection, **environment}
        return started(f"benchmarks.{module}", arguments, self._log(), {**_environment(self.folder), **connections})

    def bare(self, gateway: Gateway, requests: int, in_flight: int) -> AbstractContextManager[Child]:
        """A fresh process that posts as plain aiohttp does, without a ledger."""
        environment = {**_environment(self.folder), "BENCH_TOKEN": gateway.token}
        arguments = [gateway.url, str(requests), str(in_flight)]
        return started("benchmarks.child_bare", arguments, self._log(), environment)

    def _log(self) -> Path:
        return self.folder / f"child-{next(_logs)}.log"


def _environment(folder: Path) -> dict[str, str]:
    """As a stack's, and blind to one that this shell may be set up for."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MAILING_"))}
    home = folder / "airflow"
    return {
        **inherited,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    }


def _remove_abandoned() -> None:
    """The folders of runs that were killed without a chance to clean up: the name holds their pid."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_bench(quick: bool, full: bool, say: Callable[[str], None]) -> Iterator[Bench]:
    """A throw-away server with the stack's own settings (fsync too), and a folder; both gone at the end."""
    with ExitStack() as stack:
        _remove_abandoned()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-")))
        (folder / "airflow").mkdir()
        (folder / "airflow" / "airflow.cfg").touch()  # processes that start together would all write one
        server = stack.enter_context(throwaway_server(durable=True))
        make_template(server)
        airflow = cache(lambda: stack.enter_context(whole_stack(folder)))
        yield Bench(server, folder, quick, full, say, airflow)
