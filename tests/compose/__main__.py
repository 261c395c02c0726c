"""`make compose-test`: the cluster of docker-compose.yaml, 50,000 messages over two workers, and the count.

One worker is killed in mid-send, Redis and PostgreSQL are restarted. Exit code 0 if every promise was kept; 1 if one
was broken, if something did not end (then the logs are kept and named), or if there is no Docker engine.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from local.settings import ROOT

sys.path.insert(0, str(ROOT / "plugins"))

from tests.chaos.fight import fight  # noqa: E402
from tests.chaos.plan import Phase, Plan, Planned, Strike  # noqa: E402
from tests.chaos.world import InVain  # noqa: E402
from tests.compose.cluster import ClusterWorld, Compose, NoEngine, need_an_engine  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Bring the cluster up, fight, count, take it down; the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 160)
    logging.getLogger("mailing").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and take the cluster down
    try:
        need_an_engine()
    except NoEngine as error:
        console.print(f"{error}", style="bold red", markup=False, highlight=False)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="mailing-compose-"))

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    compose = Compose(folder, say)
    code = 1
    try:
        compose.up(*([] if arguments.no_build else ["--build"]))
        planned = a_plan(arguments.seed, arguments.messages)
        code = fight(ClusterWorld(compose, planned.seed, say), planned, console, say, folder, folder / "chaos.json")
    except InVain as error:
        console.print(f"{error}", style="bold red", markup=False, highlight=False)
    except KeyboardInterrupt:
        console.print("interrupted: taking the cluster down")
        code = 130
    finally:
        _clean(compose, folder, console, keep=code == 1)
    return code


def a_plan(seed: int, messages: int) -> Plan:
    """One campaign; what strikes falls into its first two thirds."""
    strikes = (
        Strike(1, "kill a worker", done=messages // 8),
        Strike(2, "restart Redis", done=messages // 3),
        Strike(3, "restart PostgreSQL", done=messages // 2),
    )
    phase = Phase("cluster", (Planned("cluster", "401", messages),), strikes)
    return Plan(seed, (phase,), messages_per_second=500, requests_in_flight=100)


def _clean(compose: Compose, folder: Path, console: Console, keep: bool) -> None:
    """Nothing of the cluster stays; after a failure its logs do, and the evidence."""
    if keep:
        with suppress(InVain):
            (folder / "logs.txt").write_text(compose.logs(), encoding="utf-8")
    with suppress(InVain):
        compose.down()
    if keep:
        (folder / "env").unlink(missing_ok=True)
        shutil.rmtree(folder / "var", ignore_errors=True)
        console.print(f"kept: {', '.join(str(path) for path in sorted(folder.iterdir()))}", highlight=False)
    else:
        shutil.rmtree(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the gateway's choices")
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--no-build", action="store_true", help="take the image mailing-service as it is")
    return parser


if __name__ == "__main__":
    sys.exit(main())
