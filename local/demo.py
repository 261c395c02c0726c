"""`make demo`: a real campaign, from rows in PostgreSQL through its own DAG to the gateway and back into a report.

Run again, it triggers the same campaigns once more, and nobody gets a second message.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from local.settings import ROOT, SettingError, Settings
from local.stack_airflow import AirflowError, address_of, call, log_in

CLIENTS = ROOT / "include" / "data" / "clients.csv"
WINDOW = timedelta(hours=12)
PATIENCE_S = 300.0


class DemoError(RuntimeError):
    """The demo did not end as promised; the message says what is wrong."""


@dataclass(frozen=True)
class Planned:
    """A campaign of the demo."""

    name: str
    text: str
    tags: tuple[str, ...]
    codes: tuple[str, ...]


CAMPAIGNS = (
    Planned("Demo: operator 103, art", "The exhibition opens on Friday. Come and see!", ("art",), ("103",)),
    Planned("Demo: sport and music", "A marathon with an orchestra: Sunday, 10:00.", ("sport", "music"), ()),
)


def main() -> int:
    """Run the demo. Exit code 0 only if every message ended and the gateway's count agrees with the ledger."""
    # Imported here: a cluster's demo (local/cluster.py) has no embedded stack.
    from local.postgres import PostgresError
    from local.stack import Stack, StackError

    console = a_console()
    settings = Settings.from_environment()
    try:
        Stack(settings, say=lambda line: console.print(line, highlight=False)).up()
        os.environ.update(settings.environment())
        sys.path.insert(0, str(ROOT / "plugins"))
        send(settings, console)
    except (SettingError, StackError, PostgresError, AirflowError, DemoError) as error:
        console.print(f"[bold red]{error}")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; the stack goes on (make down stops it)")
        return 130
    passwords = json.loads(settings.passwords_file.read_text(encoding="utf-8"))
    console.print(f"\nAirflow's web UI: {settings.ui_url}  (user admin, password {passwords['admin']})")
    console.print("Stop it with: make down", highlight=False)
    return 0


def a_console() -> Console:
    """Where the demo prints; wide enough for its table where nobody says how wide it is."""
    return Console(width=None if sys.stdout.isatty() else 120)


def send(settings: Settings, console: Console) -> None:
    """Import the clients, send the campaigns on a stack or cluster that is up, show and compare what became of them.

    Raises DemoError (also where the messages would go to another gateway than the simulator) or AirflowError.
    """
    logging.getLogger("mailing").setLevel(logging.WARNING)  # the demo says the same in its own words
    _need_the_simulator(settings)
    _import_clients(settings, console)
    token = log_in(settings)
    ids = _start_campaigns(settings, token, console)
    _watch(ids, settings, token, console)
    _show(ids, console)
    _compare_with_gateway(ids, settings, console)


def _need_the_simulator(settings: Settings) -> None:
    """Raise DemoError unless campaigns are sent to the simulator: a real gateway would send to real people."""
    from mailing import db
    from mailing.models import DEFAULT_GATEWAY

    with db.connect() as connection:
        row = connection.execute("SELECT connection_id FROM gateways WHERE name = %s", (DEFAULT_GATEWAY,)).fetchone()
    if not row:
        raise DemoError(f"there is no gateway {DEFAULT_GATEWAY}: the demo sends to the simulator")
    found, wanted = address_of(settings, row["connection_id"]), (settings.gateway_host, settings.gateway_port)
    if found != wanted:
        raise DemoError(
            f"connection {row['connection_id']} leads to {found[0]}:{found[1]}: the demo sends to the simulator only,"
            f" which is {wanted[0]}:{wanted[1]}. Nothing was imported, nothing was sent"
        )


def _import_clients(settings: Settings, console: Console) -> None:
    from mailing import client_import, db

    with db.transaction() as connection:
        # The reject file goes to the stack's folder: the demo leaves the clone as it was.
        rejects = settings.var / "clients.rejects.csv"
        figures = client_import.import_clients(connection, CLIENTS, rejects)
    console.print(
        f"{CLIENTS.relative_to(ROOT)}: {figures.rows:,} rows, {figures.clients:,} clients ({figures.inserted:,} new),"
        f" {sum(figures.rejected.values())} rejected (see {figures.reject_file})",
        highlight=False,
    )


def _start_campaigns(settings: Settings, token: str, console: Console) -> dict[int, str | None]:
    """The demo's campaigns by id, with the run that was triggered for those that were sent by an earlier demo."""
    from mailing import campaigns, db

    runs: dict[int, str | None] = {}
    with db.transaction() as connection:
        for planned in CAMPAIGNS:
            row = connection.execute(
                "SELECT id FROM campaigns WHERE name = %s AND sending_stop > now() ORDER BY id DESC LIMIT 1",
                (planned.name,),
            ).fetchone()
            if row:
                runs[row["id"]] = ""
                continue
            now = datetime.now(UTC)
            campaign_id = campaigns.create(
                connection,
                name=planned.name,
                text=planned.text,
                sending_start=now,
                sending_stop=now + WINDOW,
                filter_tags=planned.tags,
                filter_operator_codes=planned.codes,
            )
            runs[campaign_id] = None
            console.print(f"campaign {campaign_id} created: {planned.name}", highlight=False)
    for campaign_id in [known for known, run in runs.items() if run is not None]:
        console.print(f"campaign {campaign_id} is there already: its DAG is triggered once more", highlight=False)
        runs[campaign_id] = _trigger(settings, token, f"campaign_{campaign_id}")
    return runs


