"""Triggers from and to other pipelines: the operator and its DAG, the sensor, the asset events."""

from __future__ import annotations

import copy
import json
import os
from datetime import timedelta

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError
from airflow.utils.session import create_session
from sqlalchemy import select

from mailing import campaigns, launches, runs, triggers, upkeep
from mailing.announce import CAMPAIGNS, asset
from mailing.pipelines import CampaignSensor, LaunchCampaignOperator
from tests.builders import HOUR, a_campaign, an_open_campaign, ledger, now, some_clients, states
from tests.conftest import ROOT
from tests.dags.test_campaigns import parse
from tests.waiting import in_a_thread, wait_until

pytestmark = pytest.mark.usefixtures("gateway", "airflow_db")

GOOD = {"text": "Hello", "filter_operator_codes": ["103"], "duration": "PT1H"}


@pytest.fixture(autouse=True)
def an_airflow_that_has_just_started(tmp_path, monkeypatch):
    monkeypatch.setenv("MAILING_SNAPSHOT_FILE", str(tmp_path / "snapshot.json"))
    monkeypatch.setattr(triggers, "_SIGNALS", triggers._Signals())


def run(dag, **conf):
    """The one task instance of a run, and what it returned."""
    [task] = dag.test(run_conf=conf or None).get_task_instances()
    return task, task.xcom_pull(task_ids=task.task_id)


def a_dag(make, **values):
    """A DAG of one task, as Airflow knows it once its file was parsed."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import sync_bag_to_db

    with DAG("sales", schedule=None) as dag:
        make(task_id="task", **values)
    bag = DagBag(os.devnull)
    bag.bag_dag(dag)
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(bag, "dags-folder", None)
    return dag


def count(connection):
    return connection.execute("SELECT count(*) AS n FROM campaigns").fetchone()["n"]


def events(of):
    """The extra of each event of an asset, by time."""
    from airflow.models.asset import AssetEvent, AssetModel

    with create_session() as session:
        wanted = select(AssetEvent.extra).join(AssetModel, AssetEvent.asset_id == AssetModel.id)
        return list(session.scalars(wanted.where(AssetModel.name == of.name).order_by(AssetEvent.id)))


def forget_events():
    """Every test begins with campaign 1, and Airflow's database is that of all tests."""
    from airflow.models.asset import AssetEvent

    with create_session() as session:
        for event in session.scalars(select(AssetEvent)):
            session.delete(event)


def run_campaign(campaign_id):
    return parse()[f"campaign_{campaign_id}"].test()


# The operator


def test_the_operator_launches_once_per_key_and_says_which_campaign(connection):
    dag = a_dag(LaunchCampaignOperator, key="sale-{{ dag.dag_id }}", name="{{ dag.dag_id }}", **GOOD)
    task, first = run(dag)
    assert task.state == "success"
    assert first == {"campaign_id": 1, "dag_id": "campaign_1", "is_new": True}
    assert task.xcom_pull(task_ids="task", key="campaign_id") == 1
    assert campaigns.get(connection, 1).name == "sales"
    assert run(dag)[1] == first | {"is_new": False}
    assert launches.of_key(connection, "sale-sales") == 1
    assert count(connection) == 1


def test_without_a_key_each_run_launches_its_own(connection):
    dag = a_dag(LaunchCampaignOperator, **GOOD)
    assert run(dag)[1]["campaign_id"] != run(dag)[1]["campaign_id"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"filter_tags": ["no-such-tag"]}, "filter_tags"),
        ({"gateway": "no-such"}, "gateway"),
        ({"sending_start": "2020-01-01T00:00:00Z"}, "duration"),
        ({"min_sent_share": 90}, "min_sent_share"),
        ({"key": "taken"}, "another duration, filter_operator_codes"),
    ],
)
def test_what_is_wrong_fails_at_once_and_creates_nothing(connection, wrong, said, capfd):
    with connection.transaction():
        launches.launch(connection, "taken", launches.Request.of({"text": "Hello", "duration": "PT2H"}), actor="a")
    task, _ = run(a_dag(LaunchCampaignOperator, **(GOOD | wrong)))
    assert (task.state, task.try_number) == ("failed", 1)
    assert said in capfd.readouterr().out
    assert count(connection) == 1


