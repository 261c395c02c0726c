"""Programs that run beside a measurement and end with it, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import ROOT

STOP_S = 5.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """In the new process: have the kernel end it when the benchmark is killed without a chance to clean up."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def running(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program while the block lasts, in a session of its own (a Ctrl-C is for us), its stderr in `log`.

    stdin and stdout are unbuffered pipes. Whatever it started goes with it.
    """
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0,
            cwd=ROOT, env=dict(environment), start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            break
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()


def end_of(log: Path) -> str:
    """The last lines a program wrote to stderr, to explain a failure."""
    return log.read_text(encoding="utf-8", errors="replace")[-3000:].strip()


def peak_rss_mib(pid: int | str = "self") -> float:
    """The most memory this process ever held (VmHWM), in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"process {pid}: /proc has no VmHWM of it")


def forget_peak_rss() -> None:
    """Let this process's VmHWM begin at what it holds now: importing took more for a moment."""
    with suppress(OSError):  # a kernel built without it: then the peak includes the imports
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
