"""The figures for monitoring: against a hand count, at what cost, and as StatsD gets them."""

from __future__ import annotations

import ast
import asyncio
import re
import socket
from datetime import timedelta

import psycopg
import pytest
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

from mailing import campaigns, finishes, messages, metrics, push, runs, upkeep, webhook
from mailing.metric_list import BY_NAME, EVENTS, MAX_CAMPAIGNS, MAX_REASONS, METRICS
from mailing.models import MESSAGE_STATES, WEBHOOK_STATES
from mailing.sender import BatchSender
from tests.builders import a_campaign, an_open_campaign, claim, let_leases_run_out, now, outcome_of, some_clients
from tests.conftest import ROOT
from tests.metrics import a_busy_service


def read(connection):
    """Value by name and label values, in the order of the list."""
    with connection.transaction():
        samples = metrics.read(connection)
    found = {(each.name, *(each.labels[label] for label in BY_NAME[each.name].labels)): each.value for each in samples}
    assert len(found) == len(samples)
    return found


def of(found, name):
    return {key[1:]: value for key, value in found.items() if key[0] == name}


# Values


def test_every_figure_is_as_counted_by_hand(connection):
    campaign = str(a_busy_service(connection))
    found = read(connection)

    counts = {"pending": 3, "sending": 1, "sent": 3, "failed": 2, "unknown": 1}
    counts = dict.fromkeys(MESSAGE_STATES, 0) | counts
    assert of(found, "mailing_messages") == {("default", state): count for state, count in counts.items()}
    assert of(found, "mailing_campaign_messages") == {(campaign, state): count for state, count in counts.items()}
    assert of(found, "mailing_messages_by_reason") == {
        ("default", "failed", "code_7"): 2, ("default", "unknown", "no_answer"): 1
    }  # fmt: skip
    assert found["mailing_messages_sent_total",] == 3
    assert 3 / 15.5 <= found["mailing_sent_per_second", "default"] <= 3 / 10
    assert found["mailing_campaign_sent_per_second", campaign] == found["mailing_sent_per_second", "default"]
    assert 0 <= found["mailing_queue_age_seconds", "default"] < 5
    assert found["mailing_throttle_limit_messages_per_second", "default"] == 50
    assert found["mailing_throttle_hungry_campaigns", "default"] == 1
    assert found["mailing_gateway_requests_in_flight_limit", "default"] == 100
    assert of(found, "mailing_breaker_state") == {
        ("default", "closed"): 1, ("default", "open"): 0, ("default", "half_open"): 0
    }  # fmt: skip
    assert found["mailing_token_refused", "default"] == 0
    assert 3_590 < found["mailing_token_expires_in_seconds", "default"] <= 3_600
    assert of(found, "mailing_campaigns")["running",] == 1
    assert sum(of(found, "mailing_campaigns").values()) == 1
    assert found["mailing_campaigns_overdue",] == found["mailing_campaigns_unlisted",] == 0
    assert found["mailing_opening_delay_seconds",] == 0
    assert of(found, "mailing_leases") == {("live",): 1, ("dead",): 1}
    assert found["mailing_leases_taken_total",] == 3  # `claim` of the builders takes one to learn the terms
    assert found["mailing_leases_recovered_total",] == 0
    assert of(found, "mailing_webhooks") == dict.fromkeys([(state,) for state in WEBHOOK_STATES], 0)
    assert found["mailing_webhook_delay_seconds",] == 0
    assert found["mailing_ledger_parts",] == 1
    # 4 are left, at 3 in the first second: done long before the stop, in an hour.
    assert -3_600 <= found["mailing_forecast_lag_seconds", campaign] < -3_500


def test_every_metric_of_the_list_has_a_sample_and_no_other_has(connection):
    a_busy_service(connection)
    of_the_reading = {"mailing_up", "mailing_read_duration_seconds"}
    assert {key[0] for key in read(connection)} | of_the_reading == {metric.name for metric in METRICS}


def test_without_a_campaign_there_are_zeros_and_without_a_gateway_there_is_nothing_to_say_of_it(connection):
    found = read(connection)
    assert set(of(found, "mailing_messages").values()) == set(of(found, "mailing_campaigns").values()) == {0}
    assert found["mailing_messages_sent_total",] == found["mailing_queue_age_seconds", "default"] == 0
    assert not of(found, "mailing_campaign_messages")
    assert not of(found, "mailing_token_expires_in_seconds")
    connection.execute("DELETE FROM gateways")
    assert not of(read(connection), "mailing_messages")


