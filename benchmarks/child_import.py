"""A measured process: brings a client list in. `python -m benchmarks.child_import FILE`."""

from __future__ import annotations

import sys

import airflow.providers.postgres.hooks.postgres  # noqa: F401 - imported by the import when it first connects

from benchmarks.child_side import serve
from mailing import client_import, db


def main() -> None:
    """Import when told to; the report says how many clients were new."""

    async def bring_in() -> int:
        with db.transaction() as connection:
            return client_import.import_clients(connection, sys.argv[1]).inserted

    serve(bring_in)


if __name__ == "__main__":
    main()
