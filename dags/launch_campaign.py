"""Launches a campaign for another pipeline, once per key, and, if asked, waits for its end.

From a DAG: `TriggerDagRunOperator(trigger_dag_id="launch_campaign", conf={…})`; from anywhere: `POST
/api/v2/dags/launch_campaign/dagRuns` with `{"logical_date": null, "conf": {…}}`; by hand: *Trigger*. The params are
described in the form.

**Once.** The same `key` with the same params is the same campaign, for good; with others the run fails. Without a key
each run launches one, and clearing it launches none.

**Wrong params.** What the schema can tell is refused before there is a run (REST: 400). The rest (a tag or gateway that
is not known, a window that is over, a param that is none of these) fails the task `launch` at once with the name of the
field. Nothing is created.

**The outcome.** `launch` returns `campaign_id`, `dag_id` and `is_new`; with `wait` the figures of the campaign's end.
Then it is deferred meanwhile, and fails if less of the audience was sent to than `min_sent_share`.

DAG authors use the operator itself: docs/pipelines.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param

from mailing.models import DEFAULT_GATEWAY, MAX_TEXT
from mailing.pipelines import LaunchFromParamsOperator

MOMENT = {
    "format": "date-time",  # for the form; Airflow does not check it
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?([Zz]|[+-][0-9:]{4,5})$",
}
TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"


def optional(kind: str, title: str, description: str, **schema: Any) -> Param:
    """A param that may be left out."""
    return Param(None, type=["null", kind], title=title, description=description, **schema)


def names(title: str, description: str, **schema: Any) -> Param:
    """A list of names, empty unless given."""
    items = {"type": "string", "minLength": 1, "maxLength": 200} | schema
    return Param([], type="array", items=items, maxItems=1_000, title=title, description=description)


PARAMS = {
    "text": Param(
        type="string", minLength=1, maxLength=MAX_TEXT, title="Text", description="What every client gets."
    ),
    "name": optional("string", "Name", "For people.", maxLength=200),
    "filter_tags": names("Tags", "A client needs all of them. Neither tags nor codes: everybody."),
    "filter_operator_codes": names("Operator codes", "A client needs one of them.", pattern="^[0-9]{3}$"),
    "sending_start": optional("string", "Start", "Nothing leaves before. Empty: now.", **MOMENT),
    "sending_stop": optional("string", "Stop", "Nothing leaves from then on; or a duration.", **MOMENT),
    "duration": optional("string", "Duration", "From the start, as ISO 8601 has it: PT2H.", pattern="^P[0-9DTHMS.]+$"),
    "audience": Param(
        "snapshot", type="string", enum=["snapshot", "live"], title="Audience",
        description="snapshot: who matches when it opens; live: also who comes to match later.",
    ),
    "on_doubt": Param(
        "hold", type="string", enum=["hold", "resend"], title="In doubt",
        description="What becomes of a message that may have left and was not answered.",
    ),
    "local_from": optional("string", "From (local)", "By each client's own clock: 09:00.", pattern=TIME_OF_DAY),
    "local_to": optional("string", "Until (local)", "By each client's own clock: 21:00.", pattern=TIME_OF_DAY),
    "messages_per_second": optional(
        "number", "Messages per second", "Its own limit. Empty: the gateway's.", minimum=0.001, maximum=999_999_999
    ),
    "gateway": Param(DEFAULT_GATEWAY, type="string", minLength=1, title="Gateway", description="Its name."),
    "key": optional("string", "Key", "Once per key. Empty: once per run.", minLength=1, maxLength=1_000),
    "wait": Param(False, type="boolean", title="Wait", description="For the campaign's end."),
    "min_sent_share": optional(
        "number", "Share", "With wait: fail unless so much of the audience was sent to.", minimum=0, maximum=1
    ),
}  # fmt: skip

with DAG(
    dag_id="launch_campaign",
    dag_display_name="Launch a campaign",
    doc_md=__doc__,
    schedule=None,
    is_paused_upon_creation=False,  # who triggers it waits for it
    max_active_runs=256,  # those that wait hold no worker
    tags=["mailing"],
    params=PARAMS,
    # What is tried again is the database being away: wrong params fail at once.
    default_args={"retries": 10, "retry_delay": timedelta(seconds=10)},
):
    LaunchFromParamsOperator(task_id="launch")
