"""A measured process: parses dags/campaigns.py as Airflow does. `python -m benchmarks.child_parse TIMES`."""

from __future__ import annotations

import sys
import time
from typing import Any

import airflow.providers.postgres.hooks.postgres  # noqa: F401 - imported by the file when it first connects
from airflow.dag_processing.dagbag import DagBag

from benchmarks import ROOT
from benchmarks.child_side import serve


def main() -> None:
    """Parse when told to; the report says how long each time took (seconds), and how many DAGs there were at last."""
    times = int(sys.argv[1])

    async def parse() -> dict[str, Any]:
        seconds, found = [], 0
        for _ in range(times):
            began = time.perf_counter()
            bag = DagBag(ROOT / "dags" / "campaigns.py")
            seconds.append(time.perf_counter() - began)
            if bag.import_errors:
                raise RuntimeError(str(bag.import_errors))
            found = len(bag.dags)
        return {"seconds": seconds, "dags": found}

    serve(parse)


if __name__ == "__main__":
    main()
