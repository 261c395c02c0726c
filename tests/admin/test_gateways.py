"""The pages of gateways."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from starlette_admin.i18n import set_timezone

from mailing import gateways
from mailing.admin.fields import brief_moment
from tests.admin.forms import act, act_on, send, text_of
from tests.builders import audited, kept

LIST = "/admin/gateways/list"
GOOD = {
    "messages_per_second": "12.5", "requests_in_flight": "20", "timeout_s": "7.5", "repeat_codes": ["3", "-4"],
    "token_warning_s": "60",
}  # fmt: skip


def test_one_that_is_well_takes_messages(connection, viewer):
    page = text_of(viewer.get(LIST))

    assert "Gateway default takes messages." in page
    assert "no limit" in page


def test_a_breaker_is_told_in_words(connection, viewer):
    connection.execute(
        "UPDATE gateways SET breaker_state = 'open', breaker_reason = 'http_503', breaker_changed_at = now(),"
        " breaker_probe_at = now() + interval '30 seconds'"
    )
    assert "Waiting for the gateway default since " in text_of(viewer.get(LIST))
    assert "(it answered 503); next probe in " in text_of(viewer.get("/admin/gateways/detail?pk=default"))


@pytest.mark.parametrize(
    ("zone", "moment", "said"),
    [
        ("UTC", "2040-06-02 14:02", "14:02"),
        ("UTC", "2040-06-01 23:02", "1 Jun, 23:02"),
        ("UTC", "2039-12-31 23:59", "31 Dec 2039, 23:59"),
        ("Asia/Tokyo", "2040-06-01 23:02", "08:02"),  # today there
        ("Asia/Tokyo", "2040-06-01 14:02", "1 Jun, 23:02"),
    ],
)
def test_a_moment_has_its_date_unless_that_is_today(zone, moment, said):
    set_timezone(zone)
    at = datetime.fromisoformat(f"{moment}+00:00")
    assert brief_moment(at, datetime(2040, 6, 2, 14, 30, tzinfo=UTC)) == said


def test_words_of_a_gateway_show_as_text(connection, viewer):
    connection.execute(
        "UPDATE gateways SET name = '<script>alert(1)</script>{since}', breaker_state = 'open',"
        " breaker_reason = '<b>', breaker_changed_at = now(), breaker_probe_at = now()"
    )
    page = viewer.get(LIST)

    assert page.status_code == 200
    assert "<script>alert(1)" not in page.text
    assert "<script>alert(1)</script>" in text_of(page)


def test_an_admin_changes_limits(connection, admin):
    assert send(admin, "/admin/gateways/edit?pk=default", GOOD).status_code == 303

    row = gateways.get(connection, "default")
    assert (row.messages_per_second, row.requests_in_flight, row.timeout_s) == (12.5, 20, 7.5)
    assert (row.repeat_codes, row.token_warning_s) == ([3, -4], 60)
    assert audited(connection)[0][:2] == ("admin", "change_gateway")
    shown = admin.get("/admin/gateways/edit?pk=default").text
    assert 'value="12.5"' in shown
    assert 'value="20"' in shown

    assert send(admin, "/admin/gateways/edit?pk=default", GOOD | {"messages_per_second": ""}).status_code == 303
    assert gateways.get(connection, "default").messages_per_second is None
    assert [entry[4]["changed"] for entry in audited(connection)[1:]] == [["messages_per_second"]]


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("messages_per_second", "0"), ("messages_per_second", "nan"), ("messages_per_second", "inf"),
        ("messages_per_second", "1e300"), ("messages_per_second", "many"), ("requests_in_flight", "0"),
        ("requests_in_flight", "10001"), ("requests_in_flight", "1.5"), ("timeout_s", "-1"), ("timeout_s", "301"),
        ("token_warning_s", "-1"), ("token_warning_s", "99999999999"), ("token_warning_s", "<script>x</script>"),
    ],
)  # fmt: skip
def test_a_wrong_limit_is_told_beside_the_field_and_all_that_was_typed_is_kept(connection, admin, field, typed):
    before = kept(connection)
    page = send(admin, "/admin/gateways/edit?pk=default", GOOD | {field: typed})

    assert page.status_code == 422
    assert "Wanted" in page.text.partition(f'id="{field}-error"')[2].partition("</div>")[0]
    assert f'value="{typed}"' in page.text or "&lt;script&gt;x" in page.text
    assert "<script>x" not in page.text
    assert kept(connection) == before


@pytest.mark.parametrize("codes", [["x"], ["1", "1.5"], ["99999999999"]])
def test_a_code_is_a_whole_number(connection, admin, codes):
    page = send(admin, "/admin/gateways/edit?pk=default", GOOD | {"repeat_codes": codes})

    assert page.status_code == 422
    assert f">{codes[-1]}</option>" in page.text


def test_only_admins_change_limits_and_nobody_makes_or_deletes_one(connection, viewer, operator, admin):
    before = kept(connection)

    assert viewer.get("/admin/gateways/edit?pk=default").status_code == 403
    for caller in (viewer, operator):
        assert "Edit" not in text_of(caller.get("/admin/gateways/detail?pk=default"))
        assert send(caller, "/admin/gateways/edit?pk=default", GOOD).status_code == 403
    for caller in (viewer, operator, admin):
        assert send(caller, "/admin/gateways/create", GOOD).status_code == 403
        assert act(caller, "gateways", "delete", ["default"]).status_code == 403
        assert act_on(caller, "gateways", "delete", "default").status_code == 403
    assert kept(connection) == before


def test_a_gateway_that_is_not_there_is_404(admin):
    assert admin.get("/admin/gateways/detail?pk=other").status_code == 404
    assert send(admin, "/admin/gateways/edit?pk=other", GOOD).status_code == 404
