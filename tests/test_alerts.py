"""Alerts and dashboard: their expressions name what is served, and the alerts fire when they are meant to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import yaml

from mailing import scrape
from tests.conftest import ROOT
from tests.metrics import ALERTS, OF_PROMETHEUS, Selectors, a_busy_service, alerts, dashboard, panel_expressions, served

RULES = {rule["alert"]: rule for rule in alerts()}

EXPRESSIONS = {
    **{name: rule["expr"] for name, rule in RULES.items()},
    **{f"{title} {number}": expr for number, (title, expr, _) in enumerate(panel_expressions())},
}


@pytest.fixture
def figures(viewer, connection):
    """What is served where every metric has a sample: its label names, and all values of each label."""
    a_busy_service(connection)
    scrape.exposition.forget()
    return served(viewer.get("/metrics"))


def test_every_expression_names_only_what_is_served(figures):
    names = {}
    for name, labels in figures:
        names.setdefault(name, set()).update(dict(labels))
    values = {(name, label, value) for name, labels in figures for label, value in labels}
    for of, expression in EXPRESSIONS.items():
        selected = Selectors(expression)
        assert selected.metrics, of
        for name, labels in selected.metrics.items():
            assert name in names, (of, name)
            assert labels <= names[name] | OF_PROMETHEUS, (of, name)
            assert selected.grouped <= names[name] | OF_PROMETHEUS, (of, name)
        assert selected.values <= values, of


def test_an_expression_that_names_something_else_would_be_found():
    wrong = Selectors(
        'sum by (gatewya) (delta(mailing_mesages{stat="x|y"}[5m])) unless on (g) (1 - topk(2, mailing_up))'
    )
    assert wrong.metrics == {"mailing_mesages": {"stat"}, "mailing_up": set()}
    assert wrong.grouped == {"gatewya", "g"}
    assert wrong.values == {("mailing_mesages", "stat", "x"), ("mailing_mesages", "stat", "y")}


# Alerts


@pytest.mark.parametrize("name", RULES)
def test_an_alert_says_how_grave_it_is_what_happened_and_what_to_do(name):
    rule = RULES[name]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert all(rule["annotations"].values())
    # A label of the series, and one that is left after grouping.
    used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert used <= {"gateway", "campaign"}
    assert all(label in str(rule["expr"]) or not Selectors(rule["expr"]).grouped for label in used)


def test_the_documents_name_every_alert_and_no_other():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(Mailing\w+)` \|", text, flags=re.MULTILINE) == list(RULES)


UP = {"mailing_up": "1x60"}
CLOSED = 'mailing_breaker_state{gateway="a",state="closed"}'
UNKNOWN, SENT = (f'mailing_messages{{gateway="a",state="{state}"}}' for state in ("unknown", "sent"))
QUEUE = 'mailing_queue_age_seconds{gateway="a"}'
LAG = 'mailing_forecast_lag_seconds{campaign="7"}'
EXPIRES = 'mailing_token_expires_in_seconds{gateway="a"}'
REFUSED = 'mailing_token_refused{gateway="a"}'
DEAD = 'mailing_leases{state="dead"}'
GIVEN_UP, WEBHOOK = 'mailing_webhooks{state="given_up"}', "mailing_webhook_delay_seconds"
LATE, DUE, OLD = "mailing_opening_delay_seconds", "mailing_campaigns_overdue", "MailingQueueOld"

CASES = [
    # Series by minute, the minute to look at, and the alerts that fire then.
    ({}, 4, []), ({}, 6, ["MailingScrapeMissing"]),
    (UP, 30, []),
    ({"mailing_up": "1x10 0x20"}, 11, []), ({"mailing_up": "1x10 0x20"}, 13, ["MailingDatabaseAway"]),
    ({"mailing_up": "1x3 _x20"}, 20, ["MailingScrapeMissing"]),
    (UP | {CLOSED: "1x5 0x30"}, 10, []), (UP | {CLOSED: "1x5 0x30"}, 12, ["MailingBreakerOpen"]),
    (UP | {CLOSED: "1x5 0x3 1x5 0x3"}, 17, []),
    (UP | {REFUSED: "0x5 1x30"}, 8, ["MailingTokenRefused"]), (UP | {REFUSED: "0x30"}, 8, []),
    (UP | {EXPIRES: "86460-60x9"}, 0, []), (UP | {EXPIRES: "86460-60x9"}, 2, ["MailingTokenExpires"]),
    (UP | {EXPIRES: "-60-60x9"}, 2, ["MailingTokenExpires"]),
    (UP | {LAG: "-60x30"}, 20, []), (UP | {LAG: "30x30"}, 4, []), (UP | {LAG: "30x30"}, 6, ["MailingCampaignLate"]),
    (UP | {LAG: " ".join(["Inf"] * 9)}, 6, ["MailingCampaignLate"]),
    (UP | {UNKNOWN: "0+2x30", SENT: "0+98x30"}, 20, ["MailingMessagesInDoubt"]),
    (UP | {UNKNOWN: "0+2x30", SENT: "0+998x30"}, 20, []),  # 0.2 %
    (UP | {UNKNOWN: "500x30", SENT: "0+9x30"}, 20, []),  # of long ago
    (UP | {UNKNOWN: "0x18 5x12", SENT: "0+9x30"}, 20, []),  # too few to tell
    (UP | {UNKNOWN: "500-10x30", SENT: "0+9x30"}, 20, []),  # they are being settled
    (UP | {DEAD: "3x2 0x2 1x3 0x9"}, 8, []), (UP | {DEAD: "3x30"}, 6, ["MailingLeasesDead"]),
    (UP | {WEBHOOK: "3000+60x30"}, 14, []), (UP | {WEBHOOK: "3000+60x30"}, 17, ["MailingWebhookLate"]),
    (UP | {GIVEN_UP: "2x30"}, 20, []), (UP | {GIVEN_UP: "2x5 3x30"}, 20, ["MailingWebhookGivenUp"]),
    (UP | {GIVEN_UP: "3x5 1x30"}, 20, []),  # they are posted again
    (UP | {QUEUE: "0+60x30"}, 5, []), (UP | {QUEUE: "0+60x30", CLOSED: "1x30"}, 8, [OLD]),
    (UP | {QUEUE: "0+60x30", CLOSED: "0x30"}, 8, ["MailingBreakerOpen"]),
    (UP | {LATE: "0+60x30"}, 4, []), (UP | {LATE: "0+60x30"}, 6, ["MailingCampaignNotOpened"]),
    (UP | {DUE: "1x8 0x30"}, 9, []), (UP | {DUE: "2x30"}, 11, ["MailingCampaignOverdue"]),
]  # fmt: skip


def promtool():
    """Prometheus's own, or the test is skipped."""
    path = os.pathsep.join([str(ROOT / ".venv" / "bin"), os.environ.get("PATH", os.defpath)])
    return shutil.which("promtool", path=path) or pytest.skip("there is no promtool; `make promtool` gets one")


