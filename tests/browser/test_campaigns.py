"""An operator's day: a campaign is made, watched, paused, settled. By clicks and keys, on the whole stack."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect

from mailing import campaigns
from tests.builders import a_campaign, ledger, some_clients, states
from tests.stack.steps import behave, taken, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.browser]


def local(page, hours):
    """A moment so many hours from now, as the browser's clock shows it."""
    return page.evaluate(
        "h => { const at = new Date(Date.now() + h * 36e5); at.setMinutes(at.getMinutes() - at.getTimezoneOffset());"
        " return at.toISOString().slice(0, 16); }",
        hours,
    )


def confirm(page, button, name):
    """Press a button, and the one of the dialog that it opens."""
    page.get_by_role("button", name=button, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name=name).click()
    return dialog


def figure(page, name):
    return page.locator(f"[data-figure={name}]")


def test_a_campaign_is_made_in_one_form_and_watched_until_it_has_finished(visit, connection):
    some_clients(connection, 240, code="511")
    connection.execute("UPDATE gateways SET messages_per_second = 40")
    operator = visit("operator")
    page = operator.page
    operator.go("/campaigns")
    page.get_by_role("link", name="New campaign").first.click()
    page.get_by_label("Name", exact=True).fill("Opening night")
    page.locator("#text").fill("Открытие выставки в пятницу")
    expect(page.locator("#text-help")).to_contain_text("1 SMS (UCS-2")
    page.get_by_label("Operator codes").fill("511")
    page.locator("#sending_start").fill(local(page, -1))
    page.locator("#sending_stop").fill(local(page, 3))
    expect(page.locator("#size")).to_have_text("240 clients match.")
    expect(page.locator("#preview-said")).to_contain_text("All 240 can be reached before the stop.")
    operator.picture("campaign-new", page.get_by_role("heading", name="Whom it would reach"))
    page.get_by_role("button", name="Save the campaign").click()

    expect(page.get_by_role("heading", name="Opening night")).to_be_visible()
    expect(figure(page, "sent")).not_to_have_text("0", timeout=60_000)
    expect(figure(page, "rate")).not_to_have_text("0")
    operator.picture("campaign-running", page.get_by_role("heading", name="Outcomes over time"))
    expect(page.locator("[data-live-status]").first).to_have_text("finished", timeout=90_000)
    expect(figure(page, "sent")).to_have_text("240")
    operator.picture("campaign-finished", page.get_by_role("heading", name="Outcomes over time"))
    campaign_id = int(re.search(r"/campaigns/(\d+)", page.url)[1])
    assert states(connection, campaign_id) == {"sent": 240}


def test_what_is_wrong_in_the_form_stands_beside_its_field_and_nothing_typed_is_lost(visit, connection):
    before = connection.execute("SELECT count(*) AS n FROM campaigns").fetchone()
    operator = visit("operator")
    page = operator.page
    operator.go("/campaigns")
    page.get_by_role("link", name="New campaign").first.click()
    page.locator("#text").fill("<script>alert(1)</script> & Co")
    page.locator("#sending_start").fill(local(page, 2))
    page.locator("#sending_stop").fill(local(page, 1))
    page.get_by_label("Local hours from").fill("10:00")
    page.get_by_role("button", name="Save the campaign").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was saved")
    expect(page.locator("#sending_stop-error, #local_from-error").first).to_be_visible()
    expect(page.locator("#text")).to_have_value("<script>alert(1)</script> & Co")
    operator.picture("campaign-form-errors", page.get_by_role("alert"))
    assert connection.execute("SELECT count(*) AS n FROM campaigns").fetchone() == before


def test_the_pages_have_the_zone_that_is_chosen_in_airflow(visit, connection):
    operator = visit("operator")
    page = operator.page
    page.evaluate("localStorage.setItem('timezone', 'Europe/Berlin')")
    operator.go("/campaigns/new")
    expect(page.locator("#zone")).to_have_text("Europe/Berlin")
    expect(page.locator(".mailing-zone")).to_contain_text("Europe/Berlin")
    page.locator("#text").fill("In autumn")
    start, which, said = (
        page.locator("#sending_start"),
        page.locator("#sending_start_fold"),
        page.locator("#sending_start-help"),
    )
    start.fill("2040-03-25T02:30")
    expect(said).to_contain_text("There is no such time in Europe/Berlin")
    start.fill("2040-06-01T09:00")
    expect(said).to_have_text("= 1 Jun 2040, 07:00 UTC")
    expect(which).to_be_hidden()
    start.fill("2040-10-28T02:30")
    page.locator("#sending_stop").fill("2040-10-28T04:00")
    expect(said).to_contain_text("show this twice")
    which.select_option(label="The second: 28 Oct 2040, 01:30 UTC")
    expect(said).to_have_text("= 28 Oct 2040, 01:30 UTC")
    operator.picture("campaign-form-autumn", which)
    page.get_by_role("button", name="Save the campaign").click()

    expect(page.locator("#standing")).to_contain_text("28 Oct 2040, 02:30")
    campaign_id = int(re.search(r"/campaigns/(\d+)", page.url)[1])
    saved = campaigns.get(connection, campaign_id).sending_start
    assert saved == datetime(2040, 10, 28, 1, 30, tzinfo=UTC)
    page.evaluate("localStorage.setItem('timezone', 'Asia/Tokyo')")
    operator.go(f"/campaigns/{campaign_id}/edit")
    expect(start).to_have_value("2040-10-28T10:30")
    page.locator("#text").fill("Later")
    page.get_by_role("button", name="Save the change").click()
    expect(page.locator("#standing")).to_contain_text("28 Oct 2040, 10:30")
    assert campaigns.get(connection, campaign_id).sending_start == saved