def test_it_waits_for_the_end_and_returns_its_figures(connection):
    some_clients(connection, 20)
    run(a_dag(LaunchCampaignOperator, key="k", **GOOD))
    run_campaign(1)
    task, figures = run(a_dag(LaunchCampaignOperator, key="k", wait=True, min_sent_share=1.0, **GOOD))
    assert task.state == "success"
    assert (figures["campaign_id"], figures["dag_id"], figures["status"]) == (1, "campaign_1", "finished")
    assert (figures["audience"], figures["sent"], figures["finish"]) == (20, 20, 1)


def cancel_once_a_task_waits(connection, campaign_id):
    """Dag.test runs the trigger in this process."""
    wait_until(lambda: triggers._SIGNALS._signals)
    campaigns.cancel(connection, campaign_id, actor="anna")
    with connection.transaction():
        runs.close(connection, campaign_id)


def test_it_is_deferred_until_the_end_and_fails_where_too_few_were_sent_to(connection, capfd):
    dag = a_dag(LaunchCampaignOperator, key="k", wait=True, min_sent_share=0.5, **GOOD)
    with in_a_thread(lambda: cancel_once_a_task_waits(connection, 1)):
        task, _ = run(dag)
    assert (task.state, task.try_number) == ("failed", 1)
    assert "campaign 1 (cancelled): sent to 0 of 0 clients; wanted a share of at least 0.5" in capfd.readouterr().out


# The sensor


def test_the_sensor_waits_by_key(connection):
    some_clients(connection, 5)
    run(a_dag(LaunchCampaignOperator, key="k", **GOOD))
    run_campaign(1)
    task, figures = run(a_dag(CampaignSensor, min_sent_share=1, key="{{ 'k' }}"))
    assert task.state == "success"
    assert figures["sent"] == 5


def test_the_sensor_is_deferred_until_the_end(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    dag = a_dag(CampaignSensor, campaign_id=f"{{{{ {campaign_id} }}}}")
    with in_a_thread(lambda: cancel_once_a_task_waits(connection, campaign_id)):
        task, figures = run(dag)
    assert task.state == "success"
    assert (figures["status"], figures["cancelled"]) == ("cancelled", 1)


def test_the_sensor_learns_that_plain_sql_cancelled_the_campaign(connection):
    campaign_id, _ = an_open_campaign(connection, clients=1)

    def cancel():
        wait_until(lambda: triggers._SIGNALS._signals)
        connection.execute("UPDATE campaigns SET status = 'cancelled'")
        upkeep.close_overdue()

    with in_a_thread(cancel):
        task, figures = run(a_dag(CampaignSensor, campaign_id=campaign_id))
    assert task.state == "success"
    assert (figures["status"], figures["cancelled"]) == ("cancelled", 1)


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ({"campaign_id": 7}, "campaign 7: there is no such campaign"),
        ({"campaign_id": "x"}, "campaign_id: wanted a number, got 'x'"),
        ({}, "campaign_id, key: wanted one of the two"),
    ],
)
@pytest.mark.usefixtures("database")
def test_a_sensor_of_no_campaign_fails_at_once(which, said, capfd):
    task, _ = run(a_dag(CampaignSensor, **which))
    assert (task.state, task.try_number) == ("failed", 1)
    assert said in capfd.readouterr().out


def test_a_sensor_waits_for_a_key_that_is_launched_later(connection):
    some_clients(connection, 1)

    def launch():
        wait_until(is_deferred)
        with connection.transaction():
            launches.launch(connection, "later", launches.Request.of(GOOD), actor="test")
        campaigns.cancel(connection, 1, actor="test")
        upkeep.close_overdue()

    with in_a_thread(launch):
        task, figures = run(a_dag(CampaignSensor, key="later", poke_interval=0.1))
    assert task.state == "success"
    assert (figures["campaign_id"], figures["status"]) == (1, "cancelled")


