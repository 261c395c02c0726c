"""What a campaign's tasks decide, against a real ledger and a real HTTP server; tests/stack has them run by Airflow."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors

from mailing import announce, runs
from mailing.operators import (
    FOLLOW_S,
    PAUSE_POLL_S,
    FollowAudienceOperator,
    SelectAudienceOperator,
    SendBatchOperator,
)
from mailing.sender import STOP_PATIENCE_S, Stopped
from mailing.triggers import CampaignTrigger
from tests.builders import HOUR, an_open_campaign, now, some_clients, states


def context(*, is_paused=False, running=()):
    """What Airflow gives to a task, as far as campaigns' tasks look at it; its run stands for a minute ago.

    `running`: the logical dates of the runs that are running.
    """
    task = SimpleNamespace(
        dag_id="campaign",
        get_dag=lambda dag_id: SimpleNamespace(is_paused=is_paused),
        get_dr_count=lambda dag_id, logical_dates, states: len(set(running) & set(logical_dates)),
    )
    run = SimpleNamespace(run_after=now() - HOUR / 60)
    return {"ti": task, "dag_run": run, "outlet_events": OutletEventAccessors()}


def wait_of(operator, **more):
    """Execute a task to where it gives its slot back; for how many seconds, at most, it waits then."""
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context(**more))
    assert isinstance(deferred.value.trigger, CampaignTrigger)
    return deferred.value.trigger.until - time.time()


def test_latecomers_are_looked_for_now_and_then(connection, gateway):
    campaign_id, _ = an_open_campaign(connection, clients=1, audience="live")
    some_clients(connection, 3)

    wait_s = wait_of(FollowAudienceOperator(task_id="follow_audience", campaign_id=campaign_id))

    assert states(connection, campaign_id) == {"sent": 3, "pending": 1}  # the first is the other tasks' to send
    assert FOLLOW_S - 2 < wait_s <= FOLLOW_S


@pytest.mark.parametrize("reason", ["turn", "pause"])
@pytest.mark.parametrize("operator", ["send_batch", "follow_audience"])
def test_a_task_whose_turn_is_over_or_whose_dag_is_paused_goes_on_as_soon_as_it_may(
    connection, gateway, monkeypatch, operator, reason
):
    monkeypatch.setenv("MAILING_TURN_S", "0.1" if reason == "turn" else "600")
    campaign_id, _ = an_open_campaign(connection, clients=20, audience="live", messages_per_second=1)
    if operator == "send_batch":
        task = SendBatchOperator(task_id=operator, campaign_id=campaign_id, batch=1)
    else:
        some_clients(connection, 20)
        task = FollowAudienceOperator(task_id=operator, campaign_id=campaign_id)

    wait_s = wait_of(task, is_paused=reason == "pause")

    left = states(connection, campaign_id)
    assert left.keys() == {"sent", "pending"}
    assert 0 < left["sent"] < 20
    heartbeat_s = 5  # Airflow's default: by then it has seen that the task gave its slot back
    assert heartbeat_s < wait_s <= PAUSE_POLL_S + heartbeat_s


@pytest.mark.parametrize(
    ("mapped", "is_left"),
    [
        (None, False),
        ("earlier", False),  # it may not have ended yet; it sends nothing any more
        ("later", True),
        ("later, and another was asked for since", True),  # else whoever asks often enough would keep all runs waiting
    ],
)
@pytest.mark.parametrize("is_running", [True, False])
def test_a_task_that_would_wait_leaves_what_is_left_to_a_later_run_that_has_mapped_it(
    connection, gateway, mapped, is_left, is_running
):
    campaign_id, [batch] = an_open_campaign(connection, clients=3)
    connection.execute("UPDATE messages SET not_before = now() + interval '10 minutes'")
    earlier, later = now() - HOUR, now()
    runs.wake(connection, campaign_id)  # a run that was asked for and has mapped nothing is none to leave it to
    if mapped:
        run_after = earlier if mapped == "earlier" else later
        assert runs.select_audience(connection, campaign_id, run_after=run_after).batches == [batch]
    if mapped and "since" in mapped:
        runs.wake(connection, campaign_id)
    is_left = is_left and is_running

    task = SendBatchOperator(task_id="send_batch", campaign_id=campaign_id, batch=batch)
    running = [earlier, later] if is_running else [earlier]
    if is_left:
        task.execute(context(running=running))
    else:
        assert wait_of(task, running=running) > 0
    assert states(connection, campaign_id) == {"pending": 3}


def test_a_task_that_sends_stops_when_a_later_run_has_mapped_what_is_left(connection, gateway):
    campaign_id, [batch] = an_open_campaign(connection, clients=60, messages_per_second=1)
    later = now()
    runs.select_audience(connection, campaign_id, run_after=later)

    task = SendBatchOperator(task_id="send_batch", campaign_id=campaign_id, batch=batch)
    task.execute(context(running=[later]))

    left = states(connection, campaign_id)
    assert left.keys() == {"sent", "pending"}
    assert gateway.stats()["received"] == left["sent"]


def test_a_task_that_makes_room_awaits_the_answers_to_what_it_has_posted(connection, gateway, monkeypatch):
    """What a kill leaves in doubt, for there is no time to wait, the end of a turn does not."""
    monkeypatch.setenv("MAILING_TURN_S", "0.1")
    gateway.set(latency={"kind": "fixed", "seconds": PAUSE_POLL_S + STOP_PATIENCE_S + 1.0})
    connection.execute("UPDATE gateways SET requests_in_flight = 1")
    campaign_id, _ = an_open_campaign(connection, clients=5)

    wait_of(SendBatchOperator(task_id="send_batch", campaign_id=campaign_id, batch=1))

    assert states(connection, campaign_id) == {"sent": 1, "pending": 4}


def test_whoever_comes_after_the_last_message_has_the_last_task_skipped_and_announces_nothing_again(
    connection, gateway
):
    campaign_id, [first, second] = an_open_campaign(connection, clients=2, batch_size=1)
    announced = []
    for batch in (first, second, second):
        task = SendBatchOperator(task_id="send_batch", campaign_id=campaign_id, batch=batch)
        given = context()
        if batch == first:
            task.execute(given)
            assert task.outlets == []
        else:
            with pytest.raises(DownstreamTasksSkipped) as skipped:
                task.execute(given)
            assert (skipped.value.tasks, task.outlets) == (["close_campaign"], [announce.FINISHES])
        accessor = given["outlet_events"][announce.FINISHES]
        announced.append([event.extra["sent"] for event in accessor.asset_alias_events])
    assert announced == [[], [2, 2], []]


def test_a_task_that_fails_says_of_which_messages_it_was(connection, gateway):
    campaign_id, [_, second] = an_open_campaign(connection, clients=2, batch_size=1)
    task = SendBatchOperator(task_id="send_batch", campaign_id=campaign_id, batch=second)
    task.on_kill()
    given = context()
    with pytest.raises(Stopped):
        task.execute(given)
    assert given["label"] == "messages 2–2"


@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_a_scheduled_run_says_that_it_has_mapped_what_is_left(connection, run_type):
    """One that was triggered by hand cannot be asked for by its moment."""
    campaign_id, [batch] = an_open_campaign(connection, clients=1)
    run = SimpleNamespace(run_after=now(), run_type=run_type)

    task = SelectAudienceOperator(task_id="select_audience", campaign_id=campaign_id)
    assert task.execute({"dag_run": run, "params": {}}) == [batch]

    assert runs.mapped_at(connection, campaign_id) == (run.run_after if run_type == "scheduled" else None)
