"""A browser on the pages of a Prefect server, for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds for what takes one second on a quiet machine
WIDTH, HEIGHT = 1280, 800  # pixels


class Browser:
    """One page of a browser, and which hosts it has asked."""

    def __init__(self, page: Page, base: str, pictures: Path | None) -> None:
        self.page, self.hosts = page, set[str]()
        self._base, self._pictures = base, pictures
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def open(self, path: str) -> Page:
        """Open a page of the server, and wait until nothing is under way."""
        self.page.goto(self._base + path)
        self.page.wait_for_load_state("networkidle")
        return self.page

    def log_in(self, password: str) -> None:
        """Give the password that the server asks for."""
        self.open("/").locator("input[type=password]").fill(password)
        self.page.keyboard.press("Enter")
        self.page.get_by_text("Deployments").first.wait_for()

    def keep(self, name: str) -> None:
        """Keep what the page shows for the docs, where TILTFLOW_SCREENSHOTS names a folder."""
        if self._pictures is not None:
            self.page.wait_for_timeout(1500)  # what moves comes to rest
            self.page.screenshot(path=self._pictures / f"{name}.png")


@contextmanager
def opened() -> Iterator[Callable[[str], Browser]]:
    """Start headless Chromium; skip the test where there is none, unless in CI.

    Yields
    ------
    callable
        Opens a page on the server whose address it is given.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: apt-get install chromium")
        pytest.skip("needs a browser: apt-get install chromium")
    pictures = os.environ.get("TILTFLOW_SCREENSHOTS")

    def page_on(base: str) -> Browser:
        page = started.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        return Browser(page, base, Path(pictures) if pictures else None)

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        try:
            yield page_on
        finally:
            started.close()


def field(where: Page | Locator, title: str) -> Locator:
    """Return the field of a form that has this title."""
    named = f"(.='{title}' or .='{title} (Optional)')"
    return where.locator(
        f"xpath=.//span[contains(@class, 'property__label') and {named}]/ancestor::div"
        "[contains(concat(' ', @class, ' '), ' schema-form-property ')][1]"
    )


def choose(of: Locator, choice: str) -> None:
    """Choose one of the values of a field."""
    of.locator(".p-select-button__control").focus()
    of.page.keyboard.press("Space")
    of.page.locator(".p-select-option").get_by_text(choice, exact=True).click()
    of.locator(".p-select-button").get_by_text(choice, exact=True).wait_for()