def is_deferred():
    """Whether the task has looked, and waits now."""
    from airflow.models.taskinstance import TaskInstance

    with create_session() as session:
        wanted = select(TaskInstance.state).where(TaskInstance.dag_id == "sales")
        return "deferred" in session.scalars(wanted).all()


# The DAG launch_campaign


@pytest.fixture
def launch_dag(database):
    return parse(ROOT / "dags" / "launch_campaign.py")["launch_campaign"]


def test_the_launch_dag_creates_the_campaign_once_per_key(connection, launch_dag):
    conf = GOOD | {"key": "k", "text": "As is: {{ ds }}", "messages_per_second": 5, "local_from": "10:00"}
    conf |= {"local_to": "20:00", "audience": "live", "name": "Sale"}
    _, first = run(launch_dag, **conf)
    assert first == {"campaign_id": 1, "dag_id": "campaign_1", "is_new": True}
    assert run(launch_dag, **conf)[1] == first | {"is_new": False}
    row = campaigns.get(connection, 1)
    assert (row.text, row.audience, row.name, row.messages_per_second) == ("As is: {{ ds }}", "live", "Sale", 5)


def test_the_launch_dag_has_a_param_for_all_that_can_be_asked(launch_dag):
    assert set(launch_dag.params) == {*launches.Request.model_fields, "key", "wait", "min_sent_share"}
    for param in launch_dag.params.values():
        assert param.deserialize(param.serialize(), 1)
    for name in launch_dag.params:
        schema = launch_dag.params.get_param(name)
        assert schema.description
        assert schema.schema["title"]


@pytest.mark.parametrize("misspelt", [{"filter_tag": ["art"]}, {"filter_tag": None}, {"Key": "k"}, {"minimum": 1}])
def test_a_param_that_there_is_not_fails_the_launch_at_once_and_sends_to_nobody(
    connection, launch_dag, misspelt, capfd
):
    task, _ = run(launch_dag, text="Hi", duration="PT1H", **misspelt)
    assert (task.state, task.try_number) == ("failed", 1)
    [name] = misspelt
    assert f"launch: {name}: Extra inputs are not permitted" in capfd.readouterr().out
    assert count(connection) == 0


def test_what_airflow_writes_into_the_conf_of_a_run_is_no_wrong_param(connection, launch_dag):
    conf = GOOD | {"openlineage": {"parentRunId": "1"}, "airflow/task_span_detail_level": 2}
    assert run(launch_dag, **conf)[0].state == "success"
    assert count(connection) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": None}, {"text": ""}, {"text": "x" * 256}, {"filter_tags": "art"}, {"filter_operator_codes": ["1"]},
        {"sending_start": "tomorrow"}, {"duration": "2 hours"}, {"audience": "all"}, {"on_doubt": "?"},
        {"local_from": "25:00"}, {"messages_per_second": 0}, {"messages_per_second": "5"}, {"key": ""},
        {"wait": "yes"}, {"min_sent_share": 2}, {"gateway": ""},
    ],
)  # fmt: skip
def test_params_outside_the_schema_are_refused_before_there_is_a_run(launch_dag, wrong):
    params = copy.deepcopy(launch_dag.params)

    def validate():
        params.update(GOOD | wrong)
        params.validate()

    with pytest.raises(ParamValidationError):
        validate()


# Asset events


