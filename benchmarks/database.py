"""The ledger of a measurement: a database of its own with clients, campaigns and their batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import psutil
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from benchmarks.child_bare import TEXT
from benchmarks.row import BrokenMeasurement
from local.postgres import Server
from local.settings import HOST
from mailing import campaigns, db, runs
from mailing.campaigns import Progress
from mailing.migrate import migrate
from mailing.models import DEFAULT_GATEWAY

TEMPLATE = "bench_template"
_numbers = count(1)
_SLICE = 250_000  # clients written by one statement
_ADD_SLICE = """
WITH added AS (
    INSERT INTO clients (phone_number, timezone)
    -- Another number for each n, and not in n's order: the factor and 10^9 have no divisor in common.
    SELECT '79' || lpad((n::bigint * 618033989 %% 1000000000)::text, 9, '0'),
           (ARRAY['UTC', 'Europe/Moscow', 'Asia/Omsk', 'Asia/Tokyo', 'Europe/Samara'])[n %% 5 + 1]
    FROM generate_series(%(first)s::int, %(last)s::int) AS n
    RETURNING id
)
INSERT INTO client_tags (client_id, tag_id)
SELECT added.id, tags.id
FROM added
JOIN tags ON (tags.name = %(tag)s AND added.id %% 5 = 0) OR (tags.name = 'other' AND added.id %% 2 = 0)
"""
_ADD_PAST = """
WITH added AS (
    INSERT INTO campaigns (text, sending_start, sending_stop, status, opened_at, finished_at)
    SELECT %(text)s, past.stop - interval '8 hours', past.stop, 'finished', past.stop - interval '8 hours', past.stop
    FROM generate_series(1, %(count)s) AS n
    CROSS JOIN LATERAL (SELECT now() - interval '2 days' - n * interval '10 minutes' AS stop) AS past
    RETURNING id
)
SELECT min(id) AS first, max(id) AS last FROM added
"""
_ADD_SENT = """
INSERT INTO messages
    (campaign_id, client_id, mobile_operator_code, state, token, revision, attempts, claimed_at, sent_at)
SELECT c.id, n, '900', 'sent', 1, 1, 1, c.sending_start, c.sending_start + n * interval '20 ms'
FROM campaigns c
CROSS JOIN generate_series(1, %(each)s) AS n
WHERE c.id = %(campaign_id)s
"""

# Of a campaign that sent for an hour: nine of ten were sent, the others failed, are in doubt or expired.
_ADD_MESSAGES = """
INSERT INTO messages
    (campaign_id, client_id, state, reason, token, revision, attempts, claimed_at, sent_at, mobile_operator_code)
SELECT %(campaign_id)s, m.n, m.state, CASE WHEN m.state <> 'sent' THEN 'no_answer' END, 1, 1, 1, m.at,
       CASE WHEN m.state = 'sent' THEN m.at END, (900 + m.n %% 40)::text
