"""One DAG per campaign: what Airflow sees of the rows, and a campaign sent through `dag.test()`."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from datetime import timedelta

import psycopg
import pytest
from airflow.dag_processing.dagbag import DagBag
from structlog.testing import capture_logs

from local.settings import free_port
from mailing import campaigns, roster
from mailing.models import MESSAGE_STATES
from tests.builders import HOUR, a_campaign, ledger, now, some_clients, states
from tests.conftest import AIRFLOW_HOME, ROOT, point_gateway_to

CAMPAIGNS = ROOT / "dags" / "campaigns.py"


@pytest.fixture(autouse=True)
def snapshot(tmp_path, monkeypatch):
    file = tmp_path / "snapshot.json"
    monkeypatch.setenv("MAILING_SNAPSHOT_FILE", str(file))
    return file


def parse(file=CAMPAIGNS):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=DeprecationWarning, module=r"mailing|dags|unusual_prefix")
        bag = DagBag(str(file))
    assert bag.import_errors == {}
    return bag.dags


def database_away(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_MAILING_DB", json.dumps({"conn_type": "postgres", "host": "127.0.0.1", "port": free_port()})
    )


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("file", "dags"),
    [
        ("campaigns.py", 0),
        ("daily_report.py", 1),
        ("import_clients.py", 1),
        ("launch_campaign.py", 1),
        ("retention.py", 1),
        ("upkeep.py", 1),
    ],  # fmt: skip
)
def test_every_dag_file_parses_to_its_number_of_dags(file, dags):
    assert len(parse(ROOT / "dags" / file)) == dags


def test_window_relevant_rows_are_dags_and_others_are_not(connection):
    day = timedelta(days=1)
    live = a_campaign(connection)
    soon = a_campaign(connection, sending_start=now() + HOUR, sending_stop=now() + 2 * HOUR)
    a_campaign(connection, sending_start=now() + 2 * day, sending_stop=now() + 3 * day)
    a_campaign(connection, sending_start=now() - 3 * day, sending_stop=now() - 2 * day)
    assert set(parse()) == {f"campaign_{live}", f"campaign_{soon}"}


def test_a_campaigns_dag_tells_an_operator_what_it_is(connection):
    campaign_id = a_campaign(connection, name="Spring <sale>")
    dag = parse()[f"campaign_{campaign_id}"]
    assert dag.dag_display_name == f"Campaign {campaign_id}: Spring <sale>"
    assert dag.tags == {"mailing", "campaign"}
    assert "select_audience" in dag.doc_md
    assert dag.params.get_param("batch_size").schema["minimum"] == 1
    assert dag.catchup is False
    assert [task.task_id for task in dag.topological_sort()] == ["select_audience", "send_batch", "close_campaign"]


def test_of_what_waits_for_a_slot_all_else_comes_before_what_sends(connection):
    """Whatever comes after a task in its DAG: by Airflow's default `close_campaign` would be the last of all."""
    campaign_id = a_campaign(connection, audience="live")
    tasks = [*parse()[f"campaign_{campaign_id}"].tasks, *parse(ROOT / "dags" / "upkeep.py")["upkeep"].tasks]
    assert {str(task.weight_rule) for task in tasks} == {"absolute"}
    assert {task.task_id for task in tasks if task.priority_weight < 10} == {"send_batch", "follow_audience"}
    assert {task.priority_weight for task in tasks} == {1, 10}


def test_a_dag_does_not_change_with_the_text_or_the_filter(connection):
    """Each change of a DAG's structure makes a new version of it in Airflow's history."""
    from airflow.serialization.serialized_objects import DagSerialization

    campaign_id = a_campaign(connection)
    before = DagSerialization.to_dict(parse()[f"campaign_{campaign_id}"])
    connection.execute("UPDATE campaigns SET text = 'Other', filter_operator_codes = '{103}', status = 'running'")
    assert DagSerialization.to_dict(parse()[f"campaign_{campaign_id}"]) == before


def test_one_bad_row_costs_one_campaign(connection):
    good, bad = a_campaign(connection), a_campaign(connection)
    # As an older version, or a hand, might have left it: a moment that Python cannot hold.
    connection.execute("ALTER TABLE campaigns DROP CONSTRAINT campaigns_window_range_check")
    connection.execute("UPDATE campaigns SET sending_stop = '20000-01-01' WHERE id = %s", (bad,))

    with capture_logs() as lines:
        assert set(parse()) == {f"campaign_{good}"}
    [line] = [line for line in lines if line.get("campaign_id") == bad]
    assert (line["log_level"], line["event"]) == ("error", "gets no DAG, its row cannot be read")


