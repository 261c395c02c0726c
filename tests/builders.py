"""Rows for tests: `a_campaign(connection, text="Hi")` is a good campaign but for what the test names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from alembic import command

from mailing import campaigns, db, messages, runs
from mailing.migrate import alembic_config, migrate

HOUR = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


def some_clients(connection: db.Connection, count: int, *, code: str = "103", tags: tuple[str, ...] = ()) -> list[int]:
    """Clients of one operator code with these tags; their ids."""
    known = connection.execute("SELECT count(*) AS count FROM clients").fetchone()
    offset = known["count"] if known else 0
    ids = [
        row["id"]
        for row in connection.execute(
            "INSERT INTO clients (phone_number) SELECT '7' || %s::text || lpad(n::text, 7, '0')"
            " FROM generate_series(%s::int + 1, %s::int + %s::int) n RETURNING id",
            (code, offset, offset, count),
        )
    ]
    for tag in tags:
        connection.execute("INSERT INTO tags (name) VALUES (%s) ON CONFLICT DO NOTHING", (tag,))
        connection.execute(
            "INSERT INTO client_tags SELECT unnest(%s::bigint[]), id FROM tags WHERE name = %s", (ids, tag)
        )
    return ids


def a_campaign(connection: db.Connection, **changes: Any) -> int:
    """A campaign to everybody whose window opened a minute ago and closes in an hour; its id."""
    values: dict[str, Any] = {
        "text": "Hello",
        "sending_start": now() - timedelta(minutes=1),
        "sending_stop": now() + HOUR,
    } | changes
    stop = values["sending_stop"]
    if stop > now():
        return campaigns.create(connection, **values)
    # Nobody can create a campaign whose window is over; time went by.
    campaign_id = campaigns.create(connection, **(values | {"sending_stop": now() + HOUR}))
    connection.execute("UPDATE campaigns SET sending_stop = %s WHERE id = %s", (stop, campaign_id))
    return campaign_id


def an_open_campaign(
    connection: db.Connection, clients: int = 10, batch_size: int = 5_000, **changes: Any
) -> tuple[int, list[int]]:
    """A campaign with its audience in the ledger: its id, and the numbers of its batches."""
    some_clients(connection, clients)
    campaign_id = a_campaign(connection, **changes)
    with connection.transaction():
        opening = runs.select_audience(connection, campaign_id, batch_size=batch_size)
    return campaign_id, opening.batches


def terms_of(connection: db.Connection, campaign_id: int) -> messages.Terms:
    """The terms that a task of the campaign would send on now."""
    token = messages.take_lease(connection, campaign_id, 1, "test")
    terms = messages.renew_lease(connection, token)
    messages.release_lease(connection, token)
    assert terms is not None
    return terms


def claim(
    connection: db.Connection, campaign_id: int, token: int, number: int = 1, limit: int = 100, **more: Any
) -> list[messages.Claim]:
    """What a task that holds the lease would get of a batch now."""
    batch = messages.batch(connection, campaign_id, number)
    more = {"terms": terms_of(connection, campaign_id)} | more
    return messages.claim(
        connection, campaign_id, token, from_id=batch.first_id, last_id=batch.last_id, limit=limit, **more
    )


def states(connection: db.Connection, campaign_id: int) -> dict[str, int]:
    """How many messages of the campaign are in which state."""
    rows = connection.execute(
        "SELECT state, count(*) AS count FROM messages WHERE campaign_id = %s GROUP BY state", (campaign_id,)
    )
    return {row["state"]: row["count"] for row in rows}


def evidence(connection: db.Connection, campaign_id: int) -> list[dict[str, Any]]:
    """Every attempt of the campaign that left evidence, by time."""
    return connection.execute("SELECT * FROM attempts WHERE campaign_id = %s ORDER BY id", (campaign_id,)).fetchall()


def settle(connection: db.Connection, campaign_id: int, at: datetime, *ends: str | None) -> None:
    """Messages of the campaign, by id, end like this at this moment; None: this one stays as it is."""
    connection.execute(
        "UPDATE messages SET state = e.state, token = 1, revision = 1, claimed_at = %(at)s,"
        " sent_at = CASE WHEN e.state = 'sent' THEN %(at)s END, reason = CASE WHEN e.state <> 'sent' THEN 'test' END"
        " FROM (SELECT id, (%(ends)s::text[])[row_number() OVER (ORDER BY id)] AS state FROM messages"
        " WHERE campaign_id = %(id)s) AS e WHERE e.id = messages.id AND e.state IS NOT NULL",
        {"at": at, "ends": list(ends), "id": campaign_id},
    )


def let_probe(connection: db.Connection) -> None:
    """As if the time had come to probe gateways whose breaker is open, and to try again what was put off."""
    connection.execute("UPDATE gateways SET breaker_probe_at = now() WHERE breaker_state <> 'closed'")


def ledger(connection: db.Connection, campaign_id: int) -> list[dict[str, Any]]:
    """Every message of the campaign, by id."""
    return connection.execute("SELECT * FROM messages WHERE campaign_id = %s ORDER BY id", (campaign_id,)).fetchall()


def kept(connection: db.Connection, *tables: str) -> dict[str, list[dict[str, Any]]]:
    """Every row with the transaction that wrote it: equal before and after, nothing was written in between."""
    tables = tables or ("campaigns", "campaign_revisions", "messages", "attempts", "audit_log", "gateways")
    return {
        table: connection.execute(f"SELECT xmin::text, t.* FROM {table} t ORDER BY t.ctid").fetchall()  # type: ignore[arg-type]  # noqa: S608
        for table in tables
    }


def audited(connection: db.Connection) -> list[tuple[Any, ...]]:
    """Who did what to which campaign, message and with what detail, by time."""
    rows = connection.execute("SELECT actor, action, campaign_id, message_id, detail FROM audit_log ORDER BY id")
    return [tuple(row.values()) for row in rows]


def outcome_of(claim: messages.Claim, state: str, reason: str | None = None, **more: Any) -> messages.Outcome:
    """What a task has to say of a claim."""
    more = {"wait_s": 60.0} | more
    return messages.Outcome(claim.id, claim.attempts, state, reason or (None if state == "sent" else "test"), **more)


def let_leases_run_out(connection: db.Connection) -> None:
    """As if every task that holds a lease had died half a minute ago."""
    connection.execute("UPDATE leases SET expires_at = now() - interval '1 second'")


def change(connection, table, assignment):
    """Every row of a table."""
    connection.execute(f"UPDATE {table} SET {assignment}")  # noqa: S608


def put_into(connection, state, reason="test"):
    """Every message into a state, as if it had come there."""
    connection.execute(
        "UPDATE messages SET state = %s, reason = %s, attempts = 1, token = 1, revision = 1,"
        " claimed_at = now() - interval '10 minutes', sent_at = CASE %s WHEN 'sent' THEN now() END, in_doubt = %s",
        (state, reason, state, state == "unknown"),
    )


@contextmanager
def before_revision(database: str, revision: str) -> Iterator[None]:
    """As it was then: what the block writes, an upgrade finds."""
    url = database.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url)
    with engine.begin() as own:
        own.execute(sa.text("DROP VIEW reporting.campaign_finishes"))  # it is made anew
        command.downgrade(alembic_config(own), revision)
    engine.dispose()
    yield
    migrate(url)
