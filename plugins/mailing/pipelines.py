"""For the DAGs of others: launch a campaign, once per key; wait for how it ends. Used in docs/pipelines.md.

Waiting is deferred: it holds no worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, time, timedelta
from time import time as epoch_s
from typing import Any, NoReturn

import structlog
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout
from airflow.triggers.base import BaseTrigger

from mailing import campaigns, db, finishes, launches, roster
from mailing.errors import InvalidInput, NotFound
from mailing.launches import Request
from mailing.models import DEFAULT_GATEWAY
from mailing.triggers import CampaignEndTrigger

log = structlog.get_logger(__name__)

ASKED = tuple(Request.model_fields)

NOT_ASKED = ("key", "wait", "min_sent_share", "openlineage", "airflow/task_span_detail_level")
"""Params of a run that say nothing of the campaign: of the launch, and what Airflow itself writes into a run's conf."""


def end_of(campaign_id: int) -> dict[str, Any] | None:
    """How the campaign ended, as `finishes.standing` has it, and its `dag_id`; None: it goes on. Raises NotFound."""
    with db.transaction() as connection:
        figures = finishes.standing(connection, campaign_id)
        if figures is None:
            campaigns.get(connection, campaign_id)
            return None
    return figures | {"dag_id": roster.dag_id(campaign_id)}


def check_share(figures: dict[str, Any], min_sent_share: float | None) -> None:
    """Raise AirflowFailException where less of the audience was sent to than this share of it, 0 to 1.

    What a person assumed to be sent counts as sent to, clients that were excluded count as audience; an audience of
    nobody reaches no share above 0.
    """
    if not min_sent_share:
        return
    sent, audience = figures["sent"], figures["audience"]
    if audience and sent / audience >= min_sent_share:
        return
    raise AirflowFailException(
        f"campaign {figures['campaign_id']} ({figures['status']}): sent to {sent} of {audience} clients;"
        f" wanted a share of at least {min_sent_share}"
    )


def share_of(given: Any) -> float | None:
    """A share as it was given, as a number from 0 to 1. Raises AirflowFailException for any other."""
    if given is None or given == "":
        return None
    try:
        share = float(given)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        raise AirflowFailException(f"min_sent_share: wanted a number from 0 to 1, got {given!r}")
    return share


def own_key(task: Any) -> str:
    """The key of a task instance: the same when it is tried again, or cleared."""
    mapped = [] if task.map_index in (None, -1) else [str(task.map_index)]
    return "/".join([task.dag_id, task.run_id, task.task_id, *mapped])


class _Waits(BaseOperator):
    """Waits for a campaign's end, deferred."""

    min_sent_share: Any = None

    def wanted_share(self, context: Context) -> float | None:
        """Of the audience, what must have been sent to. Raises AirflowFailException for a share that is none."""
        return share_of(self.min_sent_share)

    def await_end(self, context: Context, campaign_id: int, until: float | None = None) -> Any:
        """How it ended; while it goes on, defer, which does not return. `until`: epoch seconds, None for ever."""
        try:
            figures = end_of(campaign_id)
        except NotFound as error:
            raise AirflowFailException(str(error)) from error
        if figures is None:
            log.info("waits for its end", campaign_id=campaign_id)
            self._defer(CampaignEndTrigger(campaign_id), "go_on", until)
        check_share(figures, self.wanted_share(context))
        log.info("it has ended", campaign_id=campaign_id, status=figures["status"])
        return figures

    def go_on(self, context: Context, event: dict[str, Any], until: float | None = None) -> Any:
        """Look again after a wait."""
        return self.await_end(context, event["campaign_id"], until)

    def _defer(self, trigger: BaseTrigger, method_name: str, until: float | None) -> NoReturn:
        """Wait, however often, until that moment at most. Raises AirflowSensorTimeout: only sensors have one.

        (`dag.test()` forgets it: it resumes tasks without the kwargs that they were deferred with.)
        """
        left_s = None if until is None else until - epoch_s()
        if left_s is not None and left_s <= 0:
            raise AirflowSensorTimeout("what was waited for did not happen within the timeout")
        timeout = None if left_s is None else timedelta(seconds=left_s)
        self.defer(trigger=trigger, method_name=method_name, kwargs={"until": until}, timeout=timeout)


class _Launches(_Waits):
    """Launches what it is asked for."""

    def launch(self, context: Context, asked: dict[str, Any], key: str | None, wait: bool) -> dict[str, Any]:
        """Create the campaign, unless its key is known; then wait for its end, if asked to."""
        run = context["ti"]
        self.wanted_share(context)  # what is wrong is to be said before anything is created
        try:
            with db.transaction() as connection:
                launched = launches.launch(
                    connection, key or own_key(run), Request.of(asked), actor=f"DAG {run.dag_id}"[:200]
                )
        except InvalidInput as error:
            raise AirflowFailException(str(error)) from None  # to try it again would change nothing
        campaign_id, dag_id = launched.campaign_id, roster.dag_id(launched.campaign_id)
        log.info("launched" if launched.is_new else "was launched before", campaign_id=campaign_id)
        run.xcom_push(key="campaign_id", value=campaign_id)
        if not wait:
            return {"campaign_id": campaign_id, "dag_id": dag_id, "is_new": launched.is_new}
        figures: dict[str, Any] = self.await_end(context, campaign_id)
        return figures


