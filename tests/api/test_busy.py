"""Many at once: who waits for somebody else's rows must not keep the others out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailing import db, pool
from mailing.api import campaigns as campaigns_api
from mailing.errors import Busy
from tests.builders import an_open_campaign, some_clients
from tests.waiting import wait_until, waiting_for_locks
from tests.web import problem

PATCHES = pool.MAX_CONNECTIONS


def test_those_who_wait_behind_an_import_do_not_keep_a_campaign_from_being_paused(operator, connection):
    campaign_id, _ = an_open_campaign(connection, clients=PATCHES)
    ids = [row["id"] for row in connection.execute("SELECT id FROM clients ORDER BY id")]
    with db.connect() as importer, ThreadPoolExecutor(PATCHES) as threads:
        importer.execute("UPDATE clients SET timezone = 'Asia/Tokyo'")  # and not committed for a while
        waiting = [threads.submit(operator.patch, f"/api/clients/{id_}/", {"timezone": "Europe/Moscow"}) for id_ in ids]
        wait_until(lambda: waiting_for_locks(connection) == PATCHES)
        wait_until(lambda: operator.post(f"/api/campaigns/{campaign_id}/pause").status_code == 200)
        answers = [each.result() for each in waiting]
        importer.commit()
    for answer in answers:
        problem(answer, 503, "somebody else writes what this wants")
        assert answer.headers["retry-after"] == "5"
    zones = connection.execute("SELECT DISTINCT timezone FROM clients").fetchall()
    assert zones == [{"timezone": "Asia/Tokyo"}]


@pytest.mark.parametrize("what", sorted(pool.AT_LENGTH))
def test_of_what_takes_long_no_more_than_two_are_at_it(database, what):
    with pool.at_length(what), pool.at_length(what), pytest.raises(Busy, match=what), pool.at_length(what):
        pass
    with pool.at_length(what) as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}


def test_a_third_import_at_a_time_is_told_to_come_again(operator):
    with pool.at_length("import"), pool.at_length("import"):
        answer = operator(
            "POST", "/api/clients/import", content=b"phone_number,tags,timezone\n", headers={"Content-Type": "text/csv"}
        )
    problem(answer, 503, "import: others are at it")


def in_full(connection):
    row = connection.execute(
        "SELECT count(*) AS n FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction' AND pid <> pg_backend_pid()"
    ).fetchone()
    return row["n"]


def test_a_reader_of_everything_who_goes_away_leaves_no_transaction_behind(connection, database):
    some_clients(connection, 1)
    an_open_campaign(connection, clients=3_000)

    async def read_a_little():
        written = campaigns_api._written_in_full([])
        stream = campaigns_api._streamed(next(written), written)
        await anext(stream)
        await anext(stream)
        assert in_full(connection) == 1
        await stream.aclose()

    asyncio.run(read_a_little())
    wait_until(lambda: in_full(connection) == 0, 5)
