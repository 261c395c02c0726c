"""The services of docker-compose.yaml as those see them who attack them."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from local import cluster_env
from local.settings import ROOT, Settings, write_private
from tests.chaos.blows import KINDS, Kind, Scene, Struck
from tests.chaos.world import InVain, World

PROJECT = "mailing-compose-test"
WORKERS = 2
SERVICES = ("api-server", "scheduler", "dag-processor", "triggerer", "worker", "gateway")


class NoEngine(RuntimeError):
    """There is no Docker engine, or no Compose; the message has Docker's own words."""


class Compose:
    """`docker compose` on the real file, with secrets and ports of its own; `say` takes a line per step."""

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._env, self._say = folder / "env", say
        self.settings = Settings.anywhere(folder / "var")
        values = cluster_env.values()
        names = {
            "postgres": "POSTGRES_PASSWORD", "airflow": "AIRFLOW_DB_PASSWORD", "mailing": "MAILING_DB_PASSWORD",
            "admin": "ADMIN_PASSWORD", "gateway": "GATEWAY_SECRET",
        }  # fmt: skip
        known = {field: values[name] for field, name in names.items()}
        write_private(self.settings.secrets_file, json.dumps(known))
        ports = {variable: str(port) for variable, port in self.settings.ports().items()}
        lines = [f"{name}={value}\n" for name, value in (values | ports).items()]
        write_private(self._env, "".join(lines))

    def up(self, *arguments: str) -> None:
        """Return when every service is healthy. Raises InVain."""
        self._say(f"docker compose up, {WORKERS} workers")
        scale = ("--scale", f"worker={WORKERS}")
        self.run("up", "--detach", "--wait", "--wait-timeout", "600", *scale, *arguments, *SERVICES)

    def down(self) -> None:
        """Nothing stays, the volumes neither."""
        self.run("down", "--volumes", "--timeout", "10", "--remove-orphans")

    def logs(self) -> str:
        """What every service said."""
        return self.run("logs", "--no-color", "--timestamps")

    def run(self, *arguments: str) -> str:
        """What `docker compose` printed. Raises InVain with its error."""
        files = ("--file", str(ROOT / "docker-compose.yaml"), "--file", str(Path(__file__).with_name("published.yaml")))
        common = ("--project-name", PROJECT, "--env-file", str(self._env), "--profile", "demo", *files)
        return docker("compose", *common, *arguments)

    def containers(self) -> list[dict[str, Any]]:
        """Each container that is there, as `docker compose ps` describes it."""
        return [json.loads(line) for line in self.run("ps", "--all", "--format", "json").splitlines()]


def docker(*arguments: str) -> str:
    """What a command of Docker printed. Raises InVain with its error."""
    ran = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        raise InVain(f"docker {arguments[0]} … {arguments[-1]}: {ran.stderr.strip()}")
    return ran.stdout


def need_an_engine() -> None:
    """Raise NoEngine unless `docker compose` and an engine answer."""
    try:
        docker("compose", "version")
        docker("version", "--format", "{{.Server.Version}}")
    except (InVain, OSError) as error:
        raise NoEngine(f"a Docker engine with Compose v2 is wanted, and there is none: {error}") from error


class ClusterWorld(World):
    """As `World`, of a cluster: its processes are containers."""

    def __init__(self, compose: Compose, seed: int, say: Callable[[str], None]):
        super().__init__(compose.settings, seed, say)
        self.compose = compose

    def established(self, name: str) -> int | None:
        """1 if every container of this service is healthy, and none is missing."""
        found = [each["Health"] for each in self.compose.containers() if each["Service"] == name]
        return int(found == ["healthy"] * (WORKERS if name == "worker" else 1)) or None

    def sending_tasks(self) -> list[tuple[int, str]]:
        """The pid of each task that holds a live lease, in its container, and the container's name for itself."""
        leases = self.rows("SELECT holder FROM leases WHERE expires_at > clock_timestamp() ORDER BY token")
        holders = [lease["holder"].partition(":") for lease in leases]
        return [(int(pid), host) for host, _, pid in holders]

    def note_strays(self) -> None:
        """A container leaves none."""

    def _revive(self) -> None:
        """Docker does that."""


def _kill_worker(scene: Scene, rng: random.Random) -> Struck:
    """Its whole container at once, as a host that loses power; whoever runs the cluster starts another."""
    world = _cluster(scene)
    _, host = world.sending_task(rng)
    sending = sum(each == host for _, each in world.sending_tasks())
    docker("kill", host)  # a container's host name is the beginning of its id
    return Struck(f"container {host}, {sending} tasks of it sending", 30, lambda: _start(host))


def _start(host: str) -> None:
    docker("start", host)


def _restart(service: str) -> Callable[[Scene, random.Random], Struck]:
    def strike(scene: Scene, _: random.Random) -> Struck:
        world = _cluster(scene)
        world.compose.run("restart", service)
        return Struck("restarted")

    return strike


def _cluster(scene: Scene) -> ClusterWorld:
    assert isinstance(scene.world, ClusterWorld)
    return scene.world


CLUSTER_KINDS: Mapping[str, Kind] = {
    "kill a worker": Kind(_kill_worker, in_doubt=True, lasts=True, hits_sending=True, by_lot=False),
    "restart Redis": Kind(_restart("redis"), hits_sending=True, by_lot=False),
    "restart PostgreSQL": Kind(_restart("postgres"), in_doubt=True, hits_sending=True, by_lot=False),
}

KINDS.update(CLUSTER_KINDS)  # where raid and count look for them