FROM (
    SELECT n, CASE n %% 30 WHEN 0 THEN 'failed' WHEN 1 THEN 'unknown' WHEN 2 THEN 'expired' ELSE 'sent' END AS state,
           now() - interval '1 day' + n * interval '1 hour' / %(last)s AS at
    FROM generate_series(%(first)s::int, %(last)s::int) AS n
) AS m
"""


@dataclass(frozen=True, slots=True)
class Campaign:
    """An open campaign whose audience is in the ledger."""

    id: int
    batches: list[int]
    audience: int


class Database:
    """An empty database with our tables, and what measurements put there."""

    def __init__(self, server: Server, name: str, connection: db.Connection) -> None:
        self._server, self._name, self._connection = server, name, connection
        self._codes = count(900)

    @property
    def airflow_connection(self) -> str:
        """Airflow's connection `mailing_db`, as an environment variable holds it."""
        secret = self._server.secrets.mailing
        place = {"host": HOST, "port": self._server.port, "schema": self._name}
        return json.dumps({"conn_type": "postgres", "login": "mailing", "password": secret, **place})

    def add_clients(self, size: int) -> str:
        """So many clients of an operator code that no others have; the code."""
        code = str(next(self._codes))
        self._connection.execute(
            "INSERT INTO clients (phone_number)"
            " SELECT '7' || %s || lpad(n::text, 7, '0') FROM generate_series(1, %s) AS n",
            (code, size),
        )
        self._connection.execute("ANALYZE clients")
        return code

    def add_client_list(self, size: int, tag: str) -> None:
        """So many clients as a list of people holds them: phone numbers in no order, every fifth of them with `tag`.

        In slices: PostgreSQL keeps a statement's foreign-key checks in memory. Vacuumed, as autovacuum leaves it.
        """
        self._connection.execute("INSERT INTO tags (name) VALUES (%s), ('other')", (tag,))
        for first in range(1, size + 1, _SLICE):
            self._connection.execute(_ADD_SLICE, {"first": first, "last": min(size, first + _SLICE - 1), "tag": tag})
        for table in ("clients", "client_tags", "tags"):
            self._connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))

    def add_ledger(self, campaigns_wanted: int, messages: int) -> None:
        """So many campaigns of so many messages each, sent over an hour of yesterday; counts as upkeep leaves them.

        In slices: a trigger of a statement holds all rows that it wrote.
        """
        now = datetime.now(UTC)
        for _ in range(campaigns_wanted):
            campaign_id = campaigns.create(
                self._connection, text=TEXT, sending_start=now - timedelta(days=1), sending_stop=now + timedelta(days=1)
            )
            self._connection.execute("SELECT ledger_part(%s)", (campaign_id,))
            for first in range(1, messages + 1, _SLICE):
                last = min(messages, first + _SLICE - 1)
                span = {"campaign_id": campaign_id, "first": first, "last": last}
                self._connection.execute(_ADD_MESSAGES, span)
            runs.fold_counts(self._connection, campaign_id)
        for table in ("messages", "state_counts", "time_counts", "operator_counts", "campaigns"):
            self._connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))

    @property
    def connection(self) -> db.Connection:
        """A connection to it, in autocommit."""
        return self._connection

    def set_gateway(self, *, requests_in_flight: int, messages_per_second: float | None = None) -> None:
        """What the sender reads of its gateway."""
        self._connection.execute(
            "UPDATE gateways SET requests_in_flight = %s, messages_per_second = %s",
            (requests_in_flight, messages_per_second),
        )

    def add_gateway(self, name: str, *, requests_in_flight: int) -> None:
        """One more gateway, at the same address as all."""
        self._connection.execute(
            "INSERT INTO gateways (name, requests_in_flight) VALUES (%s, %s)", (name, requests_in_flight)
        )

    def add_finished(self, campaigns: int, each: int) -> None:
        """So many campaigns of the past, each with so many messages that were sent. Vacuumed."""
        first, last = self.add_past_campaigns(campaigns)
        for campaign_id in range(first, last + 1):
            self._connection.execute("SELECT ledger_part(%s)", (campaign_id,))
            self._connection.execute(_ADD_SENT, {"campaign_id": campaign_id, "each": each})
        self._connection.execute("VACUUM (ANALYZE) messages")

    def add_past_campaigns(self, count: int) -> tuple[int, int]:
        """So many finished campaigns of the past year, without messages: the first and the last id."""
        row = self._connection.execute(_ADD_PAST, {"text": TEXT, "count": count}).fetchone()
        assert row is not None  # noqa: S101 - an aggregate
        self._connection.execute("VACUUM (ANALYZE) campaigns")
        return row["first"], row["last"]

    def open_campaign(self, code: str, batch_size: int, gateway: str = DEFAULT_GATEWAY) -> Campaign:
        """A campaign to everybody of this operator code, its window open for hours.

        Before it, dead rows of earlier ones are vacuumed away; its own rows are as a task finds them.
        """
        self._connection.execute("VACUUM (ANALYZE) messages")
        now = datetime.now(UTC)
        with self._connection.transaction():
            campaign_id = campaigns.create(
                self._connection, text=TEXT, filter_operator_codes=[code],
                sending_start=now - timedelta(minutes=1), sending_stop=now + timedelta(hours=6), gateway=gateway,
            )  # fmt: skip
            opening = runs.select_audience(self._connection, campaign_id, batch_size=batch_size)
        return Campaign(campaign_id, opening.batches, self.progress(campaign_id).audience)

    def progress(self, campaign_id: int) -> Progress:
        """How a campaign stands, by the counts that are kept with the ledger."""
        return campaigns.progress(self._connection, campaign_id)

    def all_sent(self, campaign: Campaign) -> datetime:
        """When its first message was claimed. Raises BrokenMeasurement where one is not recorded as sent.

        Counted from the ledger itself: its triggers may be off.
        """
        found = self._connection.execute(
            "SELECT state, count(*) AS count, min(claimed_at) AS first FROM messages WHERE campaign_id = %s"
            " GROUP BY state",
            (campaign.id,),
        ).fetchall()
        if [(row["state"], row["count"]) for row in found] != [("sent", campaign.audience)]:
            counts = {row["state"]: row["count"] for row in found}
            raise BrokenMeasurement(f"campaign {campaign.id}: wanted {campaign.audience} sent, got {counts}")
        first: datetime = found[0]["first"]
        return first

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is written to the ledger while the block lasts is not counted by its triggers."""
        self._connection.execute("ALTER TABLE messages DISABLE TRIGGER USER")
        try:
            yield
        finally:
            self._connection.execute("ALTER TABLE messages ENABLE TRIGGER USER")


def make_template(server: Server) -> None:
    """Our tables, once per server, to be cloned."""
    _execute(server, sql.SQL("CREATE DATABASE {} OWNER mailing").format(sql.Identifier(TEMPLATE)))
    migrate(server.url(TEMPLATE, scheme="postgresql+psycopg"))


@contextmanager
def fresh_database(server: Server) -> Iterator[Database]:
    """A database of its own, dropped at the end of the block: no measurement inherits another's rows."""
    name = f"bench_{next(_numbers)}"
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER mailing")
    _execute(server, copy.format(sql.Identifier(name), sql.Identifier(TEMPLATE)))
    try:
        with psycopg.Connection.connect(server.url(name), autocommit=True, row_factory=dict_row) as connection:
            yield Database(server, name, connection)
    finally:
        _execute(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def on_one_processor(*databases: Database) -> Iterator[None]:
    """While the block lasts, this process and its sessions with these databases run on the same processor.

    An answer from another one takes longer to arrive, by more than a small statement takes, and the kernel may leave
    one session here and the other there for as long as they are compared.
    """
    processes = [psutil.Process(), *(psutil.Process(each.connection.info.backend_pid) for each in databases)]
    before = [process.cpu_affinity() for process in processes]
    try:
        for process in processes:
            process.cpu_affinity(before[0][:1])
        yield
    finally:
        for process, processors in zip(processes, before, strict=True):
            process.cpu_affinity(processors)


def _execute(server: Server, statement: sql.Composed) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)
