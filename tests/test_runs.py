"""What a campaign's run does: opening, following the audience, closing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta

import pytest

from mailing import campaigns, db, finishes, messages, runs
from mailing.errors import NotFinished, NotFound
from mailing.local_hours import LocalHours
from mailing.models import MESSAGE_STATES
from mailing.runs import ZoneForecast
from tests.builders import (
    HOUR,
    a_campaign,
    an_open_campaign,
    claim,
    ledger,
    let_leases_run_out,
    now,
    outcome_of,
    some_clients,
    states,
)
from tests.waiting import held_up

MINUTE = timedelta(minutes=1)


def select(connection, campaign_id, **more):
    with connection.transaction():
        return runs.select_audience(connection, campaign_id, **more)


def close(connection, campaign_id):
    with connection.transaction():
        return runs.close(connection, campaign_id)


def edit(connection, campaign_id, **changes):
    with connection.transaction():
        campaigns.edit(connection, campaign_id, actor="anna", **changes)


def row_of(connection, campaign_id):
    return connection.execute("SELECT * FROM campaigns WHERE id = %s", (campaign_id,)).fetchone()


def take_lease(connection, campaign_id, number=1):
    return messages.take_lease(connection, campaign_id, number, "test")


def ends(connection, campaign_id):
    """How each message stands, by id."""
    return [(row["state"], row["reason"]) for row in ledger(connection, campaign_id)]


def audience(connection, campaign_id):
    return [row["client_id"] for row in ledger(connection, campaign_id)]


@pytest.fixture
def people(connection):
    """Clients by name of their group."""
    return {
        "103 art": some_clients(connection, 3, code="103", tags=("art",)),
        "103 sport": some_clients(connection, 2, code="103", tags=("sport",)),
        "104 art": some_clients(connection, 2, code="104", tags=("art",)),
        "104 art+sport": some_clients(connection, 2, code="104", tags=("art", "sport")),
        "105": some_clients(connection, 1, code="105"),
    }


@pytest.mark.parametrize(
    ("tags", "codes", "groups"),
    [
        ([], [], ["103 art", "103 sport", "104 art", "104 art+sport", "105"]),
        (["art"], [], ["103 art", "104 art", "104 art+sport"]),
        (["art", "sport"], [], ["104 art+sport"]),
        ([], ["103"], ["103 art", "103 sport"]),
        ([], ["103", "105"], ["103 art", "103 sport", "105"]),
        (["art"], ["103"], ["103 art"]),
        (["art"], ["103", "104"], ["103 art", "104 art", "104 art+sport"]),
        (["art", "art"], ["105"], []),
    ],
)
def test_the_audience_has_all_the_tags_and_any_of_the_codes(connection, people, tags, codes, groups):
    campaign_id = a_campaign(connection, filter_tags=tags, filter_operator_codes=codes)

    select(connection, campaign_id)

    assert sorted(audience(connection, campaign_id)) == sorted(sum((people[group] for group in groups), []))


def test_a_filter_whose_tag_is_gone_matches_nobody(connection, people):
    campaign_id = a_campaign(connection, filter_tags=["art"])
    connection.execute("ALTER TABLE tags DISABLE TRIGGER tags_guard_deletion")
    connection.execute("DELETE FROM tags")
    select(connection, campaign_id)
    assert audience(connection, campaign_id) == []


def test_opening_twice_adds_nobody_twice(connection):
    some_clients(connection, 25)
    campaign_id = a_campaign(connection)
    first = select(connection, campaign_id, batch_size=10)
    second = select(connection, campaign_id, batch_size=10)
    assert first.batches == second.batches == [1, 2, 3]
    assert states(connection, campaign_id) == {"pending": 25}


def test_two_runs_that_open_a_campaign_at_once_add_nobody_twice(connection, database):
    some_clients(connection, 500)
    campaign_id = a_campaign(connection)
    ready = threading.Barrier(4)

    def run():
        with db.connect() as own:
            ready.wait()
            runs.select_audience(own, campaign_id, newcomers=True)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(connection, campaign_id) == {"pending": 500}
    assert connection.execute("SELECT sum(size) AS size FROM batches").fetchone()["size"] == 500


def test_a_snapshot_is_taken_once_and_a_run_by_hand_adds_newcomers(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    some_clients(connection, 3)
    assert select(connection, campaign_id).batches == [1]
    assert select(connection, campaign_id, newcomers=True).batches == [1, 2]
    assert states(connection, campaign_id) == {"pending": 5}


def test_a_live_audience_takes_in_who_comes_to_match(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2, audience="live")
    some_clients(connection, 3)
    select(connection, campaign_id)
    assert states(connection, campaign_id) == {"pending": 5}


def test_batches_grow_so_that_airflow_can_map_them(connection):
    some_clients(connection, 103)
    campaign_id = a_campaign(connection)
    opening = select(connection, campaign_id, batch_size=10, max_batches=4)
    sizes = [messages.batch(connection, campaign_id, number).size for number in opening.batches]
    assert sizes == [26, 26, 26, 25]


@pytest.mark.parametrize(
    ("requests_in_flight", "batches"), [(10, 2), (100, 2), (200, 4), (249, 4), (400, 8), (10_000, 8)]
)
def test_a_large_audience_gets_larger_batches_rather_than_more_than_its_gateway_keeps_busy(
    connection, requests_in_flight, batches
):
    some_clients(connection, 41_000)
    connection.execute("UPDATE gateways SET requests_in_flight = %s", (requests_in_flight,))
    campaign_id = a_campaign(connection)
    opening = select(connection, campaign_id)
    sizes = [messages.batch(connection, campaign_id, number).size for number in opening.batches]
    assert sizes == [41_000 // batches] * batches


def test_an_audience_of_a_few_batches_is_not_divided_further(connection):
    some_clients(connection, 5_001)
    connection.execute("UPDATE gateways SET requests_in_flight = 10000")
    campaign_id = a_campaign(connection)
    opening = select(connection, campaign_id)
    assert [messages.batch(connection, campaign_id, number).size for number in opening.batches] == [5_000, 1]


def test_before_its_start_a_campaign_opens_nothing(connection):
    some_clients(connection, 1)
    campaign_id = a_campaign(connection, sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR)
    opening = select(connection, campaign_id)
    assert opening.batches == []
    assert 3_590 < opening.opens_in_s <= 3_600
    assert states(connection, campaign_id) == {}
    assert close(connection, campaign_id).status == "scheduled"


def test_a_campaign_that_is_wholly_past_sends_nothing_and_its_report_says_so(connection):
    some_clients(connection, 4)
    campaign_id = a_campaign(connection, sending_start=now() - 2 * HOUR, sending_stop=now() - HOUR)
    assert runs.overdue(connection) == [campaign_id]

    progress = close(connection, campaign_id)

    assert (progress.status, progress.audience, progress.expired) == ("finished", 4, 4)
    assert {row["reason"] for row in ledger(connection, campaign_id)} == {"window"}
    assert runs.overdue(connection) == []


def test_a_campaign_whose_audience_was_never_taken_is_not_finished(connection):
    """As after a select_audience that failed: finished would mean that nobody is ever sent to."""
    some_clients(connection, 2)
    campaign_id = a_campaign(connection)
    with pytest.raises(NotFinished, match="its audience was not taken yet"):
        close(connection, campaign_id)
    assert select(connection, campaign_id).batches == [1]


def test_a_paused_campaign_is_closed_with_its_window(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    connection.execute("UPDATE campaigns SET status = 'paused'")
    with pytest.raises(NotFinished):
        close(connection, campaign_id)
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    assert runs.overdue(connection) == [campaign_id]
    assert close(connection, campaign_id).counts == {"audience": 2, "expired": 2}


def test_a_live_audience_takes_in_nobody_after_the_stop(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2, audience="live")
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    close(connection, campaign_id)
    some_clients(connection, 3)
    assert select(connection, campaign_id).batches == []
    assert close(connection, campaign_id).counts == {"audience": 2, "expired": 2}


def test_who_has_sent_the_last_message_closes_the_campaign_and_nobody_before(connection):
    campaign_id, [first, second] = an_open_campaign(connection, clients=2, batch_size=1)
    is_last = threading.Barrier(2)

    def send(number):
        with db.transaction() as own:
            token = messages.take_lease(own, campaign_id, number, "test")
            [claimed] = claim(own, campaign_id, token, number)
        with pytest.raises(NotFinished, match="others have messages left to send"), db.transaction() as own:
            runs.close_after_last(own, campaign_id)
        is_last.wait(20)
        with db.transaction() as own:
            messages.record(own, campaign_id, token, [outcome_of(claimed, "sent")])
        is_last.wait(20)
        with db.transaction() as own:
            return runs.close_after_last(own, campaign_id).counts

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(send, [first, second])) == [{"audience": 2, "sent": 2}] * 2
    assert connection.execute("SELECT count(*) AS n FROM finishes").fetchone() == {"n": 1}


def test_a_live_campaign_is_not_closed_by_who_has_sent_the_last_message_so_far(connection):
    campaign_id, _ = an_open_campaign(connection, clients=0, audience="live")
    with pytest.raises(NotFinished, match="its audience may still grow"), connection.transaction():
        runs.close_after_last(connection, campaign_id)


def test_doubt_does_not_expire(connection):
    """Under `resend` a message that may have been taken is pending again; the stop must not call it unsent."""
    campaign_id, [number] = an_open_campaign(connection, clients=3, on_doubt="resend")
    token = messages.take_lease(connection, campaign_id, number, "test")
    [claimed] = claim(connection, campaign_id, token, limit=1)
    doubt = messages.Outcome(claimed.id, claimed.attempts, "unknown", "no_answer", wait_s=60)
    messages.record(connection, campaign_id, token, [doubt])
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    assert close(connection, campaign_id).counts == {"audience": 3, "unknown": 1, "expired": 2}


def test_the_tags_of_a_filter_are_looked_up_once_and_not_for_each_client(connection):
    ids = some_clients(connection, 500)
    connection.execute("INSERT INTO tags (name) VALUES ('art'), ('sport')")
    connection.execute("INSERT INTO client_tags SELECT c, t.id FROM unnest(%s::bigint[]) c, tags t", (ids,))
    campaign_id = a_campaign(connection, filter_tags=["art", "sport"], filter_operator_codes=["103"])
    connection.execute("ANALYZE")
    row = connection.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT FROM campaigns c"
        " CROSS JOIN LATERAL clients_matching(c.filter_tags, c.filter_operator_codes) WHERE c.id = %s",
        (campaign_id,),
    ).fetchone()

    def nodes(plan):
        yield plan
        for each in plan.get("Plans", ()):
            yield from nodes(each)

    plan = row["QUERY PLAN"][0]["Plan"]
    assert plan["Actual Rows"] == 500
    assert max(node["Actual Loops"] for node in nodes(plan) if node.get("Relation Name") == "client_tags") <= 2


def test_newcomers_share_what_one_run_can_map(connection):
    some_clients(connection, 30)
    campaign_id = a_campaign(connection)
    select(connection, campaign_id, batch_size=10, max_batches=4)
    some_clients(connection, 30)
    assert len(select(connection, campaign_id, batch_size=1, max_batches=4, newcomers=True).batches) == 4


def test_who_joins_by_a_new_filter_shares_what_one_run_can_map(connection):
    some_clients(connection, 30, code="103")
    some_clients(connection, 30, code="104")
    campaign_id = a_campaign(connection, filter_operator_codes=["103"])
    select(connection, campaign_id, batch_size=10, max_batches=4)
    campaigns.edit(connection, campaign_id, actor="anna", filter_operator_codes=["103", "104"])
    assert len(select(connection, campaign_id, batch_size=1, max_batches=4).batches) == 4
    assert states(connection, campaign_id) == {"pending": 60}


def test_a_further_run_is_due_once_somebody_asked_for_one(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    assert not runs.is_further_run_due(connection, campaign_id, now() - HOUR)
    assert runs.wake(connection, campaign_id, in_s=10)
    assert runs.is_further_run_due(connection, campaign_id, now())
    assert not runs.is_further_run_due(connection, campaign_id, now() + timedelta(seconds=11))
    connection.execute("UPDATE campaigns SET sending_stop = now() + interval '5 seconds'")
    assert not runs.is_further_run_due(connection, campaign_id, now()), "no run begins after the stop"


def test_a_paused_campaign_is_not_woken(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    campaigns.pause(connection, campaign_id, actor="anna")
    assert not runs.wake(connection, campaign_id)


def test_closing_is_refused_while_messages_are_left(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    with pytest.raises(NotFinished, match=f"campaign {campaign_id} .running.: 3 messages are pending and 0 sending"):
        close(connection, campaign_id)
    assert states(connection, campaign_id) == {"pending": 3}


def test_what_the_window_closed_on_expires_but_live_claims_may_still_speak(connection):
    campaign_id, [number] = an_open_campaign(connection, clients=3)
    token = messages.take_lease(connection, campaign_id, number, "test")
    claim(connection, campaign_id, token, limit=1)
    connection.execute("UPDATE campaigns SET sending_stop = now()")

    with pytest.raises(NotFinished, match="0 messages are pending and 1 sending"):
        close(connection, campaign_id)
    connection.execute("UPDATE leases SET expires_at = now()")

    progress = close(connection, campaign_id)
    assert progress.counts == {"audience": 3, "unknown": 1, "expired": 2}
    assert progress.status == "finished"
    assert connection.execute("SELECT * FROM leases").fetchall() == []


def test_an_empty_audience_finishes_at_once(connection):
    campaign_id = a_campaign(connection)
    assert select(connection, campaign_id).batches == []
    assert close(connection, campaign_id).counts == {"audience": 0}


def test_a_finished_campaign_opens_again_for_newcomers_of_a_run_by_hand(connection):
    campaign_id = a_campaign(connection)
    select(connection, campaign_id)
    close(connection, campaign_id)
    some_clients(connection, 2)
    assert select(connection, campaign_id).batches == []
    assert select(connection, campaign_id, newcomers=True).batches == [1]
    assert campaigns.progress(connection, campaign_id).status == "running"


@pytest.mark.parametrize("call", [runs.select_audience, runs.close, campaigns.progress])
def test_a_campaign_that_is_not_there_is_named(connection, call):
    with pytest.raises(NotFound, match="campaign 99: there is no such campaign"):
        call(connection, 99)


def test_the_report_adds_up_to_the_audience(connection):
    campaign_id, [number] = an_open_campaign(connection, clients=6)
    token = messages.take_lease(connection, campaign_id, number, "test")
    claims = claim(connection, campaign_id, token, limit=4)
    outcomes = [
        messages.Outcome(c.id, c.attempts, state, reason)
        for c, (state, reason) in zip(
            claims, [("sent", None), ("failed", "http_400"), ("unknown", "no_answer")], strict=False
        )
    ]
    messages.record(connection, campaign_id, token, outcomes)

    row = connection.execute("SELECT * FROM reporting.campaign_statistics").fetchone()
    by_state = {name: row[name] for name in MESSAGE_STATES}
    assert by_state == {
        "sent": 1, "failed": 1, "unknown": 1, "sending": 1, "pending": 2, "expired": 0, "cancelled": 0, "excluded": 0
    }  # fmt: skip
    assert sum(by_state.values()) == row["audience"] == 6
    outcomes = connection.execute("SELECT state, text FROM reporting.message_outcomes ORDER BY message_id").fetchall()
    assert [(row["state"], row["text"]) for row in outcomes] == [
        ("sent", "Hello"), ("failed", "Hello"), ("unknown", "Hello"), ("sending", "Hello"),
        ("pending", None), ("pending", None),
    ]  # fmt: skip


# A filter that is edited while the campaign runs


@pytest.fixture
def art_and_sport(connection):
    """Three clients with the tag art, then two with the tag sport."""
    return some_clients(connection, 3, tags=("art",)) + some_clients(connection, 2, code="104", tags=("sport",))


@pytest.mark.usefixtures("art_and_sport")
def test_nothing_is_claimed_between_the_edit_of_a_filter_and_its_audience(connection):
    campaign_id = a_campaign(connection)
    select(connection, campaign_id)
    token = take_lease(connection, campaign_id)
    before = now()

    edit(connection, campaign_id, filter_tags=["art"])

    row = row_of(connection, campaign_id)
    assert row["audience_stale"]
    assert before <= row["wake_at"] <= now()
    assert claim(connection, campaign_id, token) == []
    assert runs.follow_filter(connection, campaign_id) == 0
    assert not row_of(connection, campaign_id)["audience_stale"]
    assert len(claim(connection, campaign_id, token)) == 3


@pytest.mark.usefixtures("art_and_sport")
def test_a_narrower_filter_leaves_out_who_was_not_claimed_and_does_not_match(connection):
    campaign_id = a_campaign(connection)
    select(connection, campaign_id)
    token = take_lease(connection, campaign_id)
    sent, late = claim(connection, campaign_id, token, limit=2)  # of those with the tag art
    messages.record(connection, campaign_id, token, [outcome_of(sent, "sent")])
    edit(connection, campaign_id, filter_tags=["sport"])

    assert runs.follow_filter(connection, campaign_id) == 0

    assert states(connection, campaign_id) == {"sent": 1, "sending": 1, "pending": 3}, (
        "what is on its way may come back"
    )
    messages.record(connection, campaign_id, token, [outcome_of(late, "pending", "http_503", wait_s=0.0)])
    assert runs.follow_filter(connection, campaign_id) == 0

    assert ends(connection, campaign_id) == [
        ("sent", None), ("excluded", "filter"), ("excluded", "filter"), ("pending", None), ("pending", None)
    ]  # fmt: skip
    assert [c.phone_number[1:4] for c in claim(connection, campaign_id, token)] == ["104", "104"]
    assert runs.follow_filter(connection, campaign_id) == 0  # nothing is stale any more


def refiltered_with_one_on_its_way(connection, **columns):
    """A campaign for art, then for sport: its id, the lease of a task, and what that had claimed before the edit."""
    campaign_id = a_campaign(connection, filter_tags=["art"], **columns)
    select(connection, campaign_id)
    token = take_lease(connection, campaign_id)
    [first] = claim(connection, campaign_id, token, limit=1)
    edit(connection, campaign_id, filter_tags=["sport"])
    return campaign_id, token, first


@pytest.mark.usefixtures("art_and_sport")
def test_who_joins_by_a_wider_filter_need_not_wait_for_what_is_on_its_way(connection):
    """Their run maps them; that nobody comes back who does not match is seen to before the next claim."""
    campaign_id, token, first = refiltered_with_one_on_its_way(connection)

    assert select(connection, campaign_id).batches == [1, 2]

    assert states(connection, campaign_id) == {"sending": 1, "excluded": 2, "pending": 2}
    assert claim(connection, campaign_id, token) == []
    messages.record(connection, campaign_id, token, [outcome_of(first, "pending", "http_503", wait_s=0.0)])
    runs.follow_filter(connection, campaign_id)
    assert states(connection, campaign_id) == {"excluded": 3, "pending": 2}
    assert not row_of(connection, campaign_id)["audience_stale"]


@pytest.mark.usefixtures("art_and_sport")
@pytest.mark.parametrize("follow", [runs.select_audience, runs.follow_audience])
def test_what_comes_back_while_the_audience_follows_an_edited_filter_must_match_it(connection, follow):
    """It was on its way, so the exclusion passed it over; it is back before the others have joined."""
    campaign_id, token, first = refiltered_with_one_on_its_way(connection, audience="live")

    sports = "clients WHERE id NOT IN (SELECT client_id FROM messages)"
    with held_up(connection, lambda own: follow(own, campaign_id), enrolling(campaign_id, sports)):
        messages.record(connection, campaign_id, token, [outcome_of(first, "pending", "http_503", wait_s=0.0)])

    assert claim(connection, campaign_id, token) == []
    runs.follow_filter(connection, campaign_id)
    assert states(connection, campaign_id) == {"excluded": 3, "pending": 2}
    assert not row_of(connection, campaign_id)["audience_stale"]


@pytest.mark.usefixtures("art_and_sport")
def test_who_joins_after_the_run_of_an_edited_filter_has_mapped_gets_another_one(connection):
    campaign_id, token, first = refiltered_with_one_on_its_way(connection)
    assert select(connection, campaign_id, run_after=row_of(connection, campaign_id)["wake_at"]).batches == [1, 2]
    some_clients(connection, 1, code="105", tags=("sport",))
    messages.record(connection, campaign_id, token, [outcome_of(first, "sent")])
    before = row_of(connection, campaign_id)["wake_at"]

    assert runs.follow_filter(connection, campaign_id) == 1

    asked = row_of(connection, campaign_id)["wake_at"]
    assert asked > before
    assert select(connection, campaign_id, run_after=asked).batches == [2, 3]
    edit(connection, campaign_id, filter_tags=["art"])
    asked = row_of(connection, campaign_id)["wake_at"]
    runs.follow_filter(connection, campaign_id)
    assert row_of(connection, campaign_id)["wake_at"] == asked, "the edit's own run is yet to come"


def test_a_run_that_finds_nothing_left_has_mapped_all_the_same(connection):
    """Else each further run of a live campaign would keep its own task that follows until the stop."""
    campaign_id, [batch] = an_open_campaign(connection, clients=1, audience="live")
    token = take_lease(connection, campaign_id)
    messages.record(connection, campaign_id, token, [outcome_of(*claim(connection, campaign_id, token), "sent")])
    assert select(connection, campaign_id, run_after=now()).batches == []
    assert runs.mapped_at(connection, campaign_id) > now() - HOUR


def test_a_wider_filter_adds_who_matches_now_in_batches_that_the_next_run_sends(connection, art_and_sport):
    campaign_id = a_campaign(connection, filter_tags=["art"])
    assert select(connection, campaign_id).batches == [1]
    edit(connection, campaign_id, filter_tags=[])

    assert runs.follow_filter(connection, campaign_id) == 2

    assert sorted(audience(connection, campaign_id)) == sorted(art_and_sport)
    assert select(connection, campaign_id).batches == [1, 2]
    assert states(connection, campaign_id) == {"pending": 5}


@pytest.mark.usefixtures("art_and_sport")
def test_who_was_left_out_by_a_filter_comes_back_with_it_and_who_was_left_out_otherwise_does_not(connection):
    campaign_id = a_campaign(connection)
    select(connection, campaign_id)
    connection.execute("DELETE FROM clients WHERE id = (SELECT min(client_id) FROM messages)")
    token = take_lease(connection, campaign_id)
    claim(connection, campaign_id, token, limit=1)
    assert ends(connection, campaign_id)[0] == ("excluded", "client_deleted")
    edit(connection, campaign_id, filter_tags=["sport"])
    runs.follow_filter(connection, campaign_id)
    assert states(connection, campaign_id) == {"excluded": 3, "pending": 2}
    edit(connection, campaign_id, filter_tags=["art"])

    assert runs.follow_filter(connection, campaign_id) == 2

    assert ends(connection, campaign_id) == [
        ("excluded", "client_deleted"), *[("pending", None)] * 2, *[("excluded", "filter")] * 2
    ]  # fmt: skip


def test_what_may_have_been_taken_is_not_called_left_out(connection):
    """Under `resend` a message in doubt is pending again."""
    campaign_id, _ = an_open_campaign(connection, clients=2, on_doubt="resend")
    token = take_lease(connection, campaign_id)
    [first] = claim(connection, campaign_id, token, limit=1)
    messages.record(connection, campaign_id, token, [outcome_of(first, "unknown", "no_answer")])
    edit(connection, campaign_id, filter_operator_codes=["999"])

    runs.follow_filter(connection, campaign_id)

    assert ends(connection, campaign_id) == [("unknown", "filter"), ("excluded", "filter")]


@pytest.mark.usefixtures("art_and_sport")
def test_a_run_follows_the_filter_too(connection):
    campaign_id = a_campaign(connection)
    select(connection, campaign_id)
    edit(connection, campaign_id, filter_tags=["sport"])
    assert select(connection, campaign_id).batches == [1]
    assert states(connection, campaign_id) == {"excluded": 3, "pending": 2}
    assert not row_of(connection, campaign_id)["audience_stale"]


@pytest.mark.usefixtures("art_and_sport")
def test_a_campaign_whose_filter_was_not_followed_yet_is_not_finished(connection):
    campaign_id = a_campaign(connection, filter_operator_codes=["999"])
    select(connection, campaign_id)
    edit(connection, campaign_id, filter_operator_codes=[])
    with pytest.raises(NotFinished, match="its audience may still grow"):
        close(connection, campaign_id)


@pytest.mark.usefixtures("art_and_sport")
def test_a_filter_that_is_edited_while_it_is_followed_is_followed_once_more(connection):
    campaign_id = a_campaign(connection)
    select(connection, campaign_id)
    edit(connection, campaign_id, filter_tags=["art"])

    with held_up(
        connection,
        lambda own: runs.follow_filter(own, campaign_id),
        f"SELECT FROM messages WHERE campaign_id = {campaign_id} FOR UPDATE",  # noqa: S608
    ):
        edit(connection, campaign_id, filter_tags=["sport"])

    assert row_of(connection, campaign_id)["audience_stale"]
    assert claim(connection, campaign_id, take_lease(connection, campaign_id)) == []
    runs.follow_filter(connection, campaign_id)
    assert ends(connection, campaign_id) == [*[("excluded", "filter")] * 3, *[("pending", None)] * 2]


# What happens between the reading of a campaign and its start


def enrolling(campaign_id, among="clients"):
    """What holds up whoever is about to enrol the first of these clients."""
    return f"INSERT INTO messages (campaign_id, client_id) SELECT {campaign_id}, min(id) FROM {among}"  # noqa: S608


@pytest.mark.usefixtures("art_and_sport")
def test_a_filter_that_is_edited_while_the_audience_is_taken_is_followed_before_the_first_claim(connection):
    campaign_id = a_campaign(connection, filter_tags=["art"])

    with held_up(connection, lambda own: runs.select_audience(own, campaign_id), enrolling(campaign_id)):
        edit(connection, campaign_id, filter_tags=["sport"])

    row = row_of(connection, campaign_id)
    assert (row["status"], row["audience_stale"]) == ("running", True)
    token = take_lease(connection, campaign_id)
    assert claim(connection, campaign_id, token) == []
    runs.follow_filter(connection, campaign_id)
    assert states(connection, campaign_id) == {"excluded": 3, "pending": 2}


@pytest.mark.usefixtures("art_and_sport")
def test_who_joined_by_a_filter_that_was_edited_while_the_audience_was_taken_gets_a_run(connection):
    """The run that took the audience maps its tasks before the new batch is there."""
    campaign_id = a_campaign(connection, filter_tags=["art"])
    with held_up(connection, lambda own: runs.select_audience(own, campaign_id), enrolling(campaign_id)):
        edit(connection, campaign_id, filter_tags=[])
    assert row_of(connection, campaign_id)["wake_at"] is not None


def test_a_campaign_that_is_paused_while_its_audience_is_taken_stays_paused(connection, art_and_sport):
    campaign_id = a_campaign(connection)

    with held_up(connection, lambda own: runs.select_audience(own, campaign_id), enrolling(campaign_id)):
        campaigns.pause(connection, campaign_id, actor="anna")

    row = row_of(connection, campaign_id)
    assert (row["status"], row["opened_at"] is not None) == ("paused", True)
    assert claim(connection, campaign_id, take_lease(connection, campaign_id)) == []
    campaigns.resume(connection, campaign_id, actor="anna")
    assert len(claim(connection, campaign_id, take_lease(connection, campaign_id))) == len(art_and_sport)


@pytest.mark.usefixtures("art_and_sport")
def test_a_campaign_that_is_cancelled_while_its_audience_is_taken_sends_nothing_and_is_closed(connection):
    campaign_id = a_campaign(connection)

    with held_up(connection, lambda own: runs.select_audience(own, campaign_id), enrolling(campaign_id)):
        campaigns.cancel(connection, campaign_id, actor="anna")

    assert claim(connection, campaign_id, take_lease(connection, campaign_id)) == []
    assert runs.overdue(connection) == [campaign_id]
    assert close(connection, campaign_id).counts == {"audience": 5, "cancelled": 5}


# A campaign that is paused


def test_the_run_of_a_paused_campaign_takes_no_audience_until_it_is_resumed(connection):
    some_clients(connection, 2)
    campaign_id = a_campaign(connection)
    campaigns.pause(connection, campaign_id, actor="anna")

    opening = select(connection, campaign_id)

    assert (opening.batches, opening.said, opening.opens_in_s) == ([], "it is paused", 0.0)
    assert 3_590 < opening.closes_in_s <= 3_600
    assert opening.updated == row_of(connection, campaign_id)["updated"].timestamp()
    assert states(connection, campaign_id) == {}

    campaigns.resume(connection, campaign_id, actor="anna")
    assert row_of(connection, campaign_id)["updated"].timestamp() != opening.updated  # what its task waits for
    assert select(connection, campaign_id).batches == [1]
    assert row_of(connection, campaign_id)["status"] == "running"


def test_a_paused_campaign_whose_window_passed_shows_whom_it_did_not_reach(connection):
    some_clients(connection, 2)
    campaign_id = a_campaign(connection)
    campaigns.pause(connection, campaign_id, actor="anna")
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    assert close(connection, campaign_id).counts == {"audience": 2, "expired": 2}
    assert row_of(connection, campaign_id)["status"] == "finished"


def test_a_cancelled_campaign_takes_no_audience(connection):
    some_clients(connection, 2)
    campaign_id = a_campaign(connection)
    campaigns.cancel(connection, campaign_id, actor="anna")
    assert (select(connection, campaign_id).said, states(connection, campaign_id)) == ("it is cancelled", {})
    assert close(connection, campaign_id).counts == {"audience": 0}


# Live audiences


def test_who_joins_a_live_campaign_by_a_new_filter_is_a_latecomer_to_the_task_that_follows(connection):
    some_clients(connection, 4, code="104")
    campaign_id, _ = an_open_campaign(connection, clients=3, audience="live", filter_operator_codes=["103"])
    campaigns.edit(connection, campaign_id, actor="anna", filter_operator_codes=["103", "104"])
    assert runs.follow_audience(connection, campaign_id) == [2]
    assert states(connection, campaign_id) == {"pending": 7}


def test_latecomers_join_a_live_campaign_once_each_in_batches_of_their_own(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2, audience="live")
    assert runs.follow_audience(connection, campaign_id) == []
    some_clients(connection, 3)
    assert runs.follow_audience(connection, campaign_id) == [2]
    assert runs.follow_audience(connection, campaign_id) == [2]
    assert states(connection, campaign_id) == {"pending": 5}
    assert len(set(audience(connection, campaign_id))) == 5

    token = take_lease(connection, campaign_id)
    late = claim(connection, campaign_id, token, number=2)
    messages.record(connection, campaign_id, token, [outcome_of(each, "sent") for each in late])
    assert runs.follow_audience(connection, campaign_id) == []


def test_those_who_come_a_few_at_a_time_share_a_batch_while_it_is_small_and_theirs(connection):
    """One for each look, every 30 s, would be more within a day than a run can map."""
    campaign_id, _ = an_open_campaign(connection, clients=2, audience="live")

    def follow_one_more():
        some_clients(connection, 1)
        return runs.follow_audience(connection, campaign_id)

    def sizes():
        return [row["size"] for row in connection.execute("SELECT size FROM batches ORDER BY number")]

    assert [follow_one_more() for _ in range(3)] == [[2], [2], [2]]
    assert sizes() == [2, 3]
    assert runs.MAX_BATCHES * runs.BATCH_SIZE > runs.ID_SPAN > runs.BATCH_SIZE
    connection.execute("UPDATE batches SET size = %s WHERE number = 2", (runs.BATCH_SIZE,))
    assert follow_one_more() == [2, 3]
    some_clients(connection, 1)
    assert select(connection, campaign_id, newcomers=True).batches == [1, 4]  # a run that a person triggered
    assert follow_one_more() == [2, 3, 5]
    connection.execute("SELECT setval('messages_id_seq', (SELECT max(id) FROM messages) + %s)", (runs.ID_SPAN,))
    assert follow_one_more() == [2, 3, 5, 6]
    assert sizes() == [2, runs.BATCH_SIZE, 1, 1, 1, 1]
    assert set(states(connection, campaign_id)) == {"pending"}


def test_a_run_leaves_latecomers_to_the_task_that_follows_them(connection):
    campaign_id, [first] = an_open_campaign(connection, clients=1, audience="live")
    some_clients(connection, 1)
    assert runs.follow_audience(connection, campaign_id) == [2]
    assert select(connection, campaign_id).batches == [first]

    edit(connection, campaign_id, audience="snapshot")
    assert select(connection, campaign_id).batches == [1, 2]  # nobody follows any more


def test_a_run_names_no_more_batches_than_it_can_map_and_a_further_one_the_rest(connection):
    some_clients(connection, 4)
    campaign_id = a_campaign(connection)
    assert select(connection, campaign_id, batch_size=1, max_batches=2).batches == [1, 2]
    some_clients(connection, 1)
    assert select(connection, campaign_id, newcomers=True, max_batches=2).batches == [1, 2]
    assert select(connection, campaign_id, max_batches=3).batches == [1, 2, 3]


def test_two_who_follow_an_audience_at_once_add_nobody_twice(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1, audience="live")
    some_clients(connection, 50)

    newcomers = "clients WHERE id NOT IN (SELECT client_id FROM messages)"
    with held_up(connection, lambda own: runs.follow_audience(own, campaign_id), enrolling(campaign_id, newcomers)):
        other = threading.Thread(target=follow_in_a_transaction, args=(campaign_id,))
        other.start()
    other.join()

    assert states(connection, campaign_id) == {"pending": 51}
    assert [row["size"] for row in connection.execute("SELECT size FROM batches ORDER BY number")] == [1, 50]


def follow_in_a_transaction(campaign_id):
    with db.transaction() as own:
        runs.follow_audience(own, campaign_id)


@pytest.mark.usefixtures("art_and_sport")
def test_latecomers_match_the_filter_as_it_is_now(connection):
    campaign_id = a_campaign(connection, audience="live", filter_tags=["art"])
    select(connection, campaign_id)
    edit(connection, campaign_id, filter_tags=["sport"])
    some_clients(connection, 1, code="105", tags=("art",))
    runs.follow_audience(connection, campaign_id)
    assert ends(connection, campaign_id) == [*[("excluded", "filter")] * 3, *[("pending", None)] * 2]


@pytest.mark.parametrize(
    "end", ["audience = 'snapshot'", "sending_stop = now()", "status = 'cancelled'",
            "status = 'finished', finished_at = now()"],
)  # fmt: skip
def test_nobody_joins_a_campaign_that_is_over(connection, end):
    campaign_id, _ = an_open_campaign(connection, clients=1, audience="live")
    some_clients(connection, 1)
    connection.execute(f"UPDATE campaigns SET {end}")  # noqa: S608
    assert runs.follow_audience(connection, campaign_id) is None
    assert states(connection, campaign_id) == {"pending": 1}


def test_nobody_joins_a_live_campaign_while_it_is_paused(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1, audience="live")
    some_clients(connection, 1)
    campaigns.pause(connection, campaign_id, actor="anna")
    assert runs.follow_audience(connection, campaign_id) == []
    campaigns.resume(connection, campaign_id, actor="anna")
    assert runs.follow_audience(connection, campaign_id) == [2]


def test_a_live_audience_may_grow_until_the_stop_so_it_is_not_finished_before(connection):
    campaign_id, _ = an_open_campaign(connection, clients=0, audience="live")
    with pytest.raises(NotFinished, match="its audience may still grow"):
        close(connection, campaign_id)
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    assert close(connection, campaign_id).status == "finished"


# Closing


def test_what_is_left_of_a_cancelled_campaign_is_cancelled_and_what_may_have_left_stays_in_doubt(connection):
    campaign_id, _ = an_open_campaign(connection, clients=5, on_doubt="resend")
    token = take_lease(connection, campaign_id)
    sent, failed, doubtful, again = claim(connection, campaign_id, token, limit=4)
    words = [outcome_of(sent, "sent"), outcome_of(failed, "failed"), outcome_of(doubtful, "unknown")]
    messages.record(connection, campaign_id, token, words)
    campaigns.cancel(connection, campaign_id, actor="anna")
    cancelled_at = row_of(connection, campaign_id)["finished_at"]

    with pytest.raises(NotFinished, match=r"\(cancelled\): 0 messages are pending and 1 sending") as caught:
        close(connection, campaign_id)
    assert caught.value.again_in_s == runs.CLAIM_PATIENCE_S
    messages.record(connection, campaign_id, token, [outcome_of(again, "pending", "http_503")])
    messages.release_lease(connection, token)

    assert close(connection, campaign_id).counts == {
        "audience": 5, "sent": 1, "failed": 1, "unknown": 1, "cancelled": 2
    }  # fmt: skip
    # The first close raised, and what it had swept was rolled back with it.
    assert ends(connection, campaign_id) == [
        ("sent", None), ("failed", "test"), ("unknown", "cancelled"), ("cancelled", "cancelled"),
        ("cancelled", "cancelled"),
    ]  # fmt: skip
    row = row_of(connection, campaign_id)
    assert (row["status"], row["finished_at"]) == ("cancelled", cancelled_at)
    assert {m["not_before"] for m in ledger(connection, campaign_id)} == {None}


def test_who_is_still_to_be_sent_by_another_run_is_told_with_its_time(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    with pytest.raises(NotFinished) as caught:
        close(connection, campaign_id)
    assert (caught.value.wake_at, caught.value.again_in_s) == (None, None)
    runs.wake(connection, campaign_id)
    with pytest.raises(NotFinished) as caught:
        close(connection, campaign_id)
    assert caught.value.wake_at == row_of(connection, campaign_id)["wake_at"] is not None


@pytest.mark.parametrize("end", ["finished", "cancelled"])
def test_a_campaign_that_is_closed_takes_no_place_in_the_queue_for_slots(connection, end):
    campaign_id, _ = an_open_campaign(connection, clients=0)
    connection.execute("INSERT INTO throttles (campaign_id) VALUES (%s)", (campaign_id,))
    if end == "cancelled":
        campaigns.cancel(connection, campaign_id, actor="anna")
    close(connection, campaign_id)
    assert connection.execute("SELECT * FROM throttles").fetchall() == []


def test_closing_twice_says_the_same(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    first = close(connection, campaign_id)
    assert close(connection, campaign_id) == first


# What upkeep looks for


def test_dead_leases_are_named_once_per_batch_and_what_they_held_is_settled_once(connection):
    campaign_id, _ = an_open_campaign(connection, clients=20, batch_size=10)
    dead = [take_lease(connection, campaign_id, number) for number in (1, 1, 2)]
    for token, number in zip(dead, (1, 1, 2), strict=True):
        claim(connection, campaign_id, token, number=number, limit=2)
    let_leases_run_out(connection)
    alive = take_lease(connection, campaign_id, 1)
    claim(connection, campaign_id, alive, number=1, limit=3)

    assert runs.dead_leases(connection) == [(campaign_id, 1), (campaign_id, 2)]
    assert [runs.recover(connection, campaign_id, number) for number in (1, 2)] == [4, 2]
    assert states(connection, campaign_id) == {"unknown": 6, "sending": 3, "pending": 11}
    assert runs.dead_leases(connection) == []
    assert [row["token"] for row in connection.execute("SELECT token FROM leases")] == [alive]
    assert runs.recover(connection, campaign_id, 1) == 0


@pytest.mark.parametrize(
    ("change", "is_overdue"),
    [
        ("status = 'scheduled', sending_stop = now()", True),
        ("status = 'running', sending_stop = now()", True),
        ("status = 'paused', sending_stop = now()", True),
        ("status = 'finished', finished_at = now(), sending_stop = now()", False),
        ("status = 'running'", False),
        ("status = 'paused'", False),
        ("status = 'cancelled', finished_at = now()", True),
        ("status = 'cancelled', finished_at = now(), sending_stop = now()", True),
        ("status = 'cancelled', finished_at = now() - interval '25 hours'", True),
    ],
)
def test_campaigns_are_overdue_that_are_over_and_have_messages_left(connection, change, is_overdue):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    connection.execute(f"UPDATE campaigns SET {change}")  # noqa: S608
    assert runs.overdue(connection) == [campaign_id] * is_overdue


@pytest.mark.parametrize(("state", "is_overdue"), [("pending", True), ("sending", True), ("cancelled", False)])
def test_a_cancelled_campaign_is_overdue_as_long_as_it_has_messages_to_settle(connection, state, is_overdue):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    connection.execute("UPDATE messages SET state = %s, reason = 'test', token = 1, revision = 1", (state,))
    campaigns.cancel(connection, campaign_id, actor="anna")
    finishes.record(connection, campaign_id)
    assert runs.overdue(connection) == [campaign_id] * is_overdue


def test_messages_that_a_cancelled_campaign_has_left_are_looked_for_however_long_ago_it_ended(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    campaigns.cancel(connection, campaign_id, actor="anna")
    connection.execute("UPDATE campaigns SET finished_at = now() - interval '40 days'")
    finishes.record(connection, campaign_id)
    assert runs.overdue(connection) == [campaign_id]
    close(connection, campaign_id)
    assert states(connection, campaign_id) == {"cancelled": 1}
    assert runs.overdue(connection) == []


def parts_of(plan):
    yield plan
    for each in plan.get("Plans", ()):
        yield from parts_of(each)


def test_looking_for_what_nobody_closed_reads_neither_the_ledger_nor_the_campaigns_that_are_over(connection):
    closed, _ = an_open_campaign(connection, clients=3)
    campaigns.cancel(connection, closed, actor="anna")
    close(connection, closed)
    connection.execute("ALTER TABLE campaigns DISABLE TRIGGER USER")
    connection.execute(
        "INSERT INTO campaigns (text, sending_start, sending_stop, status, finished_at)"
        " SELECT 'Hello', now() - n * interval '1 hour', now() - n * interval '30 minutes', 'finished', now()"
        " FROM generate_series(1, 50000) AS n"
    )
    connection.execute(
        "INSERT INTO finishes (campaign_id, number, finished_at, figures)"
        " SELECT id, 1, finished_at, '{}' FROM campaigns WHERE id > %s",
        (closed,),
    )
    connection.execute("ANALYZE campaigns, finishes, state_counts")

    statement = runs.SQL["overdue_campaigns"]
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}").fetchone()

    read = {}
    for part in parts_of(row["QUERY PLAN"][0]["Plan"]):
        rows = part["Actual Rows"] + part.get("Rows Removed by Filter", 0)
        name = part.get("Relation Name")
        read[name] = read.get(name, 0) + rows * part["Actual Loops"]
    assert set(read) - {None} == {"campaigns", "finishes", "state_counts"}
    assert read["campaigns"] <= 10
    assert read["finishes"] <= 10


def test_a_cancelled_campaign_without_messages_is_overdue_until_its_end_is_written_down(connection):
    campaign_id = a_campaign(connection, sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR)
    campaigns.cancel(connection, campaign_id, actor="anna")
    assert runs.overdue(connection) == [campaign_id]
    runs.close(connection, campaign_id)
    assert runs.overdue(connection) == []


def test_an_end_that_is_written_down_is_not_looked_for_again_and_one_that_is_not_however_late(connection):
    told, untold = a_campaign(connection), a_campaign(connection)
    for campaign_id in (told, untold):
        campaigns.cancel(connection, campaign_id, actor="anna")
    connection.execute("UPDATE campaigns SET finished_at = now() - interval '40 days'")
    runs.close(connection, told)
    assert runs.overdue(connection) == [untold]
    runs.close(connection, untold)
    assert runs.overdue(connection) == []
    assert finishes.standing(connection, untold)["status"] == "cancelled"


QUIET = "updated = now() - interval '61 seconds', sending_start = now() - interval '61 seconds', wake_at = NULL"


@pytest.mark.parametrize(
    ("change", "is_unattended"),
    [
        ("id = id", True),
        ("status = 'scheduled', opened_at = NULL", True),
        ("wake_at = now() - interval '61 seconds'", True),
        ("status = 'paused'", False),
        ("status = 'cancelled', finished_at = now()", False),
        ("status = 'finished', finished_at = now()", False),
        ("sending_start = now() - interval '59 seconds'", False),
        ("sending_stop = now()", False),
        ("wake_at = now() - interval '59 seconds'", False),
        ("updated = now() - interval '59 seconds'", False),
    ],
)
def test_campaigns_are_unattended_that_should_have_been_sending_for_a_while(connection, change, is_unattended):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    connection.execute("ALTER TABLE campaigns DISABLE TRIGGER USER")  # which keeps `updated`
    connection.execute(f"UPDATE campaigns SET {QUIET}")  # noqa: S608
    connection.execute(f"UPDATE campaigns SET {change}".replace("id = id", "name = name"))  # noqa: S608
    assert runs.unattended(connection) == [campaign_id] * is_unattended


def test_a_campaign_for_which_a_task_holds_a_lease_is_attended_until_that_runs_out(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    connection.execute("ALTER TABLE campaigns DISABLE TRIGGER USER")
    connection.execute(f"UPDATE campaigns SET {QUIET}")  # noqa: S608
    take_lease(connection, campaign_id)
    assert runs.unattended(connection) == []
    let_leases_run_out(connection)
    assert runs.unattended(connection) == [campaign_id]
    connection.execute("ALTER TABLE campaigns ENABLE TRIGGER USER")
    runs.wake(connection, campaign_id)
    assert runs.unattended(connection) == []


@pytest.mark.parametrize(
    ("change", "is_woken"),
    [
        ("status = 'running'", True),
        ("status = 'scheduled'", True),
        ("status = 'paused'", False),
        ("status = 'cancelled'", False),
        ("status = 'finished', finished_at = now()", False),
        ("sending_stop = now()", False),
    ],
)
def test_only_a_campaign_that_may_send_is_woken(connection, change, is_woken):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    connection.execute(f"UPDATE campaigns SET {change}")  # noqa: S608
    runs.wake(connection, campaign_id)
    assert (row_of(connection, campaign_id)["wake_at"] is not None) == is_woken


# Forecast


def living_in(connection, zone, ids):
    connection.execute("UPDATE clients SET timezone = %s WHERE id = ANY (%s)", (zone, ids))


def test_without_local_hours_everybody_can_be_reached_from_now_on(connection):
    living_in(connection, "Asia/Tokyo", some_clients(connection, 2))
    some_clients(connection, 3)
    campaign_id = a_campaign(connection)

    tokyo, utc = runs.forecast(connection, campaign_id)

    assert (tokyo.timezone, tokyo.clients, tokyo.never) == ("Asia/Tokyo", 2, 0)
    assert (utc.timezone, utc.clients, utc.never) == ("UTC", 3, 0)
    assert abs(tokyo.opens_at - now()) < timedelta(seconds=10)


def test_before_the_start_everybody_can_be_reached_from_the_start_on(connection):
    some_clients(connection, 1)
    start = now() + HOUR
    campaign_id = a_campaign(connection, sending_start=start, sending_stop=start + HOUR)
    assert runs.forecast(connection, campaign_id) == [ZoneForecast("UTC", 1, start, 0)]


def test_zones_open_one_after_the_other_and_some_not_before_the_stop(connection):
    """On a day far ahead, from 06:00 to 10:00 UTC, for the hours from 09:00 to 12:00 on the clients' walls."""
    day = datetime(2040, 6, 1, tzinfo=UTC)
    for zone, count in {"Etc/GMT-5": 1, "Etc/GMT-2": 2, "UTC": 3, "Etc/GMT+1": 4, "Etc/GMT+8": 5}.items():
        living_in(connection, zone, some_clients(connection, count))
    campaign_id = a_campaign(
        connection, sending_start=day + 6 * HOUR, sending_stop=day + 10 * HOUR, local_from=time(9), local_to=time(12)
    )

    assert runs.forecast(connection, campaign_id) == [
        ZoneForecast("Etc/GMT+1", 4, None, 4),  # opens at the stop
        ZoneForecast("Etc/GMT+8", 5, None, 5),
        ZoneForecast("Etc/GMT-2", 2, day + 7 * HOUR, 0),
        ZoneForecast("Etc/GMT-5", 1, day + 6 * HOUR, 0),  # open since 04:00
        ZoneForecast("UTC", 3, day + 9 * HOUR, 0),
    ]


