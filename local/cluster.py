"""What the containers of docker-compose.yaml run that is not Airflow's: `python -m local.cluster --help`.

Everything it needs to know is in the environment, and that comes from .env.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psycopg

from local.settings import Secrets, Settings, write_private

FRESH_S = 60
"""A heartbeat is believed for so long: Airflow's jobs beat every five seconds."""

PING_S = 5.0


@dataclass(frozen=True, repr=False)
class Cluster(Settings):
    """The services of docker-compose.yaml by their names, as one of its containers sees them."""

    var: Path = Path(tempfile.gettempdir()) / "mailing"
    ui_host: str = "api-server"
    gateway_host: str = "gateway"

    @cached_property
    def secrets(self) -> Secrets:
        """Those of .env that this container was given; the others are random, and open nothing."""
        names = {
            "airflow": "AIRFLOW_DB_PASSWORD", "mailing": "MAILING_DB_PASSWORD", "admin": "ADMIN_PASSWORD",
            "operator": "OPERATOR_PASSWORD", "viewer": "VIEWER_PASSWORD",
        }  # fmt: skip
        return Secrets(**{field: os.environ[name] for field, name in names.items() if name in os.environ})


def main(argv: list[str] | None = None) -> int:
    """Do what the argument says; the exit code is 0 if that worked, or if it is healthy."""
    parser = argparse.ArgumentParser(prog="python -m local.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help="set up or migrate both databases, write down who may log in; safe to run again")
    commands.add_parser("demo", help="import clients, send two campaigns to the simulator, compare the counts")
    beats = commands.add_parser("beats", help="exit code 0 if this host's job has a fresh heartbeat")
    beats.add_argument("job", choices=["DagProcessorJob", "TriggererJob", "SchedulerJob"])
    commands.add_parser("pings", help="exit code 0 if this host's Celery worker answers")
    arguments = parser.parse_args(argv)
    if arguments.command == "init":
        return _init(Cluster())
    if arguments.command == "demo":
        return _demo(Cluster())
    return 0 if (_beats(arguments.job) if arguments.command == "beats" else _pings()) else 1


def _init(cluster: Cluster) -> int:
    """The exit code. The superuser is known by libpq's PGHOST, PGUSER and PGPASSWORD."""
    from local import databases
    from mailing import db, migrate

    with psycopg.connect(dbname="postgres", connect_timeout=10) as connection:
        databases.create(connection, cluster.secrets)
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True)
    migrate.migrate(db.sqlalchemy_url())
    users = {name: getattr(cluster.secrets, name) for name in ("admin", "operator", "viewer")}
    passwords = os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    write_private(Path(passwords), json.dumps(users) + "\n")
    print("both databases are what this version needs")
    return 0


def _demo(cluster: Cluster) -> int:
    """The exit code."""
    from local import demo
    from local.stack_airflow import AirflowError

    console = demo.a_console()
    cluster.var.mkdir(parents=True, exist_ok=True)
    try:
        demo.send(cluster, console)
    except (AirflowError, demo.DemoError) as error:
        console.print(f"[bold red]{error}")
        return 1
    console.print("The web UI's address is in .env, or http://127.0.0.1:8080; user admin, ADMIN_PASSWORD of .env")
    console.print("Before this cluster sends to real people: make compose-down ARGS=--volumes (docs/cluster.md)")
    return 0


def _beats(job: str) -> bool:
    """Whether Airflow's job of this kind on this host lives. `airflow jobs check` says the same after five seconds."""
    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg", "", 1)
    with psycopg.connect(url, connect_timeout=5) as connection:
        found = connection.execute(
            "SELECT 1 FROM job WHERE job_type = %s AND hostname = %s AND state = 'running'"
            " AND latest_heartbeat > now() - make_interval(secs => %s)",
            (job, socket.gethostname(), FRESH_S),
        ).fetchone()
    return found is not None


def _pings() -> bool:
    """Whether the Celery worker of this host answers. Airflow's own app would take seconds to import."""
    from celery import Celery

    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    me = f"celery@{socket.gethostname()}"
    return bool(app.control.inspect(destination=[me], timeout=PING_S).ping())


if __name__ == "__main__":
    sys.exit(main())
