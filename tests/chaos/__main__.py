"""`make chaos`: a stack of its own, three campaigns under fire, and the count of what was promised.

Exit code 0 if every promise was kept, 1 if one was broken or a campaign did not end (then the logs are kept and named),
130 after Ctrl-C. One seed gives the same faults at the same progress.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import randrange

from rich.console import Console

from local.settings import ROOT
from local.stack import Stack

sys.path.insert(0, str(ROOT / "plugins"))

from tests.chaos import arena, plan  # noqa: E402
from tests.chaos.fight import fight  # noqa: E402
from tests.chaos.world import World  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Start a stack, fight, count, clean up; the exit code."""
    arguments = _parser().parse_args(argv)
    console = arena.a_console()

    def on(stack: Stack, folder: Path) -> int:
        return _fight(arguments, stack, folder, console)

    return arena.enter(f"chaos-{arguments.seed}", console, on, keep=arguments.keep)


def _fight(arguments: argparse.Namespace, stack: Stack, folder: Path, console: Console) -> int:
    """The exit code: 0 if every promise was kept."""
    if arguments.cut:
        planned = plan.cut(arguments.seed)
    else:
        planned = plan.whole(arguments.seed, arguments.messages, arguments.faults)
    console.print(f"seed {arguments.seed}: {planned}", highlight=False)
    stack.up(limit_s=240)

    def say(line: str) -> None:
        arena.say(console, line)

    world = World(stack.settings, arguments.seed, say=say)
    return fight(world, planned, console, say, folder, arguments.json or folder / "chaos.json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=randrange(10_000), help="of every choice; default: another each time"
    )
    parser.add_argument("--messages", type=int, default=20_000, help="of the first campaign")
    parser.add_argument("--faults", type=int, default=30, help="that strike it")
    parser.add_argument("--cut", action="store_true", help="only what CI runs: a minute of it")
    parser.add_argument("--keep", action="store_true", help="keep the logs though every promise was kept")
    parser.add_argument("--json", type=Path, help="where the results go; default: a temporary folder, which is named")
    return parser


if __name__ == "__main__":
    sys.exit(main())
