"""The measured processes, from the parent's side. They import first, wait for the word, and time themselves.

with started("benchmarks.child_sender", ["7", "1"], log, environment) as child:
    child.go()
    report = child.report(limit_s=60)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child_side import MARK
from benchmarks.processes import end_of, peak_rss_mib, running
from benchmarks.row import BrokenMeasurement

LIMIT_S = 300.0
"""No measured process takes longer, unless its caller says so."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a measured process says when it is done: epoch seconds, seconds of CPU, MiB, and what its work returned."""

    began: float
    ended: float
    cpu_s: float
    ready_mib: float
    peak_mib: float
    loop: str
    said: Any

    @property
    def seconds(self) -> float:
        """How long its work took."""
        return self.ended - self.began


class Child:
    """One measured process whose imports are done."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, name: str) -> None:
        self._process, self._log, self._name = process, log, name
        self.ready_mib: float = self._read_ready()["ready_mib"]

    def _read_ready(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe, see `running`
        while line := self._process.stdout.readline():
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line[len(MARK) :])
                return found
        raise self._broken("ended before it was ready")

    def go(self) -> None:
        """The word. Returns at once."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe, see `running`
        try:
            self._process.stdin.write(b"go\n")
        except BrokenPipeError as error:
            raise self._broken("ended before it was told to go") from error

    def report(self, limit_s: float = LIMIT_S) -> Report | None:
        """Wait for its end; None if it still works after `limit_s` seconds. Raises BrokenMeasurement if it failed."""
        try:
            output, _ = self._process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None
        lines = [line for line in output.splitlines() if line.startswith(MARK)]
        if self._process.returncode or not lines:
            raise self._broken(f"ended with exit code {self._process.returncode}")
        return Report(**json.loads(lines[-1][len(MARK) :]))

    def finished(self, limit_s: float = LIMIT_S) -> Report:
        """As `report`, for a process that is to end in time. Raises BrokenMeasurement if it does not."""
        report = self.report(limit_s)
        if report is None:
            raise self._broken(f"still worked after {limit_s:.0f} s")
        return report

    def peak_mib(self) -> float:
        """Its peak of memory so far."""
        return peak_rss_mib(self._process.pid)

    def _broken(self, what: str) -> BrokenMeasurement:
        return BrokenMeasurement(f"{self._name} {what}\n{end_of(self._log)}".strip())


@contextmanager
def started(module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    """A fresh process of this module, ready to go; ended with the block. Raises BrokenMeasurement."""
    with running([sys.executable, "-m", module, *arguments], log, environment) as process:
        yield Child(process, log, module)
