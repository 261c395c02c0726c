"""A measured process: sends batches as tasks do, all at once. `python -m benchmarks.child_sender CAMPAIGN:BATCH …`.

Airflow's connections come from the environment. Where a task would be deferred, this one sleeps and goes on: what a
sender cannot send at once is part of what it is worth.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Any

# The hooks are imported by the sender when it first needs them: that belongs to the imports here.
import airflow.providers.http.hooks.http
import airflow.providers.postgres.hooks.postgres  # noqa: F401

from benchmarks.child_side import serve
from mailing.sender import BatchSender


def main() -> None:
    """Send when told to; the report says how many attempts ended how, and why each run of the sender ended."""
    counts: Counter[str] = Counter()
    ends: list[str] = []

    async def send(campaign_id: int, batch: int) -> None:
        while True:
            result = await BatchSender(campaign_id, batch).run()
            counts.update(result.counts)
            ends.append(result.said)
            if result.wake_in_s is None:
                return
            await asyncio.sleep(result.wake_in_s)

    async def send_all() -> dict[str, Any]:
        await asyncio.gather(*(send(*map(int, each.split(":"))) for each in sys.argv[1:]))
        return {"counts": counts, "ends": ends}

    serve(send_all)


if __name__ == "__main__":
    main()
