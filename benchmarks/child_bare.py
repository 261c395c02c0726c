"""A measured process: the requests of a sender without its ledger, as fast as plain aiohttp makes them.

`BENCH_TOKEN=… python -m benchmarks.child_bare URL REQUESTS IN_FLIGHT`: so many coroutines through one session.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator

import aiohttp

from benchmarks.child_side import serve

TEXT = "Hello from the benchmark"
FIRST_PHONE = 79_000_000_000


async def _post(session: aiohttp.ClientSession, url: str, ids: Iterator[int]) -> None:
    for msg_id in ids:
        body = {"id": msg_id, "phone": FIRST_PHONE + msg_id, "text": TEXT}
        async with session.post(f"{url}/v1/send/{msg_id}", json=body) as response:
            answer = json.loads(await response.read())
        if response.status != 200 or answer["code"] != 0:
            raise RuntimeError(f"request {msg_id}: got {response.status} {answer}")


def main() -> None:
    """Post when told to. Fails at the first request that was not answered as it should be."""
    url, requests, in_flight = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    headers = {"Authorization": f"Bearer {os.environ['BENCH_TOKEN']}"}

    async def post_all() -> int:
        ids = iter(range(1, requests + 1))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
            await asyncio.gather(*(_post(session, url, ids) for _ in range(in_flight)))
        return requests

    serve(post_all)


if __name__ == "__main__":
    main()
