"""Moves images from buildah into the node's containerd, layer by layer, and only layers that are not there yet.

Owns the hand-over between two stores that both name layers by sha256. A changed line of Python is then a layer of
kilobytes, not an archive of gigabytes.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from luthier_dev import buildah, processes, runtime, steps
from luthier_dev.buildah import Buildah
from luthier_dev.errors import CommandFailed
from luthier_dev.images import CATALOGUE
from luthier_dev.locks import locked
from luthier_dev.paths import REPOSITORY, layout

_LOADING_SHARE = 0.3
"""Loading an image takes about this share of the time to build it."""


def load(builder: Buildah, names: Sequence[str]) -> None:
    """Give the node's containerd the images that it lacks.

    buildah writes no layer that lies in the target folder already, so links stand there for all that containerd
    holds; what is a plain file afterwards is new, and only that goes through the pipe.
    """
    with locked("loading", "loading images"):
        present = runtime.image_names(layout())
        _load(builder, [name for name in names if builder.reference(name) not in present])


def _load(builder: Buildah, names: Sequence[str]) -> None:
    where = layout()
    for name in names:
        reference = builder.reference(name)
        with steps.step(f"Load image {name}", CATALOGUE[name].usually_s * _LOADING_SHARE):
            folder = where.storage / "export"
            shutil.rmtree(folder, ignore_errors=True)
            targets = where.make(folder / "blobs" / "sha256")
            for blob in runtime.blobs(where):
                (targets / blob.name).symlink_to(blob)
            target = f"oci:{folder}:{reference}"
            push = buildah.command("push", "--quiet", "--disable-compression", reference, target)
            steps.run_logged(push, env=buildah.environment())
            _import(folder, runtime.import_command(where))
            shutil.rmtree(folder)


def forget_old(builder: Buildah) -> None:
    """Remove from containerd the images whose sources have changed; for a node on which no pod runs yet."""
    where = layout()
    ours = {each for each in runtime.image_names(where) if each.startswith("localhost/luthier-")}
    built = [name for name, image in CATALOGUE.items() if (REPOSITORY / image.dockerfile).exists()]
    runtime.remove_images(where, ours - {builder.reference(name) for name in built})


def _import(folder: Path, command: Sequence[str]) -> None:
    """Stream the layout's plain files as a tar archive into `command`."""
    receiver = subprocess.Popen(
        processes.dies_with_us(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=False,
        env=processes.marked_environment(steps.SCOPE, command[0]),
    )
    assert receiver.stdin and receiver.stderr
    broken = False
    try:
        with tarfile.open(fileobj=receiver.stdin, mode="w|") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    archive.add(path, str(path.relative_to(folder)))
        receiver.stdin.close()
    except BrokenPipeError:
        broken = True
    said = receiver.stderr.read().decode(errors="replace").strip()
    if receiver.wait() != 0 or broken:
        raise CommandFailed(command, receiver.returncode, None, said)
