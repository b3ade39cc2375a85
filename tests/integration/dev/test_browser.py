"""The browser of the tests sees what a page does; without that, every page would look well-behaved."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.browser import Browser

pytestmark = pytest.mark.integration

NOISY = """<!doctype html><title>noisy</title><img src="http://192.0.2.1/tracker.png">
<script>console.warn("a warning"); throw new Error("an error")</script>"""
QUIET = "<!doctype html><title>quiet</title><p>Nothing happens here.</p>"


def test_what_a_page_logs_throws_and_requests_is_seen_and_is_not_the_next_page_s(
    browser: Browser, tmp_path: Path
) -> None:
    noisy, quiet = tmp_path / "noisy.html", tmp_path / "quiet.html"
    noisy.write_text(NOISY)
    quiet.write_text(QUIET)
    page = browser.open(noisy.as_uri(), width=800)
    assert page.requests == [noisy.as_uri(), "http://192.0.2.1/tracker.png"]
    assert {"a warning", "an error"} < set(page.complaints)
    assert any("ERR_PROXY_CONNECTION_FAILED" in each for each in page.complaints), "nothing leaves the machine"
    page = browser.open(quiet.as_uri(), width=800)
    assert (page.requests, page.complaints) == ([quiet.as_uri()], [])
    assert page.evaluate("document.title") == "quiet"


@pytest.mark.parametrize("phone", [False, True])
def test_a_page_is_shown_in_the_width_scheme_and_density_that_were_asked_for(
    browser: Browser, tmp_path: Path, phone: bool
) -> None:
    path = tmp_path / "quiet.html"
    path.write_text('<!doctype html><meta name="viewport" content="width=device-width"><p>')
    page = browser.open(path.as_uri(), width=390, scheme="dark" if phone else "light", phone=phone)
    seen = page.evaluate("[innerWidth, devicePixelRatio, matchMedia('(prefers-color-scheme: dark)').matches]")
    assert seen == [390, 2 if phone else 1, phone]
