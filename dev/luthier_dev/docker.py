"""Builds images by a Docker engine where one runs; they stay in that engine.

Owns docker's command lines. What an image consists of is said in images. Not covered by our tests: no Docker engine
runs where they do.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from luthier_dev import binaries, steps
from luthier_dev.images import CATALOGUE, tag
from luthier_dev.paths import REPOSITORY


class Docker:
    """Images by a Docker engine, kept there."""

    def reference(self, name: str) -> str:
        """The image's name and the tag of its present sources."""
        image = CATALOGUE[name]
        if image.program:
            binaries.ensure([image.program])
        return f"localhost/{name}:{tag(image, 'the default of the Dockerfile')}"

    def build(self, names: Sequence[str]) -> None:
        """Build the images that do not exist under their current tag."""
        for name in names:
            image, reference = CATALOGUE[name], self.reference(name)
            if _succeeds("docker", "image", "inspect", reference):
                continue
            with steps.step(f"Build image {name}", image.usually_s):
                steps.run_logged(
                    [
                        *("docker", "build", "--tag", reference, "--file", str(REPOSITORY / image.dockerfile)),
                        *(f"--build-arg={key}={value}" for key, value in sorted(image.arguments.items())),
                        str(image.context),
                    ],
                    env={"DOCKER_BUILDKIT": "1"},
                )

    def push(self, name: str, registry: str) -> str:
        """Push to a registry and return the reference there."""
        reference = self.reference(name)
        remote = f"{registry}/{reference.removeprefix('localhost/')}"
        with steps.step(f"Push {remote}"):
            steps.run_logged(["docker", "tag", reference, remote])
            steps.run_logged(["docker", "push", remote])
        return remote


def is_running() -> bool:
    """Whether a Docker engine answers."""
    return shutil.which("docker") is not None and _succeeds("docker", "info")


def _succeeds(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode == 0
