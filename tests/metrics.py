"""The files of include/metrics, and the expressions in them as promql-parser reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mailing import messages
from tests.builders import an_open_campaign, claim, let_leases_run_out, outcome_of
from tests.conftest import ROOT

FOLDER = ROOT / "include" / "metrics"
ALERTS = FOLDER / "alerts.yaml"

OF_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus adds to what it scrapes."""


def alerts() -> list[dict[str, Any]]:
    """The rules."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Grafana's."""
    return json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))


def panel_expressions() -> Iterator[tuple[str, str, str]]:
    """Panel, expression and legend of every line of the dashboard."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


def a_busy_service(connection) -> int:
    """Ten messages of a running campaign: 3 sent, 2 failed, 1 in doubt, 1 under way, 3 pending; its id.

    Every metric has a sample. A task of it died, one lives; it competes for slots; the gateway's token lasts an hour.
    """
    campaign_id, _ = an_open_campaign(connection, clients=10)
    messages.take_lease(connection, campaign_id, 1, "dead")
    let_leases_run_out(connection)
    token = messages.take_lease(connection, campaign_id, 1, "live")
    claimed = claim(connection, campaign_id, token, limit=7)
    outcomes = [("sent", None)] * 3 + [("failed", "code_7")] * 2 + [("unknown", "no_answer")]
    told = [outcome_of(each, *outcome) for each, outcome in zip(claimed, outcomes, strict=False)]
    messages.record(connection, campaign_id, token, told)
    connection.execute(
        "INSERT INTO throttles (campaign_id, hungry_at) VALUES (%s, now() + interval '1 h')", (campaign_id,)
    )
    connection.execute("UPDATE gateways SET messages_per_second = 50, token_expires_at = now() + interval '1 h'")
    return campaign_id


def served(answer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What an answer of /mailing/metrics holds: value by name and labels."""
    families = text_string_to_metric_families(answer.text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


class Selectors:
    """Every metric that an expression selects, with its labels; and the labels that it groups or matches by."""

    def __init__(self, expression: str) -> None:
        self.metrics: dict[str, set[str]] = {}
        self.values: set[tuple[str, str, str]] = set()
        self.grouped: set[str] = set()
        self._visit(promql_parser.parse(expression))

    def _visit(self, node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            labels = self.metrics.setdefault(node.name, set())
            for matcher in node.matchers.matchers:
                labels.add(matcher.name)
                if not matcher.value.startswith("$"):
                    self.values |= {(node.name, matcher.name, value) for value in matcher.value.split("|")}
        modifier = getattr(node, "modifier", None)
        for part in (modifier, getattr(modifier, "matching", None)):
            self.grouped |= set(getattr(part, "labels", None) or ())
        for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
            child = getattr(node, name, None)
            if child is not None:
                self._visit(child)
        for child in getattr(node, "args", None) or ():
            self._visit(child)
