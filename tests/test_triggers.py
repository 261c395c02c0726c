"""What a task waits for without a worker slot, in an event loop as a triggerer has it, beside a real database."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import socket
import threading
import time
from datetime import timedelta

import psycopg
import pytest

from local.settings import free_port
from mailing import campaigns, messages, runs, triggers, verdicts
from mailing.breaker import PROBE_S
from mailing.triggers import POLL_S, CampaignTrigger
from tests.builders import HOUR, a_campaign, an_open_campaign, let_probe, now

SOON_S = 2 * POLL_S + 1
"""Until when a trigger must have noticed: within two looks, on a machine that is busy."""


@pytest.fixture(autouse=True)
def a_triggerer_that_has_just_started(monkeypatch):
    """What it last read stems from another test's database."""
    monkeypatch.setattr(triggers, "_SIGNALS", triggers._Signals())


def waiting(connection, campaign_id, seconds=600.0, **more):
    """The trigger of a task that has just seen the campaign."""
    return CampaignTrigger(campaign_id, seconds, runs.updated(connection, campaign_id), **more)


async def fires(trigger):
    """What the trigger fires with, in the end."""
    async for event in trigger.run():
        return event.payload
    raise AssertionError("it ended without an event")


def events(waiting, fire, then, after_s=0.3):
    """The events of the tasks that are woken once `then` has happened, by name: of so many as `fire` says, and of who
    else fires in the next moment."""

    async def watch():
        tasks = {name: asyncio.create_task(fires(trigger)) for name, trigger in waiting.items()}
        await asyncio.sleep(after_s)
        assert [name for name, task in tasks.items() if task.done()] == [], "fired before anything had happened"
        await asyncio.to_thread(then)
        ends_at = time.monotonic() + SOON_S
        while sum(task.done() for task in tasks.values()) < fire and time.monotonic() < ends_at:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        return {name: task.result() for name, task in tasks.items() if task.done()}

    return asyncio.run(watch())


def at_once(trigger, within_s=0.8):
    """What it fires with at its first look; None if it goes on waiting."""

    async def look():
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(fires(trigger), within_s)

    return asyncio.run(look())


# As Airflow keeps it


def test_a_trigger_comes_back_from_airflows_database_as_it_was():
    before = CampaignTrigger(7, 120.0, 1_777_777_777.123456, for_gateway=True)
    path, kwargs = before.serialize()
    module, _, name = path.rpartition(".")
    after = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(kwargs)))
    assert type(after) is CampaignTrigger
    assert after.serialize() == before.serialize()
    names = ("campaign_id", "updated", "for_gateway", "until")
    assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]
    assert after.until == pytest.approx(time.time() + 120, abs=5)


def test_a_restarted_triggerer_waits_for_the_rest_and_not_anew():
    _, kwargs = CampaignTrigger(7, 0.3, 0.0).serialize()
    time.sleep(0.3)
    began = time.monotonic()
    assert at_once(CampaignTrigger(**kwargs)) == {"is_probe": False}
    assert time.monotonic() - began < 0.3


# What it waits for


def test_it_fires_when_its_time_has_come_and_not_before(connection):
    trigger = waiting(connection, a_campaign(connection), seconds=0.8)
    began = time.monotonic()
    assert asyncio.run(fires(trigger)) == {"is_probe": False}
    assert 0.75 < time.monotonic() - began < 2


