"""Many at once: who waits for somebody else's rows must not keep the others out."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn

from mailing import db, pool
from mailing.errors import Busy
from tests.builders import an_open_campaign
from tests.waiting import broken_off, wait_until, waiting_for_locks
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
        problem(answer, 503, "is busy", "somebody else writes what this wants")
        assert answer.headers["retry-after"] == "5"
    zones = connection.execute("SELECT DISTINCT timezone FROM clients").fetchall()
    assert zones == [{"timezone": "Asia/Tokyo"}]


def test_a_full_pool_is_busy_and_not_away(operator, database):
    with contextlib.ExitStack() as taken:
        for _ in range(pool.MAX_CONNECTIONS):
            taken.enter_context(pool.transaction())
        answer = operator.get("/api/tags/")
        problem(answer, 503, "is busy", "all connections are in use")
        assert answer.headers["retry-after"] == "5"
    assert operator.get("/api/tags/").status_code == 200


def test_what_takes_too_long_is_told_so_and_not_that_the_database_is_away(operator, connection):
    answer = broken_off(connection, "tags", lambda: operator.get("/api/tags/"))
    assert "away" not in problem(answer, 504, "too long", "narrow the filter")["detail"]


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


@pytest.fixture
def served(airflow_app, server_client, app_database):
    """Where the app is served by uvicorn, as `airflow api-server` does it: the test client reads answers whole."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(airflow_app, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/mailing"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()
    listening.close()


class TestFull:
    """Readers of /campaigns/full who take the beginning and no more, for now."""

    @pytest.fixture
    def reads(self, served, tokens, connection):
        """Opens the answer of one more reader; what it holds does not fit between the server and them."""
        an_open_campaign(connection, clients=60_000)

        @contextlib.contextmanager
        def reads():
            headers = {"Authorization": f"Bearer {tokens['viewer']}", "Accept-Encoding": "identity"}
            path = f"{served}/api/campaigns/full"
            with httpx.Client(timeout=60) as client, client.stream("GET", path, headers=headers) as answer:
                pieces = answer.iter_raw()  # which closes the answer when it is let go
                answer.read() if answer.is_error else next(pieces)
                yield answer

        return reads

    def test_who_goes_away_leaves_no_session_behind_and_others_may_read(self, reads, connection):
        for _ in range(3):
            with reads() as answer:
                assert answer.status_code == 200
                wait_until(lambda: sessions_in_full(connection) == ["idle in transaction"])
            wait_until(lambda: sessions_in_full(connection) == [])

    def test_a_third_at_a_time_is_told_to_come_again(self, reads, connection):
        with reads() as first, reads() as second:
            assert (first.status_code, second.status_code) == (200, 200)
            with reads() as third:
                problem(third, 503, "full: others are at it")
                assert third.headers["retry-after"] == "5"
            assert len(sessions_in_full(connection)) == 2
        wait_until(lambda: sessions_in_full(connection) == [])
        with reads() as again:
            assert again.status_code == 200


def sessions_in_full(connection):
    """The states of the sessions that read everything."""
    return [
        row["state"]
        for row in connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND query LIKE '%messages_of_campaigns%'"
        )
    ]
