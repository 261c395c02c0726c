"""Gateways over REST."""

from __future__ import annotations

import pytest

from mailing import gateways
from mailing.breaker import TOLERANCE, Report
from tests.builders import audited, kept
from tests.web import problem

PATH = "/api/gateways/default/"


class TestGateways:
    def test_a_gateway_says_its_limits_its_breaker_and_when_its_token_expires(self, viewer, connection):
        connection.execute("INSERT INTO gateways (name, connection_id) VALUES ('backup', 'somewhere_else')")
        connection.execute("UPDATE gateways SET token_expires_at = '2030-01-01 00:00Z' WHERE name = 'default'")
        found = viewer.get("/api/gateways/").json()
        assert [item["name"] for item in found["items"]] == ["backup", "default"]
        assert found["next_cursor"] is None
        default = found["items"][1]
        assert default == {
            "name": "default", "endpoint": "/v1/send/{id}", "messages_per_second": None, "requests_in_flight": 100,
            "timeout_s": 10.0, "repeat_codes": [], "token_warning_s": 86400, "token_expires_at": "2030-01-01T00:00:00Z",
            "breaker_state": "closed", "breaker_reason": None, "breaker_changed_at": None, "breaker_probe_at": None,
        }  # fmt: skip
        assert viewer.get(PATH).json() == default

    def test_an_open_breaker_says_why_since_when_and_when_it_is_probed(self, viewer, connection):
        met = Report()
        for _ in range(TOLERANCE):
            met.failed("http_503", None, False)
        with connection.transaction():
            gateways.report(connection, "default", met)
        found = viewer.get(PATH).json()
        assert (found["breaker_state"], found["breaker_reason"]) == ("open", "http_503")
        assert found["breaker_changed_at"] < found["breaker_probe_at"]

    def test_limits_are_changed_by_an_admin(self, admin, connection):
        before = admin.get(PATH).json()
        limits = {"messages_per_second": 12.5, "requests_in_flight": 7, "timeout_s": 2.5, "repeat_codes": [7, -1]}
        changed = admin.patch(PATH, limits | {"token_warning_s": 0})
        assert changed.json() == before | limits | {"token_warning_s": 0}
        assert admin.get(PATH).json() == changed.json()
        assert admin.patch(PATH, {"messages_per_second": None}).json()["messages_per_second"] is None
        assert admin.get(PATH).json()["requests_in_flight"] == 7
        assert [entry[:2] for entry in audited(connection)] == [("admin", "change_gateway")] * 2

    def test_a_change_of_nothing_changes_nothing(self, admin, connection):
        before = kept(connection)
        assert admin.patch(PATH, {}).json() == admin.get(PATH).json()
        assert kept(connection) == before

    @pytest.mark.parametrize("field", ["requests_in_flight", "timeout_s", "repeat_codes", "token_warning_s"])
    def test_only_the_limit_of_messages_per_second_can_be_none(self, admin, field):
        problem(admin.patch(PATH, {field: None}), 422, field)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("messages_per_second", 0), ("messages_per_second", -1), ("messages_per_second", 1e300),
            ("messages_per_second", 0.0001), ("messages_per_second", "fast"),
            ("requests_in_flight", 0), ("requests_in_flight", 10_001), ("requests_in_flight", 2**70),
            ("requests_in_flight", 1.5),
            ("timeout_s", 0), ("timeout_s", 300.5), ("timeout_s", 0.0001),
            ("repeat_codes", 7), ("repeat_codes", [2**31]), ("repeat_codes", ["x"]), ("repeat_codes", [1] * 101),
            ("token_warning_s", -1), ("token_warning_s", 2**31),
            ("name", "other"), ("endpoint", "/x/{id}"), ("breaker_state", "closed"), ("connection_id", "x"),
        ],
    )  # fmt: skip
    def test_a_value_that_breaks_a_rule_is_422(self, admin, connection, field, value):
        before = kept(connection)
        problem(admin.patch(PATH, {field: value}), 422, field)
        assert kept(connection) == before

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
    def test_what_is_no_number_is_422(self, admin, number):
        for field in ("messages_per_second", "timeout_s"):
            answer = admin(
                "PATCH", PATH, content=f'{{"{field}": {number}}}', headers={"Content-Type": "application/json"}
            )
            problem(answer, 422, field)

    def test_a_gateway_that_is_not_there_is_404(self, viewer, admin):
        problem(viewer.get("/api/gateways/other/"), 404, "gateway other: there is no such gateway")
        problem(admin.patch("/api/gateways/other/", {"requests_in_flight": 7}), 404, "gateway other")
        problem(admin.patch("/api/gateways/other/", {}), 404, "gateway other")
        problem(viewer.get("/api/gateways/%00/"), 422, "name")

    def test_nobody_reads_without_a_login_and_only_an_admin_changes(self, nobody, viewer, operator):
        problem(nobody.get("/api/gateways/"), 401)
        problem(nobody.patch(PATH, {}), 401)
        problem(viewer.patch(PATH, {"requests_in_flight": 7}), 403, "viewer")
        problem(operator.patch(PATH, {"requests_in_flight": 7}), 403, "operator")
        assert operator.get(PATH).json()["requests_in_flight"] == 100
