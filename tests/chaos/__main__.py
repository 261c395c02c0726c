"""`make chaos`: a stack of its own, three campaigns under fire, and the count of what was promised.

Exit code 0 if every promise was kept, 1 if one was broken or a campaign did not end (then the logs are kept and named),
130 after Ctrl-C. One seed gives the same faults at the same progress.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import randrange
from types import FrameType

from rich.console import Console

from local.postgres import PostgresError
from local.settings import ROOT, Settings
from local.stack import Stack, StackError

sys.path.insert(0, str(ROOT / "plugins"))

from tests.chaos import plan  # noqa: E402
from tests.chaos.fight import fight  # noqa: E402
from tests.chaos.world import InVain, World  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Start a stack, fight, count, clean up; the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 160)
    logging.getLogger("mailing").setLevel(logging.WARNING)
    _on_an_ending(_end)
    folder = Path(tempfile.mkdtemp(prefix=f"mailing-chaos-{arguments.seed}-"))
    stack = Stack(replace(Settings.anywhere(folder / "var"), parallelism=8), say=lambda line: _say(console, line))
    code = 1
    try:
        code = _fight(arguments, stack, folder, console)
    except (InVain, StackError, PostgresError) as error:
        console.print(f"{error}", style="bold red", markup=False, highlight=False)
    except KeyboardInterrupt:
        console.print("interrupted: stopping the stack")
        code = 130
    finally:
        _clean(stack, folder, console, keep=arguments.keep or code == 1)
    return code


def _fight(arguments: argparse.Namespace, stack: Stack, folder: Path, console: Console) -> int:
    """The exit code: 0 if every promise was kept."""
    if arguments.cut:
        planned = plan.cut(arguments.seed)
    else:
        planned = plan.whole(arguments.seed, arguments.messages, arguments.faults)
    console.print(f"seed {arguments.seed}: {planned}", highlight=False)
    stack.up(limit_s=240)
    world = World(stack.settings, arguments.seed, say=lambda line: _say(console, line))
    json = arguments.json or folder / "chaos.json"
    return fight(world, planned, console, lambda line: _say(console, line), folder, json)


def _clean(stack: Stack, folder: Path, console: Console, keep: bool) -> None:
    """Nothing of the stack stays; after a failure its logs do, and the evidence."""
    _on_an_ending(signal.SIG_IGN)  # an impatient Ctrl-C must not stop this
    stack.down()
    if keep:
        with suppress(FileNotFoundError):
            shutil.move(stack.settings.logs, folder / "logs")
    stack.clean()
    if any(folder.iterdir()):
        _say(console, f"kept: {', '.join(str(path) for path in sorted(folder.iterdir()))}")
    else:
        folder.rmdir()


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _end(number: int, frame: FrameType | None) -> None:
    """A polite kill cleans up as Ctrl-C does."""
    raise KeyboardInterrupt


def _on_an_ending(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, handler)


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
