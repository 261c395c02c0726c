"""What a campaign's run does: open it, follow its audience, close it; and what upkeep does for campaigns without a run.

Functions take a connection and never commit; times are aware.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mailing import campaigns, db, finishes, local_hours, messages
from mailing.campaigns import Progress
from mailing.errors import NotFinished, NotFound
from mailing.local_hours import LocalHours, ZoneForecast

SQL = db.queries("runs")

BATCH_SIZE = 5_000
"""Messages per mapped task, at least: a task costs half a second of a core, so it should carry seconds of sending."""

FEWEST_BATCHES, MOST_BATCHES, BATCH_IN_FLIGHT = 2, 8, 50
"""An audience that would make more batches than one for so many requests in flight of its gateway gets larger ones, of
which there are at least the fewest and at most the most (and one for each LARGEST_BATCH): tasks share the requests in
flight, and one with a small share goes to the ledger more often for each message (docs/decisions/0020)."""

LARGEST_BATCH = 500_000
"""Messages of a batch, at most: to look for what is left of it, its rows are read (60 ms)."""

MAX_BATCHES = 1_000
"""Airflow's limit of a mapping is 1,024; a large audience gets larger batches instead."""

ID_SPAN = 100_000
"""No batch that grows as clients join spreads over more ids: a claim reads through all, other campaigns' too."""

COUNTED_S = (5, 10, 30, 60, 300, 900)
"""Spans by which outcomes are counted, each a part of the next: the narrowest at first. Every midnight of every time
zone lies between two of the widest."""

COLUMNS = 60
"""Once folded, the counts by time of a campaign take the narrowest spans of which there are no more than so many."""

CLAIM_PATIENCE_S = 10.0
"""How soon to look again whether claims that a live task may still speak for are settled."""

UNATTENDED = timedelta(minutes=1)
"""How long a campaign that should be sending may be without a task before upkeep asks whether it has a run at all."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening a campaign came to: the batches to send, why there are none, and seconds until its start (or 0).

    `closes_in_s`: seconds until its stop, where its run is to wait until the campaign is resumed (or edited);
    `updated`: when its row was last written, epoch seconds.
    """

    batches: list[int]
    said: str
    opens_in_s: float = 0.0
    closes_in_s: float = 0.0
    updated: float = 0.0


def select_audience(
    connection: db.Connection,
    campaign_id: int,
    *,
    batch_size: int | None = None,
    max_batches: int = MAX_BATCHES,
    newcomers: bool = False,
    run_after: datetime | None = None,
) -> Opening:
    """Open the campaign: those who match its filter enter the ledger, and the batches to send are named.

    `batch_size`: messages of a batch; None: BATCH_SIZE to LARGEST_BATCH, by the number of those who join and by their
    gateway's requests in flight.

    `run_after`: the moment (aware) that a scheduled run stands for; earlier ones leave to it what is left to send
    (`mapped_at`).

    Running it again adds nobody twice. A `snapshot` audience is taken once, when the campaign opens; `newcomers` asks
    for those who match by now (a run that a person triggered). The task that follows a `live` audience sends to
    latecomers, so their batches are not named; nor are more than `max_batches`: a further run sends those. Once the
    window is over there is nothing to send: the audience enters the ledger all the same, and `close` says what became
    of it.
    """
    campaign = _lock_audience(connection, campaign_id)
    if campaign["opens_in_s"] > 0:
        said = f"its window opens at {campaign['sending_start']}"
        return Opening([], said, campaign["opens_in_s"], updated=campaign["updated"])
    is_first, is_over = campaign["opened_at"] is None, campaign["is_over"]
    if campaign["status"] == "cancelled":
        return Opening([], "it is cancelled")
    if campaign["status"] == "paused" and not is_over:
        return Opening([], "it is paused", closes_in_s=campaign["closes_in_s"], updated=campaign["updated"])
    grows = is_first or (not is_over and (newcomers or campaign["audience"] == "live"))
    enrolled = 0
    if grows or campaign["audience_stale"]:
        free = max_batches - len(_unfinished_batches(connection, campaign_id))
        enrolled = _grow(connection, campaign, is_run=True, batch_size=batch_size, free=free)
    unfinished = _unfinished_batches(connection, campaign_id)
    is_live = campaign["audience"] == "live"
    batches = [row["number"] for row in unfinished if not (is_live and row["is_late"])][:max_batches]
    if unfinished or is_first:
        parameters = {"campaign_id": campaign_id, "revision": campaign["revision"]}
        connection.execute(SQL["start_campaign"], parameters)
    if is_over:
        return Opening([], f"its window closed at {campaign['sending_stop']}")
    if run_after is not None:
        connection.execute(SQL["note_mapped"], {"campaign_id": campaign_id, "run_after": run_after})
    return Opening(batches, f"{enrolled} clients joined its audience")


