"""A visitor with a real browser, who notes everything that a page must not do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request

PHONE, TABLET, DESK = 320, 768, 1440
LEVELS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
"""WCAG 2.2 AA, as axe names it."""
SCHEMES: Final = ("light", "dark")
PATIENCE_MS: Final = 30_000

_OUTAGE: Final = re.compile(r"Failed to load resource|net::ERR_|EventSource")


class Visitor:
    """A visitor of one site.

    Args:
        page: of the browser.
        base: the site's URL, without a slash at the end.

    Attributes:
        complaints: errors on the console, and requests to other hosts.
        may_be_out: whether requests may fail, since a server is down.
    """

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.complaints: list[str] = []
        self.may_be_out = False
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"error of a script: {error}"))
        page.on("request", self._asked)

    def open(self, path: str = "") -> None:
        """Go to a page."""
        self.page.goto(f"{self.base}/{path}", wait_until="load")

    def see(self, text: str, *, within: str = "body") -> None:
        """Wait until a text is on the page."""
        self.page.locator(within).get_by_text(text).locator("visible=true").first.wait_for()

    def wait_live(self) -> None:
        """Wait until the page follows what happens."""
        self.page.locator("#live.on").wait_for(state="visible")

    def tab_to(self, text: str, *, tabs_max: int = 60) -> None:
        """Press Tab until what has the focus begins with a text."""
        for _ in range(tabs_max):
            self.page.keyboard.press("Tab")
            focused = self.page.evaluate("document.activeElement.textContent.trim()")
            if focused.startswith(text):
                return
        raise AssertionError(f"no Tab leads to {text!r}")

    def check_looks(self) -> None:
        """Check that the page is accessible, and not wider than the screen."""
        found = Axe().run(self.page, options={"runOnly": {"type": "tag", "values": LEVELS}})
        assert found.violations_count == 0, found.generate_report()
        self.check_width()

        shown = self.page.locator("#pause").is_visible()
        assert shown == (self.page.locator("body[data-stream]").count() == 1), (
            "a page that follows can be paused"
        )

    def check_width(self) -> None:
        """Check that the page is not wider than the screen."""
        wide = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{self.page.url} is {wide} px too wide"

    def check_manners(self) -> None:
        """Check that no page has complained, or asked another host."""
        assert self.complaints == []

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (self.may_be_out and _OUTAGE.search(message.text)):
            self.complaints.append(f"{message.type} on {self.page.url}: {message.text}")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.base).netloc:
            self.complaints.append(f"a request to {request.url}")


@contextmanager
def visiting(browser: Browser, base: str, *, width: int = DESK, **context: Any) -> Iterator[Visitor]:
    """A visitor, who has seen nothing wrong at the end."""
    opened = browser.new_context(viewport={"width": width, "height": 900}, **context)
    try:
        visitor = Visitor(opened.new_page(), base)
        yield visitor
        visitor.check_manners()
    finally:
        opened.close()
