"""What must happen though nobody asks."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from airflow.sdk.exceptions import AirflowException
from structlog.testing import capture_logs

from local.simulator import make_token
from mailing import campaigns, messages, runs, upkeep
from tests.builders import an_open_campaign, claim, kept, ledger, let_leases_run_out, now, states

SECRET = "the simulator's secret, long enough for HS256"


def a_campaign_of_a_dead_task(connection, claimed, **changes):
    """An open campaign whose task took so many messages and died."""
    campaign_id, _ = an_open_campaign(connection, clients=0, **changes)
    claim(connection, campaign_id, messages.take_lease(connection, campaign_id, 1, "test"), limit=claimed)
    return campaign_id


def make_trouble(connection, table, column, value):
    """Whoever writes to these rows gets an error."""
    connection.execute(
        "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trouble'; END $$"
    )
    connection.execute(
        f"CREATE TRIGGER trouble BEFORE UPDATE ON {table} FOR EACH ROW"
        f" WHEN (OLD.{column} = {value}) EXECUTE FUNCTION trouble()"
    )


@pytest.fixture
def clients(connection):
    """Five clients, so that every campaign has five messages."""
    an_open_campaign(connection, clients=5)
    connection.execute("DELETE FROM messages")
    connection.execute("DELETE FROM campaigns")


# Claims of dead tasks


@pytest.mark.usefixtures("clients")
def test_what_dead_tasks_had_claimed_is_settled_everywhere_and_counted(connection):
    held = a_campaign_of_a_dead_task(connection, 3)
    resent = a_campaign_of_a_dead_task(connection, 2, on_doubt="resend")
    idle = a_campaign_of_a_dead_task(connection, 0)
    let_leases_run_out(connection)
    alive = a_campaign_of_a_dead_task(connection, 4)

    with capture_logs() as logs:
        assert upkeep.recover_claims() == 5

    assert states(connection, held) == {"unknown": 3, "pending": 2}
    assert states(connection, resent) == {"pending": 5}
    assert states(connection, alive) == {"sending": 4, "pending": 1}
    assert [row["campaign_id"] for row in connection.execute("SELECT campaign_id FROM leases")] == [alive]
    tasks = [each for each in logs if "batch" in each]
    assert [(each["campaign_id"], each["batch"], each["recovered"]) for each in tasks] == [
        (held, 1, 3), (resent, 1, 2), (idle, 1, 0)
    ]  # fmt: skip
    clients = {row["id"]: row["client_id"] for each in (held, resent) for row in ledger(connection, each)}
    told = {each["message_id"]: each for each in logs if "message_id" in each}
    assert len(told) == 5
    assert all(each["client_id"] == clients[id_] and each["reason"] == "task_died" for id_, each in told.items())
    before = kept(connection)
    assert upkeep.recover_claims() == 0
    assert kept(connection) == before


@pytest.mark.usefixtures("clients")
def test_a_campaign_whose_claims_cannot_be_recovered_keeps_none_of_the_others_from_it(connection):
    bad, good = a_campaign_of_a_dead_task(connection, 3), a_campaign_of_a_dead_task(connection, 2)
    let_leases_run_out(connection)
    make_trouble(connection, "messages", "campaign_id", bad)

    with pytest.raises(AirflowException, match=rf"\({bad}, 1\).* could not be looked after"):
        upkeep.recover_claims()

    assert states(connection, good) == {"unknown": 2, "pending": 3}
    assert states(connection, bad) == {"sending": 3, "pending": 2}
    assert runs.dead_leases(connection) == [(bad, 1)]  # for the next time


# Campaigns that are over


@pytest.mark.usefixtures("clients")
def test_campaigns_that_are_over_are_closed_and_named(connection):
    passed, paused, live_claims, cancelled, running = (an_open_campaign(connection, clients=0)[0] for _ in range(5))
    campaigns.pause(connection, paused, actor="anna")
    campaigns.cancel(connection, cancelled, actor="anna")
    claim(connection, live_claims, messages.take_lease(connection, live_claims, 1, "test"), limit=1)
    connection.execute(
        "UPDATE campaigns SET sending_stop = now() WHERE id = ANY (%s)", ([passed, paused, live_claims],)
    )

    with capture_logs() as logs:
        assert upkeep.close_overdue() == [passed, paused, cancelled]

    assert states(connection, passed) == states(connection, paused) == {"expired": 5}
    assert states(connection, cancelled) == {"cancelled": 5}
    assert states(connection, live_claims) == {"sending": 1, "pending": 4}
    assert states(connection, running) == {"pending": 5}
    assert {(each["campaign_id"], each["log_level"]) for each in logs} == {
        (passed, "warning"), (paused, "warning"), (cancelled, "warning"), (live_claims, "info")
    }  # fmt: skip
    let_leases_run_out(connection)
    assert upkeep.close_overdue() == [live_claims]
    assert states(connection, live_claims) == {"unknown": 1, "expired": 4}
    assert upkeep.close_overdue() == []


@pytest.mark.usefixtures("clients")
def test_a_campaign_that_cannot_be_closed_keeps_none_of_the_others_from_it(connection):
    bad, good = (an_open_campaign(connection, clients=0)[0] for _ in range(2))
    connection.execute("UPDATE campaigns SET sending_stop = now()")
    make_trouble(connection, "campaigns", "id", bad)
    with pytest.raises(AirflowException, match=rf"\[{bad}\] could not be looked after"):
        upkeep.close_overdue()
    assert campaigns.progress(connection, good).status == "finished"
    assert states(connection, bad) == {"pending": 5}


# Campaigns without a run


@pytest.fixture
def quiet_campaigns(connection, clients):
    """Three campaigns that have been running for two minutes without a task."""
    ids = [an_open_campaign(connection, clients=0)[0] for _ in range(3)]
    connection.execute("ALTER TABLE campaigns DISABLE TRIGGER USER")  # which keeps `updated`
    connection.execute(
        "UPDATE campaigns SET updated = now() - interval '2 minutes', sending_start = now() - interval '1 day'"
    )
    connection.execute("ALTER TABLE campaigns ENABLE TRIGGER USER")
    return ids


def wake_at(connection, campaign_id):
    return connection.execute("SELECT wake_at FROM campaigns WHERE id = %s", (campaign_id,)).fetchone()["wake_at"]


def test_a_campaign_that_should_be_sending_and_has_no_run_gets_one(connection, quiet_campaigns):
    without, with_run, attended = quiet_campaigns
    messages.take_lease(connection, attended, 1, "test")
    asked, before = [], now()

    def has_run(dag_id):
        asked.append(dag_id)
        return dag_id == f"campaign_{with_run}"

    assert upkeep.wake_unattended(has_run) == [without]

    assert asked == [f"campaign_{without}", f"campaign_{with_run}"]
    assert before <= wake_at(connection, without) <= now()
    assert wake_at(connection, with_run) is wake_at(connection, attended) is None
    assert upkeep.wake_unattended(has_run) == []  # Airflow has a minute to make the run


def test_a_campaign_whose_runs_cannot_be_counted_keeps_none_of_the_others_from_theirs(connection, quiet_campaigns):
    bad, *good = quiet_campaigns

    def has_run(dag_id):
        if dag_id == f"campaign_{bad}":
            raise RuntimeError("the API server does not answer")
        return False

    with pytest.raises(AirflowException, match=rf"\[{bad}\] could not be looked after"):
        upkeep.wake_unattended(has_run)

    assert all(wake_at(connection, campaign_id) for campaign_id in good)


# Tokens


def a_gateway(connection, monkeypatch, name, password, **changes):
    """A gateway with a connection of its own, which has this password (None: there is no such connection)."""
    values = {"name": name, "connection_id": f"{name}_connection", "token_warning_s": 3600} | changes
    connection.execute(
        "INSERT INTO gateways (name, connection_id, token_warning_s)"
        " VALUES (%(name)s, %(connection_id)s, %(token_warning_s)s)", values
    )  # fmt: skip
    if password is not None:
        settings = {"conn_type": "http", "host": "127.0.0.1", "password": password}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}_CONNECTION", json.dumps(settings))


def expiries(connection):
    rows = connection.execute("SELECT name, token_expires_at FROM gateways ORDER BY name")
    return {row["name"]: row["token_expires_at"] for row in rows}


@pytest.fixture
def no_gateways(connection):
    connection.execute("DELETE FROM gateways")


@pytest.mark.usefixtures("no_gateways")
def test_gateways_that_need_a_new_token_are_named_and_all_expiries_are_kept(connection, monkeypatch):
    tokens = {
        "expired": make_token(SECRET, timedelta(minutes=-5)),
        "fine": make_token(SECRET, timedelta(hours=2)),
        "soon": make_token(SECRET, timedelta(minutes=30)),
        "no_jwt": "an opaque token",
        "no_exp": jwt.encode({"name": "x"}, SECRET, algorithm="HS256"),
        "no_password": "",
    }
    for name, token in tokens.items():
        a_gateway(connection, monkeypatch, name, token)
    a_gateway(connection, monkeypatch, "late_warning", tokens["soon"], token_warning_s=60)
    a_gateway(connection, monkeypatch, "undefined", None)

    with capture_logs() as logs:
        assert upkeep.check_tokens() == ["expired", "soon", "undefined"]

    kept_expiries = expiries(connection)
    assert {name for name, at in kept_expiries.items() if at} == {"expired", "fine", "late_warning", "soon"}
    assert abs(kept_expiries["fine"] - (now() + timedelta(hours=2))) < timedelta(minutes=1)
    errors = {each["gateway"]: each for each in logs if each["log_level"] == "error"}
    assert {name: each["event"] for name, each in errors.items()} == {
        "expired": "its token has expired", "soon": "its token expires soon",
        "undefined": "its connection is not defined",
    }  # fmt: skip
    assert all(each["connection"] == f"{name}_connection" for name, each in errors.items())
    said = str(logs)
    assert not any(token in said for token in tokens.values() if token)


@pytest.mark.usefixtures("no_gateways")
def test_a_new_token_is_noticed_and_one_that_says_nothing_forgets_the_old_expiry(connection, monkeypatch):
    a_gateway(connection, monkeypatch, "one", make_token(SECRET, timedelta(minutes=1)))
    assert upkeep.check_tokens() == ["one"]
    for password, is_known in ((make_token(SECRET, timedelta(days=9)), True), ("an opaque token", False)):
        connection.execute("DELETE FROM gateways")
        a_gateway(connection, monkeypatch, "one", password)
        assert upkeep.check_tokens() == []
        assert (expiries(connection)["one"] is not None) is is_known


MILLISECONDS = 1_900_000_000_000  # instead of seconds: the year 62178


@pytest.mark.usefixtures("no_gateways")
@pytest.mark.parametrize(
    "expires", [MILLISECONDS, 10**18, 10**400, float("nan"), float("inf")], ids=["ms", "1e18", "1e400", "nan", "inf"]
)
def test_a_gateway_whose_token_makes_no_sense_keeps_none_of_the_others_from_a_warning(connection, monkeypatch, expires):
    a_gateway(connection, monkeypatch, "absurd", jwt.encode({"exp": expires}, SECRET, algorithm="HS256"))
    a_gateway(connection, monkeypatch, "soon", make_token(SECRET, timedelta(minutes=30)))
    for _ in range(2):  # what the first wrote, the second reads
        assert "soon" in upkeep.check_tokens()
    assert expiries(connection)["soon"] is not None


def test_the_expiry_is_what_the_token_says_to_the_second():
    from mailing.gateway import token_expiry

    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert token_expiry(jwt.encode({"exp": at}, SECRET, algorithm="HS256")) == at
    assert token_expiry(jwt.encode({"exp": int(time.time())}, SECRET, algorithm="HS256")) == int(time.time())
    for token in ("", None, "x", "a.b.c", jwt.encode({"exp": "tomorrow"}, SECRET, algorithm="HS256")):
        assert token_expiry(token) is None
