"""A real browser without a window, for tests that open a page: Debian's Chromium, driven by its DevTools protocol.

Owns starting and stopping that process, and what a page did while it was opened: what it wrote to the console, what it
asked the network for. Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

import websocket

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
Scheme = Literal["light", "dark"]
_START_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = 30.0
# The proxy that nobody answers at keeps what a page asks for on the machine, should it ask.
_ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--remote-debugging-port=0", "--remote-allow-origins=*", "--proxy-server=127.0.0.1:9", "--hide-scrollbars"),
]


class BrowserError(RuntimeError):
    """The browser is not installed, did not start, or refused a command."""


@dataclass
class Page:
    """A page that was opened, and what it did so far.

    Attributes:
        requests: every address that was asked for, the page's own first.
        complaints: console messages, uncaught errors and warnings of the browser.
    """

    _browser: Browser
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self._browser.send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page, not only of what fits a screen."""
        taken = self._browser.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))


def find_browser() -> str | None:
    """Return the path of an installed browser."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """A running Chromium with one tab."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="luthier-browser-", ignore_cleanup_errors=True)
        self._numbers = count(1)
        self._page: Page | None = None
        self._process = self._start()
        try:
            self._socket = self._connect()
        except BaseException:
            self._stop()
            raise
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._stop()

    def open(
        self,
        url: str,
        *,
        width: int,
        height: int = 900,
        scheme: Literal["light", "dark"] = "light",
        phone: bool = False,
    ) -> Page:
        """Open a page and return once it is loaded.

        Args:
            url: its address.
            width: of the window in CSS pixels.
            height: likewise.
            scheme: what the page is told that its reader prefers.
            phone: show it as a phone does, two device pixels for one of CSS.
        """
        self._page = page = Page(self)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=media)
        self.send(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone},
        )
        # The page before may have an anchor or a scroll position.
        self.send("Page.navigate", url="about:blank")
        self._await("Page.loadEventFired")
        page.requests.clear()
        self.send("Page.navigate", url=url)
        self._await("Page.loadEventFired")
        return page

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give the browser one command and return its answer."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != number:
            pass
        if "error" in message:
            raise BrowserError(f"{method}: {message['error']['message']}")
        answer: dict[str, Any] = message["result"]
        return answer

    def _await(self, event: str) -> None:
        while self._receive().get("method") != event:
            pass

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        if self._page is not None:
            _note(self._page, message.get("method", ""), message.get("params", {}))
        return message

    def _start(self) -> subprocess.Popen[bytes]:
        program = find_browser()
        if program is None:
            raise BrowserError("There is no chromium; install it (apt-get install chromium).")
        command = ["setpriv", "--pdeathsig", "KILL", program, *_ARGUMENTS, f"--user-data-dir={self._folder.name}"]
        return subprocess.Popen(
            [*command, "about:blank"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _connect(self) -> websocket.WebSocket:
        # The browser writes the port that it chose, and the path of its socket, into its folder.
        told = Path(self._folder.name) / "DevToolsActivePort"
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (told.exists() and len(told.read_text().split()) == 2):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BrowserError(f"chromium did not start (exit code {self._process.poll()}).")
            time.sleep(0.05)
        port, path = told.read_text().split()
        control = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=_ANSWER_TIMEOUT_S)
        control.send(json.dumps({"id": 0, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
        while (message := json.loads(control.recv())).get("id") != 0:
            pass
        control.close()
        target = message["result"]["targetId"]
        return websocket.create_connection(f"ws://127.0.0.1:{port}/devtools/page/{target}", timeout=_ANSWER_TIMEOUT_S)

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def _note(page: Page, method: str, parameters: dict[str, Any]) -> None:
    """Write down what a page did."""
    match method:
        case "Network.requestWillBeSent":
            page.requests.append(parameters["request"]["url"])
        case "Runtime.consoleAPICalled":
            page.complaints.append(" ".join(str(each.get("value")) for each in parameters["args"]))
        case "Runtime.exceptionThrown":
            page.complaints.append(parameters["exceptionDetails"]["text"])
        case "Log.entryAdded":
            page.complaints.append(parameters["entry"]["text"])
