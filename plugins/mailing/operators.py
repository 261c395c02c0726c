"""The campaign's tasks as Airflow operators. They wire the domain to Airflow; every rule is below them."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
import structlog
from airflow.sdk import BaseAsyncOperator, BaseOperator, Context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, DownstreamTasksSkipped

from mailing import announce, db, environment, finishes, runs, webhook
from mailing.campaigns import Progress
from mailing.errors import NotFinished, NotFound
from mailing.outcomes import Wait
from mailing.sender import BatchSender, Stopped
from mailing.triggers import CampaignTrigger

log = structlog.get_logger(__name__)

BY_HAND = ("manual", "operator_triggered")
"""Runs that a person asked for, or another pipeline (TriggerDagRunOperator)."""

CLOSE_TASK = "close_campaign"
"""The id of the task that closes a campaign, unless one that sent to it has done so."""

EARLY_S = 60.0
"""A run that was triggered by hand so little before the start waits for it; an earlier one leaves it to the scheduled
run. That one waits in any case: Airflow's clock may run ahead of the database's, which rules."""

FOLLOW_S = 30.0
"""How often a live audience is looked at for latecomers."""

FURTHER_RUN_S = 10.0
"""How soon a run follows one that left something to send: not at once, for whatever made it do so may do it again."""

HANDOVER_S = 60.0
"""How soon a waiting task looks again whether the run that was asked for after its own is there."""

PAUSE_POLL_S = 3.0
"""How often a sending task asks whether its DAG was paused."""

TURN_S = 120.0
"""For how long a task sends before it gives its worker slot to whoever waits for one, unless `MAILING_TURN_S` says."""

TURN_SPREAD = 0.2
"""Tasks that began together do not end their turns together."""


class CampaignOperator(BaseOperator):
    """What all tasks of a campaign have in common: its id, and waiting without a worker slot."""

    template_fields: Sequence[str] = ()

    def __init__(self, *, campaign_id: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id

    def wait(self, wait: Wait, updated: float | None) -> None:
        """Give the worker slot back until there may be more to do. Does not return.

        `updated`: as `CampaignTrigger` has it.
        """
        log.info(f"waits: {wait.said}", campaign_id=self.campaign_id, seconds_at_most=round(wait.seconds))
        trigger = CampaignTrigger(self.campaign_id, wait.seconds, updated, wait.for_gateway)
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Context, event: Any = None) -> Any:
        """Go on after a wait."""
        return self.execute(context)

    def close(self, context: Context, closing: Callable[[db.Connection, int], Progress] = runs.close) -> dict[str, int]:
        """Finish the campaign by `closing` and tell other pipelines how it ended: the counts by state.

        Nothing that takes time may come after it (`finishes.IN_HAND`). Raises NotFinished.
        """
        with db.connect() as connection:
            with connection.transaction():
                progress = closing(connection, self.campaign_id)
            log.info(progress.standing, campaign_id=self.campaign_id, **progress.counts)
            with suppress(Exception):  # upkeep goes on with it
                webhook.deliver(self.campaign_id)
            with connection.transaction():
                ends = finishes.take_unannounced(connection, self.campaign_id)
        # Airflow takes an alias's events from tasks whose outlet it is. No sooner: it asks its API about the outlets
        # of each task that begins.
        self.outlets.append(announce.FINISHES)
        announce.emit(context["outlet_events"], ends)
        return progress.counts

    def is_further_run_due(self, connection: db.Connection, context: Context) -> bool:
        """Whether somebody (an edit, a verdict, upkeep) asked for a run after this one."""
        return runs.is_further_run_due(connection, self.campaign_id, context["dag_run"].run_after)

    def is_superseded(self, context: Context, mapped_at: datetime | None) -> bool:
        """Whether that moment is a later run's, which is there to send what is left, so that this one need not wait.

        Else every edit would leave a run behind that waits, until Airflow starts no more of them (`max_active_runs`).
        """
        if mapped_at is None or mapped_at <= context["dag_run"].run_after:
            return False
        task = context["ti"]
        return bool(task.get_dr_count(dag_id=task.dag_id, logical_dates=[mapped_at], states=["running"]))


class SelectAudienceOperator(CampaignOperator):
    """Opens a campaign: its audience enters the ledger. Pushes the numbers of the batches to send, and nothing else."""

    def execute(self, context: Context) -> list[int]:
        """Raise AirflowFailException for a campaign that is not there; wait for a start that is a moment away."""
        by_hand = context["dag_run"].run_type in BY_HAND
        limit_s = EARLY_S if by_hand else math.inf
        batch_size = context["params"].get("batch_size")
        try:
            with db.transaction() as connection:
                opening = runs.select_audience(
                    connection, self.campaign_id, batch_size=batch_size, newcomers=by_hand,
                    run_after=None if by_hand else context["dag_run"].run_after,
                )  # fmt: skip
        except NotFound as error:
            raise AirflowFailException(str(error)) from error
        if 0 < opening.opens_in_s <= limit_s:
            self.wait(Wait(opening.opens_in_s, opening.said), opening.updated)
        if opening.closes_in_s > 0:
            self.wait(Wait(opening.closes_in_s, opening.said), opening.updated)
        log.info(opening.said, campaign_id=self.campaign_id, batches_to_send=len(opening.batches))
        if not opening.batches:
            log.info("this run sends nothing", campaign_id=self.campaign_id)
        return opening.batches


@dataclass(frozen=True, slots=True)
class Turn:
    """What sending to a batch came to: what to wait for before more can be sent; None: nothing is left.

    `updated`: when the campaign's row was last written, as `CampaignTrigger` has it; `mapped_at`: the moment (aware) of
    the latest scheduled run that has named what is left to send.
    """

    wait: Wait | None
    updated: float | None
    mapped_at: datetime | None


class SendingOperator(CampaignOperator, BaseAsyncOperator):
    """A task that sends. It stops when Airflow wants it gone, waits while its DAG is paused, and sends by turns.

    A window may be open for days: without turns, campaigns with a low limit would hold all worker slots meanwhile, and
    others could not begin, nor `upkeep` do its work (docs/decisions/0021-sending-by-turns.md).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sender: BatchSender | None = None
        self._is_killed = self._is_dag_paused = self._makes_room = self._is_probe = False
        self._turn_ends: float | None = None  # by the monotonic clock

    def resume(self, context: Context, event: Any = None) -> Any:
        """Go on after a wait; the event may bring the right to probe the gateway."""
        self._is_probe = bool(event and event.get("is_probe"))
        return self.execute(context)  # type: ignore[no-untyped-call]

    async def send(self, context: Context, number: int) -> Turn:
        """Send one batch until nothing is left to send now, or it is to make room for others.

        From the loop's thread nothing may be asked of Airflow, nor our database's address: `execute` does, afterwards.
        """
        sender = self._sender = BatchSender(self.campaign_id, number, is_probe=self._is_probe)
        self._is_probe = False
        if self._turn_ends is None:
            self._turn_ends = time.monotonic() + _turn_s()
        if self._is_killed:
            sender.stop()
        watch = asyncio.create_task(self._watch_dag(context, sender, self._turn_ends))
        try:
            result = await sender.run()
        except Stopped as error:
            if self._is_killed or not (self._is_dag_paused or self._makes_room):
                raise
            # At once; but while the DAG is paused Airflow does not start the task again, however soon it is due, and
            # after a turn, who waits already comes first.
            said = f"makes room for others; {error}" if self._makes_room else str(error)
            return Turn(Wait(0.0, said), None, sender.mapped_at)
        finally:
            watch.cancel()
            self._sender = None
            if sender.label is not None:
                context["label"] = sender.label  # type: ignore[typeddict-unknown-key]
        log.info(result.said, campaign_id=self.campaign_id, batch=number, **result.counts)
        return Turn(result.wait, result.updated, sender.mapped_at)

    async def _watch_dag(self, context: Context, sender: BatchSender, turn_ends: float) -> None:
        """Stop sending once an operator pauses the DAG, this turn is over, or a later run sends what is left."""
        task = context["ti"]
        while not (self._makes_room or self._is_dag_paused):
            await asyncio.sleep(PAUSE_POLL_S)
            self._makes_room = time.monotonic() > turn_ends
            with suppress(Exception):  # no answer is no pause
                if await asyncio.to_thread(self.is_superseded, context, sender.mapped_at):
                    self._makes_room = True
                self._is_dag_paused = (await asyncio.to_thread(task.get_dag, task.dag_id)).is_paused
        sender.stop(math.inf)  # nobody wants it gone: what is in flight is answered, or has its timeout

    def wait(self, wait: Wait, updated: float | None) -> None:
        """As every task's, but never shorter than Airflow needs to hear of it. Does not return."""
        super().wait(replace(wait, seconds=max(wait.seconds, _rest_s())), updated)

    def wait_for_news(self, context: Context, wait: Wait, updated: float | None) -> None:
        """Wait; where a further run is due, look now and then whether it is there. Does not return."""
        if wait.seconds > HANDOVER_S:
            with db.transaction() as connection:
                if self.is_further_run_due(connection, context):
                    wait = replace(wait, seconds=HANDOVER_S)
        self.wait(wait, updated)

    def on_kill(self) -> None:
        """Airflow wants the task gone (cleared, failed, stopped): record what is in flight, claim no more."""
        self._is_killed = True
        if self._sender:
            self._sender.stop()


