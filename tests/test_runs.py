"""What a campaign's run does: opening, following the audience, closing."""

from __future__ import annotations

import threading

import pytest

from mailing import campaigns, db, messages, runs
from mailing.errors import NotFinished, NotFound
from tests.builders import HOUR, a_campaign, an_open_campaign, claim, ledger, now, some_clients, states


def select(connection, campaign_id, **more):
    with connection.transaction():
        return runs.select_audience(connection, campaign_id, **more)


def close(connection, campaign_id):
    with connection.transaction():
        return runs.close(connection, campaign_id)


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


def test_doubt_does_not_expire(connection):
    """Under `resend` a message that may have been taken is pending again; the stop must not call it unsent."""
    campaign_id, [number] = an_open_campaign(connection, clients=3, on_doubt="resend")
    token = messages.take_lease(connection, campaign_id, number, "test")
    [claimed] = claim(connection, campaign_id, token, limit=1)
    doubt = messages.Outcome(claimed.id, claimed.attempts, "unknown", "no_answer", wait_s=60)
    messages.record(connection, campaign_id, token, [doubt])
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    assert close(connection, campaign_id).counts == {"audience": 3, "unknown": 1, "expired": 2}


def test_newcomers_share_what_one_run_can_map(connection):
    some_clients(connection, 30)
    campaign_id = a_campaign(connection)
    select(connection, campaign_id, batch_size=10, max_batches=4)
    some_clients(connection, 30)
    assert len(select(connection, campaign_id, batch_size=1, max_batches=4, newcomers=True).batches) == 4


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
    by_state = {name: row[name] for name in campaigns.MESSAGE_STATES}
    assert by_state == {
        "sent": 1, "failed": 1, "unknown": 1, "sending": 1, "pending": 2, "expired": 0, "cancelled": 0, "excluded": 0
    }  # fmt: skip
    assert sum(by_state.values()) == row["audience"] == 6
    outcomes = connection.execute("SELECT state, text FROM reporting.message_outcomes ORDER BY message_id").fetchall()
    assert [(row["state"], row["text"]) for row in outcomes] == [
        ("sent", "Hello"), ("failed", "Hello"), ("unknown", "Hello"), ("sending", "Hello"),
        ("pending", None), ("pending", None),
    ]  # fmt: skip
