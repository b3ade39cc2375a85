"""Prints what others wrote and the trainer's image needs: the dependencies of its packages, without the packages.

    requirements.py [extra ...]    of the trainer's extras those that are named

Used by the Dockerfile, so that the layer with torch depends on pyproject files and not on code.
"""

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

MEMBERS = ("crds", "artifacts", "trainer_image")


def requirements(root: Path, extras: Sequence[str]) -> list[str]:
    """Return the requirements of all members, and of these extras of the trainer, each once.

    Raises:
        KeyError: for an extra that the trainer does not have.
    """
    found: set[str] = set()
    for member in MEMBERS:
        project = tomllib.loads((root / member / "pyproject.toml").read_text())["project"]
        found.update(project["dependencies"])
        if member == "trainer_image":
            found.update(*(project["optional-dependencies"][extra] for extra in extras))
    return sorted(each for each in found if not each.startswith("luthier-"))


if __name__ == "__main__":
    print(*requirements(Path(__file__).parent, sys.argv[1:]), sep="\n")
