"""How the soak judges what it measured."""

from __future__ import annotations

import pytest

from tests.soak.gauges import CONNECTIONS, GROWN_ROWS, boundedness, flatness, growth


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
