"""What people do to campaigns all day, by lot: make, edit, pause, resume, cancel, send again, settle."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mailing import campaigns, db, verdicts
from mailing.errors import MailingError
from tests.builders import some_clients
from tests.chaos.world import ACTOR, World

LIVE = 8
"""So many campaigns at a time, at most."""

LISTS = {f"{code}": 40 * (1 + code % 5) for code in range(410, 420)}
"""The operator codes that campaigns go to, and how many clients each has."""


@dataclass
class Made:
    """A campaign of the soak. `repeats`: somebody (or the campaign itself) may have sent again what was in doubt."""

    id: int
    code: str
    repeats: bool
    cancelled_at: float | None = None


class Operators:
    """Those who act. One seed gives the same choices, as far as the campaigns stand the same."""

    def __init__(self, world: World, seed: int):
        self.made: dict[int, Made] = {}
        self.done: Counter[str] = Counter()
        self._world, self._rng = world, random.Random(seed)
        self._acts: list[tuple[int, str, Callable[[Made], None]]] = [
            (4, "edit text", self._edit_text),
            (2, "edit stop", self._edit_stop),
            (4, "pause", self._pause),
            (6, "resume", self._resume),
            (1, "cancel", self._cancel),
            (2, "resend", self._resend),
            (3, "settle", self._settle),
        ]

    def fill_lists(self) -> None:
        """Write the clients."""
        for code, size in LISTS.items():
            self._world.in_database(lambda connection, code=code, size=size: some_clients(connection, size, code=code))

    def act(self) -> None:
        """One act: a new campaign where few are live, else something with one that is there, if its state allows it."""
        live = self._live()
        if len(live) < self._rng.randint(2, LIVE):
            self._make()
            return
        names = [name for _, name, _ in self._acts]
        weights = [weight for weight, _, _ in self._acts]
        [name] = self._rng.choices(names, weights)
        campaign = self.made[self._rng.choice(live)]
        try:
            {each: act for _, each, act in self._acts}[name](campaign)
        except MailingError:  # as things stand, it cannot be done
            self.done[f"{name}, refused"] += 1
        else:
            self.done[name] += 1

    def let_all_end(self, limit_s: float) -> None:
        """Resume what is paused, and wait until every campaign is over and nothing is on its way. Raises InVain."""
        for campaign_id in self._live(("paused",)):
            self._do(campaigns.resume, campaign_id)
        self._world.wait(lambda: not self._live(), "every campaign of the soak is over", limit_s)
        open_ones = "SELECT FROM messages WHERE state IN ('pending', 'sending') LIMIT 1"
        self._world.wait(lambda: not self._world.rows(open_ones), "no message is pending or under way", limit_s)

    def _live(self, statuses: tuple[str, ...] = ("scheduled", "running", "paused")) -> list[int]:
        rows = self._world.rows(
            "SELECT id FROM campaigns WHERE id = ANY (%s) AND status = ANY (%s) ORDER BY id",
            list(self.made), list(statuses),
        )  # fmt: skip
        return [row["id"] for row in rows]

    def _do(self, verb: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        return self._world.in_database(lambda connection: verb(connection, *arguments, actor=ACTOR, **more))

    def _make(self) -> None:
        rng, start = self._rng, datetime.now(UTC) + timedelta(seconds=self._rng.choice([0, 0, 5, 15]))
        code, on_doubt = rng.choice(list(LISTS)), rng.choice(["hold", "hold", "resend"])

        def create(connection: db.Connection) -> int:
            return campaigns.create(
                connection, text="Soak", sending_start=start, filter_operator_codes=[code], on_doubt=on_doubt,
                sending_stop=start + timedelta(seconds=rng.uniform(20, 90)),
            )  # fmt: skip

        campaign_id = self._world.in_database(create)
        self.made[campaign_id] = Made(campaign_id, code, repeats=on_doubt == "resend")
        self.done["create"] += 1

    def _edit_text(self, campaign: Made) -> None:
        self._do(campaigns.edit, campaign.id, text=f"Soak, said anew at {datetime.now(UTC):%H:%M:%S}")

    def _edit_stop(self, campaign: Made) -> None:
        """Never to an earlier one: what had left by the old stop would look late by the new."""
        [row] = self._world.rows("SELECT sending_stop FROM campaigns WHERE id = %s", campaign.id)
        self._do(campaigns.edit, campaign.id, sending_stop=row["sending_stop"] + timedelta(seconds=10))

    def _pause(self, campaign: Made) -> None:
        self._do(campaigns.pause, campaign.id)

    def _resume(self, campaign: Made) -> None:
        self._do(campaigns.resume, campaign.id)

    def _cancel(self, campaign: Made) -> None:
        self._do(campaigns.cancel, campaign.id)
        campaign.cancelled_at = time.time()

    def _resend(self, campaign: Made) -> None:
        campaign.repeats = True
        self._do(verdicts.resend, campaign.id, ["failed", "unknown"])

    def _settle(self, campaign: Made) -> None:
        campaign.repeats = True
        self._do(verdicts.settle_all, campaign.id, "send_again")