def test_each_task_is_woken_by_what_happens_to_its_own_campaign(connection):
    names = ("text", "stop", "limit", "gateway", "pause", "resume", "cancel", "send again", "woken", "nothing")
    ids = {name: an_open_campaign(connection, clients=1)[0] for name in names}
    ids["window over"] = a_campaign(connection, sending_stop=now() + timedelta(seconds=2))
    connection.execute("INSERT INTO gateways (name) VALUES ('other')")
    campaigns.pause(connection, ids["resume"], actor="anna")
    connection.execute(
        "UPDATE messages SET state = 'unknown', reason = 'no_answer' WHERE campaign_id = %s", (ids["send again"],)
    )

    def things_happen():
        campaigns.edit(connection, ids["text"], actor="anna", text="Other")
        campaigns.edit(connection, ids["stop"], actor="anna", sending_stop=now() + 2 * HOUR)
        campaigns.edit(connection, ids["limit"], actor="anna", messages_per_second=5)
        campaigns.edit(connection, ids["gateway"], actor="anna", gateway="other")
        campaigns.pause(connection, ids["pause"], actor="anna")
        campaigns.resume(connection, ids["resume"], actor="anna")
        campaigns.cancel(connection, ids["cancel"], actor="anna")
        verdicts.settle_all(connection, ids["send again"], "send_again", actor="anna")
        runs.wake(connection, ids["woken"])

    tasks = {name: waiting(connection, campaign_id) for name, campaign_id in ids.items()}
    fired = events(tasks, len(ids) - 1, things_happen)

    assert fired == {name: {"is_probe": False} for name in ids if name != "nothing"}


def test_what_was_written_before_the_task_began_to_wait_is_noticed_at_once(connection):
    campaign_id = a_campaign(connection)
    trigger = waiting(connection, campaign_id)
    campaigns.edit(connection, campaign_id, actor="anna", text="Other")
    assert at_once(trigger) == {"is_probe": False}


