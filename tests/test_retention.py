"""Old parts of the ledger go, their figures stay."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from structlog.testing import capture_logs

from mailing import campaigns, enrolment, finishes, recount, retention, runs, test_send, upkeep, verdicts
from mailing.errors import Busy, Conflict, InvalidInput
from tests.builders import a_campaign, kept, now, some_clients, states

DAYS = 30
KEPT_FIGURES = (
    "campaign_statistics",
    "outcomes_by_hour",
    "outcomes_by_operator_code",
    "failure_reasons",
    "daily_summary",
)


def a_full_part(connection):
    """The first part with two old campaigns of five messages each, and a younger one in the next part; their ids."""
    some_clients(connection, 5)
    old = [an_ended_campaign(connection) for _ in range(2)]
    part = connection.execute("SELECT end_campaign_id AS id FROM ledger_parts").fetchone()
    connection.execute("SELECT setval(pg_get_serial_sequence('campaigns', 'id'), %s)", (part["id"],))
    young = a_campaign(connection)
    with connection.transaction():
        runs.select_audience(connection, young)
    as_of_yesterday(connection, young, "created = now() - interval '2 hours'")
    return old, young


def an_ended_campaign(connection):
    """One of long ago, all of it settled: three sent, one failed, one in doubt, with an attempt."""
    campaign_id = a_campaign(connection)
    with connection.transaction():
        runs.select_audience(connection, campaign_id)
    connection.execute(
        "UPDATE messages SET state = (ARRAY['sent', 'sent', 'sent', 'failed', 'unknown'])[1 + client_id %% 5],"
        " reason = CASE WHEN client_id %% 5 > 2 THEN 'no_answer' END, token = 1, revision = 1, claimed_at = now(),"
        " sent_at = CASE WHEN client_id %% 5 < 3 THEN now() END WHERE campaign_id = %s",
        (campaign_id,),
    )
    connection.execute(
        "INSERT INTO attempts (campaign_id, message_id, attempt, state, reason, ended_at)"
        " SELECT campaign_id, id, 1, state, reason, now() FROM messages WHERE campaign_id = %s AND state = 'failed'",
        (campaign_id,),
    )
    long_ago = "now() - interval '60 days'"
    as_of_yesterday(
        connection, campaign_id,
        f"status = 'finished', finished_at = {long_ago}, updated = {long_ago}, sending_start = {long_ago},"
        f" sending_stop = {long_ago} + interval '1 hour', created = {long_ago}",
    )  # fmt: skip
    finishes.record(connection, campaign_id)
    return campaign_id


def as_of_yesterday(connection, campaign_id, changes):
    """As if time had gone by: without the triggers that keep the row's own times."""
    connection.execute("ALTER TABLE campaigns DISABLE TRIGGER USER")
    connection.execute(f"UPDATE campaigns SET {changes} WHERE id = %s", (campaign_id,))  # noqa: S608
    connection.execute("ALTER TABLE campaigns ENABLE TRIGGER USER")


def figures(connection):
    rows = {
        view: connection.execute(f"SELECT * FROM reporting.{view} ORDER BY 1, 3").fetchall()  # noqa: S608
        for view in KEPT_FIGURES
    }
    for row in rows["campaign_statistics"]:
        del row["archived_at"]
    return rows


def parts_there(connection):
    rows = connection.execute("SELECT first_campaign_id AS id FROM ledger_parts WHERE dropped_at IS NULL ORDER BY 1")
    return [row["id"] for row in rows]


def tables(connection):
    return {row["relname"] for row in connection.execute("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')")}


