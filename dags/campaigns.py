"""Sends one campaign: a text for the clients that match a filter, inside a window of time.

| task | what it does |
|---|---|
| `select_audience` | the clients that match the filter enter the ledger, once each, in batches |
| `send_batch` | one per batch: claims messages, posts them to the gateway, writes down what became of each |
| `follow_audience` | only for live audiences: sends to those who come to match while the window is open |
| `close_campaign` | what the window closed on `expired`; the campaign is `finished`. Skipped if `send_batch` did it |

The run starts by itself at `sending_start`, or at once when the window is open already. Clearing a task, retrying it or
triggering the DAG again sends nothing twice: the ledger (table `messages`) has one row per client. A run that you
trigger by hand adds the clients that match by now and have no message yet. Outside the window nothing is sent.

A task that is *deferred* waits without a worker: for a retry that is due later, for local hours to open, for the
gateway to come back, or, while the campaign is paused, for somebody to resume it. One that sends for long gives its
worker back every two minutes, so that others get theirs, and goes on. Pausing this DAG stops the sending,
too, within seconds; its tasks go on when it is unpaused.

The figures: `SELECT * FROM reporting.campaign_statistics`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, TriggerRule
from airflow.sdk.definitions.context import get_parsing_context

from mailing import roster
from mailing.campaigns import CampaignRow
from mailing.operators import (
    CloseCampaignOperator,
    FollowAudienceOperator,
    SelectAudienceOperator,
    SendBatchOperator,
)
from mailing.timetable import CampaignTimetable

# What fails here is a process or the database, not a message: those have retries of their own, in the ledger.
PATIENCE = {
    "retries": 50,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=5),
    "weight_rule": "absolute",  # by default the last task of a DAG is the last of all
}


def campaign_dag(campaign: CampaignRow) -> DAG:
    """The DAG of one campaign."""
    with DAG(
        dag_id=roster.dag_id(campaign.id),
        dag_display_name=f"Campaign {campaign.id}" + (f": {campaign.name}" if campaign.name else ""),
        schedule=CampaignTimetable.of(campaign.window, campaign.wake_at),
        # What an edit or a verdict adds is not to wait behind a run that sends for hours. Runs that only wait end when
        # a further one has mapped the rest (operators.py: is_superseded), so there are hardly ever more than two.
        max_active_runs=16,
        catchup=False,
        is_paused_upon_creation=False,  # whatever this Airflow's default: a campaign that is due must go
        tags=["mailing", "campaign"],
        doc_md=__doc__,
        default_args=PATIENCE,
        params={
            "batch_size": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                maximum=500_000,
                title="Batch size",
                description="Messages per mapped task, for whom this run adds. Empty: by their number and gateway.",
            )
        },
    ) as dag:
        select_audience = SelectAudienceOperator(
            task_id="select_audience", campaign_id=campaign.id, priority_weight=roster.SHORT_FIRST
        )
        send_batch = SendBatchOperator.partial(
            task_id="send_batch",
            campaign_id=campaign.id,
            map_index_template="{{ label }}",
        ).expand(batch=select_audience.output)
        close_campaign = CloseCampaignOperator(
            task_id="close_campaign",
            campaign_id=campaign.id,
            trigger_rule=TriggerRule.ALL_DONE,
            retries=10,
            priority_weight=roster.SHORT_FIRST,
        )
        send_batch >> close_campaign
        if campaign.is_live:
            follow = FollowAudienceOperator(task_id="follow_audience", campaign_id=campaign.id)
            select_audience >> follow >> close_campaign
    return dag


context = get_parsing_context()
for campaign in roster.read(only_dag=context.dag_id, for_task=context.task_id is not None):
    try:
        globals()[roster.dag_id(campaign.id)] = campaign_dag(campaign)
    except Exception:
        # Whatever is wrong with this row, the other campaigns go on.
        roster.log.exception("gets no DAG", campaign_id=campaign.id)
