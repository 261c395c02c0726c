"""Tells a web server how campaigns ended: one signed POST for each end, again and again until it is taken.

Set up by the Airflow connection `mailing_webhook`: its host is the whole URL, its password the secret. How a receiver
checks the signature: docs/pipelines.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

import requests
import structlog
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.observability import stats

from mailing import db, finishes
from mailing.finishes import Due

log = structlog.get_logger(__name__)

CONNECTION_ID = "mailing_webhook"

TIMEOUT_S = 10.0
ROUND_S = 20.0
"""How long one round may take: upkeep has other things to do."""

MAX_ERROR = 500


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to post, and what to sign with."""

    url: str
    secret: str


class NotTaken(Exception):
    """The receiver refused the event, or could not be reached. `is_down`: neither would it take another one."""

    def __init__(self, message: str, *, is_down: bool) -> None:
        super().__init__(message[:MAX_ERROR])
        self.is_down = is_down


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What the header `Mailing-Signature` says: HMAC-SHA256 of timestamp, dot and body, in hex, after `v1=`."""
    return "v1=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def deliver(campaign_id: int | None = None) -> int:
    """Post what is due, of one campaign or of all. Returns how many events were taken.

    Never raises for what a receiver, or the connection's settings, can do: the error stands at the event
    (`reporting.campaign_finishes`), which is tried again, at last for three days.
    """
    until = time.monotonic() + ROUND_S
    taken = 0
    webhook = _settings()
    if webhook is None:
        if campaign_id is None:  # a campaign's task has better things to do
            _forgo()
        return 0
    while time.monotonic() < until:
        with db.transaction() as connection:
            due = finishes.take_webhook(connection, campaign_id)
        if due is None:
            break
        error = _try(webhook, due)
        with db.transaction() as connection:
            finishes.settle_webhook(connection, due, str(error) if error else None)
        taken += error is None
        if error is not None and error.is_down:
            break
    return taken


def _forgo() -> None:
    with db.transaction() as connection:
        forgone = finishes.forgo_webhooks(connection)
    for campaign_id, number in forgone:
        stats.incr("mailing.webhook.forgone", 1)
        log.info("there is no webhook, and its end is not told", campaign_id=campaign_id, finish=number)


def _settings() -> Webhook | None:
    """None: no connection is found; nobody can tell whether there is none, or its store is away (so Airflow 3.3)."""
    try:
        connection = BaseHook.get_connection(CONNECTION_ID)
    except AirflowNotFoundException:
        return None
    return Webhook(connection.host or "", connection.password or "")


def _try(webhook: Webhook, due: Due) -> NotTaken | None:
    """Post one event: None, or why it was not taken."""
    told: dict[str, Any] = {"campaign_id": due.campaign_id, "finish": due.number, "attempt": due.attempts}
    try:
        _post(webhook, due)
    except NotTaken as error:
        if due.is_last:
            stats.incr("mailing.webhook.given_up", 1)
            log.error("the webhook did not take it, and it is given up", error=str(error), **told)
        else:
            log.warning("the webhook did not take it", error=str(error), **told)
        return error
    log.info("the webhook took it", **told)
    return None


def _post(webhook: Webhook, due: Due) -> None:
    if not webhook.url.startswith(("http://", "https://")):
        raise NotTaken(f"connection {CONNECTION_ID}: host: wanted the whole URL", is_down=True)
    if not webhook.secret:
        raise NotTaken(f"connection {CONNECTION_ID}: password: wanted the secret to sign with", is_down=True)
    body = json.dumps({"type": "campaign.ended"} | due.figures, sort_keys=True).encode()
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "Mailing-Event-Id": due.figures["event_id"],
        "Mailing-Timestamp": timestamp,
        "Mailing-Signature": signature(webhook.secret, timestamp, body),
    }
    try:
        # Only the status counts: whatever it says is not read, however long it is.
        with requests.post(
            webhook.url, body, headers=headers, timeout=TIMEOUT_S, allow_redirects=False, stream=True
        ) as response:
            status = response.status_code
    except (requests.RequestException, ValueError) as error:
        # Not its words: they may show the URL, which may hold a key.
        raise NotTaken(f"not reached: {type(error).__name__}", is_down=True) from None
    if not 200 <= status < 300:
        raise NotTaken(f"it answered {status}", is_down=False)
