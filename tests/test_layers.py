"""Imports go down a floor, never up or sideways (plugins/mailing/__init__.py lists the floors)."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions

import pytest

import mailing
from tests.conftest import ROOT

PACKAGE = ROOT / "plugins" / "mailing"
FLOORS = [
    {"errors"},
    {
        "window",
        "local_hours",
        "throttle",
        "breaker",
        "replies",
        "phone",
        "segments",
        "metric_list",
        "csv_rows",
        "background_log",
        "environment",
    },
    {"db", "models", "client_file"},
    {"migrate", "audit", "pool", "listing", "idempotency", "problems"},
    {"tags", "gate", "headers", "poke", "campaign_rows"},
    {"clients", "campaigns", "messages", "gateways", "client_import", "ledger", "finishes", "verdicts"},
    {
        "runs",
        "gateway",
        "roster",
        "preview",
        "statistics",
        "spans",
        "recount",
        "metrics",
        "retention",
        "exports",
        "launches",
        "announce",
        "webhook",
    },
    {"outcomes", "exchange", "enrolment", "watch", "scrape", "push", "daily_report", "history", "dag_watch"},
    {"posting", "upkeep"},
    {"sender", "triggers", "test_send"},
    {"operators", "pipelines", "timetable", "cli", "api", "admin"},
    {"web", "needed"},
    {"preload"},
]
FLOOR_OF = {module: number for number, floor in enumerate(FLOORS) for module in floor}


def files_of(module):
    """A module's file, or a package's."""
    file = PACKAGE / f"{module}.py"
    return [file] if file.exists() else sorted((PACKAGE / module).glob("*.py"))


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "mailing":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mailing."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mailing."))


def test_every_module_has_a_floor():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules | packages == set(FLOOR_OF)


def test_the_package_says_which_module_is_on_which_floor():
    said = re.split(r"^[0-9]+\. ", mailing.__doc__, flags=re.MULTILINE)[1:]
    assert [set(re.findall(r"`(\w+)`", floor)) for floor in said] == FLOORS


@pytest.mark.parametrize("module", sorted(FLOOR_OF))
def test_a_module_imports_only_from_the_floors_below(module):
    imported = {name for file in files_of(module) for name in imports_of(file)} - {module}
    assert not {name for name in imported if FLOOR_OF[name] >= FLOOR_OF[module]}


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "dags").glob("*.py")))
def test_a_dag_file_is_wiring_and_holds_no_sql_and_no_http(file):
    text = (ROOT / "dags" / file).read_text(encoding="utf-8")
    code = ast.unparse([node for node in ast.parse(text).body if not isinstance(node, ast.Expr)])
    assert not {"aiohttp", "requests", "psycopg", "sqlalchemy"} & {
        (node.module or "").split(".")[0] for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    }
    assert "SELECT " not in code
    assert len(text.splitlines()) <= 120


def test_every_library_that_the_code_names_is_pinned():
    wanted = (ROOT / "requirements.txt").read_text(encoding="utf-8").lower()
    pinned = set(re.findall(r"^([a-z0-9-]+)(?:\[.*?\])?==", wanted, flags=re.MULTILINE))
    named = set()
    for folder in ("plugins", "dags", "local", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    named |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    named.add(node.module.partition(".")[0])
    providers = packages_distributions()
    for name in named - set(sys.stdlib_module_names) - {"mailing", "local", "benchmarks"}:
        assert {each.lower().replace("_", "-") for each in providers[name]} & pinned, name
