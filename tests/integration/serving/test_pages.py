"""The pages for people in a real browser, in front of a real model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import RevisionConfig
from luthier_dev.processes import free_ports
from luthier_serving.compute.model import open_model
from luthier_serving.replica.local_model import HeldModel
from support.browser import Browser, OpenPage
from support.serving.artifact import make_artifact
from support.serving.http_server import serving

pytestmark = pytest.mark.integration

DIGEST = "sha256:" + "0" * 64
# A folder for pictures to look at.
PICTURES = os.environ.get("LUTHIER_SCREENSHOTS")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    artifact = make_artifact(tmp_path_factory.mktemp("artifact"))
    config = RevisionConfig(name="rev-1", model_uri="s3://m/reviews/versions/v1", version="v1", digest=DIGEST)
    model = HeldModel(config, open_model(artifact, "onnxruntime", version="v1"), "replica-1")
    (port,) = free_ports(1)
    with serving(model.send, port):
        yield f"http://127.0.0.1:{port}"


def picture(page: OpenPage, name: str) -> None:
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(Path(PICTURES) / f"{name}.png")


@pytest.mark.parametrize(
    "way", [{"width": 1000}, {"width": 1000, "scheme": "dark"}, {"width": 390, "height": 800, "phone": True}]
)
def test_by_mouse_or_finger_an_answer_shows_version_and_latency_and_an_empty_text_clears_it(
    browser: Browser, url: str, way: dict[str, Any]
) -> None:
    page = browser.open(f"{url}/", **way)
    page.click("#text")
    page.type("What a lovely film.")
    page.click("#send")
    answer = page.read("#answer", "version")
    assert "version v1, " in answer and answer.rstrip().endswith(" ms") and " %" in answer
    picture(page, f"answer-{way['width']}-{way.get('scheme', 'light')}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing to scroll sideways"

    page.click("#text")
    page.press("Control+A")
    page.press("Delete")
    assert page.evaluate("document.getElementById('answer').textContent") == ""
    page.click("#send")
    assert page.read("#answer") == "Enter a text first."
    assert page.complaints == [] and all(each.startswith((url, "data:")) for each in page.requests)


def test_by_keyboard_alone_a_text_is_sent_and_the_next_one_answered(browser: Browser, url: str) -> None:
    page = browser.open(f"{url}/", width=1000)
    page.type("What a lovely film.")
    page.press("Control+Enter")
    assert "version v1" in page.read("#answer", "version")
    page.press("Control+A")
    page.press("Delete")
    page.type("   ")
    page.press("Tab")
    page.press("Enter")
    assert page.read("#answer") == "Enter a text first."
    page.type("Boring.")
    page.press("Tab")
    page.press("Space")
    assert "version v1" in page.read("#answer", "version")


def test_what_the_server_refuses_stands_on_the_page_in_its_own_sentence(browser: Browser, url: str) -> None:
    page = browser.open(f"{url}/", width=1000)
    page.evaluate("document.getElementById('text').value = 'x'.repeat(2_000_000)")
    page.click("#send")
    assert "text" in page.read("#answer", "larger") or "characters" in page.read("#answer")


@pytest.mark.parametrize("way", [{"width": 1000}, {"width": 390, "height": 800, "phone": True, "scheme": "dark"}])
def test_the_api_is_described_on_a_page_of_its_own(browser: Browser, url: str, way: dict[str, Any]) -> None:
    page = browser.open(f"{url}/docs", **way)
    assert "POST /predict" in page.read("#paths", "POST /predict")
    picture(page, f"docs-{way['width']}-{way.get('scheme', 'light')}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing to scroll sideways"
    assert page.complaints == []
