"""/mailing/metrics: who may read it, what it answers, what it never says."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from local.settings import free_port
from mailing import pool, scrape
from mailing.metric_list import METRICS
from tests.builders import a_campaign, now
from tests.metrics import a_busy_service, served
from tests.web import problem

KEY = "a key of the tests, long enough"


@pytest.fixture(autouse=True)
def _nothing_shared():
    """What another test's database said is not answered."""
    scrape.exposition.forget()


@pytest.fixture
def key(monkeypatch):
    """The headers of whoever has the key."""
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_METRICS", json.dumps({"conn_type": "http", "password": KEY}))
    return {"Authorization": f"Bearer {KEY}"}


class TestAccess:
    def test_nobody_reads_it_without_a_login_or_the_key(self, nobody, key):
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}):
            answer = nobody.get("/metrics", headers=headers)
            problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert nobody.get("/metrics", params={"key": KEY}).status_code == 401

    def test_the_key_opens_it_and_nothing_else(self, nobody, key):
        assert nobody.get("/metrics", headers=key).status_code == 200
        for path in ("/api/tags/", "/api/statistics/", "/docs", "/metrics/", "/openapi.json"):
            problem(nobody.get(path, headers=key | {"X-Requested-With": "x"}), 401)
        problem(nobody.post("/metrics", {}, headers=key), 405)

    @pytest.mark.parametrize("password", [None, "", "fifteen letters"])
    def test_without_a_good_key_there_is_none(self, nobody, viewer, monkeypatch, password):
        if password is not None:
            settings = {"conn_type": "http", "password": password}
            monkeypatch.setenv("AIRFLOW_CONN_MAILING_METRICS", json.dumps(settings))
        problem(nobody.get("/metrics", headers={"Authorization": f"Bearer {password or ''}"}), 401)
        assert viewer.get("/metrics").status_code == 200

    def test_a_changed_key_counts_at_once(self, nobody, key, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_MAILING_METRICS", json.dumps({"conn_type": "http", "password": KEY[::-1]}))
        problem(nobody.get("/metrics", headers=key), 401)
        assert nobody.get("/metrics", headers={"Authorization": f"Bearer {KEY[::-1]}"}).status_code == 200

    def test_a_key_beyond_ascii_that_is_wrong_is_401(self, nobody, key):
        problem(nobody.get("/metrics", headers={"Authorization": "Bearer kéy".encode("latin-1")}), 401)


class TestAnswer:
    def test_it_is_prometheus_text_with_every_metric_of_the_list(self, viewer, connection):
        a_busy_service(connection)
        answer = viewer.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        figures = served(answer)
        assert {(name, frozenset(dict(labels))) for name, labels in figures} == {
            (metric.name, frozenset(metric.labels)) for metric in METRICS
        }
        assert figures["mailing_messages", frozenset({("gateway", "default"), ("state", "sent")})] == 3
        assert figures["mailing_messages_sent_total", frozenset()] == 3
        assert figures["mailing_up", frozenset()] == 1
        for metric in METRICS:
            assert f"# TYPE {metric.name} {'counter' if metric.is_total else 'gauge'}\n" in answer.text
            assert f"# HELP {metric.name} {metric.help}\n" in answer.text

    def test_it_holds_no_phone_number_text_name_token_or_key(self, viewer, connection, key):
        campaign = a_busy_service(connection)
        connection.execute("UPDATE campaigns SET name = 'A name', text = 'A text' WHERE id = %s", (campaign,))
        said = viewer.get("/metrics").text
        phones = [row["phone_number"] for row in connection.execute("SELECT phone_number FROM clients")]
        assert len(phones) == 10
        assert not [each for each in (*phones, "A name", "A text", KEY) if each in said]

    def test_who_asks_within_a_second_of_another_gets_the_same_answer(self, viewer, connection):
        first = viewer.get("/metrics")
        a_campaign(connection, sending_start=now())
        assert viewer.get("/metrics").text == first.text
        scrape.exposition.forget()
        assert served(viewer.get("/metrics"))["mailing_campaigns", frozenset({("status", "scheduled")})] == 1

    def test_many_at_once_make_the_database_work_once(self, viewer, connection):
        together = threading.Barrier(8)

        def ask(_):
            together.wait()
            return viewer.get("/metrics").text

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(ask, range(8)))) == 1


class TestTrouble:
    def test_while_the_database_is_away_it_says_so_and_nothing_else(self, nobody, key, connection, monkeypatch):
        a_busy_service(connection)
        pool.close()
        with monkeypatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_MAILING_DB", f"postgres://x:x@127.0.0.1:{free_port()}/x")
            answer = nobody.get("/metrics", headers=key)
            assert (answer.status_code, served(answer)) == (200, {("mailing_up", frozenset()): 0})
        pool.close()
        scrape.exposition.forget()
        assert served(nobody.get("/metrics", headers=key))["mailing_up", frozenset()] == 1

    def test_a_connection_that_is_not_defined_is_the_same(self, viewer, monkeypatch):
        pool.close()
        monkeypatch.delenv("AIRFLOW_CONN_MAILING_DB")
        assert served(viewer.get("/metrics")) == {("mailing_up", frozenset()): 0}

    def test_a_database_that_is_too_slow_is_given_up(self, viewer, database, connection):
        with connection.transaction():
            connection.execute("LOCK TABLE state_counts")
            assert served(viewer.get("/metrics")) == {("mailing_up", frozenset()): 0}