class LaunchCampaignOperator(_Launches):
    """Launches a campaign, once per key; with `wait`, waits for its end.

    Returns `campaign_id`, `dag_id` and `is_new`; with `wait` the figures of its end instead (`finishes.standing`) and
    `dag_id`. Also pushes the XCom `campaign_id` at once, so that other tasks need not wait.

    Fails at once, with a message that names the field and with nothing created, for values that break a rule (a tag or
    a gateway that is not known, a window that is over, a text that is too long), and for a key that came with other
    values before. The campaign's DAG appears within seconds: the API server sees that it was written, and has its file
    parsed.

    `filter_tags`, `filter_operator_codes`: a client needs all of the tags and one of the codes; none of either is
    everybody. `sending_start`: None is now. `sending_stop` or `duration` (a timedelta, or ISO 8601: `PT2H`) from the
    start. Moments are aware, or ISO 8601 with a time zone. `local_from`, `local_to`: the client's own clock (`09:00`).
    `key`: None is the run and task, so that clearing or retrying it launches nothing twice; one of your own (`sale-{{
    ds }}`) holds across DAGs and for good. `min_sent_share`: with `wait`, fail unless so much of the audience was sent
    to (0 to 1). All but `wait` and `min_sent_share` are templated.
    """

    template_fields: Sequence[str] = (*ASKED, "key")

    def __init__(
        self,
        *,
        text: str,
        name: str | None = None,
        filter_tags: Iterable[str] = (),
        filter_operator_codes: Iterable[str] = (),
        sending_start: datetime | str | None = None,
        sending_stop: datetime | str | None = None,
        duration: timedelta | str | None = None,
        audience: str = "snapshot",
        on_doubt: str = "hold",
        local_from: time | str | None = None,
        local_to: time | str | None = None,
        messages_per_second: float | str | None = None,
        gateway: str = DEFAULT_GATEWAY,
        key: str | None = None,
        wait: bool = False,
        min_sent_share: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.text, self.name, self.audience, self.on_doubt = text, name, audience, on_doubt
        self.filter_tags, self.filter_operator_codes = filter_tags, filter_operator_codes
        self.sending_start, self.sending_stop, self.duration = sending_start, sending_stop, duration
        self.local_from, self.local_to = local_from, local_to
        self.messages_per_second, self.gateway = messages_per_second, gateway
        self.key, self.wait, self.min_sent_share = key, wait, min_sent_share

    def execute(self, context: Context) -> dict[str, Any]:
        """Launch it."""
        asked = {name: getattr(self, name) for name in ASKED}
        return self.launch(context, asked, self.key, self.wait)


class LaunchFromParamsOperator(_Launches):
    """As LaunchCampaignOperator, with the params of the run as they are: those of dags/launch_campaign.py.

    Airflow makes a param of whatever a run's conf holds. A name that is none of ours is refused: it is a misspelt one,
    and a filter that is left out for it would be everybody.
    """

    def wanted_share(self, context: Context) -> float | None:
        """As the param says."""
        return share_of(context["params"]["min_sent_share"])

    def execute(self, context: Context) -> dict[str, Any]:
        """Launch it."""
        params = context["params"]
        asked = {name: value for name, value in params.items() if name not in NOT_ASKED}
        return self.launch(context, asked, params["key"], params["wait"])


class CampaignSensor(_Waits, BaseSensorOperator):
    """Waits for the end of a campaign: by its id, or by the key it was launched under. Returns the figures.

    As LaunchCampaignOperator with `wait`: what it returns, and `min_sent_share`. An id that is no campaign's fails at
    once. A key may be launched later: it is looked for every `poke_interval` seconds, deferred meanwhile. `timeout` (a
    sensor's, seconds; seven days by default) is for all of it, from the first look on. Id and key are templated.
    """

    template_fields: Sequence[str] = ("campaign_id", "key")

    def __init__(
        self,
        *,
        campaign_id: int | str | None = None,
        key: str | None = None,
        min_sent_share: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id, self.key, self.min_sent_share = campaign_id, key, min_sent_share

    def execute(self, context: Context) -> Any:
        """Wait for it."""
        self.wanted_share(context)
        return self._wait(context, epoch_s() + self.timeout)

    def look_again(self, context: Context, event: Any, until: float | None = None) -> Any:
        """Look whether it was launched meanwhile."""
        return self._wait(context, until)

    def _wait(self, context: Context, until: float | None) -> Any:
        campaign_id = self._campaign_id()
        if campaign_id is None:
            log.info("waits for its launch", key=self.key)
            self._defer(TimeDeltaTrigger(timedelta(seconds=self.poke_interval)), "look_again", until)
        return self.await_end(context, campaign_id, until)

    def _campaign_id(self) -> int | None:
        """None: nothing was launched under the key so far."""
        if (self.campaign_id is None) == (self.key is None):
            raise AirflowFailException("campaign_id, key: wanted one of the two, to say which campaign")
        if self.key is not None:
            with db.transaction() as connection:
                return launches.of_key(connection, self.key)
        try:
            return int(str(self.campaign_id))
        except ValueError:
            raise AirflowFailException(f"campaign_id: wanted a number, got {self.campaign_id!r}") from None
