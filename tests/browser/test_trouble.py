"""What becomes of what somebody has typed when it cannot be taken: it is not sent, and not lost."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.test_campaigns import local

pytestmark = [pytest.mark.stack, pytest.mark.browser]

TEXT = "Typed before the session ended"
CSRF_COOKIE = "starlette_admin_csrftoken"


def type_a_campaign(visitor):
    page = visitor.page
    visitor.go("/campaigns/new")
    page.locator("#text").fill(TEXT)
    page.get_by_label("Operator codes").fill("598")
    page.locator("#sending_start").fill(local(page, 24))
    page.locator("#sending_stop").fill(local(page, 48))
    return page.get_by_role("button", name="Save the campaign")


def saved(connection):
    return connection.execute("SELECT count(*) AS n FROM campaigns WHERE text = %s", (TEXT,)).fetchone()["n"]


def test_a_campaign_typed_while_the_session_ended_is_saved_once_after_a_login_in_another_tab(visit, connection):
    operator = visit("operator")
    page = operator.page
    save = type_a_campaign(operator)
    page.context.clear_cookies()
    save.click()
    said = page.locator("#campaign-form [data-unsent]")
    expect(said).to_contain_text("Nothing was sent. You are no longer logged in.")
    operator.picture("session-ended", said)
    expect(page.locator("#text")).to_have_value(TEXT)
    assert saved(connection) == 0

    with page.context.expect_page() as opened:
        said.get_by_role("link", name="Log in again in another tab").click()
    tab = opened.value
    operator.fill_in_login(tab)
    expect(tab.get_by_role("heading", name="New campaign")).to_be_visible()
    tab.close()
    expect(said).to_contain_text("All is well again")
    page.context.clear_cookies(name=CSRF_COOKIE)
    save.dblclick()
    expect(page).to_have_url(re.compile(r"/campaigns/\d+$"))
    assert saved(connection) == 1


def test_while_nothing_answers_a_form_stays_as_it_is_and_is_sent_when_all_is_well(visit, connection):
    operator = visit("operator")
    page = operator.page
    operator.go("/tags/create")
    page.get_by_label("Name").fill("typed-in-vain")
    create = page.get_by_role("button", name="Create", exact=True)
    said = page.locator("form [data-unsent]")
    answers = {
        "The database does not answer": lambda route: route.fulfill(status=503),
        "The server does not answer": lambda route: route.abort(),
    }
    for words, answer in answers.items():
        page.route("**/alive", answer)
        create.click()
        expect(said).to_contain_text(words)
        page.unroute("**/alive")
        expect(said).to_contain_text("All is well again")
    expect(page.get_by_label("Name")).to_have_value("typed-in-vain")
    create.click()
    expect(page).not_to_have_url(re.compile("create"))
    found = connection.execute("SELECT count(*) AS n FROM tags WHERE name = 'typed-in-vain'").fetchone()
    assert found["n"] == 1


def test_inside_airflows_frame_the_login_opens_in_another_tab_too(visit, connection, settings):
    operator = visit("operator")
    page = operator.page
    page.goto(settings.ui_url)
    page.get_by_role("link", name="Mailing", exact=True).click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="New campaign").first.click()
    # Its scripts are at work: without them it says to press a button.
    expect(frame.locator("#preview-said")).to_have_text("Choose a window to see whom it would reach.")
    frame.locator("#text").fill(TEXT)
    page.route("**/alive", lambda route: route.fulfill(status=401))
    frame.get_by_role("button", name="Save the campaign").click()
    with page.context.expect_page() as opened:
        frame.locator("[data-unsent]").get_by_role("link", name="Log in again in another tab").click()
    expect(opened.value).to_have_url(re.compile(r"/auth/login|/mailing"))
    expect(frame.locator("#text")).to_have_value(TEXT)


def test_without_scripts_what_was_typed_is_there_when_one_goes_back(visit, connection, browser, settings):
    operator = visit("operator")
    cookies = operator.page.context.cookies()
    context = browser.new_context(java_script_enabled=False)
    context.add_cookies(cookies)
    page = context.new_page()
    page.goto(f"{settings.ui_url}/mailing/admin/tags/create")
    page.get_by_label("Name").fill("typed-without-scripts")
    context.clear_cookies()
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", name="You are no longer logged in")).to_be_visible()
    context.add_cookies(cookies)
    page.go_back()
    expect(page.get_by_label("Name")).to_have_value("typed-without-scripts")
    context.close()
