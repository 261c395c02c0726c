"""The webhook, against a real HTTP server: signed, repeated until it is taken, given up in the end."""

from __future__ import annotations

import json
import re
import time

import pytest
from structlog.testing import capture_logs

from local.settings import free_port
from mailing import campaigns, finishes, runs, webhook
from tests.builders import an_open_campaign
from tests.conftest import ROOT
from tests.receiver import SECRET, point_to
from tests.waiting import in_a_thread, wait_until


def an_end(connection, **changes):
    campaign_id, _ = an_open_campaign(connection, clients=2, **changes)
    campaigns.cancel(connection, campaign_id, actor="anna")
    with connection.transaction():
        runs.close(connection, campaign_id)
    return campaign_id


def standing(connection, *columns):
    wanted = ", ".join(columns or ("webhook_state", "webhook_attempts", "webhook_error"))
    rows = connection.execute(f"SELECT {wanted} FROM reporting.campaign_finishes ORDER BY campaign_id")  # noqa: S608
    return [tuple(row.values()) for row in rows]


def let_it_be_due(connection):
    connection.execute("UPDATE finishes SET webhook_at = now() WHERE webhook_state = 'pending'")


def verifier():
    """The one that docs/pipelines.md shows."""
    text = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(import hashlib.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(code, names)  # noqa: S102
    return names["is_genuine"]


def test_an_end_is_posted_once_signed_and_with_its_figures(connection, receiver):
    campaign_id = an_end(connection, name="Sale", text="Most secret")
    assert webhook.deliver() == 1
    assert webhook.deliver() == 0

    [(path, headers, body)] = receiver.received
    assert path == "/hooks/mailing?key=in-the-url"
    is_genuine = verifier()
    assert is_genuine(SECRET, headers, body)
    assert not is_genuine("another", headers, body)
    assert not is_genuine(SECRET, headers, body + b" ")
    assert not is_genuine(SECRET, headers | {"Mailing-Timestamp": str(int(time.time()) - 3_600)}, body)
    event = json.loads(body)
    assert headers["Mailing-Event-Id"] == event["event_id"] == f"campaign-{campaign_id}-finish-1"
    assert (event["type"], event["status"], event["audience"]) == ("campaign.ended", "cancelled", 2)
    assert b"Most secret" not in body
    assert b"7103" not in body
    assert standing(connection) == [("delivered", 1, None)]


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
def test_what_is_refused_is_tried_again_later_as_the_same_event(connection, receiver, status):
    receiver.answers = [status]
    an_end(connection)
    assert webhook.deliver() == 0
    assert standing(connection) == [("pending", 1, f"it answered {status}")]
    assert webhook.deliver() == 0, "not before its time"
    let_it_be_due(connection)
    assert webhook.deliver() == 1
    assert standing(connection) == [("delivered", 2, None)]
    first, second = receiver.received
    assert (first[1]["Mailing-Event-Id"], first[2]) == (second[1]["Mailing-Event-Id"], second[2])


def test_each_try_waits_twice_as_long_up_to_an_hour(connection, receiver):
    receiver.answers = [500] * 20
    an_end(connection)
    waits = []
    for _ in range(9):
        let_it_be_due(connection)
        webhook.deliver()
        [(wait,)] = standing(connection, "extract(epoch FROM webhook_at - now())::int")
        waits.append(wait)
    assert waits == [pytest.approx(60 * each, abs=5) for each in (1, 2, 4, 8, 16, 32, 60, 60, 60)]


def test_a_refused_event_keeps_none_of_the_others_from_going(connection, receiver):
    receiver.answers = [500, 204, 204]
    for _ in range(3):
        an_end(connection)
    assert webhook.deliver() == 2
    assert sorted(standing(connection, "webhook_state")) == [("delivered",), ("delivered",), ("pending",)]


def test_nobody_there_ends_the_round_and_shows_no_url(connection, monkeypatch):
    point_to(monkeypatch, f"http://127.0.0.1:{free_port()}/key-in-the-url")
    an_end(connection)
    an_end(connection)
    with capture_logs() as logs:
        assert webhook.deliver() == 0
    assert sorted(standing(connection)) == [("pending", 0, None), ("pending", 1, "not reached: ConnectionError")]
    assert "key-in-the-url" not in str(logs)


def test_a_receiver_that_does_not_answer_is_left_alone_after_a_while(connection, receiver, monkeypatch):
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.3)
    receiver.hold.clear()
    an_end(connection)
    assert webhook.deliver() == 0
    assert standing(connection) == [("pending", 1, "not reached: ReadTimeout")]


