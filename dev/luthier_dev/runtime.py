"""containerd for the node: its configuration, its images, and the removal of every container and mount it made.

Owns everything below containerd's socket. Images are kept apart from the running state, so that they survive
`cluster-down`. Knows nothing of Kubernetes but the names that kubelet expects.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from luthier_dev import mounts
from luthier_dev.errors import MachineError
from luthier_dev.network import POD_RANGE
from luthier_dev.paths import Layout
from luthier_dev.processes import Program

CNI_NETWORK = "luthier"
_CNI_PLUGINS = "/usr/lib/cni"
_CNI_RESULTS = Path("/var/lib/cni/results")
_SHIM_SOCKETS = Path("/run/containerd/s")
_KUBERNETES = "k8s.io"  # containerd's namespace of everything that kubelet sees
_SNAPSHOTS = ("--namespace", _KUBERNETES, "snapshots", "--snapshotter", "overlayfs")


def state(where: Layout) -> Path:
    """Folder of the running containers."""
    return where.run / "containerd"


def socket(where: Layout) -> Path:
    """The socket at which containerd answers."""
    return where.run / "containerd.sock"


def configure(where: Layout, pause_image: str) -> Program:
    """Write containerd's and CNI's configuration and return the program to start."""
    cni = where.make(where.run / "cni")
    configuration = where.run / "containerd.toml"
    configuration.write_text(_configuration(where, cni, pause_image))
    (cni / "10-luthier.conflist").write_text(json.dumps(_pod_network(where), indent=1))
    return Program("containerd", ["containerd", "--config", str(configuration)])


def missing(where: Layout) -> str | None:
    """None when containerd answers, else what it says."""
    answer = _ctr(where, "version")
    return None if answer.returncode == 0 else answer.stderr.strip()[-200:]


def image_names(where: Layout) -> set[str]:
    """Names of all images that pods can use."""
    return set(_checked(where, "--namespace", _KUBERNETES, "images", "list", "-q").split())


def remove_images(where: Layout, names: Iterable[str]) -> None:
    """Remove images by name; their layers go when no other image holds them."""
    for name in sorted(names):
        _checked(where, "--namespace", _KUBERNETES, "images", "remove", "--sync", name)


def import_command(where: Layout) -> list[str]:
    """The command that reads an OCI archive from its standard input."""
    return ["ctr", "-a", str(socket(where)), "--namespace", _KUBERNETES, "images", "import", "-"]


def has_snapshot(where: Layout, name: str) -> bool:
    """Whether the files of a layer, and of all below it, are there."""
    return _ctr(where, *_SNAPSHOTS, "info", name).returncode == 0


def make_snapshot(where: Layout, name: str, parent: str, files: Path) -> None:
    """Make a snapshot of hard links to `files`, a layer in overlayfs's own format, on top of `parent`.

    It stays until `release_snapshot`, whether an image holds it or not.
    """
    draft = f"draft-{name}"
    _ctr(where, *_SNAPSHOTS, "remove", draft)  # of a load that was cut off
    _checked(where, *_SNAPSHOTS, "prepare", draft, *([parent] if parent else []))
    mount = _checked(where, *_SNAPSHOTS, "mounts", "/unused", draft)
    found = re.search(r"upperdir=([^, ]+)|mount -t bind (\S+)", mount)
    if found is None:
        raise MachineError(f"containerd names no folder for a snapshot, but: {mount.strip()}")
    target = found.group(1) or found.group(2)
    mounts.link_tree(files, Path(target), mounted=files.parents[1])
    _checked(where, *_SNAPSHOTS, "commit", name, draft)


def release_snapshot(where: Layout, name: str) -> None:
    """Let the snapshot go with the last image that holds it."""
    _checked(where, *_SNAPSHOTS, "label", name, "containerd.io/gc.root=")


def remove_traces(where: Layout) -> None:
    """Remove what containers left behind, inside and outside of $LUTHIER_HOME; all processes must have ended."""
    tasks = state(where) / "io.containerd.runtime.v2.task" / _KUBERNETES
    for address in tasks.glob("*/address"):
        shim = Path(address.read_text().strip().removeprefix("unix://"))
        if shim.parent == _SHIM_SOCKETS:
            shim.unlink(missing_ok=True)
    for result in _CNI_RESULTS.glob("*"):
        if str(state(where)) in result.read_text():  # it names the pod's network namespace
            result.unlink()
    mounts.remove(state(where))
    for folder in (_CNI_RESULTS, _CNI_RESULTS.parent, _SHIM_SOCKETS, _SHIM_SOCKETS.parent):
        remove_if_empty(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder outside of $LUTHIER_HOME that a component made, unless somebody else uses it."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _configuration(where: Layout, cni: Path, pause_image: str) -> str:
    folder = state(where)
    return f"""version = 2
root = "{where.containerd}"
state = "{folder}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{socket(where)}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder / "opt"}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true # this machine may lack CAP_SYS_RESOURCE
  netns_mounts_under_state_dir = true
  sandbox_image = "{pause_image}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI_PLUGINS}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{folder / "runc"}"
"""


def _pod_network(where: Layout) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": CNI_NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(where.run / "cni-addresses"),
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _checked(where: Layout, *arguments: str) -> str:
    answer = _ctr(where, *arguments)
    if answer.returncode != 0:
        raise MachineError(f"`ctr {' '.join(arguments)}` failed: {answer.stderr.strip()}")
    return answer.stdout


def _ctr(where: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ctr", "-a", str(socket(where)), *arguments], capture_output=True, text=True, check=False)
