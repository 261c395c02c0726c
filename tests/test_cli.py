"""The command line, run as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from local.settings import free_port
from tests.conftest import ROOT


def mailing(*arguments):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/plugins"}
    command = [sys.executable, "-m", "mailing.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.usefixtures("database")
def test_import_prints_what_became_of_the_rows(tmp_path):
    file = tmp_path / "clients.csv"
    file.write_text("phone_number,tags,timezone\n+7 (103) 000-00-01,art,Europe/Samara\n123,,\n")

    done = mailing("import", str(file))

    assert done.returncode == 0, done.stderr
    assert "2 rows: 1 clients (1 new, 0 updated, 0 unchanged), 0 repeated, 1 normalised, 1 rejected" in done.stdout
    assert "rejected for phone_number: 1" in done.stdout
    assert str(tmp_path / "clients.rejects.csv") in done.stdout


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
