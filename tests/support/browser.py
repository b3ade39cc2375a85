"""Pages opened in a real browser without a window: Debian's Chromium, driven by Playwright.

Owns where the browser is and how it starts, and what a page did while it was open: what it wrote to the console, what
it asked the network for. Playwright would download a browser of its own; it is never asked to.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, ProxySettings, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# If a page asks the network for anything, the request must not leave the machine: nobody answers at this proxy.
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"]
_ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
_PROXY = ProxySettings(server="http://127.0.0.1:9", bypass="127.0.0.1")
_PATIENCE_MS = 10_000


@dataclass
class OpenPage:
    """A page that was opened, and what it did so far.

    Attributes:
        requests: every address that was requested, the page's own first.
        complaints: console messages and uncaught errors.
    """

    _page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._page.on("request", lambda request: self.requests.append(request.url))
        self._page.on("console", lambda message: self.complaints.append(message.text))
        self._page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        return self._page.evaluate(expression)

    def press(self, keys: str) -> None:
        """Press keys where the focus is, as `Tab` or `Control+Enter`."""
        self._page.keyboard.press(keys)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self._page.keyboard.type(text)

    def click(self, selector: str) -> None:
        """Click, or on a phone tap, an element as soon as that is possible."""
        self._page.locator(selector).click()

    def read(self, selector: str, text: str = "") -> str:
        """Return what an element shows, as soon as it shows something that contains the text."""
        found = self._page.locator(selector).filter(has_text=text or re.compile(r"\S"))
        found.wait_for(timeout=_PATIENCE_MS)
        return found.inner_text()

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page, not only of what fits a screen."""
        self._page.screenshot(path=path, full_page=True)


@dataclass
class Browser:
    """A running Chromium with one page open at a time."""

    _chromium: Chromium

    def open(
        self,
        url: str,
        *,
        width: int,
        height: int = 900,
        scheme: Literal["light", "dark"] = "light",
        phone: bool = False,
    ) -> OpenPage:
        """Close the page before, open this one in a fresh profile, and return once it is loaded.

        Args:
            url: its address.
            width: of the window in CSS pixels.
            height: of the window in CSS pixels.
            scheme: the colour scheme that the reader prefers.
            phone: emulate a phone: touch, and two device pixels for one CSS pixel.
        """
        for before in self._chromium.contexts:
            before.close()
        context = self._chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            device_scale_factor=2 if phone else 1,
            is_mobile=phone,
            has_touch=phone,
        )
        page = context.new_page()
        opened = OpenPage(page)
        page.goto(url)
        return opened


def find_browser() -> str | None:
    """Return the path of an installed browser."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Start the installed Chromium; its processes end with the block."""
    program = find_browser()
    if program is None:
        raise RuntimeError("There is no chromium; install it (apt-get install chromium).")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS, proxy=_PROXY)
        try:
            yield Browser(running)
        finally:
            running.close()
