"""How campaigns ended: one row per end, written with it."""

from __future__ import annotations

import pytest

from mailing import campaigns, finishes, messages, runs, verdicts
from mailing.errors import NotFinished
from mailing.models import MESSAGE_STATES
from tests.builders import HOUR, a_campaign, an_open_campaign, before_revision, claim, kept, now, settle, some_clients


def ends(connection):
    return connection.execute(
        "SELECT campaign_id, number, figures FROM finishes ORDER BY campaign_id, number"
    ).fetchall()


def close(connection, campaign_id):
    with connection.transaction():
        return runs.close(connection, campaign_id)


def over(connection, campaign_id):
    connection.execute(
        "UPDATE campaigns SET sending_start = now() - interval '2 hours', sending_stop = now() WHERE id = %s",
        (campaign_id,),
    )


def test_closing_writes_the_end_with_its_figures_and_closing_again_writes_nothing(connection):
    campaign_id, _ = an_open_campaign(connection, clients=5, name="Sale")
    assert finishes.standing(connection, campaign_id) is None
    over(connection, campaign_id)
    close(connection, campaign_id)
    close(connection, campaign_id)

    [end] = ends(connection)
    figures = end["figures"]
    assert finishes.standing(connection, campaign_id) == figures
    assert figures["event_id"] == f"campaign-{campaign_id}-finish-1"
    assert (figures["campaign_id"], figures["name"], figures["status"]) == (campaign_id, "Sale", "finished")
    assert (figures["audience"], figures["expired"], figures["finish"]) == (5, 5, 1)
    assert sum(figures[state] for state in MESSAGE_STATES) == 5
    row = campaigns.get(connection, campaign_id)
    assert figures["revision"] == row.revision
    for moment in ("sending_start", "sending_stop", "opened_at", "finished_at"):
        assert figures[moment].endswith("+00:00")


def test_an_end_says_nothing_of_whom_and_what(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1, text="Most secret")
    over(connection, campaign_id)
    close(connection, campaign_id)
    shown = str(ends(connection))
    assert "Most secret" not in shown
    assert "7103" not in shown


def test_one_that_is_opened_again_ends_again_under_the_next_number(connection):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    over(connection, campaign_id)
    close(connection, campaign_id)
    campaigns.edit(connection, campaign_id, actor="anna", sending_stop=now() + HOUR, filter_operator_codes=["104"])
    some_clients(connection, 3, code="104")
    with connection.transaction():
        runs.select_audience(connection, campaign_id)
    assert finishes.standing(connection, campaign_id) is None
    over(connection, campaign_id)
    close(connection, campaign_id)

    first, second = (end["figures"] for end in ends(connection))
    assert (first["finish"], first["audience"]) == (1, 2)
    assert (second["finish"], second["audience"], second["expired"], second["excluded"]) == (2, 5, 3, 2)
    assert second["revision"] > first["revision"]
    assert finishes.standing(connection, campaign_id) == second


