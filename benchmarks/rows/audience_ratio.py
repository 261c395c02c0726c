"""What choosing an audience, numbering its batches and keeping the counts cost beyond writing as many rows."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from statistics import median

from benchmarks.bench import Bench
from benchmarks.child_bare import TEXT
from benchmarks.database import Database
from benchmarks.row import BrokenMeasurement, Goal, Row
from mailing import campaigns, runs

REPEATS = 3
CODE = "900"
TAGS = ["first", "second"]
_SLICE = 250_000

# Of every ten: five are the audience, two have its code and one tag, one its code alone, two both tags without it.
_ADD_CLIENTS = """
WITH added AS (
    INSERT INTO clients (phone_number)
    SELECT '7' || CASE WHEN n %% 10 < 8 THEN '900' ELSE '901' END || lpad(n::text, 7, '0')
    FROM generate_series(%(first)s::int, %(last)s::int) AS n
    RETURNING id, substr(phone_number, 5)::int %% 10 AS kind
)
INSERT INTO client_tags (client_id, tag_id)
SELECT added.id, tags.id
FROM added
JOIN tags ON kind < 5 OR kind > 7 OR (kind < 7 AND tags.name = 'first')
"""
_BARE_TABLE = "CREATE TABLE bare (LIKE messages INCLUDING ALL) WITH (fillfactor = 50)"
_BARE_INSERT = """
INSERT INTO bare (campaign_id, client_id, mobile_operator_code)
SELECT 1, client_id, mobile_operator_code FROM chosen
"""


def measure(bench: Bench) -> list[Row]:
    """`select_audience` of half of all clients ÷ a bare INSERT … SELECT of as many rows into the same table shape."""
    size = bench.pick(2_000_000, 200_000)
    bare, selected = [], []
    with bench.database() as database:
        _fill(database, size)
        for repeat in range(1, REPEATS + 1):
            bare.append(_insert_bare(database))
            selected.append(_select(database, size // 2))
            bench.say(f"{repeat}: bare {bare[-1]:.2f} s; select_audience {selected[-1]:.2f} s")
    pairs = [ours / theirs for ours, theirs in zip(selected, bare, strict=True)]
    return [
        Row(
            name="audience_ratio",
            what=(
                f"{size // 2:,} of {size:,} clients by code and two tags, {median(selected):.1f} s"
                f" ÷ bare INSERT, {median(bare):.1f} s"
            ),
            measured=median(selected) / median(bare),
            goal=Goal("≤", 1.5),
            spread=(min(pairs), max(pairs)),
            details={"clients": size, "bare_s": bare, "selected_s": selected},
        )
    ]


def _fill(database: Database, size: int) -> None:
    connection = database.connection
    connection.execute("INSERT INTO tags (name) SELECT unnest(%s::text[])", (TAGS,))
    for first in range(0, size, _SLICE):
        connection.execute(_ADD_CLIENTS, {"first": first, "last": min(size, first + _SLICE) - 1})
    connection.execute("CREATE TABLE chosen (client_id bigint, mobile_operator_code text)")
    connection.execute(
        "INSERT INTO chosen SELECT id, mobile_operator_code FROM clients_matching(%s, %s)", (TAGS, [CODE])
    )
    connection.execute(_BARE_TABLE)
    connection.execute("VACUUM (ANALYZE)")


def _insert_bare(database: Database) -> float:
    database.connection.execute("TRUNCATE bare")
    began = time.perf_counter()
    database.connection.execute(_BARE_INSERT)
    return time.perf_counter() - began


def _select(database: Database, wanted: int) -> float:
    connection, now = database.connection, datetime.now(UTC)
    campaign_id = campaigns.create(
        connection, text=TEXT, filter_tags=TAGS, filter_operator_codes=[CODE],
        sending_start=now - timedelta(minutes=1), sending_stop=now + timedelta(hours=6),
    )  # fmt: skip
    began = time.perf_counter()
    with connection.transaction():
        runs.select_audience(connection, campaign_id)
    took = time.perf_counter() - began
    if (found := database.progress(campaign_id).audience) != wanted:
        raise BrokenMeasurement(f"campaign {campaign_id}: wanted an audience of {wanted}, got {found}")
    return took
