"""Other people's pipelines, beside ours on the stack of the tests: they follow campaigns, trigger and launch them."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, Param, dag, task

from mailing.pipelines import CampaignSensor

CAMPAIGNS = Asset("mailing://campaigns")


@dag(schedule=[CAMPAIGNS], is_paused_upon_creation=False)
def follows_campaigns() -> None:
    """Write down what each event says."""

    @task
    def write(triggering_asset_events: Any = None) -> None:
        with (Path(os.environ["MAILING_VAR"]) / "told.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(event.extra) + "\n" for event in triggering_asset_events[CAMPAIGNS])

    write()


follows_campaigns()

with DAG("triggers_again", schedule=None, is_paused_upon_creation=False, params={"dag_id": Param(type="string")}):
    TriggerDagRunOperator(task_id="trigger", trigger_dag_id="{{ params.dag_id }}")

with DAG(
    "launches_twice", schedule=None, is_paused_upon_creation=False, params={"conf": Param(type="object")}
) as twice:
    first, second = (
        TriggerDagRunOperator(
            task_id=name, trigger_dag_id="launch_campaign", conf="{{ params.conf | tojson }}", wait_for_completion=True,
            poke_interval=1,
        )
        for name in ("first", "second")
    )  # fmt: skip
    first >> second

with DAG("waits_for_a_key", schedule=None, is_paused_upon_creation=False, params={"key": Param(type="string")}):
    # What fails on a busy machine is a process; what it is to find out, trying again does not hide.
    CampaignSensor(task_id="wait", key="{{ params.key }}", poke_interval=1, retries=3, retry_delay=timedelta(seconds=1))

with DAG("waits_in_vain", schedule=None, is_paused_upon_creation=False):
    CampaignSensor(task_id="wait", key="nobody launches it", poke_interval=2, timeout=6)
