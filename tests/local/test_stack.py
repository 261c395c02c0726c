"""The embedded stack, for real: every test that needs one running shares it, and those that break it come last."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from local import postgres, stack_airflow, stack_processes
from local.settings import HOST, ROOT, Secrets, SettingError, Settings
from local.stack import Stack, StackError

SLEEPER = """
import time
from airflow.sdk import dag, task

@dag(schedule=None)
def sleeper():
    @task
    def sleep():
        time.sleep(600)
    sleep()

sleeper()
"""


# Settings and secrets: no process is started


@pytest.fixture
def unused(tmp_path):
    """The settings of a stack that was never up."""
    settings = Settings.anywhere(tmp_path / "var")
    yield settings
    Stack(settings).clean()


@pytest.mark.parametrize("value", ["0", "65536", "-1"])
def test_a_port_out_of_range_is_refused(value):
    with pytest.raises(SettingError, match=f"MAILING_UI_PORT={value}: wanted a whole number from 1 to 65535"):
        Settings.from_environment({"MAILING_UI_PORT": value})


def test_a_port_that_is_no_number_is_refused():
    with pytest.raises(SettingError, match="MAILING_DB_PORT='eighty': wanted a whole number from 1 to 65535"):
        Settings.from_environment({"MAILING_DB_PORT": "eighty"})


def test_one_port_cannot_serve_twice():
    with pytest.raises(SettingError, match="MAILING_GATEWAY_PORT=8080: wanted another port than MAILING_UI_PORT=8080"):
        Settings.from_environment({"MAILING_GATEWAY_PORT": "8080"})


def test_the_terminal_says_what_is_wrong_without_a_traceback(tmp_path):
    done = _local("up", var=tmp_path / "var", MAILING_UI_PORT="x")
    assert (done.returncode, done.stderr) == (1, "MAILING_UI_PORT='x': wanted a whole number from 1 to 65535\n")


def test_an_empty_environment_gives_the_documented_defaults():
    settings = Settings.from_environment({"MAILING_UI_PORT": ""})
    assert (settings.ui_port, settings.db_port, settings.gateway_port, settings.parallelism) == (8080, 5439, 8090, 8)
    assert settings.var == ROOT / "var"


def test_secrets_are_made_once_and_only_their_owner_may_read_them(tmp_path):
    settings = Settings.anywhere(tmp_path / "var")
    made = settings.secrets
    assert Settings(var=settings.var).secrets == made
    assert stat.S_IMODE(settings.secrets_file.stat().st_mode) == 0o600
    assert made.mailing not in repr(made)


def test_a_secret_that_a_newer_version_needs_is_added_to_the_old_ones(tmp_path):
    file = tmp_path / "secrets.json"
    old = Secrets.kept_in(file)
    known = json.loads(file.read_text())
    del known["fernet"]
    file.write_text(json.dumps(known))
    new = Secrets.kept_in(file)
    assert new.mailing == old.mailing
    assert json.loads(file.read_text())["fernet"] == new.fernet


def test_a_folder_with_other_files_is_not_taken_and_not_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    stack = Stack(Settings.anywhere(tmp_path))
    with pytest.raises(SettingError, match="holds other files; wanted a folder that is empty or not there"):
        stack.up()
    stack.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_deep_state_folder_gets_a_short_socket(tmp_path):
    assert Settings.anywhere(Path("/short")).control_socket == Path("/short/supervisor.sock")
    deep = Settings.anywhere(tmp_path / ("deep" * 30)).control_socket
    assert len(str(deep)) < 100
    assert deep != Settings.anywhere(tmp_path / ("reed" * 30)).control_socket


def test_printed_settings_can_be_read_back_by_a_shell(tmp_path):
    settings = Settings.anywhere(tmp_path / "with space")
    done = _local("env", var=settings.var, **_ports(settings))
    script = f'{done.stdout}\nprintf %s "$AIRFLOW_CONN_MAILING_DB"'
    connection = json.loads(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout)
    assert connection["port"] == settings.db_port
    assert connection["password"] == settings.secrets.mailing


def test_a_busy_port_is_named_with_its_program_and_the_setting_that_changes_it(unused):
    with socket.socket() as taken:
        taken.bind((HOST, unused.ui_port))
        taken.listen()
        with pytest.raises(StackError) as refused:
            Stack(unused).up()
    message = str(refused.value)
    assert message.startswith(f"port {unused.ui_port} is taken by ")
    assert f"(pid {os.getpid()}): set MAILING_UI_PORT to another one" in message
    assert "\n" not in message


def test_a_second_start_waits_for_nobody(unused):
    stack = Stack(unused)
    assert unused.secrets
    with (unused.var / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StackError, match="another start is under way"):
            stack.up()


def test_status_of_a_stack_that_is_down_says_so_and_touches_nothing(tmp_path):
    done = _local("status", var=tmp_path / "var")
    assert done.returncode == 1
    assert done.stdout.count("stopped") == 6
    assert not (tmp_path / "var").exists()


def test_down_without_a_stack_is_no_error(tmp_path):
    done = _local("down", var=tmp_path / "var")
    assert (done.returncode, done.stdout) == (0, "was not running\n")


def test_logs_of_an_unknown_process_name_the_known_ones(tmp_path):
    done = _local("logs", "skeduler", var=tmp_path / "var")
    assert done.returncode == 1
    assert done.stderr.startswith("process 'skeduler': wanted one of postgres, gateway, api-server, scheduler")


# One stack for all below


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    dags = folder / "dags"
    dags.mkdir()
    (dags / "sleeper.py").write_text(SLEEPER)
    settings = Settings.anywhere(folder / "var", dags=dags)
    yield settings
    Stack(settings).clean()
    _assert_nothing_left(settings)
    assert not settings.var.exists()


@pytest.fixture
def stack(settings):
    """A stack that is up: started by the first test that asks, and again after one that stopped it."""
    stack = Stack(settings)
    stack.up()
    return stack


@pytest.mark.stack
def test_a_started_stack_is_whole_and_healthy(stack):
    table = {each.name: each for each in stack.status()}
    assert {each.state for each in table.values()} == {"running"}
    assert all(psutil.pid_exists(each.pid) for each in table.values())
    assert table["postgres"].port == stack.settings.db_port
    done = _local("status", var=stack.settings.var, **_ports(stack.settings))
    assert done.returncode == 0
    assert stack.settings.ui_url in done.stdout


@pytest.mark.stack
def test_a_second_start_says_that_it_runs_and_changes_nothing(settings, stack):
    before = {each.name: each.pid for each in stack.status()}
    said: list[str] = []
    Stack(settings, say=said.append).up()
    assert said == [f"already running: {stack.address}"]
    assert {each.name: each.pid for each in stack.status()} == before


@pytest.mark.stack
def test_a_start_with_other_ports_is_refused_while_the_stack_runs(settings, stack):
    moved = Settings.anywhere(settings.var, dags=settings.dags)
    with pytest.raises(StackError, match=r"a stack with other settings is running in .*: `make down` first"):
        Stack(moved).up()
    assert stack.is_up()


@pytest.mark.stack
def test_every_user_can_log_in(settings, stack):
    passwords = json.loads(settings.passwords_file.read_text())
    assert set(passwords) == {"admin", "operator", "viewer"}
    for name, password in passwords.items():
        body = {"username": name, "password": password}
        assert stack_airflow.call(settings, "POST", "/auth/token", body)[0] == 201
    assert stat.S_IMODE(settings.passwords_file.stat().st_mode) == 0o600


@pytest.mark.stack
def test_our_tables_and_airflows_are_there(settings, stack):
    for database in ("mailing", "airflow"):
        with psycopg.connect(settings.database_url(database)) as connection:
            tables = connection.execute("SELECT count(*) FROM pg_tables WHERE tableowner = %s", [database]).fetchone()
            assert tables is not None
            assert tables[0] > 3


@pytest.mark.stack
def test_the_lasting_database_keeps_what_was_committed(settings, stack):
    with psycopg.connect(settings.database_url("mailing")) as connection:
        for name in ("fsync", "synchronous_commit"):
            assert connection.execute(f"SHOW {name}").fetchone() == ("on",)


@pytest.mark.stack
def test_nothing_listens_but_the_three_ports_and_only_on_loopback(settings, stack):
    ours = {process.pid for process in [*stack_processes.leftovers(settings), *_database(settings)]}
    open_ = {
        (each.laddr.ip, each.laddr.port)
        for each in psutil.net_connections(kind="inet")
        if each.status == psutil.CONN_LISTEN and each.pid in ours
    }
    assert open_ == {(HOST, port) for port in settings.ports().values()}


@pytest.mark.stack
def test_airflow_knows_the_gateway_and_an_operators_change_survives(settings, stack):
    path = f"/api/v2/connections/{stack_airflow.CONNECTION_ID}"
    token = stack_airflow.log_in(settings)
    _, found = stack_airflow.call(settings, "GET", path, token=token)
    assert (found["conn_type"], found["host"], found["port"]) == ("http", HOST, settings.gateway_port)
    assert stack_airflow.keep_gateway_connection(settings) == "as it was"

    real = {"connection_id": stack_airflow.CONNECTION_ID, "conn_type": "http", "host": "sms.example.com", "port": 443}
    stack_airflow.call(settings, "PATCH", f"{path}?update_mask=host&update_mask=port", real, token)
    assert stack_airflow.keep_gateway_connection(settings) == "left as somebody set it: sms.example.com:443"

    stack_airflow.call(settings, "DELETE", path, token=token)
    assert stack_airflow.keep_gateway_connection(settings) == "made"


@pytest.mark.stack
def test_a_token_near_its_expiry_is_renewed(settings, stack):
    stamp = settings.var / "gateway.connection.json"
    known = json.loads(stamp.read_text())
    stamp.write_text(json.dumps({**known, "expires": "2026-01-01T00:00:00+00:00"}))
    assert stack_airflow.keep_gateway_connection(settings) == "renewed"
    assert stack_airflow.keep_gateway_connection(settings) == "as it was"


@pytest.mark.stack
def test_after_a_killed_supervisor_stopping_leaves_no_process_port_or_file(settings, stack):
    _start_sleeper(settings)
    supervisor = int((settings.var / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    assert stack.down()
    _assert_nothing_left(settings)


@pytest.mark.stack
def test_ctrl_c_during_a_start_leaves_nothing(settings):
    # What a shell starts in the background ignores this signal, and so would all that the tests start.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "local", "up"]
    starting = subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment(settings.var, **_ports(settings)),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert starting.stdout
    while "our tables" not in starting.stdout.readline():  # then Airflow's processes are under way
        assert starting.poll() is None
    os.killpg(starting.pid, signal.SIGINT)  # as a terminal does: to make and all its children
    said, _ = starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert "stopping what was started" in said
    _assert_nothing_left(settings)


@pytest.mark.stack
def test_a_start_after_a_crash_removes_stale_pid_files_finds_its_data_and_stops_with_its_tasks(settings):
    data = postgres.data_folder(settings)
    stale = [settings.var / "supervisord.pid", settings.airflow_home / "airflow-scheduler.pid", data / "postmaster.pid"]
    for file in stale:
        file.write_text(f"{os.getpid()}\n")  # a pid that now belongs to another program
    said: list[str] = []
    stack = Stack(settings, say=said.append)
    stack.up()
    assert sum(line.endswith(": its process is gone") for line in said) == len(stale)
    _, runs = stack_airflow.call(settings, "GET", "/api/v2/dags/sleeper/dagRuns", token=stack_airflow.log_in(settings))
    assert [run["dag_run_id"] for run in runs["dag_runs"]] == ["one"]

    _await(lambda: _sleeper_state(settings) == "running", "the sleeper of the crashed stack runs again")
    assert stack.down()
    _assert_nothing_left(settings)


def _local(*arguments: str, var: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", *arguments]
    environment = _environment(var, **variables)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def _environment(var: Path, **variables: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("MAILING_")}
    return {**others, "MAILING_VAR": str(var), **variables}


def _ports(settings: Settings) -> dict[str, str]:
    return {variable: str(port) for variable, port in settings.ports().items()}


def _start_sleeper(settings: Settings) -> None:
    """Return when a task of the stack is in the middle of its work."""
    token = stack_airflow.log_in(settings)
    run = {"dag_run_id": "one", "logical_date": None}
    path = "/api/v2/dags/sleeper/dagRuns"
    _await(lambda: stack_airflow.call(settings, "POST", path, run, token)[0] == 200, "Airflow knows the sleeper")
    _await(lambda: _sleeper_state(settings) == "running", "the sleeper runs")


def _sleeper_state(settings: Settings) -> str | None:
    path = "/api/v2/dags/sleeper/dagRuns/one/taskInstances"
    _, found = stack_airflow.call(settings, "GET", path, token=stack_airflow.log_in(settings))
    return found["task_instances"][0]["state"] if found["task_instances"] else None


def _await(condition: Callable[[], bool], what: str, limit_s: float = 90.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.2)


def _database(settings: Settings) -> list[psutil.Process]:
    return postgres.processes(postgres.data_folder(settings))


def _assert_nothing_left(settings: Settings) -> None:
    left = [shlex.join(process.cmdline()) for process in [*stack_processes.leftovers(settings), *_database(settings)]]
    assert left == []
    assert _offspring(settings) == []
    assert stack_processes.busy_ports(settings) == []
    files = [*settings.var.rglob("*.pid"), *settings.var.rglob("*.sock"), settings.control_socket]
    assert [file for file in files if file.exists()] == []


def _offspring(settings: Settings) -> list[str]:
    """What lives in the session that the last supervisor led: found without asking the stack's own search."""
    leader = int((settings.var / "supervisord.session").read_text()) if settings.var.exists() else 0
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if leader and os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
    return found
