"""Tells Airflow how campaigns ended: an asset event for each end, once, for pipelines that are scheduled on it.

Events go through an alias, for a task that has an asset as its outlet emits an event whenever it succeeds. Airflow
takes them when the task has succeeded; a task that dies before has its ends announced by upkeep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import structlog
from airflow.sdk import Asset, AssetAlias

from mailing import db, finishes

if TYPE_CHECKING:
    from airflow.sdk.types import OutletEventAccessorsProtocol

log = structlog.get_logger(__name__)

CAMPAIGNS = Asset("mailing://campaigns")
"""An event for each end of any campaign. Airflow shows the URI with a slash at its end."""

FINISHES = AssetAlias("mailing_campaign_finishes")
"""The outlet of the tasks that announce."""


def asset(campaign_id: int) -> Asset:
    """An event for each end of this campaign."""
    return Asset(f"mailing://campaigns/{campaign_id}")


def known_events(campaign_id: int) -> set[str]:
    """The ids of the events that Airflow has of this campaign. For tasks: they ask the execution API."""
    from airflow.sdk.execution_time.context import InletEventsAccessors

    wanted = asset(campaign_id)
    # Not an inlet of the task: which campaigns it will ask after is not known when its DAG is parsed.
    events = InletEventsAccessors([wanted])[wanted]
    return {str((event.extra or {}).get("event_id")) for event in events}


def announce(outlet_events: OutletEventAccessorsProtocol) -> list[str]:
    """Emit what nobody has announced, of all campaigns. The ids of the events."""
    with db.transaction() as connection:
        taken = finishes.take_unannounced(connection)
    return emit(outlet_events, taken)


def announce_lost(
    outlet_events: OutletEventAccessorsProtocol, known_events: Callable[[int], set[str]] = known_events
) -> list[str]:
    """Emit what tasks had taken upon themselves and died over, and note what they did not. The ids of the events."""
    lost = []
    with db.transaction() as connection:
        taken = finishes.to_confirm(connection)
    for finish in taken:
        is_known = finish.figures["event_id"] in known_events(finish.campaign_id)
        with db.transaction() as connection:
            if is_known:
                finishes.confirm(connection, finish)
            elif finishes.take_again(connection, finish):
                log.warning("its end was not announced, and is now", campaign_id=finish.campaign_id)
                lost.append(finish.figures)
    return emit(outlet_events, lost)


def emit(outlet_events: OutletEventAccessorsProtocol, ends: Iterable[dict[str, Any]]) -> list[str]:
    """Emit ends (their figures) that the caller has taken upon itself. The ids of the events.

    `outlet_events`: of the task's context. FINISHES is an outlet of the task, and this the last thing that it does.
    """
    events = outlet_events[FINISHES]
    ids = []
    for figures in ends:
        events.add(asset(figures["campaign_id"]), extra=figures)
        events.add(CAMPAIGNS, extra=figures)
        log.info("its end is announced", campaign_id=figures["campaign_id"], event_id=figures["event_id"])
        ids.append(figures["event_id"])
    return ids
