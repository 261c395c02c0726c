"""Does what a plan says: makes the campaigns, strikes when it is time, undoes what lasts, waits until all is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from local.stack_airflow import unhealthy
from local.stack_processes import ports
from mailing import campaigns, db
from tests.builders import some_clients
from tests.chaos.blows import KINDS, Pause, Scene, Struck
from tests.chaos.plan import Phase, Plan, Planned, Strike
from tests.chaos.world import InVain, World

LOOK_S = 0.25
"""A poll's pause: nothing tells how many messages are done but the ledger."""

MISSED_S = 10.0
"""A fault that was to strike before a stop, and found nobody sending, is given up so long after it."""


@dataclass
class Blow:
    """A fault that struck: from when until when (epoch seconds), with how many messages done, and what it hit."""

    strike: Strike
    at: float
    until: float
    done: int
    said: str


@dataclass
class Fought:
    """What a phase came to. `dropped`: requests that met a gateway which ended every connection."""

    phase: Phase
    ids: dict[Planned, int]
    began: float
    ended: float = 0.0
    blows: list[Blow] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    dropped: int = 0

    @property
    def doubtful(self) -> int:
        """How many faults may have left what was in flight unanswered."""
        return sum(KINDS[blow.strike.kind].in_doubt for blow in self.blows)


@dataclass(frozen=True)
class Standing:
    """How a phase stands: of its first campaign the messages done and seconds left, of all whether they are over."""

    done: int
    left_s: float
    is_over: bool


class Raid:
    """One run of a plan against a stack that is up. `say` takes a line for each fault."""

    def __init__(self, world: World, plan: Plan, say: Callable[[str], None] = print):
        self._world, self._plan, self._say = world, plan, say
        self._lasting: list[tuple[float, Blow, Struck]] = []  # with when to end (epoch seconds)

    def run(self) -> list[Fought]:
        """Fight every phase. Raises InVain when one does not end."""
        plan, world = self._plan, self._world
        world.change_gateway(requests_in_flight=plan.requests_in_flight, timeout_s=plan.timeout_s)
        world.behave()
        fought = [self._fight(phase) for phase in plan.phases]
        world.change_gateway(messages_per_second=None)
        return fought

    def _fight(self, phase: Phase) -> Fought:
        world, plan = self._world, self._plan
        world.change_gateway(messages_per_second=plan.messages_per_second)
        dropped = world.dropped_by_outages()
        fought = Fought(phase, {each: self._create(each) for each in phase.campaigns}, time.time())
        ending = [fought.ids[each] for each in phase.campaigns if each.ends_early]
        scene = Scene(
            world, fought.ids[phase.campaigns[0]], next(iter(ending), None), plan.messages_per_second, fought.pauses
        )
        self._say(f"phase {phase.name}: " + ", ".join(f"campaign {i} ({c.label})" for c, i in fought.ids.items()))
        self._strike_all(fought, scene)
        self._undo(everything=True)
        fought.ended = time.time()
        fought.dropped = world.dropped_by_outages() - dropped
        world.wait(self._is_whole, "every process runs again, and is healthy")
        world.note_strays()
        return fought

    def _create(self, planned: Planned) -> int:
        def create(connection: db.Connection) -> int:
            some_clients(connection, planned.clients, code=planned.code)
            now = datetime.now(UTC)
            return campaigns.create(
                connection,
                name=f"Chaos: {planned.label}",
                text=f"Chaos: {planned.label}",
                sending_start=now,
                sending_stop=now + timedelta(seconds=planned.window_s),
                filter_operator_codes=[planned.code],
                on_doubt=planned.on_doubt,
            )

        return self._world.in_database(create)

    def _strike_all(self, fought: Fought, scene: Scene) -> None:
        """Until every campaign of the phase is over. What was not due by then does not strike."""
        until = time.monotonic() + fought.phase.deadline_s
        waiting = list(fought.phase.strikes)
        while not (standing := self._standing(list(fought.ids.values()))).is_over:
            self._undo()
            if waiting and _is_missed(waiting[0], standing):
                self._say(f"               {waiting.pop(0).kind}: found nobody sending in time")
            elif waiting and self._is_due(waiting[0], standing):
                fought.blows.append(self._strike(waiting.pop(0), standing, scene, fought))
            elif time.monotonic() > until:
                raise InVain(self._stuck(fought))
            else:
                time.sleep(LOOK_S)

    def _stuck(self, fought: Fought) -> str:
        def said(campaign_id: int) -> str:
            standing = self._world.in_database(lambda connection: campaigns.progress(connection, campaign_id))
            return f"campaign {campaign_id} is {standing.standing}, {standing.counts}"

        how = "; ".join(said(campaign_id) for campaign_id in fought.ids.values())
        return f"phase {fought.phase.name}: not over after {fought.phase.deadline_s:.0f} s: {how}"

    def _is_due(self, strike: Strike, standing: Standing) -> bool:
        kind = KINDS[strike.kind]
        if self._lasting and (kind.lasts or not strike.meanwhile):
            return False
        return self._is_time(strike, standing) and (not kind.hits_sending or bool(self._world.sending_tasks()))

    def _is_time(self, strike: Strike, standing: Standing) -> bool:
        if strike.left_s is not None:
            return standing.left_s <= strike.left_s
        if self._lasting:
            ends, blow, _ = self._lasting[-1]
            return time.time() > (blow.at + ends) / 2
        return standing.done >= max(strike.done, 1)

    def _strike(self, strike: Strike, standing: Standing, scene: Scene, fought: Fought) -> Blow:
        at = time.time()
        struck = KINDS[strike.kind].strike(scene, strike.dice(self._plan.seed))
        blow = Blow(strike, at, time.time(), standing.done, struck.said)
        self._say(
            f"{_clock(at)}  {len(fought.blows) + 1:>2}/{len(fought.phase.strikes)}  {strike.kind} ({struck.said})"
            f" with {standing.done:,} done" + (", while the one before lasts" if self._lasting else "")
        )
        if struck.undo:
            self._lasting.append((blow.until + struck.lasts_s, blow, struck))
        return blow

    def _undo(self, everything: bool = False) -> None:
        for lasting in list(self._lasting):
            ends, blow, struck = lasting
            if struck.undo and (everything or time.time() >= ends):
                struck.undo()
                blow.until = time.time()
                self._lasting.remove(lasting)
                self._say(f"{_clock(blow.until)}         {blow.strike.kind}: over")

    def _standing(self, ids: Sequence[int]) -> Standing:
        rows = self._world.rows(
            "SELECT c.id, c.status, extract(epoch FROM c.sending_stop - clock_timestamp())::float8 AS left_s,"
            " count(m.id) FILTER (WHERE m.state NOT IN ('pending', 'sending')) AS done, count(m.id) AS audience"
            " FROM campaigns c LEFT JOIN messages m ON m.campaign_id = c.id WHERE c.id = ANY (%s) GROUP BY c.id",
            list(ids),
        )
        [first] = [row for row in rows if row["id"] == ids[0]]
        is_over = all(row["status"] == "finished" and row["done"] == row["audience"] for row in rows)
        return Standing(first["done"], first["left_s"], is_over)

    def _is_whole(self) -> bool:
        everywhere = all(self._world.established(name) for name in ports(self._world.settings))
        return everywhere and not unhealthy(self._world.settings, datetime.now(UTC) - timedelta(seconds=30))


def _is_missed(strike: Strike, standing: Standing) -> bool:
    return strike.left_s is not None and standing.left_s < strike.left_s - MISSED_S


def _clock(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
