"""A stack of a fight's own: started, fought on, stopped; after a failure its logs stay, and the evidence."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from rich.console import Console

from local.postgres import PostgresError
from local.settings import Settings
from local.stack import Stack, StackError
from tests.chaos.world import InVain

PARALLELISM = 8


def a_console() -> Console:
    """As wide as the terminal; wide enough for the tables where there is none."""
    return Console(width=None if sys.stdout.isatty() else 160)


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def enter(name: str, console: Console, fight: Callable[[Stack, Path], int], *, keep: bool = False) -> int:
    """What `fight` returns for a stack that is not up yet, and its folder; 1 if it did not end, 130 after Ctrl-C.

    Everything is gone afterwards, but for logs and evidence where the code is 1 or they are to be kept.
    """
    logging.getLogger("mailing").setLevel(logging.WARNING)
    _on_an_ending(_end)
    folder = Path(tempfile.mkdtemp(prefix=f"mailing-{name}-"))
    settings = replace(Settings.anywhere(folder / "var"), parallelism=PARALLELISM)
    stack = Stack(settings, say=lambda line: say(console, line))
    code = 1
    try:
        code = fight(stack, folder)
    except (InVain, StackError, PostgresError) as error:
        console.print(f"{error}", style="bold red", markup=False, highlight=False)
    except KeyboardInterrupt:
        console.print("interrupted: stopping the stack")
        code = 130
    finally:
        _clean(stack, folder, console, keep=keep or code == 1)
    return code


def _clean(stack: Stack, folder: Path, console: Console, keep: bool) -> None:
    _on_an_ending(signal.SIG_IGN)  # an impatient Ctrl-C must not stop this
    stack.down()
    if keep:
        with suppress(FileNotFoundError):
            shutil.move(stack.settings.logs, folder / "logs")
    stack.clean()
    if any(folder.iterdir()):
        say(console, f"kept: {', '.join(str(path) for path in sorted(folder.iterdir()))}")
    else:
        folder.rmdir()


def _end(number: int, frame: FrameType | None) -> None:
    """A polite kill cleans up as Ctrl-C does."""
    raise KeyboardInterrupt


def _on_an_ending(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, handler)