def follow_filter(connection: db.Connection, campaign_id: int) -> int:
    """Bring the audience after an edited filter: who does not match is left out, who does joins. How many joined.

    Nobody is, while something is on its way that was claimed before the edit: it may come back.
    """
    campaign = _lock_audience(connection, campaign_id)
    if not campaign["audience_stale"] or campaign["sending"] or campaign["status"] in ("cancelled", "finished"):
        return 0
    free = MAX_BATCHES - len(_unfinished_batches(connection, campaign_id))
    return _grow(connection, campaign, free=free)


def _grow(
    connection: db.Connection,
    campaign: dict[str, Any],
    *,
    free: int,
    batch_size: int | None = None,
    is_late: bool = False,
    is_run: bool = False,
) -> int:
    """Everybody who matches by now joins; where the filter was edited, who does not is left out. How many joined.

    The edit is not done with while anything is on its way that was claimed before it: that may come back. `is_run`: the
    caller names the batches that are to be sent by now; else a further run does.
    """
    how: dict[str, Any] = {"free": free, "batch_size": batch_size, "is_late": is_late}
    if not campaign["audience_stale"]:
        return _enrol(connection, campaign["id"], **how)
    parameters = {"campaign_id": campaign["id"], "revision": campaign["revision"]}
    connection.execute(SQL["exclude_unmatched"], parameters)
    readmitted = connection.execute(SQL["readmit_matched"], parameters).rowcount
    enrolled = _enrol(connection, campaign["id"], **how)
    if not is_run and (readmitted or (enrolled and not is_late)):
        connection.execute(SQL["wake_for_followers"], parameters)
    if not campaign["sending"]:  # as of before the exclusion, which passes over what is on its way
        connection.execute(SQL["audience_followed"], parameters)
    return readmitted + enrolled


def follow_audience(connection: db.Connection, campaign_id: int) -> list[int] | None:
    """Enrol those who have come to match a `live` campaign. The batches of latecomers to send; None: it is over."""
    campaign = _lock_audience(connection, campaign_id)
    if campaign["is_over"] or campaign["audience"] != "live" or campaign["status"] in ("cancelled", "finished"):
        return None
    unfinished = _unfinished_batches(connection, campaign_id)
    if campaign["status"] == "running":
        joined = _grow(connection, campaign, free=MAX_BATCHES - len(unfinished), is_late=True)
        if joined or campaign["audience_stale"]:
            unfinished = _unfinished_batches(connection, campaign_id)
    return [row["number"] for row in unfinished if row["is_late"]]


def _enrol(
    connection: db.Connection,
    campaign_id: int,
    *,
    free: int,
    batch_size: int | None = None,
    is_late: bool = False,
) -> int:
    """`free`: of what one run can map, how many batches are not taken by what is unfinished already.

    `batch_size`: messages of a batch; None: by the number of those who join and their gateway's requests in flight.
    """
    parameters = {
        "campaign_id": campaign_id,
        "batch_size": batch_size or BATCH_SIZE,
        "largest_batch": batch_size or LARGEST_BATCH,
        "fewest_batches": FEWEST_BATCHES,
        "most_batches": MOST_BATCHES,
        "batch_in_flight": BATCH_IN_FLIGHT,
        "max_batches": max(1, free),
        "id_span": ID_SPAN,
        "is_late": is_late,
    }
    connection.execute(SQL["make_room"], parameters)
    row = db.one(connection, SQL["enrol_audience"], parameters)
    return int(row["enrolled"]) if row else 0


