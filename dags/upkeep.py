"""What must happen though nobody asks, every minute.

| task | what it does |
|---|---|
| `recover_claims` | what tasks had claimed that died is settled: `unknown`, or sent again where the campaign says so |
| `close_overdue` | campaigns that are over (while Airflow was down, or cancelled) are closed |
| `wake_unattended` | a campaign that should be sending and has no run (it was deleted, or failed) gets one |
| `tend_ledger` | the part for new campaigns is made before they need it; counts of many tasks become few rows |
| `push_metrics` | the figures of docs/metrics.md go to StatsD or OpenTelemetry, where Airflow sends its own there |
| `announce_ends` | how campaigns ended is told to Airflow's assets, where their own task could not |
| `deliver_webhooks` | and to the webhook, until it has taken it (docs/pipelines.md) |
| `check_tokens` | gateways whose token expires soon: this task fails until they have a new one |

A campaign whose window passed without a run sends nothing. Its audience enters the ledger as `expired`, and the
campaign is `finished`: the report says what did not happen, too.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import TriggerRule, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from mailing.announce import FINISHES
from mailing.roster import SHORT_FIRST


@dag(
    dag_display_name="Mailing upkeep",
    schedule=timedelta(minutes=1),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["mailing"],
    doc_md=__doc__,
    # The next run is a minute away.
    default_args={"retries": 0, "priority_weight": SHORT_FIRST, "weight_rule": "absolute"},
)
def upkeep() -> None:
    """Wire the tasks. One that fails keeps none from running."""

    @task
    def recover_claims() -> int:
        """Return how many messages dead tasks had claimed."""
        from mailing import upkeep

        return upkeep.recover_claims()

    @task
    def close_overdue() -> list[int]:
        """Return the ids of the campaigns that were closed."""
        from mailing import upkeep

        return upkeep.close_overdue()

    @task
    def tend_ledger() -> int:
        """Return of how many campaigns counts were put together."""
        from mailing import upkeep

        upkeep.make_room()
        return len(upkeep.fold_counts())

    @task
    def wake_unattended() -> list[int]:
        """Return the ids of the campaigns that got a run."""
        from mailing import upkeep

        running = get_current_context()["ti"].get_dr_count
        return upkeep.wake_unattended(lambda dag_id: running(dag_id=dag_id, states=["queued", "running"]) > 0)

    @task(outlets=[FINISHES], trigger_rule=TriggerRule.ALL_DONE)
    def announce_ends() -> list[str]:
        """Return the ids of the asset events."""
        from mailing import announce

        outlet_events = get_current_context()["outlet_events"]
        return announce.announce_lost(outlet_events) + announce.announce(outlet_events)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def deliver_webhooks() -> int:
        """Return how many events the webhook took."""
        from mailing import webhook

        return webhook.deliver()

    @task
    def push_metrics() -> int:
        """Return how many figures."""
        from mailing import push

        return push.push_metrics()

    @task
    def check_tokens() -> None:
        """Fail while a gateway needs a new token soon, so that an operator sees it."""
        from mailing import upkeep

        if short := upkeep.check_tokens():
            raise AirflowFailException(f"gateways {short} need a new token in their connection's password: see above")

    recover_claims()
    close_overdue() >> [announce_ends(), deliver_webhooks()]
    tend_ledger()
    wake_unattended()
    push_metrics()
    check_tokens()


upkeep()