def test_each_end_is_an_event_of_the_campaign_and_of_all_campaigns_once(connection):
    forget_events()
    some_clients(connection, 5)
    campaign_id = a_campaign(connection, name="Sale")
    run_campaign(campaign_id)
    assert run_campaign(campaign_id).state == "success", "as if it were cleared"

    [extra] = events(CAMPAIGNS)
    assert events(asset(campaign_id)) == [extra]
    assert (extra["campaign_id"], extra["name"], extra["status"], extra["finish"]) == (
        campaign_id,
        "Sale",
        "finished",
        1,
    )
    assert (extra["audience"], extra["sent"], extra["pending"]) == (5, 5, 0)
    json.dumps(extra)

    some_clients(connection, 2)  # who come to match, and a run by hand that sends to them
    run_campaign(campaign_id)
    assert [(each["finish"], each["sent"]) for each in events(CAMPAIGNS)] == [(1, 5), (2, 7)]


def test_upkeep_announces_what_it_closes_and_what_a_dead_task_left(connection):
    forget_events()
    connection.execute("UPDATE gateways SET token_warning_s = 60")
    some_clients(connection, 3)
    upkeep = parse(ROOT / "dags" / "upkeep.py")["upkeep"]
    campaign_id = a_campaign(connection, sending_start=now() - 2 * HOUR, sending_stop=now() - HOUR)
    assert upkeep.test().state == "success"
    assert [(each["campaign_id"], each["expired"]) for each in events(CAMPAIGNS)] == [(campaign_id, 3)]

    long_ago = "UPDATE finishes SET announced_at = now() - interval '3 minutes'"
    connection.execute(long_ago)
    assert upkeep.test().state == "success"
    assert len(events(CAMPAIGNS)) == 1
    assert connection.execute("SELECT is_confirmed FROM finishes").fetchone()["is_confirmed"]

    forget_events()  # as if the task had died before Airflow heard of it
    connection.execute(long_ago + ", is_confirmed = false")
    assert upkeep.test().state == "success"
    assert len(events(CAMPAIGNS)) == 1


def test_a_campaigns_dag_does_not_change_when_it_ends(connection):
    from airflow.serialization.serialized_objects import DagSerialization

    campaign_id = a_campaign(connection)
    before = DagSerialization.to_dict(parse()[f"campaign_{campaign_id}"])
    run_campaign(campaign_id)
    assert DagSerialization.to_dict(parse()[f"campaign_{campaign_id}"]) == before


def test_the_webhook_is_told_when_the_campaign_closes(connection, receiver):
    some_clients(connection, 2)
    campaign_id = a_campaign(connection)
    run_campaign(campaign_id)
    run_campaign(campaign_id)
    [(_, headers, body)] = receiver.received
    assert headers["Mailing-Event-Id"] == f"campaign-{campaign_id}-finish-1"
    assert json.loads(body)["sent"] == 2


def test_a_webhook_that_nobody_takes_keeps_no_campaign_from_its_end(connection, receiver):
    receiver.answers = [500]
    some_clients(connection, 2)
    assert run_campaign(a_campaign(connection)).state == "success"
    row = connection.execute("SELECT status, webhook_state FROM reporting.campaign_finishes").fetchone()
    assert (row["status"], row["webhook_state"]) == ("finished", "pending")


# The example, and a campaign's own DAG


def test_the_example_is_two_dags(database):
    dags = parse(ROOT / "docs" / "examples" / "pipelines.py")
    assert set(dags) == {"daily_offer", "after_each_campaign"}


def test_a_run_that_another_pipeline_triggered_sends_to_those_who_have_no_message_yet(connection):
    """TriggerDagRunOperator's runs are of a type of their own."""
    from airflow.utils.types import DagRunType

    from mailing.operators import BY_HAND

    assert {DagRunType.MANUAL.value, DagRunType.OPERATOR_TRIGGERED.value} == set(BY_HAND)
    some_clients(connection, 2)
    campaign_id = a_campaign(connection, sending_stop=now() + timedelta(minutes=30))
    run_campaign(campaign_id)
    some_clients(connection, 3)
    run_campaign(campaign_id)
    assert states(connection, campaign_id) == {"sent": 5}
    assert len(ledger(connection, campaign_id)) == 5
