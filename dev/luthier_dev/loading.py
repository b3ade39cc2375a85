"""Gives images from buildah's storage to the node's containerd without copying them.

Owns the hand-over. Both stores keep a layer as an unpacked folder in the format of overlayfs, on the same disk: each
layer that containerd lacks becomes a snapshot of hard links, and only the manifest and the configuration, a few
kilobytes, are imported. containerd finds every snapshot there and unpacks nothing. Six gigabytes take seconds, and
the room of one copy.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier_dev import buildah, processes, runtime, steps
from luthier_dev.buildah import Buildah
from luthier_dev.errors import CommandFailed
from luthier_dev.images import CATALOGUE, can_build
from luthier_dev.locks import locked
from luthier_dev.paths import layout


@dataclass(frozen=True)
class Layer:
    """A layer of an image in buildah's storage.

    Attributes:
        digest: sha256 of its tar archive, not compressed.
        size_bytes: of that archive.
        folder: its files, unpacked.
    """

    digest: str
    size_bytes: int
    folder: Path


def load(builder: Buildah, names: Sequence[str]) -> None:
    """Give the node's containerd the images that it lacks."""
    present = runtime.image_names(layout())
    missing = [name for name in names if builder.reference(name) not in present]
    if not missing:
        return
    with locked("loading", "loading images"):
        for name in missing:
            with steps.step(f"Load image {name}", usually_s=5 if CATALOGUE[name].usually_s > 60 else 1):
                _load(builder.reference(name))


def forget_old(builder: Buildah) -> None:
    """Remove from containerd the images whose sources have changed; for a node on which no pod runs yet."""
    where = layout()
    ours = {each for each in runtime.image_names(where) if each.startswith("localhost/luthier-")}
    built = [name for name, image in CATALOGUE.items() if can_build(image)]
    runtime.remove_images(where, ours - {builder.reference(name) for name in built})


def _load(reference: str) -> None:
    where = layout()
    layers = list(reversed(list(_layers(reference))))
    snapshots = _chain([layer.digest for layer in layers])
    made = []
    for layer, snapshot, parent in zip(layers, snapshots, ["", *snapshots], strict=False):
        if not runtime.has_snapshot(where, snapshot):
            runtime.make_snapshot(where, snapshot, parent, layer.folder)
            made.append(snapshot)
    _import(reference, layers)
    for snapshot in made:
        runtime.release_snapshot(where, snapshot)


def _layers(reference: str) -> Iterator[Layer]:
    """Layers of an image, the uppermost first, as containers/storage lists them."""
    storage = layout().storage / "images"
    images = json.loads((storage / "overlay-images" / "images.json").read_text())
    known = json.loads((storage / "overlay-layers" / "layers.json").read_text())
    by_id = {layer["id"]: layer for layer in known}
    identity = next(image["layer"] for image in images if reference in image.get("names", []))
    while identity:
        layer = by_id[identity]
        yield Layer(layer["diff-digest"], layer["diff-size"], storage / "overlay" / identity / "diff")
        identity = layer.get("parent", "")


def _chain(digests: Sequence[str]) -> list[str]:
    """Name of the snapshot after each layer (OCI image specification, "Layer ChainID")."""
    names: list[str] = []
    for digest in digests:
        above = f"{names[-1]} {digest}".encode() if names else b""
        names.append(f"sha256:{hashlib.sha256(above).hexdigest()}" if names else digest)
    return names


def _import(reference: str, layers: Sequence[Layer]) -> None:
    """Import the manifest and the configuration of an image whose snapshots are all there.

    buildah writes no layer that lies in the target folder already: empty files of the right size stand for them.
    """
    folder = layout().storage / "export"
    shutil.rmtree(folder, ignore_errors=True)
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for layer in layers:
        with (blobs / layer.digest.removeprefix("sha256:")).open("wb") as placeholder:
            placeholder.truncate(layer.size_bytes)
    placeholders = set(blobs.iterdir())
    target = f"oci:{folder}:{reference}"
    push = buildah.command("push", "--quiet", "--disable-compression", reference, target)
    steps.run_logged(push, env=buildah.environment())
    files = [path for path in folder.rglob("*") if path.is_file() and path not in placeholders]
    _stream(folder, files, runtime.import_command(layout()))
    shutil.rmtree(folder)


def _stream(folder: Path, files: Sequence[Path], command: Sequence[str]) -> None:
    """Give `files` to a command's standard input, as a tar archive with paths from `folder`."""
    archive = folder / "export.tar"
    with tarfile.open(archive, "w") as writer:
        for path in sorted(files):
            writer.add(path, str(path.relative_to(folder)))
    with archive.open("rb") as given:
        receiver = subprocess.run(
            processes.dies_with_us(command),
            stdin=given,
            capture_output=True,
            check=False,
            env=processes.marked_environment(steps.SCOPE, command[0]),
        )
    if receiver.returncode != 0:
        raise CommandFailed(command, receiver.returncode, None, receiver.stderr.decode(errors="replace").strip())
