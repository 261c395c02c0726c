"""A log whose writer never waits for its reader."""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Lock, Thread
from typing import Any

from structlog.typing import FilteringBoundLogger

ROOM = 10_000
"""So many lines (some 5 MB) wait to be written; what comes on top of them is counted instead."""


class BackgroundLog:
    """Writes lines to `log` in a thread of its own, whichever thread they come from.

    What a task logs goes through a pipe to its supervisor, which reads nothing while it repeats its calls to an API
    server that is away. An event loop that waited for it would not hear the replies to its requests.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._lines: Queue[tuple[str, str, dict[str, Any]] | None] = Queue(ROOM)
        self._thread: Thread | None = None
        self._dropped = 0
        self._beginning = Lock()

    def warning(self, event: str, **fields: Any) -> None:
        """As structlog's."""
        self._put("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """As structlog's."""
        self._put("error", event, fields)

    def close(self) -> None:
        """Wait until every line is written."""
        if self._thread is None:
            return
        if self._dropped:
            self._lines.put(("warning", "the log was not read in time: lines are missing", {"missing": self._dropped}))
        self._lines.put(None)
        self._thread.join()
        self._thread, self._dropped = None, 0

    def _put(self, level: str, event: str, fields: dict[str, Any]) -> None:
        with self._beginning:
            if self._thread is None:
                # As a daemon: a log that is never read must not keep a process that has to end.
                self._thread = Thread(target=copy_context().run, args=(self._write,), name="log", daemon=True)
                self._thread.start()
        try:
            self._lines.put_nowait((level, event, {"timestamp": datetime.now(UTC).isoformat(), **fields}))
        except Full:
            self._dropped += 1

    def _write(self) -> None:
        while line := self._lines.get():
            level, event, fields = line
            with suppress(Exception):  # the messages matter more than what is said of them
                getattr(self._log, level)(event, **fields)
