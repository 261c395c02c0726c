"""What people do to messages by hand: enrolling, postponing, removing, sending again."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta

import pytest

from mailing import campaigns, db, enrolment, ledger, messages, runs, verdicts
from mailing.errors import Conflict, InvalidInput, NotFound
from mailing.local_hours import spans
from mailing.sender import BatchSender
from tests import builders
from tests.builders import (
    HOUR,
    a_campaign,
    an_open_campaign,
    audited,
    claim,
    evidence,
    kept,
    let_leases_run_out,
    now,
    outcome_of,
    some_clients,
    states,
    terms_of,
)
from tests.waiting import wait_until, waiting_for_locks

MINUTE = timedelta(minutes=1)
ANNA = "anna"


def enrol(connection, campaign_id, client_id):
    with connection.transaction():
        return enrolment.enrol(connection, campaign_id, client_id, actor=ANNA)


def postpone(connection, message_id, not_before):
    with connection.transaction():
        enrolment.postpone(connection, message_id, not_before, actor=ANNA)


def remove(connection, message_id):
    with connection.transaction():
        enrolment.remove(connection, message_id, actor=ANNA)


def resend(connection, campaign_id, *which):
    with connection.transaction():
        return verdicts.resend(connection, campaign_id, which, actor=ANNA)


def select(connection, campaign_id, **more):
    with connection.transaction():
        return runs.select_audience(connection, campaign_id, **more)


def send(connection, campaign_id):
    """What one more run of the campaign does."""
    for number in select(connection, campaign_id).batches:
        asyncio.run(BatchSender(campaign_id, number).run())


def row_of(connection, campaign_id):
    return connection.execute("SELECT * FROM campaigns WHERE id = %s", (campaign_id,)).fetchone()


def message(connection, message_id):
    return connection.execute("SELECT * FROM messages WHERE id = %s", (message_id,)).fetchone()


def messages_of(connection, campaign_id):
    return builders.ledger(connection, campaign_id)


def batches(connection, campaign_id):
    return connection.execute(
        "SELECT number, first_id, last_id, size, is_late FROM batches WHERE campaign_id = %s ORDER BY number",
        (campaign_id,),
    ).fetchall()


def audience_adds_up(connection, campaign_id):
    statistics = connection.execute(
        "SELECT * FROM reporting.campaign_statistics WHERE campaign_id = %s", (campaign_id,)
    ).fetchone()
    counts = states(connection, campaign_id)
    assert (
        statistics["audience"] == sum(counts.values()) == sum(each["size"] for each in batches(connection, campaign_id))
    )
    return counts


def settle_as(connection, campaign_id, state, reason, limit=100):
    """Some of the campaign's pending messages are claimed and end like this."""
    token = messages.take_lease(connection, campaign_id, 1, "test")
    claims = claim(connection, campaign_id, token, limit=limit)
    messages.record(connection, campaign_id, token, [outcome_of(each, state, reason) for each in claims])
    messages.release_lease(connection, token)
    return [each.id for each in claims]


@pytest.fixture
def opened(connection):
    """An open campaign of three clients."""
    campaign_id, _ = an_open_campaign(connection, clients=3)
    return campaign_id


# Enrolling


def test_whoever_is_enrolled_is_sent_to_once_by_a_further_run(connection, gateway, opened):
    [late] = some_clients(connection, 1)
    send(connection, opened)
    before = row_of(connection, opened)
    assert before["status"] == "running"

    message_id = enrol(connection, opened, late)

    assert message(connection, message_id)["client_id"] == late
    assert row_of(connection, opened)["wake_at"] > before["updated"]
    assert audience_adds_up(connection, opened) == {"sent": 3, "pending": 1}
    assert audited(connection) == [(ANNA, "enrol", opened, message_id, {"client_id": late})]
    send(connection, opened)
    send(connection, opened)
    assert states(connection, opened) == {"sent": 4}
    assert gateway.counts()[message_id] == 1
    assert set(gateway.counts().values()) == {1}


