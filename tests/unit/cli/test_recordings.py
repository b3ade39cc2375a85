"""docs/cli.md shows the command's screens as pictures that `make generate` draws; `make lint` says if one is stale."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luthier_dev.paths import REPOSITORY

pytestmark = pytest.mark.unit

DOCS = REPOSITORY / "docs"
SCREENS = sorted((DOCS / "screens").glob("*.svg"))


def test_each_screen_is_on_the_page_and_says_in_words_what_it_shows() -> None:
    shown = dict(re.findall(r"!\[(.+)\]\(screens/(.+)\)", (DOCS / "cli.md").read_text()))
    assert sorted(shown.values()) == [path.name for path in SCREENS] != []
    assert all(words.startswith("luthier ") for words in shown)


@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_a_screen_asks_the_network_for_nothing_and_is_small(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"url\((?!#)|@import|@font-face|href|src\b", text) == []
    assert path.stat().st_size < 60_000
