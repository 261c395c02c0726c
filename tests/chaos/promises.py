"""The count: what the ledger says, what the gateway took, and whether they keep what docs/delivery.md promises.

A check says how many broke the promise and how many may: none, but for messages in doubt, whose bound names its parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mailing import recount
from tests.chaos.blows import KINDS, PAUSE_SHOWS_S, Pause
from tests.chaos.plan import Plan, Planned
from tests.chaos.raid import Fought
from tests.chaos.world import World

NEAR_S = 2.0
"""A message that was claimed so long before or after a fault may be in doubt by it; before, also the time it waits for
its answer."""

UNSEEN: dict[str, Any] = {"received": 0, "accepted": 0, "arrivals": [], "statuses": []}


@dataclass(frozen=True)
class Check:
    """One promise about one campaign: how often it was broken (`seen`), how often it may be, and why so often."""

    campaign: str
    promise: str
    seen: int
    allowed: int = 0
    parts: str = ""
    ids: tuple[int, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether no more broke it than may."""
        return self.seen <= self.allowed


@dataclass(frozen=True)
class Tally:
    """One campaign after the fight: its ledger by msgId, and what the gateway remembers of each (`seen`)."""

    planned: Planned
    fought: Fought
    campaign: dict[str, Any]
    matched: frozenset[int]
    rows: dict[int, dict[str, Any]]
    seen: dict[int, dict[str, Any]]
    doubts: dict[int, list[bool]]
    differences: list[recount.Difference]

    @classmethod
    def take(cls, world: World, fought: Fought, planned: Planned) -> Tally:
        """Count one campaign."""
        campaign_id = fought.ids[planned]
        [campaign] = world.rows(
            "SELECT id, status, extract(epoch FROM sending_start)::float8 AS starts,"
            " extract(epoch FROM sending_stop)::float8 AS stops FROM campaigns WHERE id = %s",
            campaign_id,
        )
        clients = world.rows("SELECT id FROM clients WHERE mobile_operator_code = %s", planned.code)
        matched = frozenset(client["id"] for client in clients)
        ledger = world.rows(
            "SELECT m.*, (SELECT count(*) FROM attempts a WHERE a.campaign_id = m.campaign_id AND a.message_id = m.id)"
            " AS evidence FROM messages m WHERE m.campaign_id = %s ORDER BY m.id",
            campaign_id,
        )
        rows = {row["id"]: row for row in ledger}
        met = world.requests(min(rows), max(rows)) if rows else {}
        seen = {msg_id: met.get(msg_id, UNSEEN) for msg_id in rows}
        doubts = {msg_id: world.was_in_doubt(msg_id, each) for msg_id, each in seen.items()}
        differences = world.in_database(lambda connection: recount.differences(connection, campaign_id))
        return cls(planned, fought, campaign, matched, rows, seen, doubts, differences)

    @property
    def states(self) -> Counter[str]:
        """How many messages are in which state."""
        return Counter(row["state"] for row in self.rows.values())

    @property
    def repeated(self) -> int:
        """How many messages the gateway took more than once."""
        return sum(each["accepted"] > 1 for each in self.seen.values())

    @property
    def reasons(self) -> Counter[str]:
        """Why messages are unknown, in the ledger's words."""
        return Counter(row["reason"] for row in self.rows.values() if row["state"] == "unknown")

    @property
    def arrivals(self) -> list[float]:
        """When its requests arrived (epoch seconds), in order."""
        return sorted(at for each in self.seen.values() for at in each["arrivals"])

    def which(self, is_so: Callable[[dict[str, Any], dict[str, Any], list[bool]], bool]) -> tuple[int, ...]:
        """The msgIds of whose row, requests and doubts this is so."""
        return tuple(i for i, row in self.rows.items() if is_so(row, self.seen[i], self.doubts[i]))


def check(world: World, plan: Plan, fought: Iterable[Fought]) -> tuple[list[Tally], list[Check]]:
    """Count everything. The gateway must be up, and every campaign be over."""
    phases = list(fought)
    tallies = [Tally.take(world, each, planned) for each in phases for planned in each.phase.campaigns]
    checks = [found for tally in tallies for found in _checks(plan, tally)]
    known = {msg_id for tally in tallies for msg_id in tally.rows}
    strangers = tuple(i for i in world.requests(min(known), max(known)) if i not in known) if known else ()
    checks.append(Check("all", "posted with a msgId that no message has", len(strangers), ids=strangers))
    struck = [blow.strike for each in phases for blow in each.blows]
    missing = [strike.kind for each in phases for strike in each.phase.strikes if strike not in struck]
    checks.append(Check("all", "faults that found no occasion", len(missing), parts=", ".join(missing)))
    return tallies, checks


def _checks(plan: Plan, tally: Tally) -> list[Check]:
    held = tally.planned.on_doubt == "hold"
    return [
        *_nobody_is_lost(tally),
        *_the_ledger_is_true(tally),
        Check(tally.planned.label, "a kept count is not what its messages add up to", len(tally.differences)),
        *(_held(tally) if held else _resent(tally)),
        *_when(tally),
        *(_in_doubt(plan, tally) if held else []),
    ]


def _checks_of(tally: Tally) -> Callable[[str, tuple[int, ...]], Check]:
    return lambda promise, ids: Check(tally.planned.label, promise, len(ids), ids=ids)