def test_who_is_enrolled_joins_the_last_batch_while_that_is_small(connection, opened):
    ids = [enrol(connection, opened, client) for client in some_clients(connection, 3)]
    [batch] = batches(connection, opened)
    assert (batch["last_id"], batch["size"]) == (ids[-1], 6)


def test_a_batch_that_is_full_or_wide_is_followed_by_another(connection, opened):
    clients = some_clients(connection, 4)
    connection.execute("UPDATE batches SET size = %s", (runs.BATCH_SIZE,))
    first = enrol(connection, opened, clients[0])
    second = enrol(connection, opened, clients[1])
    connection.execute("SELECT setval('messages_id_seq', %s)", (first + runs.ID_SPAN - 1,))
    far = enrol(connection, opened, clients[2])
    near = enrol(connection, opened, clients[3])
    assert [tuple(each.values())[:4] for each in batches(connection, opened)[1:]] == [
        (2, first, second, 2),
        (3, far, near, 2),
    ]


def test_who_is_enrolled_into_a_live_audience_is_a_latecomer(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3, audience="live")
    ids = [enrol(connection, campaign_id, client) for client in some_clients(connection, 2)]
    assert [tuple(each.values()) for each in batches(connection, campaign_id)[1:]] == [(2, *ids, 2, True)]
    with connection.transaction():
        assert runs.follow_audience(connection, campaign_id) == [2]


def test_who_is_enrolled_while_the_campaign_is_paused_gets_a_run_all_the_same(connection, opened):
    [late] = some_clients(connection, 1)
    campaigns.pause(connection, opened, actor=ANNA)
    enrol(connection, opened, late)
    assert row_of(connection, opened)["wake_at"] is not None
    assert states(connection, opened) == {"pending": 4}


def test_before_a_campaign_opens_nobody_needs_to_be_enrolled(connection):
    [client] = some_clients(connection, 1)
    soon = a_campaign(connection, sending_start=now() + MINUTE)
    with pytest.raises(Conflict, match=f"campaign {soon}: enrol: it has not opened yet; whoever matches"):
        enrol(connection, soon, client)
    campaigns.pause(connection, soon, actor=ANNA)
    with pytest.raises(Conflict, match="it has not opened yet"):
        enrol(connection, soon, client)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("status = 'cancelled'", "wanted one that is running or paused, it is cancelled"),
        ("status = 'finished', finished_at = now()", "wanted one that is running or paused, it is finished"),
        ("sending_start = now() - interval '2 hours', sending_stop = now()", "its window closed at"),
    ],
)
def test_nobody_is_enrolled_into_a_campaign_that_is_over(connection, opened, change, said):
    [late] = some_clients(connection, 1)
    connection.execute(f"UPDATE campaigns SET {change}")  # noqa: S608
    before = kept(connection)
    with pytest.raises(Conflict, match=f"campaign {opened}: enrol: {said}"):
        enrol(connection, opened, late)
    assert kept(connection) == before


def test_only_who_matches_the_filter_can_be_enrolled(connection):
    some_clients(connection, 2, code="104", tags=("art",))
    campaign_id = a_campaign(connection, filter_tags=["art"], filter_operator_codes=["104"])
    select(connection, campaign_id)
    [tagged] = some_clients(connection, 1, tags=("art",))
    [coded] = some_clients(connection, 1, code="104")
    [both] = some_clients(connection, 1, code="104", tags=("art",))
    for client in (tagged, coded):
        with pytest.raises(Conflict, match=f"^client {client} does not match the filter of campaign {campaign_id}$"):
            enrol(connection, campaign_id, client)
    enrol(connection, campaign_id, both)
    assert audience_adds_up(connection, campaign_id) == {"pending": 3}


def test_nobody_is_enrolled_twice(connection, opened):
    [late] = some_clients(connection, 1)
    message_id = enrol(connection, opened, late)
    before = kept(connection)
    with pytest.raises(
        Conflict, match=f"client {late} is in the ledger of campaign {opened} already: message {message_id}, pe"
    ):
        enrol(connection, opened, late)
    assert kept(connection) == before


