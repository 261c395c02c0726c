"""Measures what `make bench` promises: `python -m benchmarks [--quick] [--full] [--only NAME]`.

Exit code 0 whatever the figures are, 1 if a measurement broke, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from types import FrameType

from rich.console import Console

from benchmarks import machine
from benchmarks.bench import open_bench
from benchmarks.registry import MEASUREMENTS
from benchmarks.results import LATEST, Results
from benchmarks.row import BrokenMeasurement
from local.postgres import PostgresError

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write latest.json; the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    for each in _ENDINGS:
        signal.signal(each, _end)
    try:
        results = _measure(arguments, console)
    except PostgresError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as ending:
        print(f"benchmarks: interrupted ({ending}); nothing was written", file=sys.stderr)
        return 130
    results.show(console)
    results.write()
    console.print(f"everything is in {LATEST}", highlight=False, style="dim")
    return 1 if results.broken else 0


def _end(number: int, frame: FrameType | None) -> None:
    """A polite kill cleans up as Ctrl-C does, and an impatient second one must not stop that."""
    for each in _ENDINGS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _measure(arguments: argparse.Namespace, console: Console) -> Results:
    def say(line: str) -> None:
        console.print(f"  {line}", highlight=False, markup=False)

    with open_bench(arguments.quick, arguments.full, say) as bench:
        results = Results(machine.facts(bench.server), vars(arguments))
        for name, measure in MEASUREMENTS.items():
            if arguments.only and name not in arguments.only:
                continue
            console.print(f"{name}: {(measure.__doc__ or '').splitlines()[0]}", highlight=False, markup=False)
            began = time.monotonic()
            try:
                results.rows += measure(bench)
            except BrokenMeasurement as error:
                results.broken[name] = str(error)
                say(f"broken: {error}")
            except Exception as error:  # a fault in one row must not cost the others
                results.broken[name] = f"{type(error).__name__}: {error}"
                console.print_exception()
            results.seconds[name] = time.monotonic() - began
            say(f"took {results.seconds[name]:.0f} s")
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer messages and repeats: under five minutes")
    parser.add_argument("--full", action="store_true", help="send the million of `memory` to its end")
    parser.add_argument(
        "--only", action="append", choices=list(MEASUREMENTS), metavar="NAME",
        help=f"one of {', '.join(MEASUREMENTS)}; may be repeated",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
