"""Who answers: nginx where it is installed, for nothing answers faster, or the gateway simulator. Both on loopback."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.processes import end_of, running
from benchmarks.row import BrokenMeasurement
from local.settings import HOST, free_port
from local.simulator import make_token

START_S = 10.0
SECRET = "for the benchmarks' own simulator only, on loopback"  # noqa: S105

_NGINX_CONF = """\
daemon off;
pid {folder}/nginx.pid;
worker_processes 1;
error_log stderr error;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    server {{
        listen {host}:{port} backlog=2048;
        location /v1/send/ {{
            default_type application/json;
            return 200 '{{"code": 0, "message": "OK"}}';
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs: its address, and a token it takes."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def airflow_connection(self) -> str:
        """Airflow's connection `mailing_gateway`, as an environment variable holds it."""
        place = {"host": self.host, "port": self.port, "schema": "http"}
        return json.dumps({"conn_type": "http", "password": self.token, **place})


class Simulator(Gateway):
    """The simulator in a process of its own, with its control plane."""

    def reset(self, **settings: object) -> None:
        """These settings of `Behaviour`, the defaults for all others, and nothing remembered."""
        self._call("PUT", "behaviour", settings)
        self._call("DELETE", "requests")

    def arrivals(self) -> list[float]:
        """When each request arrived (epoch seconds), in order."""
        found: list[float] = self._call("GET", "arrivals")
        return found

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, f"/_simulator/{path}", None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise BrokenMeasurement(f"simulator: {method} {path}: {response.status} {content.decode()}")
        return json.loads(content)


def nginx() -> str | None:
    """The path of nginx's program, or None. A user's PATH often lacks /usr/sbin, where it lies."""
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def fastest() -> str:
    """Who `fast_gateway` is here, with its version."""
    program = nginx()
    if not program:
        return "simulator (fixed reply)"
    said = subprocess.run([program, "-v"], capture_output=True, text=True)
    return said.stderr.partition("nginx version: ")[2].strip().replace("/", " ") or "nginx"


@contextmanager
def fast_gateway(folder: Path) -> Iterator[Gateway]:
    """A gateway that answers every request at once with success, and reads as little of it as it can."""
    program = nginx()
    if program:
        with _nginx(program, folder) as gateway:
            yield gateway
        return
    with simulator(folder) as gateway:
        gateway.reset(fixed_reply=True, latency={"kind": "fixed", "seconds": 0})
        yield gateway


@contextmanager
def _nginx(program: str, folder: Path) -> Iterator[Gateway]:
    port = free_port()
    conf, log = folder / "nginx.conf", folder / "nginx.log"
    conf.write_text(_NGINX_CONF.format(folder=folder, host=HOST, port=port), encoding="utf-8")
    with running([program, "-p", str(folder), "-c", str(conf)], log, os.environ) as process:
        until = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise BrokenMeasurement(f"nginx does not listen\n{end_of(log)}")
            time.sleep(0.02)  # a poll's pause
        yield Gateway(HOST, port, make_token(SECRET, timedelta(hours=6)))


@contextmanager
def simulator(folder: Path) -> Iterator[Simulator]:
    """The simulator with its default behaviour; `reset` changes it."""
    log = folder / "simulator.log"
    command = [sys.executable, "-m", "local.simulator", "--port", "0", "--host", HOST]
    with running(command, log, {**os.environ, "GATEWAY_SECRET": SECRET}) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe, see `running`
        line = process.stdout.readline().decode()
        if "listening on" not in line:
            raise BrokenMeasurement(f"simulator does not listen\n{end_of(log)}")
        yield Simulator(HOST, int(line.rpartition(":")[2]), make_token(SECRET, timedelta(hours=6)))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
