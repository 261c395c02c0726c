"""Gateways as rows: the breaker and the throttle that all tasks share, the limits, the token's expiry."""

from __future__ import annotations

import math
import re
import threading
import time
from datetime import UTC, datetime

import pytest

from mailing import breaker, db, gateways, throttle
from mailing.breaker import FIRST_WAIT_S, MEND_S, PROBE_S, TOLERANCE, Report
from mailing.errors import InvalidInput, NotFound
from tests.builders import a_campaign, an_open_campaign, audited, kept, let_probe, now, terms_of
from tests.waiting import in_a_thread, wait_until, waiting_for_locks


def gateway_row(connection, name="default"):
    return connection.execute("SELECT * FROM gateways WHERE name = %s", (name,)).fetchone()


def seconds_to_probe(connection):
    return (gateway_row(connection)["breaker_probe_at"] - now()).total_seconds()


def well():
    report = Report()
    report.settled()
    return report


def ill(failures=1, *, is_refused=False, wait_s=None):
    report = Report()
    for _ in range(failures):
        report.failed("http_401" if is_refused else "no_answer", wait_s, is_refused)
    return report


def tell(connection, met, **more):
    with connection.transaction():
        return gateways.report(connection, "default", met, **more)


def open_breaker(connection, probe_in_s=0.0):
    tell(connection, ill(TOLERANCE))
    connection.execute("UPDATE gateways SET breaker_probe_at = now() + make_interval(secs => %s)", (probe_in_s,))


# The breaker


def test_while_all_is_well_a_report_writes_nothing(connection):
    before = kept(connection, "gateways")
    for _ in range(3):
        assert tell(connection, well()) is None
    assert tell(connection, Report()) is None
    assert kept(connection, "gateways") == before


def test_a_good_reply_after_failures_is_written_once(connection):
    tell(connection, ill(3))
    assert gateway_row(connection)["breaker_failures"] == 3
    tell(connection, well())
    assert gateway_row(connection)["breaker_failures"] == 0
    before = kept(connection, "gateways")
    tell(connection, well())
    assert kept(connection, "gateways") == before


def test_the_failures_of_all_tasks_open_the_breaker_together(connection):
    assert tell(connection, ill(TOLERANCE - 1)).state == "closed"
    assert gateway_row(connection)["breaker_changed_at"] is None
    before = now()

    standing = tell(connection, ill(1))

    row = gateway_row(connection)
    assert standing.state == row["breaker_state"] == "open"
    assert (row["breaker_reason"], row["breaker_failures"], row["breaker_probes"]) == ("no_answer", TOLERANCE, 0)
    assert before <= row["breaker_changed_at"] <= now()
    assert FIRST_WAIT_S - 5 < seconds_to_probe(connection) <= FIRST_WAIT_S


def test_failures_that_two_tasks_report_at_once_are_both_counted(connection):
    def report():
        with db.transaction() as own:
            gateways.report(own, "default", ill(3))

    with db.connect() as holder:
        holder.execute("SELECT FROM gateways FOR NO KEY UPDATE")
        with in_a_thread(report), in_a_thread(report):
            wait_until(lambda: waiting_for_locks(connection) == 2)
            holder.rollback()
    assert gateway_row(connection)["breaker_failures"] == 6


def test_a_refused_token_opens_the_breaker_until_a_person_may_have_mended_it(connection):
    assert tell(connection, ill(1, is_refused=True)).state == "open"
    assert gateway_row(connection)["breaker_reason"] == "http_401"
    assert MEND_S - 5 < seconds_to_probe(connection) <= MEND_S


def test_others_words_change_nothing_while_the_breaker_is_open(connection):
    open_breaker(connection)
    before = kept(connection, "gateways")
    assert tell(connection, ill(5)).state == "open"
    tell(connection, well())
    assert kept(connection, "gateways") == before


@pytest.mark.parametrize(
    ("met", "state", "probes"), [(well(), "closed", 0), (ill(), "open", 1), (Report(), "half_open", 0)]
)
def test_the_probe_decides(connection, met, state, probes):
    open_breaker(connection)
    opened_at = gateway_row(connection)["breaker_changed_at"]
    assert gateways.take_probe(connection, "default")

    assert tell(connection, met, is_probe=True).state == state

    row = gateway_row(connection)
    assert (row["breaker_state"], row["breaker_probes"]) == (state, probes)
    assert (row["breaker_changed_at"] > opened_at) == (state == "closed")
    if state == "open":
        assert 2 * FIRST_WAIT_S - 5 < seconds_to_probe(connection) <= 2 * FIRST_WAIT_S


