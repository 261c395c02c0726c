from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from local import postgres
from local.settings import HOST, ROOT, Secrets, Settings, free_port


@pytest.fixture(scope="module")
def server():
    with postgres.throwaway_server() as running:
        yield running


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def test_a_throwaway_server_has_both_databases_with_their_owners(server):
    for name in ("airflow", "mailing"):
        with psycopg.connect(server.url(name)) as connection:
            assert connection.execute("SELECT current_user, current_database()").fetchone() == (name, name)


def test_the_mailing_role_may_create_the_read_only_role(server):
    with psycopg.connect(server.url("mailing")) as connection:
        connection.execute("CREATE ROLE somebody NOLOGIN")
        connection.rollback()


def test_a_test_can_clone_a_template_as_the_superuser(server):
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE mailing_1 TEMPLATE mailing OWNER mailing")
    with psycopg.connect(server.url("mailing_1")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("mailing",)


def test_a_throwaway_server_trades_durability_for_speed(server):
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("off",)


def test_a_lasting_server_keeps_what_was_committed():
    with postgres.throwaway_server(durable=True) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_the_server_keeps_utc_and_utf8_and_refuses_a_wrong_password(server):
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
        assert connection.execute("SHOW log_error_verbosity").fetchone() == ("terse",)
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=HOST, port=server.port, user="mailing", dbname="mailing", password="guessed")


def test_roles_and_databases_can_be_made_twice(server):
    postgres.create_databases(server.secrets, server.port)


def test_a_throwaway_server_leaves_neither_process_nor_port_nor_file():
    with postgres.throwaway_server() as server:
        pids = [process.pid for process in postgres.processes(server.data)]
        assert pids
        assert _listens(server.port)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not _listens(server.port)
    assert not server.data.parent.exists()


def test_a_server_is_gone_after_an_error_in_its_block():
    with pytest.raises(ZeroDivisionError), postgres.throwaway_server() as server:
        raise ZeroDivisionError
    assert postgres.processes(server.data) == []


def test_two_servers_run_at_once_and_do_not_meet():
    def data_folder(_: int) -> str:
        with postgres.throwaway_server() as server, psycopg.connect(server.url("postgres")) as connection:
            found = connection.execute("SHOW data_directory").fetchone()
            assert found is not None
            return str(found[0])

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(data_folder, range(2)))) == 2


def test_what_a_killed_test_run_left_behind_the_next_one_removes():
    program = (
        "import os, signal\n"
        "from local.postgres import throwaway_server\n"
        "with throwaway_server() as server:\n"
        "    print(server.data, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    abandoned = Path(killed.stdout.strip())
    assert postgres.processes(abandoned)
    with postgres.throwaway_server():
        assert not abandoned.exists()
        assert postgres.processes(abandoned) == []


def test_a_stale_pid_file_is_removed_and_a_live_one_kept(tmp_path, server):
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n")
    assert postgres.remove_stale_pid_file(tmp_path)
    assert not (tmp_path / "postmaster.pid").exists()
    assert not postgres.remove_stale_pid_file(tmp_path)
    assert not postgres.remove_stale_pid_file(server.data)
    assert (server.data / "postmaster.pid").exists()


def test_data_made_with_other_secrets_say_so(server):
    with pytest.raises(postgres.PostgresError, match=r"knows another password than var/secrets\.json"):
        postgres.wait_until_ready(Secrets(), server.port)


def test_a_port_that_nobody_listens_on_is_named():
    port = free_port()
    with pytest.raises(postgres.PostgresError, match=f"PostgreSQL on port {port}: no answer within 0 s"):
        postgres.wait_until_ready(Secrets(), port, limit_s=0.0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_root_keeps_data_where_the_servers_user_can_reach_them(tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    settings = Settings.anywhere(private / "var")
    try:
        secrets = settings.secrets
        at = postgres.place(settings)
        assert at.user
        assert not at.data.is_relative_to(private)
        assert (settings.var / "postgres.location").read_text().strip() == str(at.data)
        assert postgres.data_folder(settings) == at.data
        postgres.prepare(at, secrets, settings.db_port, durable=False)
        assert (at.data / "PG_VERSION").exists()
    finally:
        shutil.rmtree(postgres.outside_folders(settings)[0], ignore_errors=True)