def test_a_cancelled_campaign_has_ended_when_nothing_is_in_flight(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    token = messages.take_lease(connection, campaign_id, 1, "test")
    claim(connection, campaign_id, token, limit=1)
    campaigns.cancel(connection, campaign_id, actor="anna")
    with pytest.raises(NotFinished):
        close(connection, campaign_id)
    assert ends(connection) == []

    connection.execute("UPDATE messages SET state = 'failed', reason = 'test' WHERE state = 'sending'")
    close(connection, campaign_id)
    [end] = ends(connection)
    assert (end["figures"]["status"], end["figures"]["failed"], end["figures"]["cancelled"]) == ("cancelled", 1, 2)


def test_one_that_plain_sql_cancels_ends_like_any_other_and_again_if_it_went_on(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    for number in (1, 2):
        connection.execute("UPDATE campaigns SET status = 'cancelled'")
        assert runs.overdue(connection) == [campaign_id]
        close(connection, campaign_id)
        figures = finishes.standing(connection, campaign_id)
        assert (figures["finish"], figures["status"], figures["cancelled"]) == (number, "cancelled", 3)
        assert runs.overdue(connection) == []

        connection.execute("UPDATE campaigns SET status = 'running'")
        assert campaigns.get(connection, campaign_id).finished_at is None
        assert finishes.standing(connection, campaign_id) is None


def test_a_row_that_is_cancelled_from_its_first_moment_has_an_end(connection):
    campaign_id = connection.execute(
        "INSERT INTO campaigns (text, sending_start, sending_stop, status)"
        " VALUES ('Hello', now(), now() + interval '1 hour', 'cancelled') RETURNING id"
    ).fetchone()["id"]
    close(connection, campaign_id)
    assert finishes.standing(connection, campaign_id)["status"] == "cancelled"


def test_an_end_that_is_rolled_back_with_its_campaign_was_none(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    over(connection, campaign_id)
    before = kept(connection, "finishes", "campaigns")
    with connection.transaction(force_rollback=True):
        assert runs.close(connection, campaign_id).status == "finished"
    assert kept(connection, "finishes", "campaigns") == before


def test_an_end_is_announced_by_one_task_and_again_only_if_it_died(connection):
    campaign_id = a_campaign(connection)
    campaigns.cancel(connection, campaign_id, actor="anna")
    close(connection, campaign_id)

    assert [each["campaign_id"] for each in finishes.take_unannounced(connection)] == [campaign_id]
    assert finishes.take_unannounced(connection) == []
    assert finishes.to_confirm(connection) == []

    connection.execute("UPDATE finishes SET announced_at = now() - interval '3 minutes'")
    [taken] = finishes.to_confirm(connection)
    assert finishes.take_again(connection, taken)
    assert not finishes.take_again(connection, taken)
    finishes.confirm(connection, taken)
    connection.execute("UPDATE finishes SET announced_at = now() - interval '3 minutes'")
    assert finishes.to_confirm(connection) == []


def an_upgrade_from(revision, database, connection, *before):
    """As if the database had been of that version, where these statements were run."""
    with before_revision(database, revision):
        for statement in before:
            connection.execute(statement)


def test_an_upgrade_takes_the_ends_that_were_before_for_told(connection, database):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    over(connection, campaign_id)
    close(connection, campaign_id)
    [before] = ends(connection)
    open_, _ = an_open_campaign(connection, clients=0)
    an_upgrade_from("0006", database, connection)

    [after] = ends(connection)
    assert after == before
    assert finishes.take_unannounced(connection) == []
    assert finishes.take_webhook(connection) is None
    close(connection, campaign_id)
    assert len(ends(connection)) == 1


def test_an_upgrade_gives_an_end_to_what_sql_had_cancelled(connection, database):
    campaign_id, _ = an_open_campaign(connection, clients=2)
    running = a_campaign(connection)
    with before_revision(database, "0007"):
        connection.execute("UPDATE campaigns SET status = 'cancelled' WHERE id = %s", (campaign_id,))
        connection.execute("UPDATE campaigns SET status = 'running', finished_at = now() WHERE id = %s", (running,))
        written = campaigns.get(connection, campaign_id).updated
        assert campaigns.get(connection, campaign_id).finished_at is None

    assert campaigns.get(connection, campaign_id).finished_at == written
    assert campaigns.get(connection, running).finished_at is None
    assert runs.overdue(connection) == [campaign_id]
    close(connection, campaign_id)
    assert finishes.standing(connection, campaign_id)["cancelled"] == 2


def doubtful(connection, campaign_id, *states):
    settle(connection, campaign_id, now(), *states)
    connection.execute("UPDATE messages SET in_doubt = true WHERE state = 'unknown'")


def test_what_a_person_assumed_to_be_sent_is_told_apart(connection):
    campaign_id, _ = an_open_campaign(connection, clients=5)
    doubtful(connection, campaign_id, "sent", "unknown", "unknown", "failed")
    told = "SELECT sent, assumed_sent FROM reporting.campaign_statistics"
    assert connection.execute(told).fetchall() == [{"sent": 1, "assumed_sent": 0}]
    verdicts.settle_all(connection, campaign_id, "assume_sent", actor="anna")
    runs.fold_counts(connection, campaign_id)
    assert connection.execute(told).fetchall() == [{"sent": 3, "assumed_sent": 2}]

    over(connection, campaign_id)
    close(connection, campaign_id)
    [end] = ends(connection)
    assert (end["figures"]["sent"], end["figures"]["assumed_sent"]) == (3, 2)
    told = "SELECT audience, sent, assumed_sent FROM reporting.campaign_finishes"
    assert connection.execute(told).fetchall() == [{"audience": 5, "sent": 3, "assumed_sent": 2}]


def test_an_upgrade_finds_out_what_had_been_assumed_sent_by_each_end(connection, database):
    campaign_id, _ = an_open_campaign(connection, clients=4)
    doubtful(connection, campaign_id, "sent", "unknown", "unknown", "failed")
    first, second = connection.execute("SELECT id FROM messages WHERE state = 'unknown' ORDER BY id").fetchall()
    verdicts.settle(connection, first["id"], "assume_sent", actor="anna")
    close(connection, campaign_id)
    verdicts.settle(connection, second["id"], "assume_sent", actor="anna")
    [before] = ends(connection)
    an_upgrade_from("0007", database, connection, "UPDATE finishes SET figures = figures - 'assumed_sent'")
    assert before["figures"]["assumed_sent"] == 1
    assert ends(connection) == [before]


def not_requested(connection):
    return [row["not_requested"] for row in connection.execute("SELECT not_requested FROM finishes ORDER BY number")]


def test_an_end_says_why_messages_were_not_sent_and_an_upgrade_finds_it_out_for_those_that_were_before(
    connection, database
):
    campaign_id, _ = an_open_campaign(connection, clients=9)
    reasons = "(ARRAY['window', 'window', 'window', 'local_hours'])"
    connection.execute(f"UPDATE messages SET state = 'expired', reason = {reasons}[id] WHERE id < 5")  # noqa: S608
    connection.execute("UPDATE messages SET state = 'excluded', reason = 'filter' WHERE id BETWEEN 5 AND 6")
    settle(connection, campaign_id, now(), *[None] * 6, "sent", "sent", "failed")
    close(connection, campaign_id)
    first = {"expired window": 3, "expired local_hours": 1, "excluded filter": 2}
    assert not_requested(connection) == [first]
    an_upgrade_from("0007", database, connection)
    assert not_requested(connection) == [first]

    # It went on since, and ended again: of the first end is known how many expired, and not why all of them did.
    settle(connection, campaign_id, now(), None, None, "sent", "sent", "sent")
    connection.execute("UPDATE messages SET reason = NULL WHERE state = 'sent'")
    connection.execute("UPDATE campaigns SET finished_at = now() + interval '1 s'")
    finishes.record(connection, campaign_id)
    second = {"expired window": 2, "excluded filter": 1}
    assert not_requested(connection) == [first, second]
    an_upgrade_from("0007", database, connection)
    assert not_requested(connection) == [
        {"expired window": 2, "expired not_known": 2, "excluded filter": 1, "excluded not_known": 1}, second,
    ]  # fmt: skip
