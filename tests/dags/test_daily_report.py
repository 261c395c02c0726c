"""The DAG `daily_report`: when it runs, and its runs through `dag.test()`."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pytest
from airflow.dag_processing.dagbag import DagBag

from local.settings import free_port
from mailing import daily_report
from mailing.daily_report import folder
from tests.builders import an_open_campaign, now, settle
from tests.conftest import ROOT
from tests.test_daily_report import mailbox  # noqa: F401 - a fixture

FILE = ROOT / "dags" / "daily_report.py"


def bag():
    return DagBag(str(FILE))


@pytest.fixture
def dag():
    found = bag()
    assert found.import_errors == {}
    assert list(found.dags) == ["daily_report"]
    return found.dags["daily_report"]


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.setenv("MAILING_REPORTS", str(tmp_path / "reports"))
    return tmp_path / "reports"


@pytest.fixture
def run(dag, database, airflow_db, reports):
    """A function: params → the states of the tasks of a whole run. A task is not tried again."""
    for task in dag.tasks:
        task.retries = 0

    def run(**params):
        instances = dag.test(run_conf=params).get_task_instances()
        return {instance.task_id: instance.state for instance in instances}

    return run


def test_it_runs_after_midnight_in_the_zone_of_the_reports(monkeypatch):
    monkeypatch.setenv("MAILING_REPORT_TIMEZONE", "Asia/Kathmandu")
    timetable = bag().dags["daily_report"].timetable
    assert (timetable.expression, timetable.timezone) == ("30 0 * * *", "Asia/Kathmandu")


def test_a_zone_that_is_none_is_an_import_error_that_says_so(monkeypatch):
    monkeypatch.setenv("MAILING_REPORT_TIMEZONE", "Moscow")
    [error] = bag().import_errors.values()
    assert "MAILING_REPORT_TIMEZONE='Moscow': wanted an IANA name" in error


def test_the_file_parses_without_what_only_tasks_want():
    code = "import sys; sys.path[:0] = ['plugins', 'dags']; import daily_report; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_run_keeps_the_report_of_the_day_before_and_mails_nobody(run, reports):
    assert run() == {"collect": "success", "write": "success", "mail": "skipped"}
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    assert [path.name for path in reports.iterdir()] == [yesterday.isoformat()]
    assert "report.html" in folder.whole(str(reports / yesterday.isoformat()))


def test_a_run_writes_the_day_that_is_asked_for_and_mails_it(run, reports, connection, mailbox, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MAILING_REPORT_TO", "olga@example.com")
    campaign_id, _ = an_open_campaign(connection, clients=2)
    settle(connection, campaign_id, now(), "sent", "failed")
    today = now().date().isoformat()

    assert run(day=today) == {"collect": "success", "write": "success", "mail": "success"}

    assert mailbox.recipients == ["olga@example.com"]
    assert mailbox.taken[0][1]["Subject"] == f"Mailing report for {today}"
    totals = (reports / today / "totals.csv").read_text().splitlines()
    assert totals[1].startswith("1,2,1,1,0,")


def test_days_that_were_missed_are_written_and_mailed_by_the_next_run(run, reports, mailbox, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MAILING_REPORT_TO", "olga@example.com")
    today = datetime.now(UTC).date()
    last, *missed = (today - timedelta(days=n) for n in (4, 3, 2, 1))
    daily_report.write(daily_report.collect(last))
    daily_report.collect(missed[0])  # it was begun and is not whole
    before = folder.whole(folder.of_day(last))

    assert run() == {"collect": "success", "write": "success", "mail": "success"}

    assert sorted(path.name for path in reports.iterdir()) == [str(day) for day in (last, *missed)]
    assert folder.whole(folder.of_day(last)) == before
    assert all("report.html" in folder.whole(folder.of_day(day)) for day in missed)
    subjects = [message["Subject"] for _, message in mailbox.taken]
    assert subjects == [f"Mailing report for {day}" for day in missed]


def test_a_mail_of_one_day_that_is_refused_keeps_no_other_from_being_sent(run, reports, mailbox, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setenv("MAILING_REPORT_TO", "gone@example.com olga@example.com")
    mailbox.refused = {"gone@example.com"}
    today = datetime.now(UTC).date()
    daily_report.write(daily_report.collect(today - timedelta(days=3)))

    assert run()["mail"] == "failed"

    assert mailbox.recipients == ["olga@example.com"] * 2
    said = "".join(capfd.readouterr())
    for n in (2, 1):
        assert f"the report is kept in {reports}/{today - timedelta(days=n)}" in said


def test_a_day_to_come_fails_at_once(run, reports, capfd):
    assert run(day="2999-01-01") == {"collect": "failed", "write": "upstream_failed", "mail": "upstream_failed"}
    assert "day 2999-01-01: it has not begun in UTC; wanted a past day" in "".join(capfd.readouterr())


def test_a_folder_that_cannot_be_written_fails_the_run_and_is_named(run, reports, capfd):
    reports.write_text("a file")
    assert run(day="2026-06-10")["collect"] == "failed"
    assert f"report folder {reports}/2026-06-10: " in "".join(capfd.readouterr())


def test_a_mail_server_that_is_away_fails_the_mail_alone_and_the_figures_are_kept(run, reports, monkeypatch, capfd):
    monkeypatch.setenv("MAILING_REPORT_TO", "olga@example.com")
    server = {"conn_type": "smtp", "host": "127.0.0.1", "port": free_port(), "extra": {"disable_ssl": True}}
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_SMTP", json.dumps(server))

    assert run(day="2026-06-10") == {"collect": "success", "write": "success", "mail": "failed"}

    said = "".join(capfd.readouterr())
    assert "connection mailing_smtp: the mail server: ConnectionRefusedError" in said
    assert f"the report is kept in {reports}/2026-06-10" in said
    assert "totals.csv" in folder.whole(folder.of_day(date(2026, 6, 10)))