def test_enrolling_wants_a_campaign_a_client_and_somebody_who_decides(connection, opened):
    with pytest.raises(NotFound, match="campaign 99: there is no such campaign"):
        enrol(connection, 99, 1)
    with pytest.raises(NotFound, match="client 99: there is no such client"):
        enrol(connection, opened, 99)
    with pytest.raises(InvalidInput, match="actor"):
        enrolment.enrol(connection, opened, 1, actor=" ")


def test_of_two_who_enrol_the_same_client_at_once_one_wins(connection, opened):
    [late] = some_clients(connection, 1)
    refused = []

    def enrol_beside():
        try:
            with db.transaction() as other:
                enrolment.enrol(other, opened, late, actor="boris")
        except Conflict as error:
            refused.append(str(error))

    with db.transaction() as first:
        enrolment.enrol(first, opened, late, actor=ANNA)
        rivals = [threading.Thread(target=enrol_beside) for _ in range(3)]
        for rival in rivals:
            rival.start()
        wait_until(lambda: waiting_for_locks(connection) == 3)
    for rival in rivals:
        rival.join()

    assert len(refused) == 3
    assert audience_adds_up(connection, opened) == {"pending": 4}
    assert [actor for actor, *_ in audited(connection)] == [ANNA]


# Postponing


def test_a_postponed_message_is_not_claimed_before_its_moment(connection, gateway, opened):
    first, *_ = messages_of(connection, opened)
    at = now() + 30 * MINUTE
    postpone(connection, first["id"], at)

    row = message(connection, first["id"])
    assert (row["state"], row["reason"], row["not_before"]) == ("pending", "postponed", at)
    assert audited(connection) == [(ANNA, "postpone", opened, first["id"], {"not_before": at.isoformat()})]
    asyncio.run(BatchSender(opened, 1).run())
    assert audience_adds_up(connection, opened) == {"sent": 2, "pending": 1}

    before = row_of(connection, opened)
    postpone(connection, first["id"], None)
    row = message(connection, first["id"])
    assert (row["reason"], row["not_before"]) == (None, None)
    assert row_of(connection, opened)["wake_at"] > before["updated"], "a task waits for the later moment"
    send(connection, opened)
    assert states(connection, opened) == {"sent": 3}


def test_a_message_is_postponed_only_within_its_window(connection, opened):
    first, *_ = messages_of(connection, opened)
    campaign = row_of(connection, opened)
    last = campaign["sending_stop"] - timedelta(seconds=0.5)  # nothing is begun in the last second
    for at in (campaign["sending_start"] - MINUTE, last, campaign["sending_stop"], now() + 300_000 * HOUR):
        with pytest.raises(InvalidInput, match=f"message {first['id']}: not_before: wanted a moment from") as error:
            postpone(connection, first["id"], at)
        assert error.value.fields == ("not_before",)
    with pytest.raises(InvalidInput, match="wanted a moment with a time zone"):
        postpone(connection, first["id"], datetime(2030, 1, 1))  # noqa: DTZ001
    postpone(connection, first["id"], campaign["sending_start"])


def test_only_a_pending_message_of_a_campaign_that_sends_can_be_postponed(connection, opened):
    [id_, *_] = settle_as(connection, opened, "failed", "http_400", limit=1)
    pending = messages_of(connection, opened)[-1]["id"]
    with pytest.raises(Conflict, match=f"message {id_}: postpone: wanted a message that is pending, it is failed"):
        postpone(connection, id_, now())
    with pytest.raises(NotFound, match="message 99: there is no such message"):
        postpone(connection, 99, now())
    campaigns.cancel(connection, opened, actor=ANNA)
    with pytest.raises(Conflict, match="postpone: wanted one that is running or paused, it is cancelled"):
        postpone(connection, pending, now())


def test_a_message_that_a_task_is_claiming_is_not_waited_for(connection, opened):
    with db.transaction() as task:
        task.execute("UPDATE messages SET state = state")
        with pytest.raises(Conflict, match="a task is at it this very moment"):
            postpone(connection, messages_of(connection, opened)[0]["id"], now())