def test_two_gateways_are_told_apart(connection):
    connection.execute("INSERT INTO gateways (name) VALUES ('second')")
    an_open_campaign(connection, clients=2)
    an_open_campaign(connection, clients=3, gateway="second")
    pending = {key: value for key, value in of(read(connection), "mailing_messages").items() if value}
    assert pending == {("default", "pending"): 2, ("second", "pending"): 5}


@pytest.mark.parametrize(
    ("state", "reason", "refused"),
    [("open", "http_401", 1), ("half_open", "http_403", 1), ("open", "connection_unusable", 1), ("open", "x", 0)],
)  # fmt: skip
def test_a_breaker_shows_its_state_and_whether_the_token_is_the_reason(connection, state, reason, refused):
    connection.execute(
        "UPDATE gateways SET breaker_state = %s, breaker_reason = %s, breaker_probe_at = now()", (state, reason)
    )
    found = read(connection)
    assert [key[1] for key, value in of(found, "mailing_breaker_state").items() if value] == [state]
    assert found["mailing_token_refused", "default"] == refused


# Progress


def let_time_pass(connection, campaign_id, **span):
    """As if everything that the campaign's progress is told by had happened so long before."""
    span = timedelta(**span)
    connection.execute("UPDATE campaigns SET opened_at = opened_at - %s WHERE id = %s", (span, campaign_id))
    connection.execute(
        "UPDATE state_counts"
        " SET first_claimed_at = first_claimed_at - %(span)s, last_sent_at = last_sent_at - %(span)s",
        {"span": span},
    )
    connection.execute("UPDATE time_counts SET since = since - %s WHERE since > '-infinity'", (span,))
    connection.execute("UPDATE audit_log SET at = at - %s", (span,))


def test_a_campaign_that_stands_still_is_idle_since_its_last_message_and_late_without_end(connection):
    campaign = a_busy_service(connection)
    let_time_pass(connection, campaign, minutes=7)
    found = read(connection)
    assert 415 <= found["mailing_campaign_idle_seconds", str(campaign)] <= 425
    assert found["mailing_queue_age_seconds", "default"] == found["mailing_campaign_idle_seconds", str(campaign)]
    assert found["mailing_forecast_lag_seconds", str(campaign)] == float("inf")
    assert found["mailing_sent_per_second", "default"] == 0


def test_who_has_resumed_a_campaign_is_given_time(connection):
    campaign = a_busy_service(connection)
    campaigns.pause(connection, campaign, actor="anna")
    let_time_pass(connection, campaign, minutes=7)
    paused = read(connection)
    assert paused["mailing_campaign_idle_seconds", str(campaign)] == 0
    assert not of(paused, "mailing_forecast_lag_seconds")
    campaigns.resume(connection, campaign, actor="anna")
    assert read(connection)["mailing_campaign_idle_seconds", str(campaign)] < 5


def test_what_waits_for_local_hours_is_neither_idle_nor_late(connection):
    campaign, _ = an_open_campaign(connection, clients=3)
    connection.execute("UPDATE messages SET reason = 'local_hours', not_before = now() + interval '30 min'")
    let_time_pass(connection, campaign, minutes=7)
    found = read(connection)
    assert found["mailing_queue_age_seconds", "default"] == found["mailing_campaign_idle_seconds", str(campaign)] == 0
    assert -3_600 <= found["mailing_forecast_lag_seconds", str(campaign)] < -3_500


def test_the_lag_is_what_the_last_minutes_speed_makes_of_what_is_left(connection):
    """60 sent in the last minute, 240 left: four minutes more, and the stop is in one."""
    campaign, _ = an_open_campaign(connection, clients=300, sending_stop=now() + timedelta(seconds=60))
    token = messages.take_lease(connection, campaign, 1, "test")
    claimed = claim(connection, campaign, token, limit=60)
    messages.record(connection, campaign, token, [outcome_of(each, "sent") for each in claimed])
    connection.execute("UPDATE state_counts SET first_claimed_at = first_claimed_at - interval '2 min'")
    lag = read(connection)["mailing_forecast_lag_seconds", str(campaign)]
    assert 170 <= lag <= 210  # the minute is 60 to 65 s long


def test_a_campaign_that_is_due_and_not_opened_and_one_that_is_over_and_not_closed_show(connection):
    waiting = a_campaign(connection)
    connection.execute(
        "UPDATE campaigns SET created = now() - interval '5 min', sending_start = now() - interval '90 s'"
    )
    some_clients(connection, 1)
    assert 89 <= read(connection)["mailing_opening_delay_seconds",] <= 95
    runs.wake(connection, waiting)  # upkeep asks for a run again and again: that does not make it younger
    assert read(connection)["mailing_opening_delay_seconds",] >= 89
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    found = read(connection)
    assert (found["mailing_opening_delay_seconds",], found["mailing_campaigns_overdue",]) == (0, 1)
    upkeep.close_overdue()
    assert read(connection)["mailing_campaigns_overdue",] == 0