def test_a_zone_that_has_closed_for_the_day_can_be_reached_only_if_it_opens_again_before_the_stop(connection):
    some_clients(connection, 1)
    closed_at = now() - HOUR
    hours = LocalHours((closed_at - HOUR).time(), closed_at.time())
    campaign_id = a_campaign(connection, local_from=hours.start, local_to=hours.end)
    assert runs.forecast(connection, campaign_id) == [ZoneForecast("UTC", 1, None, 1)]
    edit(connection, campaign_id, sending_stop=now() + 30 * HOUR)
    assert runs.forecast(connection, campaign_id) == [ZoneForecast("UTC", 1, closed_at + 23 * HOUR, 0)]


def test_the_forecast_of_an_open_campaign_counts_who_is_still_to_be_reached(connection):
    campaign_id, _ = an_open_campaign(connection, clients=5)
    some_clients(connection, 7)  # too late for a snapshot
    token = take_lease(connection, campaign_id)
    claims = claim(connection, campaign_id, token, limit=2)
    messages.record(connection, campaign_id, token, [outcome_of(each, "sent") for each in claims])
    [forecast] = runs.forecast(connection, campaign_id)
    assert forecast.clients == 3


def test_the_forecast_of_a_campaign_that_is_not_open_counts_who_matches_its_filter(connection, people):
    start = now() + HOUR
    campaign_id = a_campaign(connection, sending_start=start, sending_stop=start + HOUR, filter_tags=["art"])
    [forecast] = runs.forecast(connection, campaign_id)
    assert forecast.clients == len(people["103 art"] + people["104 art"] + people["104 art+sport"])


def test_after_the_stop_nobody_can_be_reached(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    assert runs.forecast(connection, campaign_id) == [ZoneForecast("UTC", 2, None, 2)]


@pytest.mark.parametrize("call", [runs.forecast, runs.follow_filter, runs.follow_audience])
def test_of_a_campaign_that_is_not_there_nothing_is_said(connection, call):
    with pytest.raises(NotFound, match="^campaign 99: there is no such campaign$"):
        call(connection, 99)
