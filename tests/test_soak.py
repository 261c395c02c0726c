"""How the soak judges what it measured."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.soak.gauges import CLEANED, CONNECTIONS, GROWN_ROWS, HISTORY, boundedness, flatness, growth, held_mib


def test_memory_is_flat_where_it_rose_only_while_the_process_began():
    assert flatness("x", [100.0] * 5 + [180.0] * 15).is_well
    assert not flatness("x", [100.0 + 10 * nth for nth in range(40)]).is_well


def test_a_single_peak_is_no_growth():
    assert flatness("x", [200.0] * 19 + [900.0]).is_well


@pytest.mark.parametrize(("most", "is_well"), [(CONNECTIONS, True), (CONNECTIONS + 1, False)])
def test_one_connection_too_many_is_told(most, is_well):
    judged = boundedness([10, most, 20])
    assert (judged.last, judged.is_well) == (most, is_well)


def test_a_table_may_grow_where_somebody_clears_it():
    assert growth("mailing", "messages", 0, GROWN_ROWS) is None
    kept = growth("mailing", "messages", 0, GROWN_ROWS + 1)
    assert kept.is_well
    assert "retention" in kept.said
    grown = growth("mailing", "no_such_table", 0, GROWN_ROWS + 1)
    assert not grown.is_well
    assert "nobody" in grown.said


def test_what_a_program_holds_is_also_what_those_hold_that_it_started():
    child = "held = bytearray(64 << 20); print(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        program.stdout.readline()  # it has its memory
        assert 64 < held_mib(program.pid) < 128
        program.communicate(b"\n")
    assert held_mib(program.pid) == 0


def test_what_is_said_to_clear_a_table_of_airflow_is_what_the_document_says():
    document = (ROOT / "docs" / "reporting.md").read_text(encoding="utf-8")
    assert f"--tables {','.join(HISTORY)}\n" in document
    assert "python -m mailing.cli forget-dags" in document
    assert set(CLEANED["airflow"].values()) == {"airflow db clean", "mailing.cli forget-dags"}
    assert CLEANED["airflow"]["serialized_dag"] == "mailing.cli forget-dags"
