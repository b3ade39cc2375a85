"""The documentation as a site, built strictly as `make docs` does: a broken link or a lost page fails here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from luthier_dev import docs_site
from luthier_dev.errors import CommandFailed
from luthier_dev.paths import REPOSITORY

pytestmark = pytest.mark.integration

LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["']?([^"' >]+)|<link\b[^>]*?\bhref=["']?([^"' >]+)"""
)
IN_STYLES = re.compile(r"url\(([^)]+)\)|@import ([^;]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return docs_site.build(tmp_path_factory.mktemp("site"))


def test_every_page_is_in_the_site_and_can_be_searched(site: Path) -> None:
    pages = [page.relative_to(REPOSITORY / "docs") for page in (REPOSITORY / "docs").rglob("*.md")]
    folders = [page.parent if page.name == "README.md" else page.with_suffix("") for page in pages]
    assert len(folders) > 30
    assert [str(folder) for folder in folders if not (site / folder / "index.html").exists()] == []
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    assert {each["location"] for each in found} >= {
        "reference/finetunejob/",
        "tree/charts/luthier/",
        "tutorial/",
    }
    assert any("progressDeadlineSeconds" in each["text"] for each in found)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {
        (str(path.relative_to(site)), address)
        for path in site.rglob("*.html")
        for pair in LOADED.findall(path.read_text())
        for address in pair
        if address
    }
    loaded |= {
        (str(path.relative_to(site)), address.strip("'\" "))
        for path in site.rglob("*.css")
        for pair in IN_STYLES.findall(path.read_text())
        for address in pair
        if address
    }
    assert len(loaded) > 100
    assert [each for each in loaded if re.match(r"(https?:)?//", each[1])] == []


def test_every_runbook_of_an_alert_leads_to_a_place_of_the_site(site: Path) -> None:
    alerts = (REPOSITORY / "charts" / "luthier" / "files" / "alerts.yaml").read_text()
    places = re.findall(r"runbook_url: (\w+)\.md#(\w+)", alerts)
    assert len(places) > 10
    missing = [place for place in places if f'id="{place[1]}"' not in (site / place[0] / "index.html").read_text()]
    assert missing == []


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("docs", "dev/mkdocs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "dev" / "mkdocs" / "hooks.py").write_text((REPOSITORY / "dev" / "mkdocs" / "hooks.py").read_text())
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nhooks: [dev/mkdocs/hooks.py]\n")
    page = tmp_path / "docs" / "index.md"
    page.write_text("# A page\n\n[The file beside docs](../mkdocs.yml), [a folder](../dev/mkdocs)\n")
    monkeypatch.setattr(docs_site, "_CONFIGURATION", tmp_path / "mkdocs.yml")
    built = docs_site.build(tmp_path / "site")
    assert (built / "tree" / "mkdocs.yml").read_text() == (tmp_path / "mkdocs.yml").read_text()
    assert 'href="tree/mkdocs.yml"' in (built / "index.html").read_text()
    page.write_text("# A page\n\n[Nothing](../nothing.yaml)\n")
    with pytest.raises(CommandFailed):
        docs_site.build(tmp_path / "site")