def test_the_database_away_at_parse_keeps_the_dags(connection, monkeypatch, snapshot):
    ids = {f"campaign_{a_campaign(connection, text='secret text')}" for _ in range(3)}
    assert set(parse()) == ids
    database_away(monkeypatch)
    assert set(parse()) == ids
    assert "secret text" not in snapshot.read_text()


def test_the_database_away_without_a_snapshot_is_no_import_error(monkeypatch):
    database_away(monkeypatch)
    assert parse() == {}


def test_a_torn_snapshot_is_no_import_error(monkeypatch, snapshot):
    snapshot.write_text('[{"id": 1')
    database_away(monkeypatch)
    assert parse() == {}


def test_a_snapshot_that_cannot_be_written_is_no_import_error(connection, monkeypatch, tmp_path):
    monkeypatch.setenv("MAILING_SNAPSHOT_FILE", str(tmp_path / "no" / "such" / "folder.json"))
    campaign_id = a_campaign(connection)
    assert set(parse()) == {f"campaign_{campaign_id}"}


@pytest.mark.parametrize("audience", ["snapshot", "live"])
def test_a_task_process_builds_the_one_dag_it_needs_without_the_database(connection, monkeypatch, audience, snapshot):
    _, wanted, _ = (a_campaign(connection, audience=audience) for _ in range(3))
    whole = parse()[f"campaign_{wanted}"]
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", whole.dag_id)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "send_batch")
    database_away(monkeypatch)
    snapshot.unlink()
    dags = parse()
    assert dags.keys() == {whole.dag_id}
    for task in whole.tasks:
        there = dags[whole.dag_id].get_task(task.task_id)
        assert (type(there), there.partial_kwargs if task.is_mapped else there.campaign_id) == (
            type(task), task.partial_kwargs if task.is_mapped else wanted
        )  # fmt: skip
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "upkeep")
    assert parse() == {}


def test_a_command_that_wants_one_dag_gets_it_as_it_is(connection, monkeypatch):
    """`airflow tasks list` and others write what they parsed to Airflow's database."""
    from airflow.serialization.serialized_objects import DagSerialization

    _, wanted, _ = (a_campaign(connection, name="Sale") for _ in range(3))
    whole = parse()[f"campaign_{wanted}"]
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", whole.dag_id)
    dags = parse()
    assert dags.keys() == {whole.dag_id}
    assert DagSerialization.to_dict(dags[whole.dag_id]) == DagSerialization.to_dict(whole)


def test_parsing_reads_the_database_with_one_query(connection, database, server):
    for _ in range(5):
        a_campaign(connection)
    with psycopg.connect(server.url("postgres"), autocommit=True) as superuser:
        superuser.execute(f"ALTER DATABASE {database.rsplit('/', 1)[1]} SET log_statement = 'all'")
    log = server.data / "server.log"
    before = log.stat().st_size

    assert len(list(roster.read())) == 5

    said = log.read_bytes()[before:].decode()
    assert said.count("FROM campaigns") == 1
    assert "FROM messages" not in said


@pytest.fixture
def campaign(connection, gateway, airflow_db):
    """A live campaign to 1,200 clients of operator 103 with the tag art, among others."""
    some_clients(connection, 1_200, code="103", tags=("art",))
    some_clients(connection, 50, code="104", tags=("art",))
    return a_campaign(connection, filter_tags=["art"], filter_operator_codes=["103"])


def run(campaign_id, **conf):
    dag = parse()[f"campaign_{campaign_id}"]
    return dag.test(run_conf=conf or None)


def test_a_campaign_is_sent_by_its_own_dag_and_again_sends_nothing_twice(connection, gateway, campaign):
    first = run(campaign, batch_size=500)

    assert first.state == "success"
    assert states(connection, campaign) == {"sent": 1_200}
    assert gateway.counts() == {row["id"]: 1 for row in ledger(connection, campaign)}
    assert len([ti for ti in first.get_task_instances() if ti.task_id == "send_batch"]) == 3
    assert sorted(ti.rendered_map_index for ti in first.get_task_instances() if ti.task_id == "send_batch") == [
        "messages 1,001–1,200", "messages 1–500", "messages 501–1,000"
    ]  # fmt: skip
    report = connection.execute("SELECT * FROM reporting.campaign_statistics").fetchone()
    assert (report["status"], report["audience"], report["sent"]) == ("finished", 1_200, 1_200)

    again = run(campaign)

    assert again.state == "success"
    assert set(gateway.counts().values()) == {1}
    assert states(connection, campaign) == {"sent": 1_200}


