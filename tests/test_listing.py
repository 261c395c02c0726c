"""What all lists share: how many rows there are, and how long a page may take."""

from __future__ import annotations

import psycopg
import pytest

from mailing import db, listing, pool
from tests.builders import some_clients


def test_a_small_table_is_counted_and_a_large_one_estimated(connection):
    assert listing.size(connection, "clients") == (0, True)
    some_clients(connection, listing.EXACT_TO)
    assert listing.size(connection, "clients") == (listing.EXACT_TO, True)

    some_clients(connection, 2_000)
    count, is_exact = listing.size(connection, "clients")
    assert (count >= listing.EXACT_TO, is_exact) == (True, False)
    connection.execute("ANALYZE clients")
    assert listing.size(connection, "clients") == (listing.EXACT_TO + 2_000, False)


def test_patience_is_lost_for_this_transaction_only(connection):
    def wait():
        with connection.transaction():
            listing.lose_patience(connection, 0.05)
            connection.execute("SELECT pg_sleep(5)")

    with pytest.raises(psycopg.errors.QueryCanceled):
        wait()
    assert connection.execute("SHOW statement_timeout").fetchone() == {"statement_timeout": "0"}


def test_a_count_that_takes_too_long_is_done_without_and_the_transaction_goes_on(connection):
    with connection.transaction():
        some_clients(connection, 2)
        assert listing.counted(connection, 0.05, lambda: connection.execute("SELECT pg_sleep(5)")) is None
        assert listing.counted(connection, 5, lambda: listing.size(connection, "clients")) == (2, True)


@pytest.mark.parametrize("transaction", [db.transaction, pool.transaction])
def test_a_transaction_is_one_however_the_blocks_inside_it_are_nested(connection, transaction):
    def break_off():
        with transaction() as own:
            with own.transaction():
                own.execute("INSERT INTO tags (name) VALUES ('half')")
            raise RuntimeError

    pool.close()
    with pytest.raises(RuntimeError):
        break_off()
    pool.close()
    assert connection.execute("SELECT name FROM tags").fetchall() == []
