"""A minute of `make chaos`, on the stack that the other tests share."""

from __future__ import annotations

import pytest

from tests.chaos import plan, promises
from tests.chaos.raid import Raid
from tests.chaos.world import World

pytestmark = pytest.mark.stack

SEED = 3


@pytest.fixture
def world(settings):
    world = World(settings, SEED)
    yield world
    world.close()


def test_processes_are_killed_the_gateway_is_cut_and_no_promise_is_broken(world):
    planned = plan.cut(SEED)

    fought = Raid(world, planned).run()

    tallies, checks = promises.check(world, planned, fought)
    assert [check for check in checks if not check.is_kept] == []
    assert {tally.planned.label: len(tally.rows) for tally in tallies} == {"storm": 3000, "stop": 6000, "resend": 400}