def _trigger(settings: Settings, token: str, dag_id: str) -> str:
    path = f"/api/v2/dags/{dag_id}/dagRuns"
    status, answer = call(settings, "POST", path, {"logical_date": None}, token)
    if status != http.HTTPStatus.OK:
        raise AirflowError(f"{dag_id}: Airflow answered {status} to a trigger: {answer}")
    return str(answer["dag_run_id"])


def _watch(runs: dict[int, str | None], settings: Settings, token: str, console: Console) -> None:
    """Show progress from the ledger until every campaign is finished, and every triggered run has ended."""
    from mailing import campaigns, db

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    until = time.monotonic() + PATIENCE_S
    with Progress(*columns, console=console) as bars, db.connect() as connection:
        connection.autocommit = True
        shown: dict[int, TaskID] = {}
        waiting = dict(runs)
        while waiting:
            for campaign_id, run in list(waiting.items()):
                standing = campaigns.progress(connection, campaign_id)
                if campaign_id not in shown:
                    shown[campaign_id] = bars.add_task(f"{standing.name} ({standing.status})", total=None)
                left = standing.pending + standing.sending
                bars.update(
                    shown[campaign_id],
                    description=f"{standing.name} ({standing.status})",
                    total=standing.audience or None,
                    completed=standing.audience - left,
                )
                if standing.status == "finished" and not left and _has_ended(settings, token, campaign_id, run):
                    del waiting[campaign_id]
            if time.monotonic() > until:
                raise DemoError(f"campaigns {sorted(waiting)} are not finished after {PATIENCE_S:.0f} s: see make logs")
            time.sleep(0.3)  # a poll's pause


def _has_ended(settings: Settings, token: str, campaign_id: int, run: str | None) -> bool:
    if not run:
        return True  # its first run: the ledger says enough
    status, answer = call(settings, "GET", f"/api/v2/dags/campaign_{campaign_id}/dagRuns/{run}", token=token)
    if status != http.HTTPStatus.OK:
        raise AirflowError(f"campaign_{campaign_id}: Airflow answered {status} for run {run}: {answer}")
    if answer["state"] == "failed":
        raise DemoError(f"campaign_{campaign_id}: run {run} failed: see {settings.ui_url}/dags/campaign_{campaign_id}")
    return bool(answer["state"] == "success")


def _show(runs: dict[int, str | None], console: Console) -> None:
    from mailing import campaigns, db

    columns = ("audience", "sent", "failed", "unknown", "expired", "duration, s", "messages/s")
    table = Table()
    table.add_column("campaign", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    with db.connect() as connection:
        for campaign_id in runs:
            each = campaigns.progress(connection, campaign_id)
            seconds = _seconds(each.first_claimed_at, each.last_sent_at)
            speed = f"{each.sent / seconds:,.0f}" if seconds else ""
            counts = (each.audience, each.sent, each.failed, each.unknown, each.expired)
            table.add_row(
                f"{each.id} {each.name}",
                *[f"{count:,}" for count in counts],
                f"{seconds:.1f}" if seconds else "",
                speed,
            )
    console.print(table)


def _seconds(first: datetime | None, last: datetime | None) -> float | None:
    return (last - first).total_seconds() if first and last else None


def _compare_with_gateway(runs: dict[int, str | None], settings: Settings, console: Console) -> None:
    """Raise DemoError unless the gateway took exactly the messages that the ledger calls sent, each once."""
    from mailing import db

    with db.connect() as connection:
        rows = connection.execute(
            "SELECT id, state FROM messages WHERE campaign_id = ANY (%s) ORDER BY id", (list(runs),)
        ).fetchall()
    if not rows:
        raise DemoError("the ledger is empty: wanted messages of two campaigns")
    taken = _gateway_counts(settings, rows[0]["id"], rows[-1]["id"])
    wrong = [
        f"message {row['id']}: the ledger says {row['state']}, the gateway took it {taken.get(row['id'], 0)} times"
        for row in rows
        if not _agree(row["state"], taken.get(row["id"], 0))
    ]
    if wrong:
        raise DemoError("\n".join([f"{len(wrong)} messages differ between ledger and gateway", *wrong[:5]]))
    sent = sum(row["state"] == "sent" for row in rows)
    console.print(f"the gateway's count agrees: {sent:,} messages sent, each taken once", highlight=False)


def _agree(state: str, taken: int) -> bool:
    if state == "sent":
        return taken == 1
    return taken <= 1 if state == "unknown" else taken == 0


def _gateway_counts(settings: Settings, first: int, last: int) -> dict[int, int]:
    connection = http.client.HTTPConnection(settings.gateway_host, settings.gateway_port, timeout=60)
    try:
        connection.request("GET", f"/_simulator/counts?first={first}&last={last}")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return {int(message_id): count for message_id, count in answer.items()}


if __name__ == "__main__":
    sys.exit(main())
