"""An example: a pipeline that launches a campaign and waits for it, and one that follows the ends of all campaigns.

Copy it into your DAG folder and change it. It lies here, not in dags/, for the second one would run for each campaign.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import Asset, dag, task

from mailing.pipelines import CampaignSensor, LaunchCampaignOperator

CAMPAIGNS = Asset("mailing://campaigns")


@dag(schedule="0 6 * * *", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False, tags=["example"])
def daily_offer() -> None:
    """Each morning, once a day however often it is cleared: launch, do something else, wait for the outcome."""
    launch = LaunchCampaignOperator(
        task_id="launch",
        key="offer-{{ ds }}",
        name="Offer of {{ ds }}",
        text="The offer of {{ ds }}: everything for half the price.",
        filter_tags=["art"],
        duration=timedelta(hours=10),
        local_from="10:00",
        local_to="20:00",
    )

    @task
    def meanwhile(campaign_id: int) -> None:
        """Whatever need not wait for the campaign's end."""
        print(f"campaign {campaign_id} is on its way")

    meanwhile(launch.output["campaign_id"])
    # Fails the run unless nine in ten were sent to. LaunchCampaignOperator(wait=True) does both in one task.
    launch >> CampaignSensor(task_id="outcome", key="offer-{{ ds }}", min_sent_share=0.9)


@dag(schedule=[CAMPAIGNS], tags=["example"])
def after_each_campaign() -> None:
    """Runs when campaigns have ended. A run may stand for several events."""

    @task
    def report(triggering_asset_events: Any = None) -> list[str]:
        """Return one line per campaign."""
        return [
            f"campaign {event.extra['campaign_id']} {event.extra['status']}:"
            f" {event.extra['sent']} of {event.extra['audience']}"
            for event in triggering_asset_events[CAMPAIGNS]  # .values() would show each event under its alias, too
        ]

    report()


daily_offer()
after_each_campaign()
