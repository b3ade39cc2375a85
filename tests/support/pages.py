"""The code blocks of the documentation, and what each says of who runs it.

Owns finding them. A block of commands (`sh`, `console`) or of Python has a mark, a comment in the line above it that no
reader sees:

    <!-- run by tests/unit/docs/test_tutorial.py::test_the_name_of_the_test -->
    <!-- not run: needs a cluster -->

The test of a mark takes the block from the page by `marked_with`, so what is tested is what is read. The reason why a
block is not run may name a test that does the same with other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier_dev.paths import REPOSITORY

_PARTS = (
    "artifacts",
    "charts/luthier",
    "charts/luthier/files/argocd",
    "dev",
    "gpu",
    "operator",
    "serving",
    "trainer_image",
)
_READMES = ("README.md", *(f"{part}/README.md" for part in _PARTS), "examples/README.md", "examples/*/README.md")
COMMANDS = ("sh", "console", "python")
_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<mark>[^\n]*?) -->\n(?P=indent))?```(?P<language>[^\n]*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its file, from the root of the repository.
        line: where it begins.
        mark: the comment above it; empty if there is none.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return the pages of docs/, CONTRIBUTING, and the README of the repository and of each of its parts."""
    readmes = [page for pattern in _READMES for page in sorted(REPOSITORY.glob(pattern))]
    return [*readmes, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        content = "".join(line.removeprefix(found["indent"]) for line in found["text"].splitlines(keepends=True))
        line = text.count("\n", 0, found.start()) + 1
        yield Block(str(page.relative_to(REPOSITORY)), line, found["language"], content, found["mark"] or "")


def all_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def marked_with(test: str) -> list[Block]:
    """Return the blocks that say that this test runs them, in order.

    Args:
        test: `tests/.../test_file.py::test_name`.
    """
    return [block for block in all_blocks() if block.mark == f"run by {test}"]
