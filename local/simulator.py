"""A stand-in for the sending service: a fast HTTP server that behaves, or misbehaves, as it is told.

    GATEWAY_SECRET=... python -m local.simulator --port 8090 [--host 127.0.0.1] [--secret-file F] [--journal F]

`POST /v1/send/{msgId}` is the gateway; `/_simulator/` is the control plane (`simulator_control`). In a test:

    with running_simulator(latency={"kind": "fixed", "seconds": 0}) as sim:
        ...                      # POST to sim.url with sim.token()
        sim.set(outage=True)
        assert sim.counts() == {7: 1}

For a gateway that refuses connections, stop the simulator; with a journal it remembers when it is back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import uvloop

from local.simulator_behaviour import BadSetting, Behaviour
from local.simulator_gateway import Simulator
from local.simulator_memory import CannotStart
from local.simulator_tokens import make_token

__all__ = ["BadSetting", "Behaviour", "CannotStart", "RunningSimulator", "Simulator", "make_token", "running_simulator"]

P = ParamSpec("P")
T = TypeVar("T")


class RunningSimulator:
    """A simulator in its own thread, to be used from any other one."""

    def __init__(self, simulator: Simulator, secret: str, loop: asyncio.AbstractEventLoop) -> None:
        self._simulator, self._loop = simulator, loop
        self.url, self.secret = simulator.url, secret

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async def call() -> T:
            return function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def token(self, expires_in: timedelta = timedelta(hours=1)) -> str:
        """A token this simulator takes."""
        return make_token(self.secret, expires_in)

    def set(self, **changes: object) -> Behaviour:
        """As `Simulator.set`: in force when it returns."""
        return self._call(self._simulator.set, **changes)

    def reset(self, **settings: object) -> Behaviour:
        """As `Simulator.reset`: in force when it returns."""
        return self._call(self._simulator.reset, **settings)

    def behaviour(self) -> Behaviour:
        """The settings in force."""
        return self._simulator.behaviour

    def stats(self) -> dict[str, Any]:
        """As `RequestLog.stats`."""
        return self._call(self._simulator.log.stats)

    def counts(self, first: int | None = None, last: int | None = None) -> dict[int, int]:
        """As `RequestLog.counts`: msgId to how often it was accepted."""
        return self._call(self._simulator.log.counts, first, last)

    def requests(
        self, ids: Collection[int] | None = None, first: int | None = None, last: int | None = None
    ) -> dict[int, dict[str, Any]]:
        """As `RequestLog.requests`: msgId to received, accepted, arrivals, statuses."""
        return self._call(self._simulator.log.requests, ids, first, last)

    def arrivals(self, since: float = 0.0) -> list[float]:
        """As `RequestLog.arrivals`: epoch seconds."""
        return self._call(self._simulator.log.arrivals, since)

    def forget(self) -> None:
        """As `RequestLog.forget`."""
        self._call(self._simulator.log.forget)


@contextmanager
def running_simulator(
    secret: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    journal: Path | None = None,
    **settings: object,
) -> Iterator[RunningSimulator]:
    """A simulator in a thread of this process while the block runs; no secret: a random one, see `token`.

    `settings` are those of `Behaviour`. CannotStart: busy port or unusable journal; BadSetting: wrong setting.
    """
    secret = secret or secrets.token_hex(32)
    simulator = Simulator(secret, journal=journal, **settings)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway simulator", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(simulator.start(host, port), loop).result(60)
        yield RunningSimulator(simulator, secret, loop)
    finally:
        asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve(secret: str, host: str, port: int, journal: Path | None) -> int:
    simulator = Simulator(secret, journal=journal)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    try:
        await simulator.start(host, port)
        print(f"simulator: listening on {simulator.url}", flush=True)
        waits = [asyncio.ensure_future(event.wait()) for event in (told, simulator.failed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    finally:
        await simulator.stop()
    return 1 if simulator.failed.is_set() else 0


def _secret(file: Path | None) -> str:
    try:
        secret = file.read_text().strip() if file else os.environ.get("GATEWAY_SECRET", "")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"secret file {file}: {getattr(error, 'strerror', 'not text')}") from error
    if not secret:
        raise CannotStart(f"no secret: {f'{file} is empty' if file else 'give --secret-file or set GATEWAY_SECRET'}")
    return secret


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Exit code 0, or 1 after one line on stderr; 2 for wrong options (argparse)."""
    parser = argparse.ArgumentParser(prog="python -m local.simulator", description="The gateway simulator.")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--secret-file", type=Path, help="holds the tokens' secret; default: env GATEWAY_SECRET")
    parser.add_argument("--journal", type=Path, help="remembers requests over restarts")
    args = parser.parse_args(argv)
    if args.port not in range(65_536):
        parser.error(f"--port: got {args.port}, wanted 0 to 65535")
    try:
        return uvloop.run(_serve(_secret(args.secret_file), args.host, args.port, args.journal))
    except CannotStart as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
