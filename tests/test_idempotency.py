"""Keys of requests that may be repeated, beside a real database."""

from __future__ import annotations

import pytest

from mailing import db, idempotency
from mailing.errors import Conflict, InvalidInput
from mailing.idempotency import Answer, Key
from tests.waiting import in_a_thread, wait_until, waiting_for_locks


def a_key(key="k", body=b"{}", actor="anna", route="POST /api/tags/"):
    return Key(actor, route, key, body)


def test_the_first_is_to_work_and_the_others_get_its_answer(connection):
    assert idempotency.recall(connection, a_key()) is None
    idempotency.keep(connection, a_key(), Answer(201, {"id": 7}))
    assert idempotency.recall(connection, a_key()) == Answer(201, {"id": 7})


def test_a_key_is_its_actors_and_its_routes_own(connection):
    for key in (a_key(), a_key(actor="boris"), a_key(route="POST /api/clients/"), a_key(key="l")):
        assert idempotency.recall(connection, key) is None


def test_the_same_key_with_another_body_is_refused(connection):
    idempotency.recall(connection, a_key())
    with pytest.raises(InvalidInput, match="key 'k': came with another body before"):
        idempotency.recall(connection, a_key(body=b"{ }"))


def test_what_has_begun_and_not_ended_is_not_done_again(connection):
    idempotency.recall(connection, a_key())
    with pytest.raises(Conflict, match="key 'k': what it asked for has begun and not ended"):
        idempotency.recall(connection, a_key())


def test_who_comes_while_the_first_works_waits_for_its_answer(connection):
    answers = []

    def come():
        with db.transaction() as second:
            answers.append(idempotency.recall(second, a_key()))

    with db.connect() as first:
        assert idempotency.recall(first, a_key()) is None
        with in_a_thread(come):
            wait_until(lambda: waiting_for_locks(connection))
            idempotency.keep(first, a_key(), Answer(201, 1))
            first.commit()
    assert answers == [Answer(201, 1)]


def test_who_comes_while_the_first_fails_is_to_work(connection):
    answers = []

    def come():
        with db.transaction() as second:
            answers.append(idempotency.recall(second, a_key()))

    with db.connect() as first:
        idempotency.recall(first, a_key())
        with in_a_thread(come):
            wait_until(lambda: waiting_for_locks(connection))
            first.rollback()
    assert answers == [None]


def test_keys_that_are_too_old_are_forgotten_with_the_next_ones(connection):
    for number in range(12):
        idempotency.recall(connection, a_key(f"old {number}"))
    connection.execute("UPDATE idempotency_keys SET created = now() - interval '8 days'")
    for key in ("new", "newer"):
        idempotency.recall(connection, a_key(key))
    assert {row["key"] for row in connection.execute("SELECT key FROM idempotency_keys")} == {"new", "newer"}
