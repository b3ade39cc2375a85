"""Builds images without a Docker engine, by buildah, on a base made by mmdebstrap, all below $LUTHIER_HOME.

Owns buildah's command lines, the base image and the removal of old tags. What an image consists of is said in images;
how it reaches the node, in loading.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from luthier_dev import binaries, mounts, prerequisites, processes, steps
from luthier_dev.images import CATALOGUE, Image, tag
from luthier_dev.locks import locked
from luthier_dev.paths import REPOSITORY, layout

SCOPE = steps.SCOPE
_BASE_PACKAGES = ["python3", "python3-venv", "wget", "ca-certificates", "procps"]
# What python:*-slim leaves out too. Licences stay.
_BASE_LEFT_OUT = [f"/usr/share/{each}/*" for each in ("man", "locale", "info", "i18n", "doc/*/examples")]
# Perl's library is needed while packages are set up, and by nothing that runs in the images.
_BASE_REMOVED = ["usr/share/perl", "usr/lib/*/perl", "usr/lib/*/gconv"]
_BASE_DOCKERFILE = REPOSITORY / "dev" / "base" / "Dockerfile"
# This machine's settings for package indexes and certificates are used by the build and never enter an image.
_MACHINE_SETTINGS = [Path("/etc/ssl/certs"), Path("/etc/pip.conf"), Path("/etc/uv")]
_LEAST_FREE_BYTES = 15 << 30


class Buildah:
    """Images without a Docker engine, stored below $LUTHIER_HOME."""

    def __init__(self) -> None:
        """Nothing is built yet."""
        self._references: dict[str, str] = {}

    def reference(self, name: str) -> str:
        """The image's name and the tag of its sources, as they were when this object was first asked.

        What was built and what is asked for later in the same run stay the same, whoever edits meanwhile.
        """
        if name not in self._references:
            image = CATALOGUE[name]
            if image.program:
                binaries.ensure([image.program])
            self._references[name] = f"localhost/{name}:{tag(image, _base_reference())}"
        return self._references[name]

    def build(self, names: Sequence[str]) -> None:
        """Build the images that do not exist under their current tag."""
        prerequisites.check_machine()
        prerequisites.ensure_packages(prerequisites.IMAGE_PACKAGES)
        if self._missing(names):
            with locked("images", "building images"):
                self._build(self._missing(names))

    def _missing(self, names: Sequence[str]) -> list[str]:
        present = self._names()
        return [name for name in names if self.reference(name) not in present]

    def _build(self, missing: Sequence[str]) -> None:
        self._run("rm", "--all")  # containers of builds that failed or were cut off, each with a mount
        if any(CATALOGUE[name].takes_base for name in missing) and _base_reference() not in self._names():
            self._build_base()
        for name in missing:
            image = CATALOGUE[name]
            with steps.step(f"Build image {name}", image.usually_s):
                self._bud(image, self.reference(name))
                self._forget_other_tags(name)
        if shutil.disk_usage(layout().home).free < _LEAST_FREE_BYTES:
            with steps.step("Remove layers of old images, since little disk is left"):
                self._run("rmi", "--prune")

    def push(self, name: str, registry: str) -> str:
        """Push to a registry and return the reference there."""
        reference = self.reference(name)
        remote = f"{registry}/{reference.removeprefix('localhost/')}"
        with steps.step(f"Push {remote}"):
            self._run("push", reference, f"docker://{remote}")
        return remote

    def _bud(self, image: Image, reference: str) -> None:
        arguments = dict(image.arguments)
        if image.takes_base:
            arguments["BASE"] = _base_reference()
        self._run(
            *("bud", "--layers", "--isolation", "chroot", "--format", "oci", "--pull-never"),
            *(f"--volume={each}:{each}:ro" for each in _MACHINE_SETTINGS if each.exists()),
            *(f"--build-arg={key}={value}" for key, value in sorted(arguments.items())),
            *("--file", str(REPOSITORY / image.dockerfile), "--tag", reference, str(image.context)),
        )

    def _build_base(self) -> None:
        folder = layout().make(layout().downloads / _base_reference().rpartition("/")[2].replace(":", "-"))
        archive = folder / "base.tar"
        release = _release()
        if not archive.exists():
            with steps.step(f"Make a base image of {release}", usually_s=25):
                partial = folder / "partial.tar"
                steps.run_logged(
                    [
                        *("mmdebstrap", "--variant=minbase", f"--include={','.join(_BASE_PACKAGES)}"),
                        *(f"--dpkgopt=path-exclude={each}" for each in _BASE_LEFT_OUT),
                        *(f'--customize-hook=rm -rf "$1"/{each}' for each in _BASE_REMOVED),
                        *("--aptopt=Acquire::Languages none", release, str(partial)),
                    ]
                )
                partial.replace(archive)
        with steps.step("Build the base image", usually_s=8):
            dockerfile = str(REPOSITORY / "dev" / "base" / "Dockerfile")
            self._run("bud", "--isolation", "chroot", "--file", dockerfile, "--tag", _base_reference(), str(folder))

    def _forget_other_tags(self, name: str) -> None:
        keep = self.reference(name)
        old = [each for each in self._names() if each.startswith(f"localhost/{name}:") and each != keep]
        if old:
            self._run("rmi", *sorted(old))

    def _names(self) -> set[str]:
        answer = subprocess.run(
            command("images", "--json"), capture_output=True, text=True, check=True, env={**os.environ, **environment()}
        ).stdout
        return {name for image in json.loads(answer or "[]") or [] for name in image.get("names") or []}

    def _run(self, *arguments: str) -> None:
        steps.run_logged(command(*arguments), env=environment())


def command(*arguments: str) -> list[str]:
    """Buildah with its storage below $LUTHIER_HOME."""
    storage = layout().storage
    places = ["--root", str(storage / "images"), "--runroot", str(storage / "run")]
    return ["buildah", *places, "--storage-driver", "overlay", *arguments]


def environment() -> dict[str, str]:
    """Where buildah keeps what it downloads and its temporary files: they outlive the images."""
    return {"TMPDIR": str(layout().make(layout().downloads / "buildah"))}


def remove_all() -> None:
    """Remove every image and layer, and whatever a build that was cut off left; downloads stay."""
    processes.end(processes.owned(SCOPE))
    mounts.remove(layout().storage)
    for leftover in layout().downloads.glob("buildah/*"):
        if leftover.name != "buildah-cache":
            mounts.remove(leftover)


def _base_reference() -> str:
    """Name of the base image, by what decides its contents."""
    recipe = [_release(), *_BASE_PACKAGES, *_BASE_LEFT_OUT, *_BASE_REMOVED, _BASE_DOCKERFILE.read_text()]
    return f"localhost/luthier-base:{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"


def _release() -> str:
    """This machine's own release of Debian or Ubuntu: its packages are the ones that can be had here."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]
