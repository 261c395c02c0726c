"""The embedded stack from the terminal: `python -m local up|down|status|logs|env|clean` (or `make …`)."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from datetime import timedelta

from local.postgres import PostgresError
from local.settings import SettingError, Settings
from local.stack import Stack, StackError
from local.stack_processes import leftovers, ports


def main(argv: list[str] | None = None) -> int:
    """Do what the arguments say; the exit code is 0 if that worked (`status`: if everything runs)."""
    # A polite kill, and a terminal that closes, must clean up as Ctrl-C does.
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    arguments = _parser().parse_args(argv)
    try:
        stack = Stack(Settings.from_environment(), say=lambda line: print(line, flush=True))
        return int(_COMMANDS[arguments.command](stack, arguments))
    except (SettingError, StackError, PostgresError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start everything, and wait until it is healthy")
    commands.add_parser("down", help="stop everything")
    commands.add_parser("status", help="what runs, since when, on which port; exit code 0 if everything does")
    logs = commands.add_parser("logs", help="follow the log files; Ctrl-C ends it")
    logs.add_argument("process", nargs="?", help=f"one of {', '.join(ports(Settings()))}; default: all")
    commands.add_parser("env", help='for `eval "$(…)"`: then `airflow` and `python -m mailing.cli` find the stack')
    commands.add_parser("clean", help="stop, and delete data, logs and secrets")
    return parser


def _up(stack: Stack, _: argparse.Namespace) -> int:
    stack.up()
    return 0


def _down(stack: Stack, _: argparse.Namespace) -> int:
    print("stopped" if stack.down() else "was not running")
    return 0


def _status(stack: Stack, _: argparse.Namespace) -> int:
    row = "{:<15}{:<10}{:>8}  {:>9}  {:>5}"
    print(row.format("process", "state", "pid", "uptime", "port"))
    for each in stack.status():
        uptime = "" if each.uptime_s is None else str(timedelta(seconds=int(each.uptime_s)))
        print(row.format(each.name, each.state, each.pid or "", uptime, each.port or ""))
    if stack.is_up():
        print(stack.address)
        return 0
    if left := leftovers(stack.settings):
        print(f"{len(left)} processes of this stack are there, but their supervisor is not up: `make down` ends them")
    return 1


def _logs(stack: Stack, arguments: argparse.Namespace) -> int:
    """Become `tail`."""
    known = ports(stack.settings)
    if arguments.process and arguments.process not in known:
        raise SettingError(f"process {arguments.process!r}: wanted one of {', '.join(known)}")
    names = [arguments.process] if arguments.process else list(known)
    files = [str(stack.settings.logs / f"{name}.log") for name in names]
    os.execvp("tail", ["tail", "-n", "20", "-F", *files])  # noqa: S606, S607


def _env(stack: Stack, _: argparse.Namespace) -> int:
    settings = stack.settings
    # Who calls the REST API or reads reports from this shell; the stack's own processes need none of it.
    caller = {
        "MAILING_URL": settings.ui_url, "MAILING_USER": "operator", "MAILING_PASSWORD": settings.secrets.operator,
        "MAILING_REPORTS_URL": settings.database_url("mailing", "mailing_reader"),
    }  # fmt: skip
    for name, value in (settings.environment() | caller).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _clean(stack: Stack, _: argparse.Namespace) -> int:
    stack.clean()
    return 0


_COMMANDS = {"up": _up, "down": _down, "status": _status, "logs": _logs, "env": _env, "clean": _clean}

if __name__ == "__main__":
    sys.exit(main())
