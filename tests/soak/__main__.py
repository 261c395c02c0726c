"""`make soak`: campaigns are made, edited, paused, cancelled and sent again at random, through a flaky gateway.

At the end every promise is counted, each program's memory and the connections are judged, and tables of ours that grow
have to be on the list of those that somebody clears; Airflow's are tidied up, and have to be small then. Exit code 0 if
all is well, 1 if not (then the logs are kept), 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import randrange

from rich.console import Console
from rich.table import Table

from local.settings import ROOT
from local.stack import Stack

sys.path.insert(0, str(ROOT / "plugins"))

from tests.chaos import arena  # noqa: E402
from tests.chaos.promises import Check  # noqa: E402
from tests.chaos.world import World  # noqa: E402
from tests.soak import count, gauges, tidying  # noqa: E402
from tests.soak.acts import Operators  # noqa: E402
from tests.soak.gauges import Gauges, Judged  # noqa: E402

ACT_S, MEASURE_S = 1.0, 5.0
END_S = 300.0
RATE, IN_FLIGHT, TIMEOUT_S = 100, 50, 4.0


def main(argv: list[str] | None = None) -> int:
    """Start a stack, live on it, judge, clean up; the exit code."""
    arguments = _parser().parse_args(argv)
    console = arena.a_console()

    def on(stack: Stack, folder: Path) -> int:
        return _soak(arguments, stack, folder, console)

    return arena.enter(f"soak-{arguments.seed}", console, on, keep=arguments.keep)


def _soak(arguments: argparse.Namespace, stack: Stack, folder: Path, console: Console) -> int:
    console.print(f"seed {arguments.seed}: {arguments.minutes:g} minutes", highlight=False)
    stack.up(limit_s=240)
    world = World(stack.settings, arguments.seed, say=lambda line: arena.say(console, line))
    try:
        world.change_gateway(requests_in_flight=IN_FLIGHT, timeout_s=TIMEOUT_S, messages_per_second=RATE)
        world.behave()
        operators = Operators(world, arguments.seed)
        operators.fill_lists()
        measured = _live(world, operators, arguments.minutes * 60, console)
        operators.let_all_end(END_S)
        checks, states = count.check(world, list(operators.made.values()))
        arena.say(console, "days go by, and an operator tidies up")
        judged = [
            *gauges.judge(measured),
            *tidying.tidy_up(world, len(operators.made), measured.rows[0]["airflow"]),
        ]
    finally:
        world.close()
    _show(console, operators, states, checks, judged)
    is_well = all(check.is_kept for check in checks) and all(each.is_well for each in judged)
    console.print(f"seed {arguments.seed}: {'all is well' if is_well else 'not all is well'}", style="bold")
    found = {
        "seed": arguments.seed, "minutes": arguments.minutes, "acts": operators.done, "states": states,
        "checks": [asdict(check) for check in checks], "judged": [asdict(each) for each in judged],
    }  # fmt: skip
    (arguments.json or folder / "soak.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if is_well else 1


def _live(world: World, operators: Operators, seconds: float, console: Console) -> Gauges:
    """Act each second and measure every five, for so long."""
    measured, began, next_measure = Gauges(), time.monotonic(), 0.0
    while (passed := time.monotonic() - began) < seconds:
        operators.act()
        if passed >= next_measure:
            measured.take(world)
            next_measure = passed + MEASURE_S
            if len(measured.connections) % 12 == 1:
                arena.say(console, f"{passed:5.0f} s: {operators.done.total()} acts, {len(operators.made)} campaigns")
        time.sleep(ACT_S)  # the pace of people, not a wait for anything
    return measured


def _show(
    console: Console, operators: Operators, states: dict[str, int], checks: Sequence[Check], judged: Sequence[Judged]
) -> None:
    acts = ", ".join(f"{name} {times}" for name, times in operators.done.most_common())
    console.print(f"{len(operators.made)} campaigns; {acts}", highlight=False, soft_wrap=True)
    ended = ", ".join(f"{state} {messages:,}" for state, messages in sorted(states.items()))
    console.print(f"messages: {ended}", highlight=False, soft_wrap=True)
    table = Table("what must not be", "seen", title="what was promised", title_justify="left")
    for check in checks:
        table.add_row(check.promise, f"{check.seen:,}" if check.is_kept else f"[bold red]{check.seen:,}[/]")
    console.print(table)
    table = Table("figure", "first", "last", "limit", "", title="what was measured", title_justify="left")
    for each in judged:
        row = [f"{number:,.0f}" for number in (each.first, each.last, each.limit)]
        table.add_row(each.name, *row, each.said, style=None if each.is_well else "bold red")
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long campaigns are acted on")
    parser.add_argument(
        "--seed", type=int, default=randrange(10_000), help="of every choice; default: another each time"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs though all is well")
    parser.add_argument("--json", type=Path, help="where the figures go; default: a temporary folder, which is named")
    return parser


if __name__ == "__main__":
    sys.exit(main())
