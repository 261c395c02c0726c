"""Other people's pipelines, beside ours on the stack of the tests: one follows campaigns, one triggers their DAGs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, Param, dag, task

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
