"""Prints what others wrote and the trainer's image needs: the dependencies of its packages, without the packages.

Used by the Dockerfile, so that the layer with torch depends on pyproject files and not on code.
"""

import tomllib
from pathlib import Path

MEMBERS = ("crds", "artifacts", "trainer_image")


def requirements(root: Path) -> list[str]:
    """Return the requirements of all members and of the trainer's extra `train`, each once."""
    found: set[str] = set()
    for member in MEMBERS:
        project = tomllib.loads((root / member / "pyproject.toml").read_text())["project"]
        found.update(project["dependencies"])
        found.update(project.get("optional-dependencies", {}).get("train", []))
    return sorted(each for each in found if not each.startswith("luthier-"))


if __name__ == "__main__":
    print(*requirements(Path(__file__).parent), sep="\n")