# What is still to be told, and what came back


def test_webhooks_are_told_apart_by_what_became_of_them_and_only_one_that_was_tried_is_late(connection):
    for _ in range(4):
        campaigns.cancel(connection, a_campaign(connection), actor="anna")
    for campaign_id in range(1, 5):
        runs.close(connection, campaign_id)
    connection.execute("UPDATE finishes SET created = now() - interval '3 h'")  # nobody has tried
    found = read(connection)
    assert (found["mailing_webhooks", "pending"], found["mailing_webhook_delay_seconds",]) == (4, 0)

    for error in ("it answered 500", None):
        finishes.settle_webhook(connection, finishes.take_webhook(connection), error)
    connection.execute("UPDATE finishes SET created = now() - interval '4 days' WHERE webhook_attempts = 0")
    finishes.settle_webhook(connection, finishes.take_webhook(connection), "it answered 500")
    found = read(connection)
    assert of(found, "mailing_webhooks") == {("pending",): 2, ("delivered",): 1, ("given_up",): 1, ("off",): 0}
    assert 3 * 3_600 <= found["mailing_webhook_delay_seconds",] < 3 * 3_600 + 60


def test_every_lease_of_a_dead_task_that_was_recovered_is_counted_once(connection):
    first, _ = an_open_campaign(connection, clients=2)
    second, _ = an_open_campaign(connection, clients=1)
    for campaign_id in (first, first, second):
        messages.take_lease(connection, campaign_id, 1, "dead")
    let_leases_run_out(connection)
    messages.take_lease(connection, first, 1, "live")
    messages.release_lease(connection, messages.take_lease(connection, first, 1, "done"))
    with connection.transaction(force_rollback=True):
        runs.recover(connection, first, 1)
    assert read(connection)["mailing_leases_recovered_total",] == 0

    campaigns.cancel(connection, second, actor="anna")
    runs.close(connection, second)
    assert read(connection)["mailing_leases_recovered_total",] == 1
    for _ in range(2):
        upkeep.recover_claims()
    found = read(connection)
    assert (found["mailing_leases_recovered_total",], of(found, "mailing_leases")) == (3, {("live",): 1, ("dead",): 0})


# Bounds


def test_labels_are_bounded_whatever_the_gateway_answers_and_however_many_campaigns_run(connection):
    an_open_campaign(connection, clients=MAX_REASONS + 7)
    connection.execute("UPDATE messages SET state = 'failed', reason = 'code_' || id")
    connection.execute(
        "INSERT INTO campaigns (text, sending_start, sending_stop, status)"
        " SELECT 'x', now(), now() + n * interval '1 min', 'running' FROM generate_series(1, %s) n",
        (MAX_CAMPAIGNS + 2,),
    )
    found = read(connection)
    reasons = of(found, "mailing_messages_by_reason")
    assert len(reasons) == MAX_REASONS + 1
    assert reasons["default", "failed", "other"] == 7
    assert len(of(found, "mailing_forecast_lag_seconds")) == MAX_CAMPAIGNS
    assert len(of(found, "mailing_campaign_messages")) == MAX_CAMPAIGNS * len(MESSAGE_STATES)
    assert found["mailing_campaigns_unlisted",] == 3


def relations(plan):
    yield plan.get("Relation Name")
    for each in plan.get("Plans", ()):
        yield from relations(each)


@pytest.mark.parametrize("name", sorted(metrics.SQL))
def test_no_statement_reads_the_ledger_or_the_clients(connection, name):
    row = connection.execute(f"EXPLAIN (FORMAT JSON) {metrics.SQL[name]}", metrics.PARAMETERS).fetchone()
    read = {relation for plan in row["QUERY PLAN"] for relation in relations(plan["Plan"])} - {None}
    assert read
    assert not [relation for relation in read if re.match(r"messages|attempts|clients|client_tags|batches", relation)]


def test_a_reading_that_takes_too_long_is_given_up(connection, server):
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as other:
        other.execute("LOCK TABLE state_counts")
        with connection.transaction(), pytest.raises(psycopg.errors.QueryCanceled):
            metrics.read(connection)


# StatsD


