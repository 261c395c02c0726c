"""The facts about this machine and this run that a figure means little without."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks import ROOT, gateways
from local.postgres import Server


def facts(server: Server) -> dict[str, Any]:
    """All of them, for people and for latest.json."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cores": len(os.sched_getaffinity(0)),
        "model": _model(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("aiohttp", "psycopg", "apache-airflow")},
        "postgresql": _postgresql(server),
        "database_on": _filesystem(server.data),
        "answered_by": gateways.fastest(),
    }


def _commit() -> str | None:
    """The commit, with "+changes" where the checkout differs from it; None outside a clone."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
        changes = subprocess.run(
            ["git", "status", "--porcelain"],  # noqa: S607
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip()[:12] + ("+changes" if changes.stdout.strip() else "")


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _postgresql(server: Server) -> str:
    with psycopg.connect(server.url()) as connection:
        major, minor = divmod(connection.info.server_version, 10_000)
    return f"{major}.{minor}"


def _filesystem(folder: Path) -> str:
    """What the database's files lie on: a commit to tmpfs costs nothing."""
    mounts = [mount for mount in psutil.disk_partitions(all=True) if folder.is_relative_to(mount.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "unknown"