def close(connection: db.Connection, campaign_id: int) -> Progress:
    """Finish the campaign: what its window closed on becomes `expired`, or `cancelled` with it. The final figures.

    One whose window passed without a run is opened first: whoever would have been its audience ends as `expired`.
    What dead tasks had claimed is recovered first (see `messages.recover_claims`). Raises NotFinished while something
    is left to do: the audience to be taken, pending messages while the window is open, or claims that a live task may
    still speak for.
    """
    seen = _lock_audience(connection, campaign_id)
    if seen["is_over"] and seen["opened_at"] is None and seen["status"] != "cancelled":
        select_audience(connection, campaign_id)
    if seen["sending"]:
        _recover_all(connection, campaign_id)
    connection.execute(SQL["forget_dead_leases"], {"campaign_id": campaign_id, "batch": None})
    campaign = campaigns.lock(connection, campaign_id)
    parameters = {"campaign_id": campaign_id}
    if campaign["is_over"] or campaign["status"] == "cancelled":
        connection.execute(SQL["sweep_pending"], parameters)
    connection.execute(SQL["finish_campaign"], parameters)
    standing = campaigns.progress(connection, campaign_id)
    _raise_if_unfinished(standing, campaign)
    if standing.status in ("finished", "cancelled"):
        connection.execute(SQL["forget_throttle"], parameters)
        finishes.record(connection, campaign_id)
    return standing


def close_after_last(connection: db.Connection, campaign_id: int) -> Progress:
    """As `close`, for a task that is done with its batch: raises NotFinished at once where there is more to send."""
    if db.one(connection, SQL["has_messages_left"], {"campaign_id": campaign_id}):
        raise NotFinished(f"campaign {campaign_id}: others have messages left to send", again_in_s=None)
    return close(connection, campaign_id)


def make_room_ahead(connection: db.Connection) -> int | None:
    """Make the next part of the ledger where the last one is more than half full: its first campaign's id."""
    row = db.one(connection, SQL["make_room_ahead"], {})
    return int(row["first_campaign_id"]) if row else None


def fold_counts(connection: db.Connection, campaign_id: int) -> None:
    """Put a campaign's counts together in fewer rows; no figure changes by it."""
    parameters = {"campaign_id": campaign_id, "widths_s": list(COUNTED_S), "columns": COLUMNS}
    connection.execute(SQL["fold_counts"], parameters)


def to_fold(connection: db.Connection) -> list[int]:
    """The campaigns whose counts lie in more rows than they need."""
    return [row["campaign_id"] for row in connection.execute(SQL["campaigns_to_fold"])]


def sweep_cancelled(connection: db.Connection, campaign_id: int) -> None:
    """Cancel what waits of a cancelled campaign; what is in flight its task settles, and upkeep what is left."""
    with suppress(NotFinished):
        close(connection, campaign_id)


def _raise_if_unfinished(standing: Progress, campaign: dict[str, Any]) -> None:
    if standing.pending or standing.sending:
        left = f"{standing.pending} messages are pending and {standing.sending} sending"
    elif standing.status in ("finished", "cancelled"):
        return
    elif standing.opened_at is None:
        if campaign["opens_in_s"] > 0:
            return
        left = "its audience was not taken yet"
    else:
        left = "its audience may still grow"
    raise NotFinished(
        f"campaign {standing.id} ({standing.standing}): {left}; its window closes at {campaign['sending_stop']}",
        # Claims are settled by themselves, by their task or when its lease has run out.
        again_in_s=CLAIM_PATIENCE_S if standing.sending else None,
        wake_at=standing.wake_at,
    )


