"""The DAG `import_clients`: its form in Airflow, and its runs."""

import copy
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import ParamValidationError

from tests.builders import audited

FILE = Path(__file__).parents[2] / "dags" / "import_clients.py"
GOOD = {"rows": 2, "clients": 1, "repeated_phone": 0, "normalised": 1, "rejected": {"tags": 1}}


@pytest.fixture(scope="module")
def dag():
    bag = DagBag(FILE)
    assert bag.import_errors == {}
    assert list(bag.dags) == ["import_clients"]
    return bag.dags["import_clients"]


@pytest.fixture
def run(dag, database, airflow_db):
    """A function: params → the task instance of a whole run, and what it returned."""

    def run(**params):
        [instance] = dag.test(run_conf=params).get_task_instances()
        return instance, instance.xcom_pull(task_ids="import_file")

    return run


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("phone_number,tags,timezone\n8 900 123-45-67,art,\n79001234568,a b,\n")
    return path


def test_it_runs_on_demand_only_and_documents_itself(dag):
    assert dag.schedule is None
    assert "phone_number,tags,timezone" in dag.doc_md
    assert dag.tags == {"mailing", "clients"}
    assert [asset.uri for asset in dag.get_task("import_file").outlets] == ["mailing://clients/"]  # Airflow's slash


@pytest.mark.parametrize(
    "params", [{}, {"path": ""}, {"path": None}, {"path": 7}, {"path": "list.csv", "reject_file": 7}]
)
def test_a_run_must_name_a_path_and_may_name_a_reject_file(dag, params):
    given = copy.deepcopy(dag.params)

    def validate():
        given.update(params)
        given.validate()

    with pytest.raises(ParamValidationError):
        validate()


def test_a_run_imports_the_file_and_a_second_one_changes_nothing(run, source, connection):
    first, counts = run(path=str(source))
    assert first.state == "success"
    assert counts == GOOD | {"inserted": 1, "updated": 0, "unchanged": 0}

    second, counts = run(path=str(source))
    assert second.state == "success"
    assert counts == GOOD | {"inserted": 0, "updated": 0, "unchanged": 1}

    assert connection.execute("SELECT phone_number FROM clients").fetchall() == [{"phone_number": "79001234567"}]
    assert [(actor, action) for actor, action, *_ in audited(connection)] == [("dag_test", "import_clients")] * 2
    assert (source.parent / "list.rejects.csv").exists()


def test_a_run_puts_the_reject_file_where_it_was_told(run, source):
    run(path=str(source), reject_file=str(source.parent / "elsewhere.csv"))

    assert sorted(path.name for path in source.parent.iterdir()) == ["elsewhere.csv", "list.csv"]


def test_a_wrong_file_fails_the_run_at_the_first_try_and_says_why(run, source, connection, capfd):
    source.write_text("name,colour\n")

    instance, counts = run(path=str(source))

    assert (instance.state, instance.try_number, counts) == ("failed", 1, None)
    output = "".join(capfd.readouterr())
    assert "list.csv: line 1 is 'name,colour' (digits hidden); wanted the header phone_number,tags,timezone" in output
    assert connection.execute("SELECT count(*) FROM clients").fetchone() == {"count": 0}
