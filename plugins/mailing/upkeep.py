"""What must happen though nobody asks, every minute: the tasks of dags/upkeep.py.

One campaign that makes trouble does not keep the others from it; its error is raised at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import structlog
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from airflow.sdk.observability import stats

from mailing import db, gateways, roster, runs
from mailing.errors import NotFinished
from mailing.gateway import token_expiry

T = TypeVar("T")

log = structlog.get_logger(__name__)


def recover_claims() -> int:
    """Settle what dead tasks had claimed, everywhere. Returns how many messages that were."""
    with db.transaction() as connection:
        dead = runs.dead_leases(connection)
    return sum(_each(dead, _recover))


def _recover(lease: tuple[int, int]) -> int:
    campaign_id, number = lease
    with db.transaction() as connection:
        recovered = runs.recover(connection, campaign_id, number)
    log.warning("a task died", campaign_id=campaign_id, batch=number, recovered=recovered)
    stats.incr("mailing.lease.recovered", 1)
    return recovered


def close_overdue() -> list[int]:
    """Close the campaigns that are over and that nobody closed. Returns their ids."""
    with db.transaction() as connection:
        overdue = runs.overdue(connection)
    return [campaign_id for campaign_id in _each(overdue, _close) if campaign_id]


def _close(campaign_id: int) -> int | None:
    try:
        with db.transaction() as connection:
            progress = runs.close(connection, campaign_id)
    except NotFinished as error:
        log.info(str(error), campaign_id=campaign_id)  # a live task still speaks for some of it: next time
        return None
    log.warning("it is over, nothing more is sent", campaign_id=campaign_id, **progress.counts)
    return campaign_id


def fold_counts() -> list[int]:
    """Put counts together that lie in more rows than they need. Returns the campaigns whose counts they are."""
    with db.transaction() as connection:
        scattered = runs.to_fold(connection)
    return _each(scattered, _fold)


def _fold(campaign_id: int) -> int:
    with db.transaction() as connection:
        runs.fold_counts(connection, campaign_id)
    return campaign_id


def make_room() -> int | None:
    """Make the next part of the ledger before it is needed: the first campaign that goes into it; None: not yet."""
    with db.transaction() as connection:
        return runs.make_room_ahead(connection)


def wake_unattended(has_run: Callable[[str], bool]) -> list[int]:
    """Give a run to campaigns that should be sending and have none (it was deleted, or failed). Returns their ids.

    `has_run`: whether the DAG of that id has a run that is queued or running.
    """
    with db.transaction() as connection:
        unattended = runs.unattended(connection)
    return [campaign_id for campaign_id in _each(unattended, partial(_wake, has_run)) if campaign_id]


def _wake(has_run: Callable[[str], bool], campaign_id: int) -> int | None:
    if has_run(roster.dag_id(campaign_id)):
        return None
    log.warning("it has no run, and gets one", campaign_id=campaign_id)
    with db.transaction() as connection:
        runs.wake(connection, campaign_id)
    return campaign_id


def check_tokens() -> list[str]:
    """Note when the gateways' tokens expire. Returns the gateways that need a new one soon, or now."""
    with db.transaction() as connection:
        known = gateways.all_gateways(connection)
    return [gateway.name for gateway in known if _is_token_short(gateway)]


def _is_token_short(gateway: gateways.GatewayRow) -> bool:
    try:
        from airflow.sdk import BaseHook

        expires = token_expiry(BaseHook.get_connection(gateway.connection_id).password)
    except AirflowNotFoundException:
        log.error("its connection is not defined", gateway=gateway.name, connection=gateway.connection_id)
        return True
    with db.transaction() as connection:
        gateways.save_token_expiry(connection, gateway.name, expires)
    if expires is None:
        return False
    left_s = expires - time.time()
    if left_s >= gateway.token_warning_s:
        return False
    said = "its token expires soon" if left_s > 0 else "its token has expired"
    log.error(said, gateway=gateway.name, connection=gateway.connection_id, in_s=round(left_s))
    return True


def _each(things: Iterable[T], work: Callable[[T], int | None]) -> list[int]:
    """What `work` returned for each; raises at the end if one of them failed."""
    done, failed = [], []
    for thing in things:
        try:
            done.append(work(thing) or 0)
        except Exception:
            log.exception("could not be done", thing=thing)
            failed.append(thing)
    if failed:
        raise AirflowException(f"campaigns {failed} could not be looked after: see above")
    return done