def test_an_old_part_goes_and_its_figures_stay(connection):
    old, young = a_full_part(connection)
    before = figures(connection)
    assert [len(before[view]) > 0 for view in KEPT_FIGURES] == [True] * len(KEPT_FIGURES)

    done = retention.run(DAYS, dry_run=False)

    assert [part["first_campaign_id"] for part in done["removed"]] == [1]
    assert figures(connection) == before
    assert recount.differences(connection) == []
    assert states(connection, old[0]) == {}
    assert states(connection, young) == {"pending": 5}
    assert {row["id"] for row in connection.execute("SELECT id FROM campaigns WHERE archived_at IS NOT NULL")} == set(
        old
    )
    for table in ("batches", "leases", "throttles"):
        rows = connection.execute(f"SELECT campaign_id FROM {table}")  # noqa: S608
        assert {row["campaign_id"] for row in rows} <= {young}
    assert not {"messages_1", "attempts_1"} & tables(connection)
    assert connection.execute("SELECT count(*) AS n FROM campaign_revisions").fetchone()["n"] == 3
    assert retention.run(DAYS, dry_run=False)["removed"] == []


def test_a_dry_run_names_what_would_go_and_changes_nothing(connection):
    a_full_part(connection)
    before = kept(connection), tables(connection)
    with capture_logs() as logs:
        said = retention.run(DAYS, dry_run=True)
    assert (kept(connection), tables(connection)) == before
    [part], [stays] = said["would_go"], said["kept"]
    assert (part["first_campaign_id"], part["campaigns"], part["messages"]) == (1, ["1", "2"], 10)
    assert part["bytes"] > 0
    assert part["in_doubt"] == ["campaign 1: messages in doubt: 1", "campaign 2: messages in doubt: 1"]
    assert "new campaigns still go into it" in stays["kept_by"]
    assert [each["messages"] for each in logs if "would go" in each["event"] and "messages" in each] == [10]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("status = 'running', finished_at = NULL", "campaign 1 is running"),
        ("status = 'paused', finished_at = NULL", "campaign 1 is paused"),
        ("sending_stop = now() - interval '29 days'", "the window of campaign 1 closes at"),
        ("updated = now() - interval '29 days'", "campaign 1 was changed at"),
        ("finished_at = finished_at + interval '1 s'", "nobody wrote down how campaign 1 ended: upkeep does"),
    ],
)
def test_one_campaign_that_is_not_old_keeps_its_part_and_is_named(connection, changes, said):
    a_full_part(connection)
    as_of_yesterday(connection, 1, changes)
    done = retention.run(DAYS, dry_run=False)
    assert done["removed"] == []
    assert said in done["kept"][0]["kept_by"][0]
    assert parts_there(connection)[0] == 1


def test_a_campaign_that_still_has_something_pending_keeps_its_part(connection):
    a_full_part(connection)
    connection.execute(
        "UPDATE messages SET state = 'pending', reason = NULL WHERE campaign_id = 2 AND state = 'failed'"
    )
    [part, _] = retention.run(DAYS, dry_run=True)["kept"]
    assert part["kept_by"] == ["campaign 2: messages that are pending or sending: 1"]


def test_the_part_that_takes_new_campaigns_stays(connection):
    some_clients(connection, 5)
    an_ended_campaign(connection)
    [part] = retention.run(DAYS, dry_run=False)["kept"]
    assert part["kept_by"] == ["new campaigns still go into it"]


def test_what_keeps_a_part_by_now_keeps_it_though_it_was_to_go(connection):
    a_full_part(connection)
    part = retention.parts(connection, DAYS)[0]
    as_of_yesterday(connection, 2, "status = 'running', finished_at = NULL")
    with pytest.raises(Conflict, match="campaign 2 is running"), connection.transaction():
        retention.remove(connection, part, DAYS)
    assert parts_there(connection)[0] == 1


def test_it_gives_up_politely_while_somebody_reads_and_goes_on_later(connection, database):
    a_full_part(connection)
    before = kept(connection)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM messages")
        with pytest.raises(Busy, match="tried again later"):
            retention.run(DAYS, dry_run=False)
    assert kept(connection) == before
    assert len(retention.run(DAYS, dry_run=False)["removed"]) == 1