def hours_from(hours):
    """Local hours of UTC that open in so many hours, for two."""
    opens = now() + hours * HOUR
    return {"local_from": opens.time(), "local_to": (opens + 2 * HOUR).time()}


def follow_hours(connection, campaign_id):
    terms = terms_of(connection, campaign_id)
    batch = messages.batch(connection, campaign_id, 1)
    at, zones = messages.zones_of_batch(connection, campaign_id, batch)
    messages.follow_local_hours(connection, campaign_id, batch, terms, spans(terms.local_hours, zones, at))


def test_a_persons_moment_outlasts_the_local_hours_where_it_is_the_later_one(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3, sending_stop=now() + 20 * HOUR, **hours_from(4))
    follow_hours(connection, campaign_id)
    sooner, later, other = messages_of(connection, campaign_id)
    opens_at = other["not_before"]
    assert {row["reason"] for row in (sooner, later, other)} == {"local_hours"}

    postpone(connection, sooner["id"], now() + HOUR)
    postpone(connection, later["id"], opens_at + HOUR)
    follow_hours(connection, campaign_id)
    follow_hours(connection, campaign_id)

    found = [(row["reason"], row["not_before"]) for row in messages_of(connection, campaign_id)]
    assert found == [("local_hours", opens_at), ("postponed", opens_at + HOUR), ("local_hours", opens_at)]


def test_nobody_can_be_sent_to_outside_local_hours_by_being_sent_to_sooner(connection, gateway):
    campaign_id, _ = an_open_campaign(connection, clients=1, sending_stop=now() + 20 * HOUR, **hours_from(4))
    follow_hours(connection, campaign_id)
    [row] = messages_of(connection, campaign_id)

    postpone(connection, row["id"], None)
    asyncio.run(BatchSender(campaign_id, 1).run())

    [again] = messages_of(connection, campaign_id)
    assert gateway.counts() == {}
    assert (again["state"], again["reason"], again["not_before"]) == ("pending", "local_hours", row["not_before"])


def test_a_moment_after_which_the_local_hours_do_not_open_any_more_is_refused(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1, sending_stop=now() + 20 * HOUR, **hours_from(-1))
    [row] = messages_of(connection, campaign_id)
    with pytest.raises(InvalidInput, match="wanted a moment after which the local hours of client"):
        postpone(connection, row["id"], now() + 2 * HOUR)
    postpone(connection, row["id"], now() + HOUR / 2)


# Removing


def test_a_message_that_never_left_can_be_removed(connection, opened):
    first, *_ = messages_of(connection, opened)
    remove(connection, first["id"])
    assert audience_adds_up(connection, opened) == {"pending": 2}
    assert audited(connection) == [(ANNA, "remove", opened, first["id"], {"client_id": first["client_id"]})]
    with pytest.raises(NotFound, match=f"message {first['id']}: there is no such message"):
        remove(connection, first["id"])


def test_a_batch_outlives_its_last_message(connection, gateway, opened):
    for row in messages_of(connection, opened):
        remove(connection, row["id"])
    assert audience_adds_up(connection, opened) == {}
    assert asyncio.run(BatchSender(opened, 1).run()).wait is None
    with connection.transaction():
        assert runs.close(connection, opened).counts == {"audience": 0}


@pytest.mark.parametrize(
    ("state", "reason"), [("expired", "window"), ("cancelled", "cancelled"), ("excluded", "filter"), ("pending", None)]
)
def test_what_ended_without_an_attempt_can_be_removed(connection, opened, state, reason):
    first, *_ = messages_of(connection, opened)
    connection.execute("UPDATE messages SET state = %s, reason = %s", (state, reason))
    remove(connection, first["id"])
    assert audience_adds_up(connection, opened) == {state: 2}


@pytest.mark.parametrize(
    ("state", "reason"),
    [("sent", None), ("failed", "http_400"), ("unknown", "no_answer"), ("pending", "http_503")],
)
def test_what_was_tried_stays(connection, opened, state, reason):
    [id_] = settle_as(connection, opened, state, reason, limit=1)
    before = kept(connection)
    with pytest.raises(Conflict, match=f"message {id_}: remove: wanted one .* it is {state} after 1 attempts"):
        remove(connection, id_)
    assert kept(connection) == before


