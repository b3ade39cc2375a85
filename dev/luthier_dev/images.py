"""Which images there are, what goes into each, and the tag that follows from it.

Owns the catalogue and the content hashes: an image is named by a hash of its Dockerfile, its sources and its base, so
that a changed source is a new name that pods notice, and an unchanged one is never built twice. Building is the
builders module's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from luthier_dev import binaries, versions
from luthier_dev.paths import REPOSITORY, layout

_LEFT_OUT = {"__pycache__", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
_LEFT_OUT_SUFFIXES = {".pyc", ".egg-info", ".md"}
_TAG_LENGTH = 12


@dataclass(frozen=True)
class Image:
    """How to build an image.

    Attributes:
        name: of the repository in its reference, such as `luthier-operator`.
        dockerfile: from the repository's root.
        inputs: files and folders, from the repository's root, that go into it.
        program: one of our binaries, for an image of nothing else; the context is then their folder.
        arguments: build arguments.
        takes_base: whether it stands on the base image, by the build argument BASE.
        usually_s: seconds that a build takes, with nothing in any cache.
        public: the image that its makers publish, for clusters that can pull.
    """

    name: str
    dockerfile: str
    inputs: tuple[str, ...] = ()
    program: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    takes_base: bool = False
    usually_s: float = 2
    public: str | None = None

    @property
    def context(self) -> Path:
        """Folder that the Dockerfile copies from."""
        return layout().bin if self.program else REPOSITORY


_SHARED = ("crds", "constraints.txt", ".dockerignore")

CATALOGUE = {
    image.name: image
    for image in [
        Image(
            "luthier-operator",
            "operator/Dockerfile",
            ("operator", *_SHARED),
            takes_base=True,
            usually_s=30,
        ),
        Image(
            "luthier-trainer",
            "trainer_image/Dockerfile",
            ("trainer_image", "artifacts", *_SHARED),
            takes_base=True,
            usually_s=120,
        ),
        Image(
            "luthier-server",
            "serving/Dockerfile",
            ("serving", "artifacts", *_SHARED),
            takes_base=True,
            usually_s=60,
        ),
        Image(
            "luthier-s3",
            "dev/s3/Dockerfile",
            ("dev/s3",),
            arguments={"VERSION": versions.SEAWEEDFS},
            takes_base=True,
            usually_s=10,
            public=f"docker.io/chrislusf/seaweedfs:{versions.SEAWEEDFS}",
        ),
        Image(
            "luthier-kuberay",
            "dev/static/Dockerfile",
            program="ray-operator",
            arguments={"PROGRAM": "ray-operator"},
            public=f"quay.io/kuberay/operator:v{versions.KUBERAY}",
        ),
        Image(
            "luthier-kueue",
            "dev/static/Dockerfile",
            program="kueue",
            arguments={"PROGRAM": "kueue"},
            public=f"registry.k8s.io/kueue/kueue:v{versions.KUEUE}",
        ),
        *(
            Image(
                f"luthier-{controller}",
                "dev/static/Dockerfile",
                program=controller,
                arguments={"PROGRAM": controller},
                public=f"ghcr.io/fluxcd/{controller}:v{versions.FLUX}",
            )
            for controller in ("source-controller", "kustomize-controller")
        ),
        Image(
            "luthier-coredns",
            "dev/static/Dockerfile",
            program="coredns",
            arguments={"PROGRAM": "coredns", "USER": "0"},
        ),
        Image("luthier-pause", "dev/static/Dockerfile", program="pause", arguments={"PROGRAM": "pause"}),
    ]
}

OWN = ["luthier-operator", "luthier-trainer", "luthier-server"]
NODE = ["luthier-pause", "luthier-coredns"]
DEMO = ["luthier-s3", "luthier-kuberay"]


def can_build(image: Image) -> bool:
    """Whether all that the image is named by is there: few need the images that only some tests use."""
    has_program = image.program is None or binaries.is_built(image.program)
    return has_program and (REPOSITORY / image.dockerfile).exists()


def tag(image: Image, base: str) -> str:
    """The tag that says what is in the image: the first digits of a hash of everything that goes into it.

    Args:
        image: from the catalogue.
        base: reference of the base image, itself named by content.
    """
    digest = hashlib.sha256()
    _add(digest, "dockerfile", (REPOSITORY / image.dockerfile).read_bytes())
    for key, value in sorted(image.arguments.items()):
        _add(digest, f"argument {key}", value.encode())
    if image.takes_base:
        _add(digest, "base", base.encode())
    if image.program:
        _add(digest, "program", binaries.origin(image.program).encode())
    for path in sorted(_files(REPOSITORY / each for each in image.inputs)):
        mode = "x" if path.stat().st_mode & 0o100 else "-"
        _add(digest, f"{mode} {path.relative_to(REPOSITORY)}", path.read_bytes())
    return digest.hexdigest()[:_TAG_LENGTH]


def _add(digest: hashlib._Hash, name: str, content: bytes) -> None:
    digest.update(f"{name} {len(content)}\n".encode())
    digest.update(content)


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.name in _LEFT_OUT or path.suffix in _LEFT_OUT_SUFFIXES:
            continue
        if path.is_dir():
            yield from _files(path.iterdir())
        elif path.exists():
            yield path