def test_sending_itself_wakes_nobody(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    trigger = waiting(connection, campaign_id)
    messages.renew_lease(connection, messages.take_lease(connection, campaign_id, 1, "test"))
    connection.execute("UPDATE messages SET state = 'excluded', reason = 'test'")
    connection.execute("UPDATE gateways SET breaker_failures = 3")
    assert at_once(trigger) is None


def test_a_campaign_that_is_gone_is_waited_for_no_longer(connection):
    assert at_once(CampaignTrigger(99, 600.0, 0.0)) == {"is_probe": False}


def test_a_task_that_waits_for_live_claims_to_be_settled_waits(connection):
    """As CloseCampaignOperator does: again in 10 s, whatever was written to the row."""
    campaign_id, _ = an_open_campaign(connection, clients=1)
    assert at_once(CampaignTrigger(campaign_id, runs.CLAIM_PATIENCE_S, None)) is None


# The gateway


def open_breaker(connection, probe_in_s=0.0, state="open"):
    connection.execute(
        "UPDATE gateways SET breaker_state = %s, breaker_reason = 'no_answer', breaker_changed_at = now(),"
        " breaker_probe_at = now() + make_interval(secs => %s) WHERE name = 'default'",
        (state, probe_in_s),
    )


def breaker_row(connection):
    return connection.execute("SELECT * FROM gateways WHERE name = 'default'").fetchone()


def test_who_waits_for_the_gateway_is_woken_when_the_breaker_closes_and_nobody_else(connection):
    open_breaker(connection, probe_in_s=600)
    campaign_id = a_campaign(connection)
    tasks = {
        "for the gateway": waiting(connection, campaign_id, for_gateway=True),
        "for a moment": waiting(connection, campaign_id),
    }
    close = "UPDATE gateways SET breaker_state = 'closed'"
    fired = events(tasks, 1, lambda: connection.execute(close))
    assert fired == {"for the gateway": {"is_probe": False}}


def test_of_many_tasks_one_gets_the_right_to_probe_and_the_others_go_on_waiting(connection):
    open_breaker(connection, probe_in_s=600)
    campaign_ids = [a_campaign(connection) for _ in range(3)]
    tasks = {n: waiting(connection, campaign_ids[n % 3], for_gateway=True) for n in range(20)}

    fired = events(tasks, 1, lambda: let_probe(connection))

    assert list(fired.values()) == [{"is_probe": True}]
    row = breaker_row(connection)
    assert row["breaker_state"] == "half_open"
    assert PROBE_S - 10 < (row["breaker_probe_at"] - now()).total_seconds() <= PROBE_S


def test_a_probe_whose_task_died_is_somebody_elses_after_its_time(connection):
    open_breaker(connection, probe_in_s=-1, state="half_open")
    trigger = waiting(connection, a_campaign(connection), for_gateway=True)
    assert at_once(trigger) == {"is_probe": True}


def test_while_another_probes_nobody_does(connection):
    open_breaker(connection, probe_in_s=20, state="half_open")
    assert at_once(waiting(connection, a_campaign(connection), for_gateway=True)) is None


def test_the_right_to_probe_another_gateway_is_none(connection):
    connection.execute("INSERT INTO gateways (name) VALUES ('other')")
    open_breaker(connection)
    assert at_once(waiting(connection, a_campaign(connection, gateway="other"), for_gateway=True)) == {
        "is_probe": False
    }
    assert breaker_row(connection)["breaker_state"] == "open"


# When the database is away


def to(port):
    return json.dumps({"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "x", "password": "x"})


def test_it_goes_on_waiting_while_the_database_is_away_and_notices_then_what_has_happened(connection, monkeypatch):
    campaign_id = a_campaign(connection)
    good = os.environ["AIRFLOW_CONN_MAILING_DB"]
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", to(free_port()))

    def comes_back():
        campaigns.pause(connection, campaign_id, actor="anna")
        monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", good)

    fired = events({"task": waiting(connection, campaign_id)}, 1, comes_back)

    assert fired == {"task": {"is_probe": False}}


def test_its_time_comes_though_the_database_is_away(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", to(free_port()))
    began = time.monotonic()
    assert asyncio.run(fires(CampaignTrigger(1, 1.0, 0.0))) == {"is_probe": False}
    assert time.monotonic() - began < 3


@contextlib.contextmanager
def a_server_that_hangs_up():
    """A port where every connection ends before anything was said; the list has the moment of each."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        calls = []

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    calls.append(time.monotonic())
                    peer.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()[1], calls
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


# Many of them


@pytest.fixture
def statements(database, server):
    """What the database was asked since: a function."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as superuser:
        superuser.execute(f"ALTER DATABASE {database.rsplit('/', 1)[1]} SET log_statement = 'all'")
    log = server.data / "server.log"
    before = log.stat().st_size
    return lambda: log.read_bytes()[before:].decode()


def stay_waiting(tasks, seconds):
    """Let them all wait for so long; what fired."""

    async def wait():
        all_tasks = [asyncio.create_task(fires(task)) for task in tasks]
        done, still = await asyncio.wait(all_tasks, timeout=seconds)
        for task in still:
            task.cancel()
        return [task.result() for task in done]

    return asyncio.run(wait())


def test_two_hundred_who_wait_ask_with_one_query_each_time(connection, statements):
    open_breaker(connection, probe_in_s=600)
    ids = [a_campaign(connection) for _ in range(10)]
    tasks = [waiting(connection, ids[n % 10], for_gateway=n % 2 == 0) for n in range(200)]

    assert stay_waiting(tasks, POLL_S + 0.6) == []

    assert statements().count("FROM campaigns c") == 2
    assert "UPDATE gateways" not in statements()


def test_two_hundred_who_wait_for_one_gateway_do_not_all_ask_for_the_right_to_probe(connection, statements):
    open_breaker(connection)
    campaign_id = a_campaign(connection)
    tasks = [waiting(connection, campaign_id, for_gateway=True) for _ in range(200)]

    assert stay_waiting(tasks, 0.8) == [{"is_probe": True}]

    assert statements().count("UPDATE gateways") <= 5


def test_two_hundred_who_wait_do_not_each_call_a_database_that_is_away(monkeypatch):
    with a_server_that_hangs_up() as (port, calls):
        monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", to(port))
        assert stay_waiting([CampaignTrigger(n, 600.0, 0.0) for n in range(200)], 0.8) == []
    assert 1 <= len(calls) <= 10
