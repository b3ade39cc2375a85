"""Lets pages of docs/ link to files of the repository, as they do where the repository is browsed.

MkDocs knows docs/ only. A file outside that a page links to becomes part of the site, under tree/; a link from such a
file to one that no page links to becomes plain text. A link to what does not exist is a warning, which fails a strict
build. MkDocs calls on_files and on_page_markdown: https://www.mkdocs.org/dev-guide/plugins/#events
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
TREE = "tree"
LOG = logging.getLogger("mkdocs.hooks")
_LINK = re.compile(r"(?<!!)\[(?P<label>[^\[\]]*)\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that its pages link to."""
    for page in [each for each in files.documentation_pages() if each.abs_src_path]:
        text = Path(str(page.abs_src_path)).read_text()
        for target in _outside(text, page.src_uri):
            name = f"{TREE}/{target}"
            if name not in files.src_uris and (ROOT / target).is_file():
                files.append(File.generated(config, name, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/, or lie outside, into links of the site."""
    here = page.file.src_uri
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda link: _rewritten(link, here, files), part) for part in parts[::2]]
    return "".join(parts)


def _outside(text: str, page: str) -> Iterator[str]:
    for part in _FENCED.split(text)[::2]:
        for link in _LINK.finditer(part):
            target = _target(link["path"], page)
            if not target.startswith(f"{DOCS}/"):
                yield target


def _rewritten(link: re.Match[str], page: str, files: Files) -> str:
    target = _target(link["path"], page)
    if target.startswith(f"{DOCS}/"):
        name = target.removeprefix(f"{DOCS}/")
    elif (ROOT / target).exists():
        name = f"{TREE}/{target}"
    else:
        LOG.warning("%s links to %s, which does not exist", page, link["path"])
        return link[0]
    if name.startswith(f"{TREE}/") and name not in files.src_uris:
        return link["label"]
    path = posixpath.relpath(name, posixpath.dirname(page) or ".")
    return f"[{link['label']}]({path}{link['anchor'] or ''})"


def _target(link: str, page: str) -> str:
    """Return where a link leads, from the root of the repository; a folder is its README.md."""
    place = page.removeprefix(f"{TREE}/") if page.startswith(f"{TREE}/") else f"{DOCS}/{page}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    return f"{target}/README.md" if (ROOT / target / "README.md").exists() else target
