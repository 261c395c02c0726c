"""The pages' places inside Airflow's own web UI."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.builders import a_campaign, some_clients
from tests.stack.steps import finished, the_run_has_ended, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.browser]


def test_mailing_stands_in_airflows_navigation(visit, settings, connection):
    operator = visit("operator")
    operator.page.goto(settings.ui_url)
    operator.page.get_by_role("link", name="Mailing", exact=True).click()
    frame = operator.page.frame_locator("iframe")
    heading = frame.get_by_role("heading", name="Campaigns")
    expect(heading).to_be_visible()
    operator.picture("airflow-mailing", heading)


def test_a_campaigns_dag_has_a_tab_with_its_page(visit, settings, connection):
    some_clients(connection, 3, code="531")
    campaign_id = a_campaign(connection, name="Five hundred and thirty-one", filter_operator_codes=["531"])
    wait_until(finished(connection, campaign_id), "it is sent")
    wait_until(the_run_has_ended(settings, campaign_id), "its run has ended")
    operator = visit("operator")
    operator.page.goto(f"{settings.ui_url}/dags/campaign_{campaign_id}")
    operator.page.get_by_role("link", name="Campaign", exact=True).click()
    frame = operator.page.frame_locator("iframe")
    heading = frame.get_by_role("heading", name="Five hundred and thirty-one")
    expect(heading).to_be_visible()
    operator.picture("airflow-campaign-tab", heading)
