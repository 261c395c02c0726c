"""The command line, run as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

import pandas as pd
import pytest

from local.settings import free_port
from mailing import messages
from tests.builders import a_campaign, an_open_campaign, audited, claim, now, outcome_of, some_clients, states
from tests.conftest import ROOT


def mailing(*arguments):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/plugins"}
    command = [sys.executable, "-m", "mailing.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_import_prints_what_became_of_the_rows_and_keeps_who_did_it(connection, tmp_path):
    file = tmp_path / "clients.csv"
    file.write_text("phone_number,tags,timezone\n+7 (103) 000-00-01,art,Europe/Samara\n123,,\n")

    done = mailing("import", str(file), "--actor", "olga")

    assert done.returncode == 0, done.stderr
    assert "2 rows: 1 clients (1 new, 0 updated, 0 unchanged), 0 repeated, 1 normalised, 1 rejected" in done.stdout
    assert "rejected for phone_number: 1" in done.stdout
    assert str(tmp_path / "clients.rejects.csv") in done.stdout
    [(actor, action, _, _, detail)] = audited(connection)
    assert (actor, action, detail["rows"]) == ("olga", "import_clients", 2)


@pytest.mark.usefixtures("database")
def test_a_wrong_file_is_one_line_and_exit_code_1(tmp_path):
    done = mailing("import", str(tmp_path / "missing.csv"))
    assert done.returncode == 1
    assert "missing.csv" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["migrate"], ["import", str(ROOT / "include" / "data" / "clients.csv")]])
def test_a_database_that_is_away_is_one_line_and_exit_code_1(monkeypatch, command):
    away = {"conn_type": "postgres", "host": "127.0.0.1", "port": free_port(), "login": "x", "password": "not shown"}
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", json.dumps(away))
    done = mailing(*command)
    assert done.returncode == 1
    assert "the database of connection mailing_db is away" in done.stderr
    assert "Traceback" not in done.stderr
    assert "not shown" not in done.stderr


@pytest.mark.usefixtures("database")
def test_migrate_can_be_run_again():
    assert mailing("migrate").returncode == 0


def test_a_campaign_is_paused_resumed_and_cancelled_and_who_did_it_is_kept(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    for action, status in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        done = mailing(action, str(campaign_id), "--actor", "olga")
        assert done.stdout.startswith(f"campaign {campaign_id}: {status}"), done.stderr
    assert states(connection, campaign_id) == {"cancelled": 3}
    audit = connection.execute("SELECT actor, action FROM audit_log ORDER BY id").fetchall()
    assert [(row["actor"], row["action"]) for row in audit] == [
        ("olga", "pause"), ("olga", "resume"), ("olga", "cancel"),
    ]  # fmt: skip

    refused = mailing("resume", str(campaign_id))
    assert (refused.returncode, refused.stderr) == (
        1, f"mailing: campaign {campaign_id}: resume: wanted paused, it is cancelled\n",
    )  # fmt: skip


def test_what_is_unknown_is_settled(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    connection.execute("UPDATE messages SET state = 'unknown', reason = 'no_answer' WHERE id % 2 = 0")
    doubtful = states(connection, campaign_id)["unknown"]
    done = mailing("settle", str(campaign_id), "give_up", "--reason", "no_answer")
    assert f"campaign {campaign_id}: {doubtful} messages: give_up" in done.stdout, done.stderr
    assert states(connection, campaign_id) == {"failed": doubtful, "pending": 3 - doubtful}


def test_verify_counts_anew_and_tells_what_differs(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    done = mailing("verify")
    assert (done.returncode, done.stdout) == (0, "3 messages counted anew: every figure is right\n"), done.stderr
    connection.execute("UPDATE state_counts SET count = count + 2")
    done = mailing("verify", "--campaign", str(campaign_id))
    assert done.returncode == 1
    assert f"campaign {campaign_id}: state pending: kept 5, found 3\n" in done.stdout


def test_verify_compares_the_first_and_last_moments_and_says_none_of_what_was_given_back(connection):
    campaign_id, [number] = an_open_campaign(connection, clients=3)
    token = messages.take_lease(connection, campaign_id, number, "test")
    first, *_ = claim(connection, campaign_id, token, limit=1)
    messages.return_unposted(connection, campaign_id, token, messages.batch(connection, campaign_id, number), known=[])
    told = [outcome_of(each, "sent") for each in claim(connection, campaign_id, token)]
    messages.record(connection, campaign_id, token, told)
    assert mailing("verify").stdout == "3 messages counted anew: every figure is right\n"

    connection.execute(
        "UPDATE state_counts SET first_claimed_at = first_claimed_at + interval '1 h', first_sent_at = NULL,"
        " last_sent_at = last_sent_at - interval '1 h'"
    )
    done = mailing("verify", "--campaign", str(campaign_id))
    assert done.returncode == 1
    said = done.stdout.splitlines()
    assert [line.partition(": kept ")[0] for line in said[:-1]] == [
        f"campaign {campaign_id}: {figure}" for figure in ("first claim", "first sent", "last sent")
    ]
    sent = connection.execute("SELECT min(sent_at) AS at FROM messages").fetchone()["at"]
    assert said[1].endswith(f"kept None, found {sent}")
    assert said[-1] == "3 messages counted anew: 3 figures differ"


def test_verify_counts_only_messages_that_are_there(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    connection.execute("UPDATE campaigns SET archived_at = now()")
    an_open_campaign(connection, clients=1)
    assert mailing("verify").stdout == "4 messages counted anew: every figure is right\n"
    assert mailing("verify", "--campaign", str(campaign_id)).stdout.startswith("0 messages counted anew")


@pytest.mark.parametrize(("suffix", "read"), [("csv", pd.read_csv), ("parquet", pd.read_parquet)])
def test_export_writes_every_outcome_to_a_file(connection, tmp_path, suffix, read):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    file = tmp_path / f"out.{suffix}"
    done = mailing("export", str(campaign_id), str(file))
    assert done.stdout == f"campaign {campaign_id}: {file}, {file.stat().st_size:,} bytes\n", done.stderr
    assert list(read(file)["state"]) == ["pending"] * 3
    assert list(tmp_path.iterdir()) == [file]


def test_an_export_that_fails_says_why_and_leaves_the_file_as_it_was(connection, tmp_path):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    file = tmp_path / "out.csv"
    file.write_text("as it was")
    missing = tmp_path / "missing" / "out.csv"
    for campaign, wanted, said in (
        (campaign_id, tmp_path / "out.xlsx", "out.xlsx: wanted a name that ends with .csv or .parquet"),
        (campaign_id, missing, "missing/out.csv: cannot be written: No such file or directory"),
        (10**9, file, "there is no such campaign"),
    ):
        done = mailing("export", str(campaign), str(wanted))
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"]


def test_a_forecast_names_who_can_be_reached_and_who_cannot(connection):
    some_clients(connection, 5)
    opens = (now() + timedelta(hours=2)).time()
    closes = (now() + timedelta(hours=3)).time()
    campaign_id = a_campaign(connection, local_from=opens, local_to=closes)
    done = mailing("forecast", str(campaign_id))
    assert "UTC: 5 clients, not before the stop\nnever: 5 of 5\n" in done.stdout, done.stderr
