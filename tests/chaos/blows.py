"""The kinds of faults. A blow strikes at once; one that lasts says how it is undone, and for how long it is not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mailing import campaigns
from tests.chaos.world import ACTOR, World

PAUSE_SHOWS_S = 5.0
"""Within this time a pause takes effect: what arrives later, and before the resume, arrived while paused."""

SOON_S = 8.0
"""How far ahead a stop is that is brought forward: long enough for what is claimed by the old one to be posted."""


@dataclass
class Struck:
    """One blow: what it hit and, if it lasts, for how long and what undoes it."""

    said: str
    lasts_s: float = 0.0
    undo: Callable[[], None] | None = None


@dataclass
class Pause:
    """When a campaign was paused, and until when (epoch seconds; `until`: just before it was resumed)."""

    campaign_id: int
    since: float
    until: float | None = None


@dataclass
class Scene:
    """Where blows fall: the stack, the campaign whose buttons are pressed, and the one whose window is to close early.

    `messages_per_second`: the gateway's limit to begin with; `pauses`: all there were.
    """

    world: World
    campaign_id: int
    ending_id: int | None
    messages_per_second: int
    pauses: list[Pause] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    `in_doubt`: it may leave what is in flight unanswered; `lasts`: others may fall meanwhile; `hits_sending`: it is to
    wait until a task sends; `by_lot`: a storm may hold it.
    """

    strike: Callable[[Scene, random.Random], Struck]
    in_doubt: bool = False
    lasts: bool = False
    hits_sending: bool = False
    by_lot: bool = True


def _kill_task(scene: Scene, rng: random.Random) -> Struck:
    pid, task = scene.world.sending_task(rng)
    scene.world.kill(pid)
    return Struck(f"{task}, pid {pid}")


def _kill_task_and_supervisor(scene: Scene, rng: random.Random) -> Struck:
    """The supervisor first: it is not to tell Airflow of its task's end."""
    pid, task = scene.world.sending_task(rng)
    above = scene.world.parent(pid)
    for each in (above, pid):
        if each:
            scene.world.kill(each)
    return Struck(f"{task}, pids {above} and {pid}")


def _kill(name: str) -> Callable[[Scene, random.Random], Struck]:
    def strike(scene: Scene, _: random.Random) -> Struck:
        pid = scene.world.pid(name)
        scene.world.kill(pid)
        return Struck(f"pid {pid}")

    return strike


def _kill_backend(scene: Scene, _: random.Random) -> Struck:
    """One session that ends so has PostgreSQL end all others, and recover."""
    world = scene.world
    [found] = world.wait(
        lambda: world.rows(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            " ORDER BY backend_start DESC LIMIT 1"
        ),
        "somebody has a session in the database",
    )
    world.kill(found["pid"])
    return Struck(f"pid {found['pid']}")


def _drop_connections(scene: Scene, rng: random.Random) -> Struck:
    seconds = rng.uniform(1, 8)
    scene.world.change_behaviour(outage=True)
    return Struck(f"for {seconds:.1f} s", seconds, lambda: scene.world.change_behaviour(outage=False))


def _refuse_connections(scene: Scene, rng: random.Random) -> Struck:
    seconds = rng.uniform(1, 8)
    scene.world.stop_gateway()
    return Struck(f"for {seconds:.1f} s", seconds, scene.world.start_gateway)


def _hang(scene: Scene, rng: random.Random) -> Struck:
    seconds = rng.uniform(1, 8)
    scene.world.change_behaviour(latency={"kind": "fixed", "seconds": 600})
    return Struck(f"for {seconds:.1f} s", seconds, scene.world.usual_latency)


def _expire_token(scene: Scene, rng: random.Random) -> Struck:
    seconds = rng.uniform(2, 6)
    scene.world.change_behaviour(token_expired=True)
    return Struck(f"for {seconds:.1f} s", seconds, scene.world.mend_token)


def _pause(scene: Scene, rng: random.Random) -> Struck:
    """Long enough that something could be seen to arrive after the pause must have taken effect."""
    world, campaign_id = scene.world, scene.campaign_id
    seconds = PAUSE_SHOWS_S + rng.uniform(2, 5)
    world.in_database(lambda connection: campaigns.pause(connection, campaign_id, actor=ACTOR))
    pause = Pause(campaign_id, time.time())
    scene.pauses.append(pause)

    def resume() -> None:
        pause.until = time.time()
        world.in_database(lambda connection: campaigns.resume(connection, campaign_id, actor=ACTOR))

    return Struck(f"campaign {campaign_id}, for {seconds:.1f} s", seconds, resume)


def _edit_text(scene: Scene, _: random.Random) -> Struck:
    campaign_id = scene.campaign_id
    text = f"Said anew at {datetime.now(UTC):%H:%M:%S}"
    scene.world.in_database(lambda connection: campaigns.edit(connection, campaign_id, actor=ACTOR, text=text))
    return Struck(f"campaign {campaign_id}")


def _bring_the_stop_forward(scene: Scene, _: random.Random) -> Struck:
    campaign_id = scene.ending_id
    assert campaign_id is not None
    stop = datetime.now(UTC) + timedelta(seconds=SOON_S)
    scene.world.in_database(lambda connection: campaigns.edit(connection, campaign_id, actor=ACTOR, sending_stop=stop))
    return Struck(f"campaign {campaign_id}, to {stop:%H:%M:%S}")


def _change_rate(scene: Scene, rng: random.Random) -> Struck:
    rate = round(scene.messages_per_second * rng.uniform(0.6, 1.4))
    scene.world.change_gateway(messages_per_second=rate)
    return Struck(f"{rate} messages/s")


KINDS: dict[str, Kind] = {
    "kill send task": Kind(_kill_task, in_doubt=True, hits_sending=True),
    "kill send task and its supervisor": Kind(_kill_task_and_supervisor, in_doubt=True, hits_sending=True),
    "kill scheduler": Kind(_kill("scheduler")),
    "kill triggerer": Kind(_kill("triggerer")),
    "kill dag-processor": Kind(_kill("dag-processor")),
    "kill api-server": Kind(_kill("api-server")),
    "kill PostgreSQL": Kind(_kill("postgres"), in_doubt=True, hits_sending=True),
    "kill a PostgreSQL session": Kind(_kill_backend, in_doubt=True, hits_sending=True),
    "gateway drops connections": Kind(_drop_connections, in_doubt=True, lasts=True),
    "gateway refuses connections": Kind(_refuse_connections, in_doubt=True, lasts=True),
    "gateway hangs": Kind(_hang, in_doubt=True, lasts=True),
    "token expires": Kind(_expire_token, lasts=True),
    "pause, resume": Kind(_pause, lasts=True),
    "edit the text": Kind(_edit_text),
    "change messages/s": Kind(_change_rate),
    "bring a stop forward": Kind(_bring_the_stop_forward, by_lot=False),
}
