"""Commands that the page of the command line shows with what they print: taken from the page, and run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from luthier.commands import app
from support.pages import Block, all_blocks, blocks, marked_with, pages
from support.shell import run

pytestmark = pytest.mark.unit

HERE = "tests/unit/docs/test_shown_commands.py"
WORDS = "These headphones sound wonderful and the battery lasts all day long"
PINNED = """\
apiVersion: luthier.dev/v1alpha1
kind: ModelDeployment
metadata: {name: production}
spec:
  model:
    fineTuneJobRef:
      name: reviews
      version: 20260101-120000-0a1b2c3d
"""


def test_what_init_is_shown_to_print_is_what_it_prints(tmp_path: Path) -> None:
    (shown,) = marked_with(f"{HERE}::test_what_init_is_shown_to_print_is_what_it_prints")
    page = next(page for page in pages() if page.name == "cli.md")
    (printed,) = (block.text for block in blocks(page) if block.text.startswith("text holds the text"))
    rows = [f"{WORDS} {number},{['negative', 'positive'][number % 2]}" for number in range(300)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    assert lines(run(f"{shown.text.strip()} 2>&1", tmp_path)) == lines(printed)
    job, deployment = yaml.safe_load_all((tmp_path / "reviews.yaml").read_text())
    assert (job["kind"], deployment["kind"]) == ("FineTuneJob", "ModelDeployment")


def lines(text: str) -> list[str]:
    """Return the lines without what depends on the texts, numbers."""
    return [re.sub(r"\d+(\.\d+)?", "N", line).strip() for line in text.splitlines() if line.strip()]


def test_the_pin_that_is_shown_edits_one_line(tmp_path: Path) -> None:
    (shown,) = marked_with(f"{HERE}::test_the_pin_that_is_shown_edits_one_line")
    (tmp_path / "production.yaml").write_text(PINNED)
    command, _, printed = shown.text.removeprefix("$ ").partition("\n")
    assert run(command, tmp_path).split() == printed.split()


def of_the_command() -> list[Block]:
    return [block for block in all_blocks() if re.search(r"^(\$ )?luthier ", block.text, re.MULTILINE)]


def test_every_command_and_option_of_luthier_that_a_page_shows_exists() -> None:
    group = get_command(app)
    unknown = []
    for block in of_the_command():
        for line in re.findall(r"^(?:\$ )?luthier ([a-z][^#\n]*)", block.text, re.MULTILINE):
            words = line.split()
            command = group.commands.get(words[0])  # type: ignore[attr-defined]
            if command is not None and hasattr(command, "commands"):
                command = command.commands.get(words[1])
            options = (
                {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
                if command
                else set()
            )
            shown = {word.strip("[]") for word in words if re.match(r"\[?--?[a-z]", word)}
            unknown += [f"{block}: luthier {line.strip()}"] * bool(command is None or shown - options)
    assert len(of_the_command()) > 10
    assert unknown == []
