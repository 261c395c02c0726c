"""What is sent, and what strikes when: settled before anything starts, and the same each time for one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.chaos.blows import KINDS

MINUTES = 60.0


@dataclass(frozen=True)
class Planned:
    """One campaign: to `clients` clients of an operator code of their own, in a window of `window_s` seconds from now.

    `ends_early`: the window is to close while it is being sent.
    """

    label: str
    code: str
    clients: int
    on_doubt: str = "hold"
    window_s: float = 30 * MINUTES
    ends_early: bool = False


@dataclass(frozen=True)
class Strike:
    """One fault, due once `done` messages of the phase's first campaign have ended, or `left_s` before it stops.

    A lasting fault keeps the next one waiting, unless that is to strike `meanwhile`: then it does so halfway through.
    """

    number: int
    kind: str
    done: int = 0
    left_s: float | None = None
    meanwhile: bool = False

    def dice(self, seed: int) -> random.Random:
        """Its own, so that no other fault's luck changes this one's."""
        return random.Random(f"{seed} {self.number}")


@dataclass(frozen=True)
class Phase:
    """Campaigns that are sent side by side, and what strikes meanwhile, in this order."""

    name: str
    campaigns: tuple[Planned, ...]
    strikes: tuple[Strike, ...]
    deadline_s: float = 30 * MINUTES


@dataclass(frozen=True)
class Plan:
    """A whole run. The gateway takes so many `messages_per_second`, `requests_in_flight` of them at a time."""

    seed: int
    phases: tuple[Phase, ...]
    messages_per_second: int = 200
    requests_in_flight: int = 50
    timeout_s: float = 4.0

    def __str__(self) -> str:
        messages = sum(each.clients for phase in self.phases for each in phase.campaigns)
        return f"{messages:,} messages, {sum(len(phase.strikes) for phase in self.phases)} faults"


def whole(seed: int, messages: int, faults: int) -> Plan:
    """The storm, then a campaign whose window closes in mid-send, then one that repeats what is in doubt."""
    storm = Planned("storm", "401", messages)
    stop = Planned("stop", "402", 12_000, window_s=60, ends_early=True)
    resend = Planned("resend", "403", 2_000, on_doubt="resend")
    return Plan(
        seed,
        (
            Phase("storm", (storm,), tuple(_spread(seed, messages, faults))),
            Phase("stop", (stop,), _around_the_stop(), deadline_s=8 * MINUTES),
            Phase("resend", (resend,), _in_doubt(resend.clients), deadline_s=10 * MINUTES),
        ),
    )


def _spread(seed: int, messages: int, faults: int) -> list[Strike]:
    """Every kind as often as every other, give or take one, at moments by lot: some follow hard upon another."""
    rng = random.Random(seed)
    known = [name for name, kind in KINDS.items() if kind.by_lot]
    rounds, rest = divmod(faults, len(known))
    kinds = known * rounds + rng.sample(known, rest)
    rng.shuffle(kinds)
    moments = sorted(round(messages * rng.uniform(0.01, 0.85)) for _ in kinds)
    strikes = []
    for number, (kind, done) in enumerate(zip(kinds, moments, strict=True), start=1):
        after_a_lasting_one = number > 1 and KINDS[kinds[number - 2]].lasts and not KINDS[kind].lasts
        strikes.append(Strike(number, kind, done, meanwhile=after_a_lasting_one and rng.random() < 0.5))
    return strikes


def _around_the_stop() -> tuple[Strike, ...]:
    return (
        Strike(101, "kill send task", done=200),
        Strike(102, "kill scheduler", done=400),
        Strike(103, "kill send task", left_s=9),
        Strike(104, "kill a PostgreSQL session", left_s=6),
        Strike(105, "gateway hangs", left_s=2.5),
        Strike(106, "kill api-server", left_s=1, meanwhile=True),
        Strike(107, "kill scheduler", left_s=-1, meanwhile=True),
    )


def _in_doubt(messages: int) -> tuple[Strike, ...]:
    kinds = (
        "gateway drops connections", "kill send task", "gateway hangs", "gateway refuses connections",
        "kill PostgreSQL",
    )  # fmt: skip
    return tuple(
        Strike(200 + number, kind, done=round(messages * number / (len(kinds) + 2)))
        for number, kind in enumerate(kinds, start=1)
    )


def cut(seed: int) -> Plan:
    """A minute of it for CI: the three campaigns side by side."""
    storm = Planned("storm", "401", 3_000)
    stop = Planned("stop", "402", 6_000, ends_early=True)
    resend = Planned("resend", "403", 400, on_doubt="resend")
    strikes = (
        Strike(1, "kill triggerer", done=50),
        Strike(2, "bring a stop forward", done=200),
        Strike(3, "kill send task", done=450),
        Strike(4, "edit the text", done=700),
        Strike(5, "kill PostgreSQL", done=1_100),
        Strike(6, "kill scheduler", done=1_300),
        Strike(7, "change messages/s", done=1_500),
        Strike(8, "gateway drops connections", done=1_800),
        Strike(9, "pause, resume", done=2_200),
    )
    phase = Phase("all at once", (storm, stop, resend), strikes, deadline_s=4 * MINUTES)
    return Plan(seed, (phase,), messages_per_second=250, requests_in_flight=60)