def test_a_run_by_hand_sends_to_those_who_match_by_now_and_have_no_message_yet(connection, gateway, campaign):
    run(campaign)
    some_clients(connection, 7, code="103", tags=("art",))
    run(campaign)
    assert states(connection, campaign) == {"sent": 1_207}
    assert set(gateway.counts().values()) == {1}


def test_a_campaign_whose_window_is_over_sends_nothing(connection, gateway, campaign):
    connection.execute(
        "UPDATE campaigns SET sending_start = now() - interval '2 hours', sending_stop = now() - interval '1 hour'"
    )
    finished = run(campaign)
    assert finished.state == "success"
    assert gateway.stats()["received"] == 0
    assert states(connection, campaign) == {"expired": 1_200}


def test_a_dag_run_leaves_only_batch_numbers_in_xcom(connection, gateway, campaign):
    finished = run(campaign, batch_size=500)
    pushed = {
        (ti.task_id, ti.map_index): ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index)
        for ti in finished.get_task_instances()
    }
    assert {task: value for task, value in pushed.items() if value is not None} == {("select_audience", -1): [1, 2, 3]}


def ends_of(finished):
    """The states of each task, of the mapped ones together."""
    ends = {}
    for ti in finished.get_task_instances():
        ends.setdefault(ti.task_id, set()).add(str(ti.state))
    return ends


def test_who_sends_the_last_message_closes_the_campaign(connection, gateway, campaign):
    finished = run(campaign, batch_size=500)
    assert finished.state == "success"
    assert ends_of(finished) == {
        "select_audience": {"success"}, "send_batch": {"success"}, "close_campaign": {"skipped"}
    }  # fmt: skip
    [end] = connection.execute("SELECT figures FROM finishes").fetchall()
    assert (end["figures"]["sent"], end["figures"]["status"]) == (1_200, "finished")


def test_the_last_task_closes_a_campaign_whose_senders_could_not(connection, gateway, campaign):
    connection.execute("CREATE SEQUENCE tries")  # no rollback takes its numbers back
    connection.execute(
        "CREATE FUNCTION refuse_once() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF nextval('tries') = 1 THEN RAISE 'not now'; END IF; RETURN new; END$$"
    )
    connection.execute(
        "CREATE TRIGGER refuse_once BEFORE UPDATE ON campaigns"
        " FOR EACH ROW WHEN (new.status = 'finished') EXECUTE FUNCTION refuse_once()"
    )
    finished = run(campaign)
    assert finished.state == "success"
    assert ends_of(finished) == dict.fromkeys(("select_audience", "send_batch", "close_campaign"), {"success"})
    assert states(connection, campaign) == {"sent": 1_200}
    assert campaigns.get(connection, campaign).status == "finished"


def test_logs_never_show_a_phone_a_text_or_a_token(connection, gateway, campaign, capfd, monkeypatch):
    token = gateway.token()
    point_gateway_to(monkeypatch, gateway.url, token)
    gateway.set(shares={"400": 0.2, "not_json": 0.2, "drop_after_read": 0.2})
    connection.execute("UPDATE campaigns SET text = 'A most secret text'")
    run(campaign)
    shown = "".join(capfd.readouterr()) + "".join(file.read_text() for file in (AIRFLOW_HOME / "logs").rglob("*.log"))
    assert f"campaign_id={campaign}" in shown or f'"campaign_id":{campaign}' in shown.replace(" ", "")
    for secret in ("7103000", "A most secret text", token):
        assert secret not in shown


def test_upkeep_closes_a_campaign_whose_window_passed_without_a_run(connection, gateway, airflow_db):
    connection.execute("UPDATE gateways SET token_warning_s = 60")
    some_clients(connection, 3)
    campaign_id = a_campaign(connection, sending_start=now() - 2 * HOUR, sending_stop=now() - HOUR)
    assert parse(ROOT / "dags" / "upkeep.py")["upkeep"].test().state == "success"
    report = connection.execute("SELECT * FROM reporting.campaign_statistics").fetchone()
    assert (report["campaign_id"], report["status"], report["expired"]) == (campaign_id, "finished", 3)
    assert sum(report[state] for state in MESSAGE_STATES) == report["audience"] == 3


def test_no_plugin_file_is_imported_twice():
    """Without .airflowignore Airflow runs every file of the package under its bare name, besides as mailing.*."""
    code = (
        "import sys; from airflow.plugins_manager import get_timetables_plugins; get_timetables_plugins();"
        "print(sorted({'campaigns', 'models', 'sender', 'db'} & set(sys.modules)), 'mailing.timetable' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.splitlines()[-1] == "[] True"
