"""Lists, a client file with bad rows, gateways, statistics."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.builders import an_open_campaign, some_clients

pytestmark = [pytest.mark.stack, pytest.mark.browser]

FILE = """phone_number,tags,timezone
+7 (921) 000-00-01,art;sport,Europe/Moscow
79210000002,art,Asia/Tokyo
not a number,art,Europe/Moscow
79210000003,art,Mars/Olympus
"""


def test_a_client_file_is_imported_and_its_bad_rows_are_shown(visit, connection, tmp_path):
    file = tmp_path / "clients.csv"
    file.write_text(FILE)
    operator = visit("operator")
    page = operator.page
    operator.go("/clients/list")
    page.get_by_role("link", name="Import").first.click()
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Import").click()
    result = page.get_by_role("region", name="What became of the file")
    expect(result).to_contain_text("not a number")
    expect(result).to_contain_text("Mars/Olympus")
    operator.picture("clients-import", result)
    found = connection.execute("SELECT count(*) AS n FROM clients WHERE phone_number LIKE '7921%'").fetchone()
    assert found["n"] == 2


@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("/campaigns", "Campaigns"),
        ("/clients/list", "Clients"),
        ("/tags/list", "Tags"),
        ("/messages/list", "Messages"),
        ("/gateways/list", "Gateways"),
        ("/statistics", "Statistics"),
    ],
)
def test_every_page_of_the_menu_shows_itself_to_a_viewer(visit, connection, path, heading):
    some_clients(connection, 6, code="521")
    an_open_campaign(connection, clients=0, name="For the pages", filter_operator_codes=["521"])
    viewer = visit("viewer")
    viewer.go(path)
    shown = viewer.page.get_by_role("heading", name=heading).first
    expect(shown).to_be_visible()
    viewer.picture(f"page-{heading.lower()}", shown)


def test_the_lists_need_no_scrolling_sideways_on_a_phone(visit, connection):
    some_clients(connection, 40, code="522", tags=("a_rather_long_name_of_a_tag", "another_one"))
    campaign_id, _ = an_open_campaign(connection, clients=0, name="Phone", filter_operator_codes=["522"])
    connection.execute(
        "UPDATE messages SET state = 'sent', token = 1, revision = 1, claimed_at = now(), sent_at = now(), attempts = 1"
        " WHERE id % 2 = 0"
    )
    operator = visit("operator")
    page = operator.page
    page.set_viewport_size({"width": 390, "height": 844})
    lists = ("/clients/list", "/tags/list", f"/messages/list?campaign={campaign_id}", "/gateways/list")
    for path in ("/campaigns", *lists):
        operator.go(path)
        row = page.locator("tbody tr").first
        expect(row).to_be_visible()
        operator.picture(f"phone{path.partition('?')[0].replace('/', '-')}", row)
        page.set_viewport_size({"width": 390, "height": 844})
        wide = page.evaluate(
            "() => [document.documentElement, ...document.querySelectorAll('.table-responsive')]"
            ".filter(each => each.scrollWidth > each.clientWidth).length"
        )
        assert wide == 0, path
