"""/mailing/metrics, for Prometheus: read when it asks, for nobody but who is logged in or has the key."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from threading import Lock

import psycopg
import structlog
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import APIRouter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import PlainTextResponse

from mailing import gate, metrics, pool, problems
from mailing.errors import Busy
from mailing.metric_list import METRICS, READING, UP
from mailing.metrics import Sample

log = structlog.get_logger(__name__)

PATH = "/metrics"
CONNECTION_ID = "mailing_metrics"
"""The Airflow connection whose password is the key: a bearer token for whoever scrapes, and for this path only."""

MIN_KEY = 16
"""Characters. What is shorter can be guessed, and is no key."""

SHARED_S = 1.0
"""Whoever asks so soon after another gets the same answer: nobody can make the database work by asking often."""

PATIENCE_S = 5.0
"""How long to wait for another's answer."""

router = APIRouter(tags=["metrics"])


class Exposition:
    """The text of all metrics, made by one at a time and shared."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._text, self._made_at = b"", float("-inf")

    def text(self) -> bytes:
        """As it was at most SHARED_S ago. Raises Busy."""
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise Busy("metrics: somebody else is reading them")
        try:
            if time.monotonic() - self._made_at > SHARED_S:
                registry = CollectorRegistry()
                registry.register(_Figures(_read()))
                self._text, self._made_at = generate_latest(registry), time.monotonic()
            return self._text
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Read anew for whoever is next. For tests, each of which has a database of its own."""
        self._made_at = float("-inf")


exposition = Exposition()


@router.get(PATH, response_class=PlainTextResponse, responses=problems.documented(401, 403, 503))
def read_metrics(_: gate.Reader) -> PlainTextResponse:
    """All figures of docs/metrics.md in Prometheus's text format, as they are now.

    200 also while the mailing database is away: `mailing_up` is 0 then, and there is nothing else. Besides Airflow's
    tokens it takes the password of the connection `mailing_metrics`.
    """
    return PlainTextResponse(exposition.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def is_key(token: str) -> bool:
    """Whether the token is the key of the connection `mailing_metrics`; where there is none, nothing is."""
    try:
        key = BaseHook.get_connection(CONNECTION_ID).password or ""
    except AirflowNotFoundException:
        return False
    if len(key) < MIN_KEY:
        log.warning("its password is too short for a key", connection=CONNECTION_ID, wanted=MIN_KEY)
        return False
    return hmac.compare_digest(token.encode(), key.encode())


def _read() -> list[Sample]:
    began = time.monotonic()
    try:
        with pool.transaction() as connection:
            samples = metrics.read(connection)
    except (psycopg.Error, AirflowNotFoundException) as error:
        log.warning("no metrics: the mailing database is away, busy or too slow", error=type(error).__name__)
        return [Sample(UP.name, {}, 0)]
    return [*samples, Sample(READING.name, {}, time.monotonic() - began), Sample(UP.name, {}, 1)]


class _Figures:
    """Samples as prometheus_client collects them: one family for each metric."""

    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Every metric, those without a sample too: their names and what they mean are there for people."""
        for metric in METRICS:
            made = CounterMetricFamily if metric.is_total else GaugeMetricFamily
            family = made(metric.name, metric.help, labels=metric.labels)
            for sample in self._samples:
                if sample.name == metric.name:
                    family.add_metric([sample.labels[label] for label in metric.labels], sample.value)
            yield family