def test_a_campaign_is_paused_and_resumed_from_its_page(visit, connection, settings):
    connection.execute("UPDATE gateways SET messages_per_second = 30")
    some_clients(connection, 300, code="512")
    campaign_id = a_campaign(connection, name="Half way", filter_operator_codes=["512"])
    operator = visit("operator")
    page = operator.page
    operator.go(f"/campaigns/{campaign_id}")
    expect(figure(page, "sent")).not_to_have_text("0", timeout=60_000)
    confirm(page, "Pause", "Pause")
    expect(page.locator("[data-live-status]").first).to_have_text("paused")
    wait_until(lambda: "sending" not in states(connection, campaign_id), "what was in flight is recorded", 10)
    before = states(connection, campaign_id)["sent"]
    operator.picture("campaign-paused", page.get_by_role("button", name="Resume", exact=True))
    assert states(connection, campaign_id) == {"sent": before, "pending": 300 - before}

    connection.execute("UPDATE gateways SET messages_per_second = NULL")
    confirm(page, "Resume", "Resume")
    expect(page.locator("[data-live-status]").first).to_have_text("finished", timeout=90_000)
    assert states(connection, campaign_id) == {"sent": 300}
    assert set(taken(settings, ledger(connection, campaign_id)).values()) == {1}


def test_what_is_in_doubt_is_settled_from_the_campaigns_page(visit, connection, settings):
    behave(settings, shares={"drop_after_read": 0.2}, seed=5)
    some_clients(connection, 60, code="513")
    campaign_id = a_campaign(connection, name="In doubt", filter_operator_codes=["513"])
    wait_until(lambda: campaigns.progress(connection, campaign_id).status == "finished", "it is sent", 90)
    unknown = states(connection, campaign_id)["unknown"]
    operator = visit("operator")
    page = operator.page
    operator.go(f"/campaigns/{campaign_id}")
    page.get_by_role("button", name="Settle in doubt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{unknown} messages may have left")
    operator.picture("campaign-settle", dialog)
    dialog.get_by_label("Assume sent").check()
    dialog.get_by_role("button", name="Settle them all").click()
    expect(figure(page, "sent")).to_have_text("60")
    assert states(connection, campaign_id) == {"sent": 60}


def test_what_is_confirmed_is_what_the_dialog_said_though_the_page_goes_on(visit, connection, settings):
    behave(settings, shares={"drop_after_read": 1}, seed=5)
    some_clients(connection, 3, code="515")
    campaign_id = a_campaign(connection, name="Goes on", filter_operator_codes=["515"])
    wait_until(lambda: campaigns.progress(connection, campaign_id).status == "finished", "it is sent", 90)
    # A page of one that is over asks no more; nobody closes one that is paused.
    connection.execute("UPDATE campaigns SET status = 'paused', finished_at = NULL WHERE id = %s", (campaign_id,))
    operator = visit("operator")
    page = operator.page
    operator.go(f"/campaigns/{campaign_id}")
    page.get_by_role("button", name="Settle in doubt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("3 messages may have left")
    connection.execute(
        "UPDATE messages SET state = 'failed', reason = 'test' WHERE id ="
        " (SELECT min(id) FROM messages WHERE campaign_id = %s)",
        (campaign_id,),
    )
    expect(page.locator("[data-legend=unknown] [data-count]")).to_have_text("2")  # the page has heard of it
    expect(dialog).to_contain_text("3 messages may have left")
    dialog.get_by_label("Assume sent").check()
    dialog.get_by_role("button", name="Settle them all").click()
    expect(page.get_by_text("2 are in doubt by now, 3 were confirmed: look again")).to_be_visible()
    assert states(connection, campaign_id) == {"unknown": 2, "failed": 1}

    page.get_by_role("button", name="Settle in doubt").click()
    expect(dialog).to_contain_text("2 messages may have left")
    dialog.get_by_label("Give up").check()
    dialog.get_by_role("button", name="Settle them all").click()
    expect(page.get_by_text("2 messages in doubt are given up.")).to_be_visible()
    assert states(connection, campaign_id) == {"failed": 3}


def test_a_viewer_sees_everything_and_no_button(visit, connection, settings):
    campaign_id = a_campaign(connection, name="For all to see", filter_operator_codes=["514"])
    viewer = visit("viewer")
    page = viewer.page
    viewer.go(f"/campaigns/{campaign_id}")
    expect(page.get_by_role("heading", name="For all to see")).to_be_visible()
    for name in ("Pause", "Cancel", "Test send", "Edit"):
        expect(page.get_by_text(name, exact=True)).to_have_count(0)
    viewer.go("/campaigns")
    expect(page.get_by_role("link", name="New campaign")).to_have_count(0)
    answer = page.goto(f"{settings.ui_url}/mailing/admin/campaigns/new")
    assert answer.status == 403
    viewer.picture("viewer-403")
