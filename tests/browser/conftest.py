"""A real browser, logged in to the real stack as somebody would be. Its pictures: tests/browser/screenshots."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from local.settings import Settings
from mailing import db
from tests.stack.steps import well_behaved

PICTURES = Path(os.environ.get("MAILING_SCREENSHOTS") or Path(__file__).parent / "screenshots")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium. Not for the whole session: while Playwright is there, the main thread has a running event
    loop, in which no other test could begin one of its own."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)}; `make browser` installs one")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=[*QUIET, *sandbox])
        yield browser
        browser.close()


@pytest.fixture
def connection(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[db.Connection]:
    with well_behaved(settings, monkeypatch) as connection:
        yield connection


class Visitor:
    """Somebody at a browser. What their pages complained of, and asked other hosts for, is kept."""

    def __init__(self, page: Page, settings: Settings, name: str) -> None:
        self.page, self._settings, self._name = page, settings, name
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._watch(request.url))

    def _watch(self, url: str) -> None:
        if not url.startswith((self._settings.ui_url, "data:", "blob:", "about:")):
            self.strangers.append(url)

    def log_in(self) -> None:
        """By Airflow's form."""
        self.page.goto(f"{self._settings.ui_url}/auth/login")
        self.fill_in_login(self.page)
        expect(self.page).to_have_url(re.compile(r"/(\?.*)?$"))

    def fill_in_login(self, page: Page) -> None:
        """Airflow's form, which a tab shows."""
        page.get_by_label("Username").fill(self._name)
        page.get_by_label("Password").fill(getattr(self._settings.secrets, self._name))
        page.get_by_role("button", name=re.compile("sign in|log ?in", re.IGNORECASE)).click()

    def go(self, path: str) -> None:
        """To a page below /mailing/admin."""
        self.page.goto(f"{self._settings.ui_url}/mailing/admin{path}")

    def picture(self, name: str, shows: Locator | None = None) -> None:
        """Of the page as it is now, in light and dark, wide and on a phone. `shows`: what is to be seen on each.

        Airflow loads its frames anew when the system turns dark.
        """
        PICTURES.mkdir(exist_ok=True)
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            for size, (width, height) in {"wide": (1280, 900), "phone": (390, 844)}.items():
                self.page.set_viewport_size({"width": width, "height": height})
                if shows is not None:
                    expect(shows).to_be_visible()
                self.page.screenshot(
                    path=PICTURES / f"{name}-{size}-{scheme}.png", full_page=True, animations="disabled"
                )
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 1280, "height": 900})


@pytest.fixture
def visit(browser: Browser, settings: Settings) -> Iterator[object]:
    """`visit("operator")`: that person, logged in. At the end nothing was complained of or asked of another host."""
    visitors: list[Visitor] = []

    def visit(name: str) -> Visitor:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id="Europe/Moscow")
        visitor = Visitor(context.new_page(), settings, name)
        visitor.log_in()
        visitors.append(visitor)
        return visitor

    yield visit
    for visitor in visitors:
        visitor.page.context.close()
    assert [each.complaints for each in visitors if each.complaints] == []
    assert [each.strangers for each in visitors if each.strangers] == []
