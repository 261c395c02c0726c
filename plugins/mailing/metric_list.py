"""Every metric there is: one list, which the collector, the push to StatsD and docs/metrics.md are checked against.

Pure. Labels are bounded: gateways are few and made by admins, states and statuses are ours, of reasons the most
frequent are named, of campaigns the live ones up to MAX_CAMPAIGNS. None holds a phone number, a text or a client.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "mailing_"

MAX_CAMPAIGNS = 50
"""Campaigns with figures of their own: of those that are running or paused, the ones that are to stop first."""

MAX_REASONS = 20
"""Reasons by gateway and state; the rest is `other`: a gateway may answer with any code."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that /mailing/metrics shows and upkeep pushes.

    `is_total`: a counter, which only grows; others go up and down. `pushed`: its name in StatsD and OTel.
    """

    name: str
    labels: tuple[str, ...]
    help: str
    is_total: bool = False
    pushed_as: str = ""

    @property
    def pushed(self) -> str:
        """Its name in StatsD and OTel."""
        return self.pushed_as or self.name.replace(PREFIX, "mailing.", 1)


@dataclass(frozen=True, slots=True)
class Event:
    """A counter that is told to StatsD and OTel where it happens, and not kept: /mailing/metrics does not know it."""

    name: str
    labels: tuple[str, ...]
    help: str


BY_GATEWAY, BY_CAMPAIGN = ("gateway",), ("campaign",)

UP = Metric("mailing_up", (), "1: the figures are as of now. 0: the mailing database is away, busy or too slow.")
READING = Metric("mailing_read_duration_seconds", (), "How long reading all figures took.")

METRICS = (
    UP,
    READING,
    Metric("mailing_messages", ("gateway", "state"), "Messages of the ledger, of all campaigns, by state."),
    Metric("mailing_messages_by_reason", ("gateway", "state", "reason"), "Those of them that have a reason."),
    Metric("mailing_messages_sent_total", (), "Messages that gateways took, or are assumed to have.", is_total=True),
    Metric("mailing_sent_per_second", BY_GATEWAY, "Messages sent a second, over the last 10 to 15 seconds."),
    Metric("mailing_queue_age_seconds", BY_GATEWAY,
           "How long the running campaign that waits longest has had messages due and none that left."),
    Metric("mailing_throttle_limit_messages_per_second", BY_GATEWAY, "The gateway's limit; absent: it has none."),
    Metric("mailing_throttle_hungry_campaigns", BY_GATEWAY,
           "Campaigns that got less of the gateway's limit than they wanted, in the last second."),
    Metric("mailing_gateway_requests_in_flight_limit", BY_GATEWAY,
           "Requests in flight that all tasks together may have."),
    Metric("mailing_breaker_state", ("gateway", "state"), "1 for the state that the breaker is in, 0 for the others."),
    Metric("mailing_token_refused", BY_GATEWAY,
           "1: left alone, for it refuses the token, or its connection is unusable."),
    Metric("mailing_token_expires_in_seconds", BY_GATEWAY,
           "Until the token expires, below 0 after that; absent: it does not say.",
           pushed_as="mailing.gateway.token_expires_in"),
    Metric("mailing_campaigns", ("status",), "Campaigns by status."),
    Metric("mailing_campaigns_overdue", (), "Campaigns that nobody closed, though their window is over."),
    Metric("mailing_campaigns_unlisted", (), "Running or paused campaigns beyond those with figures of their own."),
    Metric("mailing_opening_delay_seconds", (),
           "How long the campaign that waits longest has been due, and its audience not taken; 0: none waits."),
    Metric("mailing_campaign_messages", ("campaign", "state"), "Messages of a running or paused campaign by state."),
    Metric("mailing_campaign_sent_per_second", BY_CAMPAIGN,
           "Messages sent a second, over the last 10 to 15 seconds."),
    Metric("mailing_campaign_idle_seconds", BY_CAMPAIGN, "How long it has had messages due and none that left."),
    Metric("mailing_forecast_lag_seconds", BY_CAMPAIGN,
           "How long after its stop a running campaign would be done, at the last minute's speed; below 0: before it."),
    Metric("mailing_leases", ("state",), "Leases of sending tasks: live, or dead and not recovered."),
    Metric("mailing_leases_taken_total", (), "Leases that tasks ever took, one for each batch and run.",
           is_total=True),
    Metric("mailing_leases_recovered_total", (), "Leases of dead tasks whose claims were recovered.", is_total=True),
    Metric("mailing_webhooks", ("state",), "Ends of campaigns, by what became of telling the webhook."),
    Metric("mailing_webhook_delay_seconds", (),
           "How long the end that waits longest was not taken by the webhook, though it was tried; 0: none waits."),
    Metric("mailing_ledger_parts", (), "Parts of the ledger that were not dropped."),
)  # fmt: skip

BY_NAME = {metric.name: metric for metric in METRICS}

EVENTS = (
    Event("mailing.gateway.token_refused", BY_GATEWAY, "A task met a refused token."),
    Event("mailing.lease.recovered", (), "A task died, and what it had claimed was settled."),
    Event("mailing.webhook.given_up", (), "A webhook did not take an event for three days: it is given up."),
    Event("mailing.webhook.forgone", (), "For three days there was no webhook to tell of an end: it is not told."),
)
