"""The campaign's tasks as Airflow operators. They wire the domain to Airflow; every rule is below them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseAsyncOperator, BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from mailing import campaigns, db, messages
from mailing.errors import NotFinished, NotFound
from mailing.outcomes import MAX_WAIT_S
from mailing.sender import BatchSender

log = logging.getLogger(__name__)

EARLY_S = 60.0
"""A run that was triggered by hand so little before the start waits for it; an earlier one leaves it to the scheduled
run. That one waits in any case: Airflow's clock may run ahead of the database's, which rules."""


def _defer(operator: BaseOperator, wait_s: float) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=wait_s)
    operator.log.info("campaign %s: waits until %s", operator.campaign_id, moment.isoformat(timespec="seconds"))  # type: ignore[attr-defined]
    operator.defer(trigger=DateTimeTrigger(moment=moment), method_name="resume")


class SelectAudienceOperator(BaseOperator):
    """Opens a campaign: its audience enters the ledger. Pushes the numbers of the batches to send, and nothing else."""

    template_fields: Sequence[str] = ()

    def __init__(self, *, campaign_id: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id

    def execute(self, context: Context) -> list[int]:
        """Raise AirflowFailException for a campaign that is not there; defer for a start that is a moment away."""
        by_hand = context["dag_run"].run_type == "manual"
        limit_s = EARLY_S if by_hand else math.inf
        batch_size = context["params"].get("batch_size") or campaigns.BATCH_SIZE
        try:
            with db.transaction() as connection:
                opening = campaigns.select_audience(
                    connection, self.campaign_id, batch_size=batch_size, newcomers=by_hand
                )
        except NotFound as error:
            raise AirflowFailException(str(error)) from error
        if 0 < opening.opens_in_s <= limit_s:
            _defer(self, min(opening.opens_in_s, MAX_WAIT_S))
        self.log.info("campaign %s: %s; batches to send: %s", self.campaign_id, opening.said, len(opening.batches))
        if not opening.batches:
            self.log.info("campaign %s: this run sends nothing", self.campaign_id)
        return opening.batches

    def resume(self, context: Context, event: Any = None) -> list[int]:
        """Go on after a wait."""
        return self.execute(context)


class SendBatchOperator(BaseAsyncOperator):
    """Sends one batch of a campaign. Waits longer than a few seconds are deferred: they hold no worker slot."""

    template_fields: Sequence[str] = ()

    def __init__(self, *, campaign_id: int, batch: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.batch = batch
        self._sender: BatchSender | None = None
        self._is_killed = False

    async def aexecute(self, context: Context) -> dict[str, int]:
        """Return how many attempts ended how, in this try of the task. The ledger has the truth."""
        with db.transaction() as connection:
            context["label"] = messages.batch(connection, self.campaign_id, self.batch).label  # type: ignore[typeddict-unknown-key]
        self._sender = BatchSender(self.campaign_id, self.batch)
        if self._is_killed:
            self._sender.stop()
        result = await self._sender.run()
        self.log.info("campaign %s, batch %s: %s; %s", self.campaign_id, self.batch, result.counts, result.said)
        if result.wake_in_s is not None:
            _defer(self, result.wake_in_s)
        return result.counts

    def resume(self, context: Context, event: Any = None) -> dict[str, int]:
        """Go on after a wait."""
        counts: dict[str, int] = self.execute(context)  # type: ignore[no-untyped-call]
        return counts

    def on_kill(self) -> None:
        """Airflow wants the task gone (cleared, failed, stopped): record what is in flight, claim no more."""
        self._is_killed = True
        if self._sender:
            self._sender.stop()


class CloseCampaignOperator(BaseOperator):
    """Finishes a campaign and says how it ended. Fails, to be tried again, while something is left to do."""

    template_fields: Sequence[str] = ()

    def __init__(self, *, campaign_id: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id

    def execute(self, context: Context) -> dict[str, int]:
        """Return the final counts by state; wait, without a worker slot, while live tasks may still speak."""
        try:
            with db.transaction() as connection:
                progress = campaigns.close(connection, self.campaign_id)
        except NotFinished as error:
            if error.again_in_s is None:
                raise AirflowException(
                    f"{error}; clear the failed send_batch tasks, or trigger the DAG again"
                ) from error
            self.log.info("%s", error)
            _defer(self, error.again_in_s)
            raise
        self.log.info("campaign %s: %s; %s", self.campaign_id, progress.status, progress.counts)
        return progress.counts

    def resume(self, context: Context, event: Any = None) -> dict[str, int]:
        """Go on after a wait."""
        return self.execute(context)


def close_overdue() -> list[int]:
    """Close the campaigns whose window is over and that nobody closed, one by one. Returns their ids.

    One that cannot be closed does not keep the others from it; its error is raised at the end.
    """
    with db.transaction() as connection:
        overdue = campaigns.overdue(connection)
    closed, failed = [], []
    for campaign_id in overdue:
        try:
            with db.transaction() as connection:
                progress = campaigns.close(connection, campaign_id)
        except NotFinished as error:
            log.info("%s", error)  # a live task still speaks for some of it: next time
        except Exception:
            log.exception("campaign %s: could not be closed", campaign_id)
            failed.append(campaign_id)
        else:
            log.warning("campaign %s: its window is over, nothing more is sent; %s", campaign_id, progress.counts)
            closed.append(campaign_id)
    if failed:
        raise AirflowException(f"campaigns {failed} could not be closed: see above")
    return closed
