"""The campaign's tasks as Airflow operators. They wire the domain to Airflow; every rule is below them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseAsyncOperator, BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from mailing import campaigns, db, messages
from mailing.errors import InvalidInput, NotFinished, NotFound
from mailing.sender import BatchSender

log = logging.getLogger(__name__)

CLOCK_DRIFT = timedelta(minutes=1)
"""Airflow's clock may run ahead of the database's, which rules: a run so little early waits for the start."""


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
        batch_size = context["params"].get("batch_size") or campaigns.BATCH_SIZE
        try:
            with db.transaction() as connection:
                opening = campaigns.select_audience(
                    connection, self.campaign_id, batch_size=batch_size, newcomers=by_hand
                )
        except NotFound as error:
            raise AirflowFailException(str(error)) from error
        if 0 < opening.opens_in_s <= CLOCK_DRIFT.total_seconds():
            _defer(self, opening.opens_in_s)
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

    async def aexecute(self, context: Context) -> dict[str, int]:
        """Return how many attempts ended how, in this try of the task. The ledger has the truth."""
        with db.transaction() as connection:
            context["label"] = messages.batch(connection, self.campaign_id, self.batch).label  # type: ignore[typeddict-unknown-key]
        self._sender = BatchSender(self.campaign_id, self.batch)
        try:
            result = await self._sender.run()
        except InvalidInput as error:
            # A connection that a person must mend: worth another try, which Airflow's retries give.
            raise AirflowException(str(error)) from error
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
        if self._sender:
            self._sender.stop()


class CloseCampaignOperator(BaseOperator):
    """Finishes a campaign and says how it ended. Fails, to be tried again, while something is left to do."""

    template_fields: Sequence[str] = ()

    def __init__(self, *, campaign_id: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id

    def execute(self, context: Context) -> dict[str, int]:
        """Return the final counts by state."""
        try:
            with db.transaction() as connection:
                progress = campaigns.close(connection, self.campaign_id)
        except NotFinished as error:
            raise AirflowException(str(error)) from error
        self.log.info("campaign %s: %s; %s", self.campaign_id, progress.status, progress.counts)
        return progress.counts


def close_overdue() -> list[int]:
    """Close the campaigns whose window is over and that nobody closed, one by one. Returns their ids."""
    with db.transaction() as connection:
        overdue = campaigns.overdue(connection)
    closed = []
    for campaign_id in overdue:
        try:
            with db.transaction() as connection:
                progress = campaigns.close_overdue(connection, campaign_id)
        except NotFinished as error:
            log.info("%s", error)  # a live task still speaks for some of it: next time
            continue
        log.warning("campaign %s: its window is over, nothing more is sent; %s", campaign_id, progress.counts)
        closed.append(campaign_id)
    return closed
