"""The measured processes, from their own side: ready, wait for the word, work, report."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.processes import forget_peak_rss, peak_rss_mib

MARK = b"benchmark: "
"""How our lines begin: the libraries may print while they are imported."""


def _tell(parent: int, message: object) -> None:
    os.write(parent, MARK + json.dumps(message).encode() + b"\n")


def serve(work: Callable[[], Awaitable[Any]]) -> None:
    """Say that the imports are done, wait for a line on stdin, and run `work` on asyncio's default loop.

    What `work` returns goes to the parent (`child.Report.said`); so do its start, its end, and what it cost.
    """
    parent = os.dup(1)
    os.dup2(2, 1)  # what is logged from here on must not fill the pipe: nobody reads it before the end
    forget_peak_rss()
    ready_mib = peak_rss_mib()
    _tell(parent, {"ready_mib": ready_mib})
    if not sys.stdin.readline():
        return  # the parent is gone

    async def run() -> dict[str, Any]:
        cpu, began = time.process_time(), time.time()
        said = await work()
        ended = time.time()
        loop = asyncio.get_running_loop()
        return {
            "began": began,
            "ended": ended,
            "cpu_s": time.process_time() - cpu,
            "loop": f"{type(loop).__module__}.{type(loop).__name__}",
            "said": said,
        }

    report = asyncio.run(run())
    _tell(parent, {**report, "ready_mib": ready_mib, "peak_mib": peak_rss_mib()})