def _rest_s() -> float:
    """How long a task waits at least that has sent: by then Airflow has heard that it gave its slot back.

    Its supervisor may see that a heartbeat late, and LocalExecutor fails a task that it is given anew before
    (docs/decisions/0021-sending-by-turns.md).
    """
    heartbeat_s: int = conf.getint("workers", "min_heartbeat_interval")
    return PAUSE_POLL_S + heartbeat_s


def _turn_s() -> float:
    spread = random.uniform(1 - TURN_SPREAD, 1 + TURN_SPREAD)  # noqa: S311
    return environment.number("MAILING_TURN_S", TURN_S, "seconds") * spread


class SendBatchOperator(SendingOperator):
    """Sends one batch of a campaign. Whoever has sent the last message closes it, and has `CLOSE_TASK` skipped."""

    def __init__(self, *, batch: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch

    def execute(self, context: Context) -> None:
        """Send, and close the campaign if that was the last of it. What became of every message is in the ledger."""
        turn: Turn = super().execute(context)  # type: ignore[no-untyped-call]
        if turn.wait is not None:
            if not self.is_superseded(context, turn.mapped_at):
                self.wait_for_news(context, turn.wait, turn.updated)
            log.info("a later run sends what is left of it", campaign_id=self.campaign_id, batch=self.batch)
            return
        try:
            self.close(context, runs.close_after_last)
        except NotFinished:
            return
        except psycopg.Error as error:
            log.warning(f"{CLOSE_TASK} is to close it", campaign_id=self.campaign_id, error=type(error).__name__)
            return
        raise DownstreamTasksSkipped(tasks=[CLOSE_TASK])  # type: ignore[no-untyped-call]

    async def aexecute(self, context: Context) -> Turn:
        """Send until nothing is left to send now."""
        return await self.send(context, self.batch)


class FollowAudienceOperator(SendingOperator):
    """Sends to those who come to match a live campaign while its window is open."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._batches: list[int] = []

    def execute(self, context: Context) -> None:
        """End with the window; until then, look for latecomers now and then."""
        with db.transaction() as connection:
            batches = runs.follow_audience(connection, self.campaign_id)
            mapped_at = runs.mapped_at(connection, self.campaign_id)
        if batches is None or self.is_superseded(context, mapped_at):
            return
        self._batches = batches
        next_look: Wait = super().execute(context)  # type: ignore[no-untyped-call]
        with db.transaction() as connection:
            updated = runs.updated(connection, self.campaign_id)
        self.wait(next_look, updated)

    async def aexecute(self, context: Context) -> Wait:
        """Send to latecomers; what to wait for then, never longer than until the next look."""
        next_look = Wait(FOLLOW_S, "looks for latecomers then")
        for number in self._batches:
            turn = await self.send(context, number)
            if turn.wait is not None and turn.wait.seconds < next_look.seconds:
                next_look = turn.wait
            if self._is_dag_paused or self._makes_room or self._is_killed:
                break
        return next_look


class CloseCampaignOperator(CampaignOperator):
    """Finishes a campaign where no task that sent to it could: nobody matched, its window closed, or a task failed.

    Fails, to be tried again, while something is left to do.
    """

    def execute(self, context: Context) -> dict[str, int]:
        """Return the counts by state; wait, without a worker slot, while live tasks may still speak."""
        try:
            return self.close(context)
        except NotFinished as error:
            self._put_off(error, context)
            return {}

    def _put_off(self, error: NotFinished, context: Context) -> None:
        """Wait, leave it to a further run (asked for since this one began, or now), or fail."""
        run_after = context["dag_run"].run_after
        if error.wake_at is not None and error.wake_at > run_after:
            log.info(f"{error}; a further run goes on with it", campaign_id=self.campaign_id, wake_at=error.wake_at)
        elif error.again_in_s is not None:
            self.wait(Wait(error.again_in_s, str(error)), None)
        elif self._wake():
            # Its tasks failed, or were marked by hand, or ended for a stop that was moved since.
            log.warning(f"{error}; a further run goes on with it", campaign_id=self.campaign_id)
        else:
            raise AirflowException(f"{error}; resume it, or trigger the DAG again") from error

    def _wake(self) -> bool:
        with db.transaction() as connection:
            return runs.wake(connection, self.campaign_id, in_s=FURTHER_RUN_S)
