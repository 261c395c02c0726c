"""How the soak judges what it measured."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest

from mailing.models import Base
from tests.soak.gauges import (
    CLEANED,
    CONNECTIONS,
    GROWN_ROWS,
    TIDY_ROWS,
    boundedness,
    flatness,
    growth,
    held,
    offspring,
    sessions,
    tidiness,
)

A_PARENT = """
import subprocess, sys
lines = "import os; x = bytearray(b'x') * (64 << 20); os.write(1, b'r'); input()"
subprocess.Popen([sys.executable, "-c", lines]).wait()
"""


@pytest.fixture
def program():
    """Starts a Python program of these lines, and returns once it is ready."""
    started = []

    def start(lines):
        process = subprocess.Popen(
            [sys.executable, "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        assert process.stdout.read(1) == b"r"
        return process.pid

    yield start
    for process in started:
        os.killpg(process.pid, 9)
        process.communicate()


def test_memory_of_a_program_is_told_of_each_of_its_offspring(program):
    pid = program(A_PARENT)
    found = {process: held_mib for (process, _), held_mib in held(pid).items()}
    assert len(found) == 2
    assert found.pop(pid) < 64 < found.popitem()[1] < 128


def of_one(*figures):
    return [{(1, 0.0): each} for each in figures]


def test_memory_is_flat_where_it_rose_only_while_the_process_began():
    assert flatness("x", of_one(*[100.0] * 5, *[180.0] * 15)).is_well
    assert not flatness("x", of_one(*[100.0 + 10 * nth for nth in range(40)])).is_well


def test_a_single_peak_is_no_growth():
    assert flatness("x", of_one(*[200.0] * 19, 900.0)).is_well


def test_tasks_that_come_and_go_are_no_growth_and_hide_none():
    def with_tasks(figures):
        return [
            {(1, 0.0): each} | {(2 + nth * 10 + task, float(nth)): 120.0 for task in range(8 * nth // 40)}
            for nth, each in enumerate(figures)
        ]

    flat = flatness("x", with_tasks([300.0] * 40))
    assert (flat.first, flat.last, flat.is_well) == (300.0, 300.0, True)
    assert flat.said == "of 1 that lasted; 1,140 at most, with what ran for a moment"
    assert not flatness("x", with_tasks([300.0 + 3 * nth for nth in range(40)])).is_well
    assert offspring("x", with_tasks([300.0] * 40)).is_well


def test_what_leaks_in_one_of_its_children_is_growth_of_the_program():
    assert not flatness("x", [{(1, 0.0): 100.0, (2, 0.0): 50.0 + 2 * nth} for nth in range(40)]).is_well


def test_a_program_of_which_nothing_lasted_is_not_well():
    assert not flatness("x", [{(nth, float(nth)): 100.0} for nth in range(40)]).is_well


def test_children_that_never_end_are_growth():
    samples = [{(pid, 0.0): 1.0 for pid in range(1 + nth)} for nth in range(40)]
    judged = offspring("x", samples)
    assert (judged.first, judged.last, judged.is_well) == (12, 32, False)


@pytest.mark.parametrize(("most", "is_well"), [(CONNECTIONS, True), (CONNECTIONS + 1, False)])
def test_one_connection_too_many_is_told(most, is_well):
    judged = boundedness([{"airflow": 10}, {"airflow": most - 7, "mailing": 7}, {"airflow": 20}])
    assert (judged.last, judged.is_well) == (most, is_well)
    assert judged.said == f"airflow {most - 7}, mailing 7"


def test_sessions_of_every_role_are_seen(server):
    with psycopg.connect(server.url("airflow")), psycopg.connect(server.url("mailing")):
        assert sessions(server.url("postgres")).keys() >= {"airflow", "mailing", "postgres"}


def test_a_table_may_grow_where_somebody_clears_it():
    assert growth("messages", 0, GROWN_ROWS) is None
    kept = growth("messages", 0, GROWN_ROWS + 1)
    assert kept.is_well
    assert "retention" in kept.said
    grown = growth("no_such_table", 0, GROWN_ROWS + 1)
    assert not grown.is_well
    assert "nobody" in grown.said


def test_only_tables_of_ours_are_said_to_be_cleared():
    assert set(CLEANED) <= set(Base.metadata.tables)


def test_a_table_of_airflows_has_to_be_small_after_it_was_tidied_up():
    assert tidiness("dag_run", 5, before=5 + TIDY_ROWS, after=5, campaigns=9) is None
    assert tidiness("dag_run", 5, before=9_000, after=5 + TIDY_ROWS, campaigns=9).is_well
    assert not tidiness("dag_run", 5, before=9_000, after=6 + TIDY_ROWS, campaigns=9).is_well
    assert not tidiness("no_such_table", 5, before=9_000, after=9_000, campaigns=9).is_well
    assert tidiness("asset", 2, before=902, after=902, campaigns=900) is None
    assert not tidiness("asset", 2, before=904, after=904, campaigns=900).is_well
    assert tidiness("log", 5, before=9_000, after=5 + TIDY_ROWS + 900, campaigns=900).is_well
    assert not tidiness("log", 5, before=9_000, after=6 + TIDY_ROWS + 900, campaigns=900).is_well