@pytest.mark.parametrize(("probe_in_s", "may"), [(60, False), (0, True)])
def test_nobody_probes_before_it_is_time(connection, probe_in_s, may):
    open_breaker(connection, probe_in_s)
    assert gateways.take_probe(connection, "default") is may
    assert gateway_row(connection)["breaker_state"] == ("half_open" if may else "open")


def test_nobody_probes_a_gateway_that_is_well_or_not_there(connection):
    before = kept(connection, "gateways")
    assert not gateways.take_probe(connection, "default")
    assert not gateways.take_probe(connection, "nowhere")
    assert gateways.report(connection, "nowhere", ill()) is None
    assert kept(connection, "gateways") == before


def test_of_all_who_ask_at_once_one_may_probe(connection, database):
    open_breaker(connection)
    ready, granted = threading.Barrier(8), []

    def ask():
        with db.connect() as own:
            ready.wait()
            granted.append(gateways.take_probe(own, "default"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == [False] * 7 + [True]
    assert not gateways.take_probe(connection, "default")


def test_a_probe_whose_task_died_can_be_taken_by_another_after_its_time(connection):
    open_breaker(connection)
    assert gateways.take_probe(connection, "default")
    assert PROBE_S - 5 < seconds_to_probe(connection) <= PROBE_S
    assert not gateways.take_probe(connection, "default")
    let_probe(connection)
    assert gateways.take_probe(connection, "default")


def test_a_probe_that_is_given_back_is_anybodys(connection):
    open_breaker(connection)
    assert gateways.take_probe(connection, "default")
    gateways.return_probe(connection, "default")
    assert gateway_row(connection)["breaker_state"] == "open"
    assert gateways.take_probe(connection, "default")


@pytest.mark.parametrize("state", ["closed", "open"])
def test_a_probe_that_is_over_cannot_be_given_back(connection, state):
    connection.execute(
        "UPDATE gateways SET breaker_state = %s, breaker_probe_at = now() + interval '1 minute'", (state,)
    )
    before = kept(connection, "gateways")
    gateways.return_probe(connection, "default")
    assert kept(connection, "gateways") == before


# Limits


def test_what_is_changed_is_changed_and_nothing_else(connection):
    connection.execute("INSERT INTO gateways (name) VALUES ('other')")
    before = gateway_row(connection)

    gateways.change(connection, "default", actor="anna", messages_per_second=2.5, repeat_codes=[12, 13])
    gateways.change(connection, "default", actor="boris", requests_in_flight=7, timeout_s=1.5, token_warning_s=0)

    changes = {"messages_per_second": 2.5, "repeat_codes": [12, 13]}
    changes |= {"requests_in_flight": 7, "timeout_s": 1.5, "token_warning_s": 0}
    assert gateway_row(connection) == before | changes
    assert gateway_row(connection, "other") == before | {"name": "other"}
    anna, boris = ["messages_per_second", "repeat_codes"], ["requests_in_flight", "timeout_s", "token_warning_s"]
    assert audited(connection) == [
        ("anna", "change_gateway", None, None, {"gateway": "default", "changed": anna}),
        ("boris", "change_gateway", None, None, {"gateway": "default", "changed": boris}),
    ]


def test_a_limit_can_be_taken_off(connection):
    gateways.change(connection, "default", actor="anna", messages_per_second=5)
    gateways.change(connection, "default", actor="anna", messages_per_second=None)
    assert gateway_row(connection)["messages_per_second"] is None


WRONG_VALUES = [
    ({"messages_per_second": 0}, "messages_per_second: wanted a number above 0, or none, got 0"),
    ({"messages_per_second": -5}, "messages_per_second: wanted a number above 0, or none, got -5"),
    ({"messages_per_second": math.nan}, "messages_per_second: wanted a number above 0, or none, got nan"),
    ({"messages_per_second": math.inf}, "numeric field overflow"),
    ({"messages_per_second": "fast"}, "invalid input syntax for type numeric"),
    ({"requests_in_flight": 0}, "requests_in_flight: wanted 1 to 10000, got 0"),
    ({"requests_in_flight": 10_001}, "requests_in_flight: wanted 1 to 10000, got 10001"),
    ({"requests_in_flight": None}, 'null value in column "requests_in_flight"'),
    ({"requests_in_flight": 10**12}, "integer out of range"),
    ({"requests_in_flight": "many"}, "invalid input syntax for type integer"),
    ({"timeout_s": 0}, "timeout_s: wanted seconds, above 0 and up to 300, got 0"),
    ({"timeout_s": 301}, "timeout_s: wanted seconds, above 0 and up to 300, got 301"),
    ({"timeout_s": math.nan}, "timeout_s: wanted seconds, above 0 and up to 300, got nan"),
    ({"timeout_s": 1000}, "numeric field overflow"),
    ({"token_warning_s": -1}, "token_warning_s: wanted seconds, 0 or more, got -1"),
    ({"repeat_codes": [1, None, 10**12]}, "integer out of range"),
    ({"endpoint": "/elsewhere/{id}"}, "endpoint: wanted some of messages_per_second, requests_in_flight, timeout_s"),
    ({"connection_id": "x", "breaker_state": "closed"}, "breaker_state, connection_id: wanted some of messages_per_s"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_what_was_wanted_and_nothing_is_written(connection, changes, message):
    before = kept(connection)
    with pytest.raises(InvalidInput, match=f"^gateway default: {re.escape(message)}"):
        gateways.change(connection, "default", actor="anna", **({"token_warning_s": 7} | changes))
    assert kept(connection) == before


@pytest.mark.parametrize("actor", ["", " ", "a" * 201])
def test_nobody_changes_a_gateway_without_a_name(connection, actor):
    before = kept(connection)
    with pytest.raises(InvalidInput, match="^gateway default: actor: wanted the name of who decides"):
        gateways.change(connection, "default", actor=actor, timeout_s=5)
    assert kept(connection) == before


def test_a_gateway_that_is_not_there_is_named(connection):
    with pytest.raises(NotFound, match="^gateway nowhere: there is no such gateway$"):
        gateways.change(connection, "nowhere", actor="anna", timeout_s=5)
    assert audited(connection) == []


def test_all_gateways_are_listed_by_name_with_how_they_stand(connection):
    connection.execute("INSERT INTO gateways (name, connection_id) VALUES ('a_second', 'other')")
    open_breaker(connection, 60)
    first, second = gateways.all_gateways(connection)
    assert (first.name, first.connection_id, first.breaker_state) == ("a_second", "other", "closed")
    assert (second.name, second.connection_id, second.breaker_state) == ("default", "mailing_gateway", "open")


@pytest.mark.parametrize("expires", [1_900_000_000.5, None])
def test_the_expiry_of_a_token_is_written_where_it_is_new(connection, expires):
    gateways.save_token_expiry(connection, "default", 1_800_000_000.0)
    gateways.save_token_expiry(connection, "default", expires)
    kept_at = gateway_row(connection)["token_expires_at"]
    assert kept_at == (None if expires is None else datetime.fromtimestamp(expires, UTC))
    before = kept(connection, "gateways")
    gateways.save_token_expiry(connection, "default", expires)
    assert kept(connection, "gateways") == before


# The throttle's rows


def book(connection, campaign_id, wanted, gateway="default"):
    """The slots that a task would get now, and the database's clock."""
    with connection.transaction():
        schedule, at = gateways.lock_schedule(connection, campaign_id, gateway)
        booking = throttle.book(schedule, at, wanted)
        gateways.save_schedule(connection, campaign_id, gateway, booking)
    return booking.slots, at


def gaps(slots):
    return [round(later - earlier, 6) for earlier, later in zip(slots, slots[1:], strict=False)]


def test_slots_that_tasks_book_at_once_never_coincide(connection, database):
    """Two tasks each of two campaigns; what is booked by all together keeps the gateway's limit."""
    rate = 500
    connection.execute("UPDATE gateways SET messages_per_second = %s", (rate,))
    booked, ready, ends_at = [], threading.Barrier(4), time.monotonic() + 1.2
    ids = [a_campaign(connection) for _ in range(2)] * 2

    def task(campaign_id):
        with db.connect() as own:
            ready.wait()
            while time.monotonic() < ends_at:
                booked.extend(book(own, campaign_id, 7)[0])

    threads = [threading.Thread(target=task, args=(campaign_id,)) for campaign_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    slots = sorted(booked)
    assert len(slots) == len(set(slots)) > 300
    assert min(gaps(slots)) >= 1 / rate - 1e-6


def test_a_campaigns_own_limit_holds_for_its_tasks_together(connection):
    campaign_id = a_campaign(connection, messages_per_second=20)
    first, at = book(connection, campaign_id, 3)
    with db.connect() as other:
        second, _ = book(other, campaign_id, 3)
    assert first[0] == pytest.approx(at, abs=1e-5)
    assert gaps(first + second) == [0.05] * 5


@pytest.mark.parametrize("table", ["gateways", "campaigns"])
def test_a_limit_that_is_changed_counts_for_the_next_slot(connection, table):
    campaign_id = a_campaign(connection)
    for rate, gap in ((10, 0.1), (100, 0.01), (50, 0.02)):
        connection.execute(f"UPDATE {table} SET messages_per_second = %s", (rate,))  # noqa: S608
        slots, _ = book(connection, campaign_id, 3)
        assert gaps(slots) == [gap] * 2


def test_campaigns_that_want_more_than_their_share_are_each_others_rivals_for_a_moment(connection):
    connection.execute("UPDATE gateways SET messages_per_second = 10")
    first, second = a_campaign(connection), a_campaign(connection)
    book(connection, first, 100)
    with connection.transaction():
        assert gateways.lock_schedule(connection, second, "default")[0].rivals == 1
        assert gateways.lock_schedule(connection, first, "default")[0].rivals == 0
    connection.execute("UPDATE throttles SET hungry_at = now() - interval '1.1 seconds'")
    with connection.transaction():
        assert gateways.lock_schedule(connection, second, "default")[0].rivals == 0


def test_who_sends_through_another_gateway_is_no_rival(connection):
    connection.execute("INSERT INTO gateways (name) VALUES ('other')")
    connection.execute("UPDATE gateways SET messages_per_second = 10")
    first, second = a_campaign(connection), a_campaign(connection, gateway="other")
    book(connection, first, 100)
    with connection.transaction():
        schedule, _ = gateways.lock_schedule(connection, second, "other")
    assert (schedule.rivals, schedule.gateway_last) == (0, 0.0)


def test_a_campaign_that_was_given_another_gateway_books_no_slot_of_the_old_one(connection):
    connection.execute("INSERT INTO gateways (name, messages_per_second) VALUES ('other', 5)")
    connection.execute("UPDATE gateways SET messages_per_second = 10")
    campaign_id = a_campaign(connection, gateway="other")
    with connection.transaction():
        assert gateways.lock_schedule(connection, campaign_id, "default") is None


def test_without_a_limit_of_its_gateway_a_campaign_locks_nobodys_row_but_its_own(connection):
    campaign_id = a_campaign(connection, messages_per_second=5)
    with db.connect() as other, connection.transaction():
        gateways.lock_schedule(connection, campaign_id, "default")
        locked = other.execute("SELECT name FROM gateways FOR NO KEY UPDATE SKIP LOCKED").fetchall()
        assert len(locked) == 1
    connection.execute("UPDATE gateways SET messages_per_second = 5")
    with db.connect() as other, connection.transaction():
        gateways.lock_schedule(connection, campaign_id, "default")
        assert other.execute("SELECT name FROM gateways FOR NO KEY UPDATE SKIP LOCKED").fetchall() == []


def test_the_ramp_is_counted_from_when_the_breaker_closed(connection):
    """What a lease says of it is what `breaker.ramp` wants."""
    campaign_id, _ = an_open_campaign(connection, clients=1)
    open_breaker(connection)
    gateways.take_probe(connection, "default")
    tell(connection, well(), is_probe=True)
    connection.execute("UPDATE gateways SET breaker_changed_at = now() - interval '3 seconds'")
    terms = terms_of(connection, campaign_id)
    assert 3.0 <= terms.breaker_changed_s < 4.0
    assert breaker.ramp(100, terms.breaker_changed_s) in range(32, 64)
