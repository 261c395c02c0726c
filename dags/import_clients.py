"""Bring a client list into the database: tags and time zones of the clients in it become those of the file.

**The file** is CSV in UTF-8 with the header `phone_number,tags,timezone`, on a path that the worker can read:

| column | what may stand in it |
|---|---|
| `phone_number` | `79001234567`, also as `+7 (900) 123-45-67` or `8 900 123 45 67` |
| `tags` | names of letters, digits, `-` and `_`, up to 200 characters each, separated by `;`; or nothing |
| `timezone` | an IANA name such as `Europe/Samara`; nothing means `UTC` |

**What happens.** Good rows go in, all of them or, on an error, none. Of several rows with one phone number the last
wins. Wrong rows go to the reject file with line number, field, value and reason. Clients that the file does not name
stay as they are. The same file again changes nothing, so clearing the task is safe.

**When it fails.** A file that is missing, empty, not UTF-8 or without the header fails at once and says what it found.
Anything else (the database is away) is tried again.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

CLIENTS = Asset(name="mailing_clients", uri="mailing://clients")


@dag(
    dag_id="import_clients",
    dag_display_name="Import clients",
    doc_md=__doc__,
    schedule=None,
    tags=["mailing", "clients"],
    params={
        "path": Param(
            type="string",
            minLength=1,
            title="Client list",
            description="Path of the CSV file on the worker.",
            examples=["/opt/airflow/imports/clients.csv"],
        ),
        "reject_file": Param(
            default=None,
            type=["null", "string"],
            title="Reject file",
            description="Where the wrong rows go. Empty: beside the client list, as <name>.rejects.csv.",
        ),
    },
)
def import_clients() -> None:
    """Wire the one task."""

    @task(outlets=[CLIENTS], retries=3, retry_delay=timedelta(seconds=30), multiple_outputs=False)
    def import_file(path: str, reject_file: str, actor: str) -> dict[str, Any]:
        """The counts of the import."""
        from mailing import client_import, db
        from mailing.errors import InvalidInput

        try:
            with db.transaction() as connection:
                figures = client_import.import_clients(connection, path, reject_file or None, actor=actor)
        except InvalidInput as error:
            raise AirflowFailException(str(error)) from None  # the message says it all
        return {name: value for name, value in asdict(figures).items() if name != "reject_file"}

    import_file(
        path="{{ params.path }}",
        reject_file="{{ params.reject_file or '' }}",
        actor="{{ dag_run.triggering_user_name or 'DAG ' ~ dag_run.dag_id }}",
    )


import_clients()