def _unfinished_batches(connection: db.Connection, campaign_id: int) -> list[dict[str, Any]]:
    return connection.execute(SQL["unfinished_batches"], {"campaign_id": campaign_id}).fetchall()


def _recover_all(connection: db.Connection, campaign_id: int) -> None:
    span = db.one(connection, SQL["message_range"], {"campaign_id": campaign_id})
    messages.recover_range(connection, campaign_id, **(span or {"first_id": None, "last_id": None}))


def dead_leases(connection: db.Connection) -> list[tuple[int, int]]:
    """Campaign and batch of each lease that ran out with nobody having settled its claims."""
    return [(row["campaign_id"], row["batch"]) for row in connection.execute(SQL["dead_leases"])]


def recover(connection: db.Connection, campaign_id: int, number: int) -> int:
    """Settle what dead tasks had claimed of one batch. Returns how many messages that were."""
    recovered = messages.recover_claims(connection, campaign_id, messages.batch(connection, campaign_id, number))
    connection.execute(SQL["forget_dead_leases"], {"campaign_id": campaign_id, "batch": number})
    return recovered


def overdue(connection: db.Connection) -> list[int]:
    """Campaigns that are over (their window closed, or they were cancelled) and that nobody closed."""
    return [row["id"] for row in connection.execute(SQL["overdue_campaigns"])]


def unattended(connection: db.Connection) -> list[int]:
    """Campaigns that should be sending and for which no task holds a lease: theirs wait, or there are none."""
    return [row["id"] for row in connection.execute(SQL["unattended_campaigns"], {"patience": UNATTENDED})]


def wake(connection: db.Connection, campaign_id: int, in_s: float = 0.0) -> bool:
    """Have the campaign's DAG run once more, in so many seconds. False: it is paused or over, and does not."""
    return connection.execute(SQL["wake_campaign"], {"campaign_id": campaign_id, "in_s": in_s}).rowcount == 1


def is_further_run_due(connection: db.Connection, campaign_id: int, run_after: datetime) -> bool:
    """Whether a run was asked for after the one that stands for `run_after` (aware)."""
    row = db.one(connection, SQL["is_further_run_due"], {"campaign_id": campaign_id, "run_after": run_after})
    return bool(row and row["is_due"])


def mapped_at(connection: db.Connection, campaign_id: int) -> datetime | None:
    """The moment (aware) of the latest scheduled run that has named what is to be sent; None: none has."""
    row = db.one(connection, SQL["campaign_mapped_at"], {"campaign_id": campaign_id})
    return row["mapped_at"] if row else None


def updated(connection: db.Connection, campaign_id: int) -> float:
    """When the campaign's row was last written, epoch seconds; 0 where there is none."""
    row = db.one(connection, SQL["campaign_updated"], {"campaign_id": campaign_id})
    return float(row["updated"]) if row else 0.0


def forecast(connection: db.Connection, campaign_id: int) -> list[ZoneForecast]:
    """Whom the campaign can reach before its stop, by time zone: of its audience, or of who would be it. NotFound."""
    campaign = db.one(connection, SQL["campaign_to_forecast"], {"campaign_id": campaign_id})
    if campaign is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    hours = LocalHours(campaign["local_from"], campaign["local_to"]) if campaign["local_from"] is not None else None
    begins = max(campaign["sending_start"], campaign["now"])
    rows = connection.execute(SQL["audience_by_zone"], {"campaign_id": campaign_id})
    by_zone = {row["timezone"]: row["clients"] for row in rows}
    return local_hours.forecast(by_zone, hours, begins, campaign["sending_stop"])


def _lock_audience(connection: db.Connection, campaign_id: int) -> dict[str, Any]:
    parameters = {"campaign_id": campaign_id}
    connection.execute(SQL["lock_audience"], parameters)
    row = db.one(connection, SQL["campaign_to_run"], parameters)
    if row is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    return row
