"""The count at the end: what the ledger says of each campaign, and what the gateway took."""

from __future__ import annotations

from collections import Counter

from mailing import recount
from tests.chaos.blows import PAUSE_SHOWS_S
from tests.chaos.promises import UNSEEN, Check
from tests.chaos.world import World
from tests.soak.acts import LISTS, Made


def check(world: World, made: list[Made]) -> tuple[list[Check], Counter[str]]:
    """Every promise about all campaigns together, and how many messages ended how."""
    broken: dict[str, list[int]] = {
        promise: []
        for promise in (
            "pending or under way though its campaign is over",
            "called sent, and never accepted",
            "accepted, and called neither sent nor unknown",
            "accepted twice, and nobody sent it again",
            "posted before the start or after the stop",
            "posted after its campaign was cancelled",
            "clients that an opened campaign left out",
        )
    }
    states: Counter[str] = Counter()
    for campaign in made:
        _count(world, campaign, broken, states)
    differences = world.in_database(recount.differences)
    return [
        *(Check("all", promise, len(ids), ids=tuple(ids)) for promise, ids in broken.items()),
        Check("all", "a kept count is not what its messages add up to", len(differences)),
    ], states


def _count(world: World, campaign: Made, broken: dict[str, list[int]], states: Counter[str]) -> None:
    [window] = world.rows(
        "SELECT extract(epoch FROM sending_start)::float8 AS starts, extract(epoch FROM sending_stop)::float8 AS stops,"
        " opened_at IS NOT NULL AS is_open, (SELECT count(*) FROM messages m WHERE m.campaign_id = c.id) AS audience"
        " FROM campaigns c WHERE id = %s",
        campaign.id,
    )
    if window["is_open"] and window["audience"] != LISTS[campaign.code]:
        broken["clients that an opened campaign left out"].append(campaign.id)
    rows = world.rows("SELECT id, state FROM messages WHERE campaign_id = %s ORDER BY id", campaign.id)
    seen = world.requests(rows[0]["id"], rows[-1]["id"]) if rows else {}
    ends = campaign.cancelled_at
    for row in rows:
        msg_id, state, met = row["id"], row["state"], seen.get(row["id"], UNSEEN)
        states[state] += 1
        told = {
            "pending or under way though its campaign is over": state in ("pending", "sending"),
            "called sent, and never accepted": state == "sent" and not met["accepted"],
            "accepted, and called neither sent nor unknown": met["accepted"]
            and state not in ("sent", "unknown")
            and not campaign.repeats,
            "accepted twice, and nobody sent it again": met["accepted"] > 1 and not campaign.repeats,
            "posted before the start or after the stop": any(
                not window["starts"] <= at < window["stops"] for at in met["arrivals"]
            ),
            "posted after its campaign was cancelled": ends is not None
            and any(at > ends + PAUSE_SHOWS_S for at in met["arrivals"]),
        }
        for promise, is_broken in told.items():
            if is_broken:
                broken[promise].append(msg_id)