def test_detached_messages_stay_as_tables_of_their_own(connection):
    a_full_part(connection)
    retention.run(DAYS, dry_run=False, how="detach")
    assert connection.execute("SELECT count(*) AS n FROM messages_1").fetchone()["n"] == 10
    assert connection.execute("SELECT count(*) AS n FROM attempts_1").fetchone()["n"] == 2
    assert connection.execute("SELECT count(*) AS n FROM messages WHERE campaign_id < 3").fetchone()["n"] == 0
    assert recount.differences(connection) == []


@pytest.mark.parametrize(
    "verb",
    [
        lambda c: campaigns.pause(c, 1, actor="me"),
        lambda c: campaigns.resume(c, 1, actor="me"),
        lambda c: campaigns.cancel(c, 1, actor="me"),
        lambda c: campaigns.edit(c, 1, actor="me", sending_stop=now() + timedelta(hours=1)),
        lambda c: campaigns.delete(c, 1, actor="me"),
        lambda c: enrolment.enrol(c, 1, 1, actor="me"),
        lambda c: verdicts.resend(c, 1, ["failed"], actor="me"),
        lambda c: verdicts.settle_all(c, 1, "give_up", actor="me"),
        lambda c: test_send.plan(c, 1, [1], actor="me"),
    ],
    ids=["pause", "resume", "cancel", "edit", "delete", "enrol", "resend", "settle", "test send"],
)
def test_an_archived_campaign_refuses_every_verb(connection, verb):
    a_full_part(connection)
    retention.run(DAYS, dry_run=False)
    before = kept(connection)
    with pytest.raises(Conflict, match="campaign 1: its messages were dropped at"), connection.transaction():
        verb(connection)
    assert kept(connection) == before


def test_a_campaign_of_a_dropped_part_can_never_get_a_new_one(connection):
    a_full_part(connection)
    retention.run(DAYS, dry_run=False)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="campaign 7: its part of the ledger"):
        connection.execute("SELECT ledger_part(7)")


def test_who_comes_after_a_drop_is_enrolled_as_ever(connection):
    _, young = a_full_part(connection)
    retention.run(DAYS, dry_run=False)
    some_clients(connection, 1, code="905")
    [newcomer] = connection.execute("SELECT max(id) AS id FROM clients").fetchone().values()
    enrolment.enrol(connection, young, newcomer, actor="me")
    campaign_id = a_campaign(connection)
    with connection.transaction():
        runs.select_audience(connection, campaign_id)
    assert states(connection, campaign_id) == {"pending": 6}
    assert upkeep.close_overdue() == []
    assert recount.differences(connection) == []


def test_upkeep_makes_the_next_part_once_the_last_one_is_half_full(connection):
    assert upkeep.make_room() is None
    [end] = connection.execute("SELECT end_campaign_id FROM ledger_parts").fetchone().values()
    connection.execute("SELECT setval(pg_get_serial_sequence('campaigns', 'id'), %s)", (end // 2,))
    a_campaign(connection)
    assert upkeep.make_room() == end
    assert parts_there(connection) == [1, end]
    assert upkeep.make_room() is None


def test_the_nightly_run_removes_only_where_the_setting_is_set(connection, monkeypatch):
    a_full_part(connection)
    monkeypatch.delenv(retention.SETTING, raising=False)
    assert retention.run_by_setting() == {"removed": [], "kept": []}
    monkeypatch.setenv(retention.SETTING, "90")
    assert retention.run_by_setting()["removed"] == []
    monkeypatch.setenv(retention.SETTING, "30")
    assert len(retention.run_by_setting()["removed"]) == 1


@pytest.mark.parametrize(("value", "days"), [(None, None), ("", None), ("90", 90)])
def test_the_setting_says_how_long_messages_are_kept(value, days):
    assert retention.kept_days({} if value is None else {retention.SETTING: value}) == days


@pytest.mark.parametrize("value", ["0", "-1", "a year", "1.5", "99999999"])
def test_a_setting_that_makes_no_sense_is_refused(value):
    with pytest.raises(InvalidInput, match="wanted"):
        retention.kept_days({retention.SETTING: value})
