"""Has dags/campaigns.py parsed soon after a campaign was written, whoever wrote it: SQL, a task, another program.

Airflow parses it now and then by itself, which costs 10 ms of a processor per campaign whether or not anything was
written. So it need not do that often; a thread of the API server, which may touch Airflow's database, looks instead
(docs/decisions/0023-parsed-when-written.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import structlog
from sqlalchemy.orm import configure_mappers

from mailing import campaigns, db, poke
from mailing.environment import number

log = structlog.get_logger(__name__)

LOOK_S = 2.0
"""How often to look, unless `MAILING_DAG_WATCH_S` says; 0: not at all."""

AWAY_S = 10.0
"""After an error (a database is away), how long to wait."""

PATIENCE = timedelta(minutes=2)
"""For how long to ask again: Airflow drops a request that comes while the file is being parsed."""


class DagWatch:
    """Knows the campaigns that are DAGs as of its last look, and since when Airflow is to be told of them."""

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] | None = None
        self._written_at: datetime | None = None

    def look(self, connection: db.Connection) -> None:
        """Tell Airflow where they are others than at the last look, until it has parsed the file since then."""
        found = campaigns.relevant(connection)
        if found != self._seen:
            self._seen, self._written_at = found, datetime.now(UTC)
        if self._written_at is None:
            return
        if poke.parsed_since(self._written_at) or datetime.now(UTC) - self._written_at > PATIENCE:
            self._written_at = None
            return
        poke.campaigns()
        if not found:
            self._written_at = None  # no DAG is left that would say when it was parsed


@contextmanager
def running() -> Iterator[None]:
    """While the block lasts, a thread of this process looks."""
    look_s = number("MAILING_DAG_WATCH_S", LOOK_S, "seconds")
    if look_s <= 0:
        yield
        return
    # Not in the thread: SQLAlchemy imports Airflow's models under a lock that whoever imports one meanwhile waits for.
    configure_mappers()
    over = Event()
    Thread(target=_look_until, args=(over, look_s), name="dag-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _look_until(over: Event, look_s: float) -> None:
    while not over.is_set():
        watch = DagWatch()  # anew after an error: who could not read the campaigns meanwhile may have parsed none
        try:
            with closing(db.connect()) as connection:
                connection.autocommit = True
                connection.execute("SET statement_timeout = '30s'")
                watch.look(connection)
                while not over.wait(look_s):
                    watch.look(connection)
        except Exception as error:  # whatever it is: a thread that has ended is missed by nobody
            log.warning("cannot see whether campaigns were written", error=type(error).__name__)
            over.wait(AWAY_S)