def test_what_was_refused_with_the_token_was_tried_though_that_counts_as_no_attempt(connection, opened):
    token = messages.take_lease(connection, opened, 1, "test")
    [one] = claim(connection, opened, token, limit=1)
    messages.record(connection, opened, token, [outcome_of(one, "pending", "http_401", burn=False)])
    with pytest.raises(Conflict, match="it is pending after 0 attempts"):
        remove(connection, one.id)


def test_who_would_join_again_by_itself_is_not_removed(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2, audience="live")
    first, _ = messages_of(connection, campaign_id)
    with pytest.raises(
        Conflict, match=f"the audience of campaign {campaign_id} is live, and client {first['client_id']}"
    ):
        remove(connection, first["id"])
    connection.execute("DELETE FROM clients WHERE id = %s", (first["client_id"],))
    remove(connection, first["id"])
    assert audience_adds_up(connection, campaign_id) == {"pending": 1}


def test_a_message_that_is_claimed_at_the_same_moment_is_not_removed(connection, opened):
    first, *_ = messages_of(connection, opened)
    token = messages.take_lease(connection, opened, 1, "test")
    terms = terms_of(connection, opened)
    refused = []

    def remove_beside():
        try:
            with db.transaction() as other:
                enrolment.remove(other, first["id"], actor=ANNA)
        except Conflict as error:
            refused.append(str(error))

    with db.transaction() as task:
        claimed = claim(task, opened, token, terms=terms, limit=1)
        beside = threading.Thread(target=remove_beside)
        beside.start()
        wait_until(lambda: waiting_for_locks(connection) == 1)
    beside.join()

    assert [each.id for each in claimed] == [first["id"]]
    assert "it is sending after 1 attempts" in refused[0]
    assert audience_adds_up(connection, opened) == {"sending": 1, "pending": 2}


def test_a_message_that_is_removed_at_the_same_moment_is_not_claimed(connection, opened):
    first, *others = messages_of(connection, opened)
    token = messages.take_lease(connection, opened, 1, "test")
    with db.transaction() as person:
        enrolment.remove(person, first["id"], actor=ANNA)
        claimed = claim(connection, opened, token)
    assert [each.id for each in claimed] == [each["id"] for each in others]
    assert audience_adds_up(connection, opened) == {"sending": 2}


# Sending again


def test_what_failed_or_is_unknown_is_sent_again_with_the_same_id(connection, gateway):
    campaign_id, _ = an_open_campaign(connection, clients=5)
    [failed] = settle_as(connection, campaign_id, "failed", "http_400", limit=1)
    [unknown] = settle_as(connection, campaign_id, "unknown", "no_answer", limit=1)
    send(connection, campaign_id)
    with connection.transaction():
        assert runs.close(connection, campaign_id).status == "finished"

    assert resend(connection, campaign_id, "failed", "unknown") == {"failed": 1, "unknown": 1}

    assert audience_adds_up(connection, campaign_id) == {"sent": 3, "pending": 2}
    campaign = row_of(connection, campaign_id)
    assert (campaign["status"], campaign["finished_at"]) == ("running", None)
    assert sorted(audited(connection), key=str) == [
        (ANNA, "resend", campaign_id, id_, None) for id_ in sorted((failed, unknown))
    ]
    assert [row["message_id"] for row in evidence(connection, campaign_id)] == [failed, unknown]
    send(connection, campaign_id)
    assert audience_adds_up(connection, campaign_id) == {"sent": 5}
    assert [message(connection, id_)["attempts"] for id_ in (failed, unknown)] == [2, 2]
    assert set(gateway.counts().values()) == {1}


