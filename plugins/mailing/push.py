"""The same figures to StatsD or OpenTelemetry, wherever Airflow sends its own."""

from __future__ import annotations

import math
import time

from airflow.sdk.configuration import conf
from airflow.sdk.observability import stats

from mailing import db, metrics
from mailing.metric_list import BY_NAME, READING, UP
from mailing.metrics import Sample


def push_metrics() -> int:
    """Read all figures and send them as gauges. Returns how many; 0 where Airflow sends none.

    Raises psycopg.Error where the database is away; then there is none but `mailing.up`, which is 0.
    """
    if not any(conf.getboolean("metrics", name) for name in ("statsd_on", "otel_on", "statsd_datadog_enabled")):
        return 0
    began = time.monotonic()
    try:
        with db.transaction() as connection:
            samples = metrics.read(connection)
    except Exception:
        stats.gauge(UP.pushed, 0)
        raise
    samples += [Sample(READING.name, {}, time.monotonic() - began), Sample(UP.name, {}, 1)]
    finite = [sample for sample in samples if math.isfinite(sample.value)]  # StatsD has no word for the rest
    for sample in finite:
        _push(sample)
    return len(finite)


def _push(sample: Sample) -> None:
    name = BY_NAME[sample.name].pushed
    if _knows_tags():
        stats.gauge(name, sample.value, tags=dict(sample.labels))
    else:
        # Without tags all series of a metric would be one: its labels are part of the name, as Airflow's own are.
        values = (stats.normalize_name_for_stats(value, log_warning=False) for value in sample.labels.values())
        stats.gauge(".".join((name, *(value.replace(".", "_") for value in values))), sample.value)


def _knows_tags() -> bool:
    """Whether what Airflow sends to keeps tags: plain StatsD drops them."""
    is_plain = conf.getboolean("metrics", "statsd_on") and not conf.getboolean("metrics", "statsd_datadog_enabled")
    return not is_plain or conf.getboolean("metrics", "statsd_influxdb_enabled", fallback=False)