def _nobody_is_lost(tally: Tally) -> list[Check]:
    ended = {row["client_id"] for row in tally.rows.values() if row["state"] not in ("pending", "sending")}
    parts = f"{len(tally.matched):,} clients matched, {len(ended):,} have a message that ended"
    says = _checks_of(tally)
    return [
        Check(tally.planned.label, "matched, and in no terminal state", len(tally.matched - ended), parts=parts),
        says("messages to clients that do not match", tally.which(
            lambda row, *_: row["client_id"] not in tally.matched)),
        says("called sent, and never accepted", tally.which(
            lambda row, seen, _: row["state"] == "sent" and not seen["accepted"])),
    ]  # fmt: skip


def _the_ledger_is_true(tally: Tally) -> list[Check]:
    called_for = {"sent", "unknown"} | ({"expired"} if tally.planned.ends_early else set())
    says = _checks_of(tally)
    return [
        says("accepted, and called neither sent nor unknown", tally.which(
            lambda row, seen, _: bool(seen["accepted"]) and row["state"] not in ("sent", "unknown"))),
        says("in a state that nothing calls for", tally.which(lambda row, *_: row["state"] not in called_for)),
        says("unknown, without evidence", tally.which(
            lambda row, *_: row["state"] == "unknown" and not row["evidence"])),
    ]  # fmt: skip


def _held(tally: Tally) -> list[Check]:
    says = _checks_of(tally)
    return [
        says("accepted twice under hold", tally.which(lambda _, seen, __: seen["accepted"] > 1)),
        says("posted again after an answer in doubt", tally.which(lambda _, __, doubts: any(doubts[:-1]))),
        says("answered in doubt, and not unknown", tally.which(
            lambda row, _, doubts: any(doubts) and row["state"] != "unknown")),
    ]  # fmt: skip


def _resent(tally: Tally) -> list[Check]:
    """Whatever was in doubt was sent again, until the gateway said that it took it."""
    return [
        _checks_of(tally)("unknown under resend", tally.which(lambda row, *_: row["state"] == "unknown")),
        Check(tally.planned.label, "nothing in doubt that could be resent", int(not tally.repeated)),
    ]


def _when(tally: Tally) -> list[Check]:
    starts, stops = tally.campaign["starts"], tally.campaign["stops"]
    pauses = [each for each in tally.fought.pauses if each.campaign_id == tally.campaign["id"]]
    says = _checks_of(tally)

    def is_paused(at: float) -> bool:
        return any(pause.since + PAUSE_SHOWS_S < at < (pause.until or pause.since) for pause in pauses)

    checks = [
        says("posted before the start or after the stop", tally.which(
            lambda _, seen, __: any(not starts <= at < stops for at in seen["arrivals"]))),
    ]  # fmt: skip
    if pauses:
        found = tally.which(lambda _, seen, __: any(is_paused(at) for at in seen["arrivals"]))
        parts = f"the last request arrived {_slowest(tally, pauses):.1f} s after a pause; {len(pauses)} pauses"
        checks.append(Check(tally.planned.label, "posted while paused", len(found), parts=parts, ids=found))
    if tally.planned.ends_early:
        in_mid_send = tally.states["sent"] and tally.states["expired"]
        checks.append(Check(tally.planned.label, "its window closed, but not in mid-send", int(not in_mid_send)))
    return checks


def _slowest(tally: Tally, pauses: Iterable[Pause]) -> float:
    """Seconds from a pause to the last request before its resume, of all pauses the most."""
    waits = [at - pause.since for pause in pauses for at in tally.arrivals if pause.since < at < (pause.until or 0.0)]
    return max(waits, default=0.0)


def _in_doubt(plan: Plan, tally: Tally) -> list[Check]:
    """As many as the gateway and the faults explain; and those that no answer explains, only about a fault."""
    return [_unknown(plan, tally), _unexplained(plan, tally)]


def _unexplained(plan: Plan, tally: Tally) -> Check:
    faults = [blow for blow in tally.fought.blows if KINDS[blow.strike.kind].in_doubt]

    def is_near_a_fault(at: float) -> bool:
        return any(fault.at - plan.timeout_s - NEAR_S < at < fault.until + NEAR_S for fault in faults)

    return _checks_of(tally)("unknown, and neither an answer nor a fault explains it", tally.which(
        lambda row, _, doubts: row["state"] == "unknown" and not any(doubts)
        and not is_near_a_fault(row["claimed_at"].timestamp())))  # fmt: skip


def _unknown(plan: Plan, tally: Tally) -> Check:
    unknown = tally.which(lambda row, *_: row["state"] == "unknown")
    answers = sum(any(doubts) for doubts in tally.doubts.values())
    each, times = 2 * plan.requests_in_flight, tally.fought.doubtful
    parts = (
        f"{answers:,} answered with nothing or nonsense + {tally.fought.dropped:,} dropped in outages"
        f" + 2 × {plan.requests_in_flight} in flight × {times} faults"
        f" ({sum(not any(tally.doubts[i]) for i in unknown):,} are unknown without such an answer);"
        f" the ledger says {', '.join(f'{reason} {count:,}' for reason, count in tally.reasons.most_common())}"
    )
    return Check(
        tally.planned.label, "unknown", len(unknown), answers + tally.fought.dropped + each * times, parts, unknown
    )
