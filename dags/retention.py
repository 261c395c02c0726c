"""Messages of old campaigns go; their statistics stay.

The ledger lies in parts, by ranges of campaigns. A part goes when **all** its campaigns are finished or cancelled
and, for so many days, neither their window was open nor anything about them changed. What remains of them: the row,
its revisions and test sends, who did what, and every figure by state, reason, hour, day and operator code. Figures by
tag and time zone, messages and evidence are gone. Such a campaign is *archived*: it can only be read.

**Each day** the setting `MAILING_KEEP_MESSAGES_DAYS` (of the worker) says for how many days messages are kept. Where
it is not set, they are kept for ever, and this DAG does nothing.

**By hand** it only tells what would go, unless `dry_run` is switched off: which parts, how many campaigns, messages
and bytes, and what keeps the others. Messages in doubt go as well, and are named.

**When it fails**, somebody reads (or backs up) the ledger. It does not queue up, for all that send would wait behind
it: it gives up after a second, and tries again later. What is removed already stays removed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException


@dag(
    dag_display_name="Mailing retention",
    schedule="40 3 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["mailing"],
    doc_md=__doc__,
    params={
        "dry_run": Param(
            True, type="boolean", title="Only tell", description="What would go. Nothing is changed. For runs by hand."
        ),
        "days": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=36_500,
            title="Days",
            description="For how many days messages are kept. Empty: as MAILING_KEEP_MESSAGES_DAYS says.",
        ),
        "how": Param(
            "drop",
            enum=["drop", "detach"],
            title="How",
            description="detach: messages and attempts stay as tables of their own, outside the ledger.",
        ),
    },
)
def retention() -> None:
    """Wire the one task."""

    @task(retries=5, retry_delay=timedelta(minutes=10), multiple_outputs=False)
    def remove_old_parts() -> dict[str, Any]:
        """Return the parts that went (or would go), and those that stay, with the reason."""
        from mailing import retention
        from mailing.errors import InvalidInput

        context = get_current_context()
        params = context["params"]
        try:
            if context["dag_run"].run_type == "scheduled":
                return retention.run_by_setting(how=params["how"])
            days = params["days"] or retention.kept_days()
            if days is None:
                raise InvalidInput(f"days: wanted a number of days, for {retention.SETTING} is not set")
            return retention.run(days, dry_run=params["dry_run"], how=params["how"])
        except InvalidInput as error:
            raise AirflowFailException(str(error)) from None  # the message says it all

    remove_old_parts()


retention()