class Receiver:
    """A StatsD server: what came in, by name."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5)

    def take(self, until):
        """What comes in up to the one of this name: value and kind by name."""
        received = {}
        while until not in received:
            name, _, value = self.socket.recv(65_536).decode().rpartition(":")
            received[name] = value
        return received


@pytest.fixture
def statsd(monkeypatch):
    """A receiver that Airflow's metrics go to, as in a task: `statsd(influxdb=True)` for one that knows tags."""
    receiver = Receiver()

    def on(influxdb=False):
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(receiver.socket.getsockname()[1]))
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", str(influxdb))
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
        return receiver

    yield on
    monkeypatch.undo()
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
    receiver.socket.close()


def test_all_figures_reach_a_plain_statsd_with_their_labels_in_the_name(connection, statsd):
    campaign = a_busy_service(connection)
    receiver = statsd()
    assert push.push_metrics() > len(METRICS)
    received = receiver.take(until="airflow.mailing.up")  # the last one
    assert received["airflow.mailing.messages.default.sent"] == "3.0|g"
    assert received["airflow.mailing.messages_by_reason.default.failed.code_7"] == "2.0|g"
    assert received[f"airflow.mailing.campaign_messages.{campaign}.pending"] == "3.0|g"
    assert 3_500 < float(received["airflow.mailing.gateway.token_expires_in.default"].removesuffix("|g")) <= 3_600
    assert received["airflow.mailing.up"] == "1|g"
    names = {name.removeprefix("airflow.") for name in received}
    assert not [metric for metric in METRICS if not any(each.startswith(metric.pushed) for each in names)]


def test_where_tags_are_known_the_labels_are_tags(connection, statsd):
    a_busy_service(connection)
    receiver = statsd(influxdb=True)
    assert push.push_metrics() > len(METRICS)
    received = receiver.take(until="airflow.mailing.up")  # the last one
    assert received["airflow.mailing.messages,gateway=default,state=sent"] == "3.0|g"


def test_what_is_infinite_is_not_pushed(connection, statsd):
    an_open_campaign(connection)
    receiver = statsd()
    push.push_metrics()
    assert not [name for name in receiver.take(until="airflow.mailing.up") if "forecast" in name]


def test_where_airflow_sends_no_metrics_nothing_is_read(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_MAILING_DB", raising=False)
    assert push.push_metrics() == 0


def test_statsd_learns_that_the_database_is_away_and_the_task_fails(database, statsd, server, monkeypatch):
    receiver = statsd()
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", '{"conn_type": "postgres", "host": "127.0.0.1", "port": 1}')
    with pytest.raises(psycopg.OperationalError):
        push.push_metrics()
    assert receiver.take(until="airflow.mailing.up") == {"airflow.mailing.up": "0|g"}


def test_a_recovered_lease_is_counted(connection, statsd):
    campaign, _ = an_open_campaign(connection)
    messages.take_lease(connection, campaign, 1, "test")
    let_leases_run_out(connection)
    receiver = statsd()
    upkeep.recover_claims()
    name = "airflow.mailing.lease.recovered"
    assert receiver.take(until=name) == {name: "1|c"}


def test_a_refused_token_is_counted_with_its_gateway(connection, gateway, statsd):
    gateway.set(token_expired=True)
    campaign_id, [batch] = an_open_campaign(connection, clients=5)
    receiver = statsd(influxdb=True)
    asyncio.run(BatchSender(campaign_id, batch).run())
    name = "airflow.mailing.gateway.token_refused,gateway=default"
    assert receiver.take(until=name)[name] == "1|c"


def test_an_end_that_no_webhook_was_told_of_is_counted(connection, statsd):
    campaign = a_campaign(connection)
    campaigns.cancel(connection, campaign, actor="anna")
    runs.sweep_cancelled(connection, campaign)
    connection.execute("UPDATE finishes SET created = now() - interval '73 hours'")
    receiver = statsd()
    webhook.deliver()
    name = "airflow.mailing.webhook.forgone"
    assert receiver.take(until=name) == {name: "1|c"}


# One list


def test_every_counter_that_is_told_is_on_the_list_with_its_labels():
    told = {}
    for file in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("stats.incr", "stats.timing"):
                tags = [each.value for each in node.keywords if each.arg == "tags"]
                told[ast.literal_eval(node.args[0])] = tuple(key.value for dict_ in tags for key in dict_.keys)
    assert told == {event.name: event.labels for event in EVENTS}


def test_the_documents_name_every_metric_with_its_labels_and_no_other():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(mailing[_.][\w.]+)` \| ([^|]*)\|", text, flags=re.MULTILINE)
    said = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert said == {each.name: each.labels for each in (*METRICS, *EVENTS)}
    assert all(each.pushed in text for each in METRICS if each.pushed_as)