def test_only_the_states_that_were_asked_for_are_sent_again(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    settle_as(connection, campaign_id, "failed", "http_400", limit=1)
    settle_as(connection, campaign_id, "unknown", "no_answer", limit=1)
    assert resend(connection, campaign_id, "failed") == {"failed": 1}
    assert audience_adds_up(connection, campaign_id) == {"pending": 2, "unknown": 1}
    assert resend(connection, campaign_id, "failed") == {"failed": 0}


def test_a_failure_that_is_told_twice_does_not_undo_a_person_s_word(connection, opened):
    token = messages.take_lease(connection, opened, 1, "test")
    [one] = claim(connection, opened, token, limit=1)
    outcome = outcome_of(one, "failed", "http_400")
    messages.record(connection, opened, token, [outcome])
    resend(connection, opened, "failed")
    assert messages.record(connection, opened, token, [outcome]) == 0
    assert states(connection, opened) == {"pending": 3}


def test_the_late_word_of_a_doubtful_attempt_is_heard_although_it_is_to_be_sent_again(connection, opened):
    token = messages.take_lease(connection, opened, 1, "test")
    [one] = claim(connection, opened, token, limit=1)
    let_leases_run_out(connection)
    messages.recover_claims(connection, opened, messages.batch(connection, opened, 1))
    resend(connection, opened, "unknown")
    assert messages.record(connection, opened, token, [outcome_of(one, "sent")]) == 1
    assert states(connection, opened) == {"sent": 1, "pending": 2}


@pytest.mark.parametrize(
    "change",
    [
        "status = 'cancelled'",
        "sending_start = now() - interval '2 hours', sending_stop = now()",
        "sending_start = now() + interval '1 minute'",
    ],
)
def test_nothing_is_sent_again_by_a_campaign_that_is_cancelled_or_outside_its_window(connection, opened, change):
    settle_as(connection, opened, "failed", "http_400")
    connection.execute(f"UPDATE campaigns SET {change}")  # noqa: S608
    before = kept(connection)
    with pytest.raises(
        Conflict, match=f"campaign {opened}: resend: wanted a campaign that is not cancelled, its window"
    ):
        verdicts.resend(connection, opened, ["failed"], actor=ANNA)
    assert kept(connection) == before


@pytest.mark.parametrize("which", [(), ("sent",), ("failed", "pending")])
def test_only_failed_and_unknown_messages_can_be_sent_again(connection, opened, which):
    with pytest.raises(InvalidInput, match="resend: wanted some of failed, unknown, got") as error:
        resend(connection, opened, *which)
    assert error.value.fields == ("states",)
    with pytest.raises(NotFound, match="campaign 99"):
        resend(connection, 99, "failed")


def test_another_number_than_was_confirmed_is_not_sent_again(connection, opened):
    settle_as(connection, opened, "failed", "http_400", limit=2)
    settle_as(connection, opened, "unknown", "no_answer", limit=1)
    before = kept(connection)
    for which, expected, said in (
        (["failed"], 1, "2 are failed by now, 1 was confirmed"),
        (["failed", "unknown"], 2, "3 are failed or unknown by now, 2 were confirmed"),
    ):
        with pytest.raises(Conflict, match=f"^campaign {opened}: resend: {said}: look again$"):
            verdicts.resend(connection, opened, which, expected=expected, actor=ANNA)
        assert kept(connection) == before
    counts = verdicts.resend(connection, opened, ["failed", "unknown"], expected=3, actor=ANNA)
    assert counts == {"failed": 2, "unknown": 1}
    with pytest.raises(Conflict, match="0 are failed by now, 1 was confirmed"):
        verdicts.resend(connection, opened, ["failed"], expected=1, actor=ANNA)


def test_two_who_send_the_same_again_at_once_do_it_once(connection, opened):
    settle_as(connection, opened, "failed", "http_400")
    counts = []

    def resend_beside():
        with db.transaction() as other:
            counts.append(verdicts.resend(other, opened, ["failed"], actor="boris"))

    with db.transaction() as first:
        counts.append(verdicts.resend(first, opened, ["failed"], actor=ANNA))
        beside = threading.Thread(target=resend_beside)
        beside.start()
        wait_until(lambda: waiting_for_locks(connection) == 1)
    beside.join()
    assert counts == [{"failed": 3}, {"failed": 0}]
    assert len(audited(connection)) == 3


# Reading


def read_all(connection, wanted, **more):
    """All pages, each of two; and that none was longer."""
    cursor, found = None, []
    while True:
        page = ledger.page(connection, wanted, cursor=cursor, limit=2, **more)
        assert len(page.items) <= 2
        found += [row["id"] for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_pages_of_a_campaign_hold_each_of_its_messages_once_in_order(connection):
    some_clients(connection, 5)
    one, other = a_campaign(connection), a_campaign(connection)
    select(connection, one, batch_size=2)
    select(connection, other, batch_size=2)
    for client in some_clients(connection, 3):
        connection.execute("SELECT setval('messages_id_seq', nextval('messages_id_seq') + %s)", (ledger.GAP,))
        enrol(connection, one, client)
        enrol(connection, other, client)
    for campaign_id in (one, other):
        ids = [row["id"] for row in messages_of(connection, campaign_id)]
        assert read_all(connection, ledger.Wanted(campaign_id=campaign_id)) == ids
        assert read_all(connection, ledger.Wanted(campaign_id=campaign_id), sort="-id") == ids[::-1]
    for limit in range(1, 10):
        page = ledger.page(connection, ledger.Wanted(campaign_id=one), limit=limit)
        assert (len(page.items), page.next_cursor is None) == (min(limit, 8), limit >= 8)
    everything = read_all(connection, ledger.Wanted())
    assert everything == sorted(everything)
    assert len(everything) == 16


def test_messages_are_found_by_all_that_is_asked_for(connection):
    campaign_id, _ = an_open_campaign(connection, clients=6)
    sent = settle_as(connection, campaign_id, "sent", None, limit=2)
    [failed] = settle_as(connection, campaign_id, "failed", "http_400", limit=1)
    ids = [row["id"] for row in messages_of(connection, campaign_id)]
    client = message(connection, failed)["client_id"]

    def find(**wanted):
        return read_all(connection, ledger.Wanted(**wanted))

    assert find(states=["sent"]) == find(sent_from=now() - MINUTE) == sent
    assert find(states=["sent", "failed"], campaign_id=campaign_id) == sorted([*sent, failed])
    assert find(reason="http_400") == find(client_id=client) == [failed]
    assert find(client_id=client, campaign_id=campaign_id, states=["failed"]) == [failed]
    assert find(client_id=client, campaign_id=campaign_id + 1) == find(campaign_id=campaign_id + 1) == []
    assert find(created_from=now() - MINUTE, created_to=now() + MINUTE) == ids
    assert find(created_to=now() - MINUTE) == find(sent_to=now() - MINUTE) == []


def test_of_chosen_messages_those_that_failed_are_sent_again_of_whatever_campaigns(connection):
    first, _ = an_open_campaign(connection, clients=3)
    failed = settle_as(connection, first, "failed", "http_400", limit=2)
    [unknown] = settle_as(connection, first, "unknown", "no_answer", limit=1)
    second, _ = an_open_campaign(connection, clients=0)
    [other] = settle_as(connection, second, "failed", "http_400", limit=1)

    with connection.transaction():
        assert verdicts.resend_chosen(connection, [failed[0], unknown, other, 99_999], actor=ANNA) == 2

    assert audience_adds_up(connection, first) == {"pending": 1, "failed": 1, "unknown": 1}
    assert audience_adds_up(connection, second) == {"pending": 3}
    assert audited(connection) == [(ANNA, "resend", first, failed[0], None), (ANNA, "resend", second, other, None)]


def test_chosen_messages_of_a_campaign_that_is_over_keep_all_as_they_are(connection):
    first, _ = an_open_campaign(connection, clients=1)
    second, _ = an_open_campaign(connection, clients=0)
    ids = [*settle_as(connection, first, "failed", "http_400"), *settle_as(connection, second, "failed", "http_400")]
    connection.execute("UPDATE campaigns SET status = 'cancelled' WHERE id = %s", (second,))
    before = kept(connection)

    with pytest.raises(Conflict, match=f"campaign {second}: resend"), connection.transaction():
        verdicts.resend_chosen(connection, ids, actor=ANNA)

    assert kept(connection) == before
