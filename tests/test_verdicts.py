"""Verdicts on what is unknown."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from mailing import campaigns, messages, runs, verdicts
from mailing.errors import Conflict, InvalidInput, NotFound
from mailing.models import MESSAGE_STATES
from mailing.verdicts import VERDICTS
from tests import builders
from tests.builders import an_open_campaign, audited, change, kept, ledger, now, put_into, states


@pytest.fixture
def doubtful(connection):
    """A campaign of three whose messages are unknown, claimed ten minutes ago: its id, and theirs."""
    campaign_id, _ = an_open_campaign(connection, clients=3)
    put_into(connection, "unknown", "no_answer")
    return campaign_id, [row["id"] for row in ledger(connection, campaign_id)]


@pytest.mark.parametrize(
    ("verdict", "state", "reason"),
    [("send_again", "pending", None), ("assume_sent", "sent", "assumed_sent"), ("give_up", "failed", "given_up")],
)
def test_a_verdict_settles_the_one_message_it_is_about_and_is_kept(connection, doubtful, verdict, state, reason):
    campaign_id, [first, second, third] = doubtful

    verdicts.settle(connection, second, verdict, actor="anna")

    rows = {row["id"]: row for row in ledger(connection, campaign_id)}
    assert (rows[second]["state"], rows[second]["reason"], rows[second]["not_before"]) == (state, reason, None)
    assert {rows[id_]["state"] for id_ in (first, third)} == {"unknown"}
    assert audited(connection) == [("anna", verdict, campaign_id, second, None)]


def test_what_is_assumed_sent_was_sent_when_it_was_claimed(connection, doubtful):
    verdicts.settle(connection, doubtful[1][0], "assume_sent", actor="anna")
    row = ledger(connection, doubtful[0])[0]
    assert row["sent_at"] == row["claimed_at"]


def test_what_is_sent_again_keeps_its_id_and_that_it_was_in_doubt(connection, doubtful):
    campaign_id, [first, *_] = doubtful
    verdicts.settle(connection, first, "send_again", actor="anna")
    [again] = builders.claim(connection, campaign_id, messages.take_lease(connection, campaign_id, 1, "test"))
    assert (again.id, again.attempts) == (first, 2)
    assert ledger(connection, campaign_id)[0]["in_doubt"]


def test_a_verdict_on_all_is_a_verdict_on_each_that_is_unknown(connection, doubtful):
    campaign_id, ids = doubtful
    connection.execute("UPDATE messages SET state = 'failed' WHERE id = %s", (ids[0],))
    other, _ = an_open_campaign(connection, clients=0)
    connection.execute("UPDATE messages SET state = 'unknown', reason = 'test' WHERE campaign_id = %s", (other,))

    assert verdicts.settle_all(connection, campaign_id, "give_up", actor="anna") == 2

    assert [row["reason"] for row in ledger(connection, campaign_id)] == ["no_answer", "given_up", "given_up"]
    assert states(connection, other) == {"unknown": 3}
    assert audited(connection) == [("anna", "give_up", campaign_id, id_, None) for id_ in ids[1:]]
    assert verdicts.settle_all(connection, campaign_id, "give_up", actor="anna") == 0


def test_a_verdict_is_told_once_however_many_messages_it_is_on(connection, doubtful):
    campaign_id, [first, *rest] = doubtful
    client_id = ledger(connection, campaign_id)[0]["client_id"]

    with capture_logs() as logs:
        verdicts.settle(connection, first, "send_again", actor="anna")
        verdicts.settle_all(connection, campaign_id, "give_up", actor="bob")
        verdicts.settle_all(connection, campaign_id, "give_up", actor="bob")

    settled = {"event": "settled", "log_level": "info", "campaign_id": campaign_id}
    assert logs == [
        settled | {"verdict": "send_again", "actor": "anna", "message_id": first, "client_id": client_id},
        settled | {"verdict": "give_up", "actor": "bob", "messages": len(rest)},
    ]


def test_a_verdict_on_all_may_be_about_one_reason(connection, doubtful):
    campaign_id, ids = doubtful
    connection.execute("UPDATE messages SET reason = 'task_died' WHERE id = %s", (ids[1],))
    assert verdicts.settle_all(connection, campaign_id, "assume_sent", actor="anna", reason="http_504") == 0
    assert verdicts.settle_all(connection, campaign_id, "assume_sent", actor="anna", reason="task_died") == 1
    assert [row["state"] for row in ledger(connection, campaign_id)] == ["unknown", "sent", "unknown"]


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize(("expected", "said"), [(1, "1 was"), (1_200, "1,200 were"), (0, "0 were")])
def test_a_verdict_on_another_number_than_was_confirmed_changes_nothing(connection, doubtful, verdict, expected, said):
    campaign_id, _ = doubtful
    before = kept(connection)
    refusal = f"^campaign {campaign_id}: {verdict}: 3 are in doubt by now, {said} confirmed: look again$"
    with capture_logs() as logs, pytest.raises(Conflict, match=refusal):
        verdicts.settle_all(connection, campaign_id, verdict, actor="anna", expected=expected)
    assert (kept(connection), logs) == (before, [])
    assert verdicts.settle_all(connection, campaign_id, verdict, actor="anna", expected=3) == 3
    with pytest.raises(Conflict, match="0 are in doubt by now, 3 were confirmed"):
        verdicts.settle_all(connection, campaign_id, verdict, actor="anna", expected=3)
    with pytest.raises(NotFound):
        verdicts.settle_all(connection, 99, verdict, actor="anna", expected=3)


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("state", [state for state in MESSAGE_STATES if state != "unknown"])
def test_a_verdict_on_a_message_that_is_not_in_doubt_is_refused(connection, doubtful, verdict, state):
    put_into(connection, state)
    before = kept(connection)
    message_id = doubtful[1][0]
    refusal = f"^message {message_id}: {verdict}: wanted a message that is unknown, it is {state}$"
    with pytest.raises(Conflict, match=refusal):
        verdicts.settle(connection, message_id, verdict, actor="anna")
    assert verdicts.settle_all(connection, doubtful[0], verdict, actor="anna") == 0
    assert kept(connection) == before


@pytest.mark.parametrize("verdict", VERDICTS)
def test_what_a_verdict_is_about_must_be_there(connection, verdict):
    with pytest.raises(NotFound, match="^message 99: there is no such message$"):
        verdicts.settle(connection, 99, verdict, actor="anna")
    with pytest.raises(NotFound, match="^campaign 99: there is no such campaign$"):
        verdicts.settle_all(connection, 99, verdict, actor="anna")
    assert audited(connection) == []


@pytest.mark.parametrize(
    ("verdict", "actor", "message"),
    [
        ("resend", "anna", "verdict 'resend': wanted one of send_again, assume_sent, give_up"),
        ("", "anna", "verdict '': wanted one of send_again, assume_sent, give_up"),
        ("give_up", "", "actor: wanted the name of who decides"),
        ("send_again", " ", "actor: wanted the name of who decides"),
        ("assume_sent", "a" * 201, "actor: wanted the name of who decides, of 1 to 200 characters"),
    ],
)
def test_a_verdict_needs_a_name_and_one_of_three_words(connection, doubtful, verdict, actor, message):
    campaign_id, [first, *_] = doubtful
    before = kept(connection)
    with pytest.raises(InvalidInput, match=f"^message {first}: {message}"):
        verdicts.settle(connection, first, verdict, actor=actor)
    with pytest.raises(InvalidInput, match=f"^campaign {campaign_id}: {message}"):
        verdicts.settle_all(connection, campaign_id, verdict, actor=actor)
    assert kept(connection) == before


@pytest.mark.parametrize(
    "state_of_campaign",
    [
        "sending_stop = now()",
        "status = 'finished', finished_at = now(), sending_stop = now()",
        "status = 'cancelled', finished_at = now()",
        "sending_start = now() + interval '1 minute'",
    ],
)
def test_nothing_is_sent_again_where_nothing_may_be_sent(connection, doubtful, state_of_campaign):
    campaign_id, [first, *_] = doubtful
    change(connection, "campaigns", state_of_campaign)
    before = kept(connection)
    refusal = f"^campaign {campaign_id}: send_again: wanted a campaign that is not cancelled, its window open$"
    with pytest.raises(Conflict, match=refusal):
        verdicts.settle(connection, first, "send_again", actor="anna")
    with pytest.raises(Conflict, match=refusal):
        verdicts.settle_all(connection, campaign_id, "send_again", actor="anna")
    assert kept(connection) == before

    verdicts.settle(connection, first, "assume_sent", actor="anna")
    assert verdicts.settle_all(connection, campaign_id, "give_up", actor="anna") == 2


@pytest.mark.parametrize(("status", "then"), [("running", "running"), ("paused", "paused"), ("finished", "running")])
def test_what_is_sent_again_gets_a_run_and_opens_a_finished_campaign(connection, doubtful, status, then):
    campaign_id, ids = doubtful
    connection.execute(
        "UPDATE campaigns SET status = %s, finished_at = CASE %s WHEN 'finished' THEN now() END", (status,) * 2
    )
    before = now()

    assert verdicts.settle_all(connection, campaign_id, "send_again", actor="anna") == 3

    row = connection.execute("SELECT * FROM campaigns").fetchone()
    assert (row["status"], row["finished_at"]) == (then, None)
    assert before <= row["wake_at"] <= now()
    assert audited(connection) == [("anna", "send_again", campaign_id, id_, None) for id_ in ids]
    if then == "running":
        assert runs.select_audience(connection, campaign_id).batches == [1]


@pytest.mark.parametrize("verdict", ["assume_sent", "give_up"])
def test_a_verdict_that_ends_a_message_leaves_a_finished_campaign_finished(connection, doubtful, verdict):
    runs.close(connection, doubtful[0])
    before = kept(connection, "campaigns")
    verdicts.settle_all(connection, doubtful[0], verdict, actor="anna")
    assert kept(connection, "campaigns") == before
    progress = campaigns.progress(connection, doubtful[0])
    assert (progress.status, progress.unknown) == ("finished", 0)


def test_a_verdict_on_chosen_messages_is_on_those_that_are_unknown_of_whatever_campaigns(connection, doubtful):
    campaign_id, ids = doubtful
    connection.execute("UPDATE messages SET state = 'failed' WHERE id = %s", (ids[0],))
    other, _ = an_open_campaign(connection, clients=0)
    connection.execute("UPDATE messages SET state = 'unknown', reason = 'test' WHERE campaign_id = %s", (other,))
    others = [row["id"] for row in ledger(connection, other)]

    assert verdicts.settle_chosen(connection, [others[0], *ids[:2], 99_999], "give_up", actor="anna") == 2

    assert [row["reason"] for row in ledger(connection, campaign_id)] == ["no_answer", "given_up", "no_answer"]
    assert states(connection, other) == {"failed": 1, "unknown": 2}
    assert audited(connection) == [
        ("anna", "give_up", campaign_id, ids[1], None),
        ("anna", "give_up", other, others[0], None),
    ]
    assert verdicts.settle_chosen(connection, ids[:2], "give_up", actor="anna") == 0
    with pytest.raises(InvalidInput, match="2 messages: verdict 'odd'"):
        verdicts.settle_chosen(connection, ids[:2], "odd", actor="anna")