def test_the_cases_make_every_alert_fire():
    assert {name for _, _, fires in CASES for name in fires} == set(RULES)


def test_alerts_fire_when_they_are_meant_to_and_only_then(tmp_path):
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in case.items()],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{minute}m",
                    "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in fires],
                }
            ],
        }
        for case, minute, fires in CASES
    ]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    for command in (["check", "rules", str(ALERTS)], ["test", "rules", str(file)]):
        done = subprocess.run([promtool(), *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


# Dashboard


def test_the_dashboard_has_its_rows_and_one_variable_for_the_data_source_of_all_panels():
    found = dashboard()
    rows = [panel["title"] for panel in found["panels"] if panel["type"] == "row"]
    assert rows == ["Sending", "Gateways", "Campaigns", "Health"]
    variables = {each["name"]: each for each in found["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    sources = [panel["datasource"] for panel in panels] + [t["datasource"] for p in panels for t in p["targets"]]
    assert {source["uid"] for source in sources} == {"${datasource}"}
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    used = set(re.findall(r"\$(\w+)", "".join(expr for _, expr, _ in panel_expressions())))
    assert used <= set(variables)


def test_no_two_panels_of_the_dashboard_lie_on_each_other():
    taken = {}
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, (panel["title"], taken.get(cell))
            taken[cell] = panel["title"]
        assert at["x"] + at["w"] <= 24


def test_every_metric_is_on_the_dashboard_or_in_an_alert(figures):
    shown = {name for expression in EXPRESSIONS.values() for name in Selectors(expression).metrics}
    assert {name for name, _ in figures} == shown


def test_a_legend_names_only_labels_that_its_line_has(figures):
    labels_of = {name: set(dict(labels)) for name, labels in figures}
    for title, expression, legend in panel_expressions():
        selected = Selectors(expression)
        has = selected.grouped or set().union(*(labels_of[name] for name in selected.metrics))
        assert set(re.findall(r"{{(\w+)}}", legend)) <= has, title