def test_after_three_days_it_is_given_up_and_said(connection, receiver):
    receiver.answers = [500]
    an_end(connection)
    connection.execute("UPDATE finishes SET created = now() - interval '73 hours'")
    with capture_logs() as logs:
        webhook.deliver()
    assert standing(connection) == [("given_up", 1, "it answered 500")]
    assert [each["event"] for each in logs if each["log_level"] == "error"] == [
        "the webhook did not take it, and it is given up"
    ]
    let_it_be_due(connection)
    assert webhook.deliver() == 0


@pytest.mark.parametrize(
    ("url", "secret", "said"),
    [
        ("hooks.example.org", SECRET, "connection mailing_webhook: host: wanted the whole URL"),
        ("https://hooks.example.org", "", "connection mailing_webhook: password: wanted the secret to sign with"),
    ],
)
def test_a_connection_that_is_no_webhook_says_what_is_wanted(connection, monkeypatch, url, secret, said):
    point_to(monkeypatch, url, secret)
    an_end(connection)
    assert webhook.deliver() == 0
    assert standing(connection) == [("pending", 1, said)]


def test_without_a_connection_an_end_waits_as_long_as_for_a_receiver_and_is_forgone_once(connection):
    campaign_id = an_end(connection)
    connection.execute("UPDATE finishes SET created = now() - interval '71 hours'")
    webhook.deliver()
    assert standing(connection) == [("pending", 0, None)], "its store may be away, or it is about to be defined"

    connection.execute("UPDATE finishes SET created = now() - interval '73 hours'")
    with capture_logs() as logs:
        webhook.deliver()
        webhook.deliver()
    assert standing(connection) == [("off", 0, None)]
    assert [(each["campaign_id"], each["finish"], each["event"]) for each in logs] == [
        (campaign_id, 1, "there is no webhook, and its end is not told")
    ]


def test_a_campaigns_own_round_forgoes_nothing(connection):
    campaign_id = an_end(connection)
    connection.execute("UPDATE finishes SET created = now() - interval '4 days'")
    assert webhook.deliver(campaign_id) == 0
    assert standing(connection, "webhook_state") == [("pending",)]
    assert webhook.deliver() == 0
    assert standing(connection, "webhook_state") == [("off",)]


def test_what_was_tried_is_told_when_its_connection_is_found_again_however_late(connection, receiver, monkeypatch):
    receiver.answers = [500]
    an_end(connection)
    webhook.deliver()
    connection.execute("UPDATE finishes SET created = now() - interval '30 days'")
    with monkeypatch.context() as patch:
        patch.delenv("AIRFLOW_CONN_MAILING_WEBHOOK")  # as one that Airflow cannot find at the moment
        let_it_be_due(connection)
        assert webhook.deliver() == 0
    assert standing(connection) == [("pending", 1, "it answered 500")]
    assert webhook.deliver() == 1
    assert standing(connection) == [("delivered", 2, None)]


def test_two_at_once_post_it_once(connection, receiver):
    an_end(connection)
    receiver.hold.clear()
    with in_a_thread(webhook.deliver):
        wait_until(lambda: receiver.received)
        assert webhook.deliver() == 0
        assert len(receiver.received) == 1
        receiver.hold.set()
    assert standing(connection) == [("delivered", 1, None)]


def test_what_a_task_died_over_is_posted_again(connection, receiver):
    an_end(connection)
    with connection.transaction():
        assert finishes.take_webhook(connection).attempts == 1
    let_it_be_due(connection)
    assert webhook.deliver() == 1
    assert standing(connection) == [("delivered", 2, None)]


def test_a_round_is_of_one_campaign_if_so_asked(connection, receiver):
    an_end(connection)
    second = an_end(connection)
    assert webhook.deliver(second) == 1
    assert standing(connection, "webhook_state") == [("pending",), ("delivered",)]
