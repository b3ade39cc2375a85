"""One-node Kubernetes in a network namespace of its own: up, down, and whether it is well.

Owns the order in which its parts start and end. Every start begins from an empty etcd, after the removal of whatever
an earlier run left; images survive. The parts are controlplane, network, cgroups, runtime and kubelet; what runs on
the node (DNS, KubeRay, S3) is the addons module's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from luthier_dev import (
    binaries,
    cgroups,
    controlplane,
    kubeconfig,
    kubelet,
    mounts,
    network,
    prerequisites,
    processes,
    runtime,
    steps,
)
from luthier_dev.controlplane import Site
from luthier_dev.errors import MachineError, NotReady
from luthier_dev.kubectl import Kubectl, KubectlFailed
from luthier_dev.paths import Layout, layout
from luthier_dev.processes import Program
from luthier_dev.waiting import wait_until

SCOPE = "node"
NAME = "luthier"
_NAMESPACE = network.Namespace()
PROGRAMS = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "pause",
    "coredns",
]
"""What must be built for the node; containerd and its companions are packages."""
_DAEMONS = {*PROGRAMS[:6], "containerd"}
_PATIENCE_S = 30.0
_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 107 bytes
_LONGEST_SUFFIX = len("/run/containerd.sock.ttrpc")


def site() -> Site:
    """Where the node's control plane lives."""
    return Site(
        directory=layout().run,
        address=network.NODE_ADDRESS,
        api_port=6443,
        etcd_port=2379,
        etcd_peer_port=2380,
        service_range=network.SERVICE_RANGE,
        service_address=network.API_SERVICE_ADDRESS,
        advertised=True,
    )


def is_well() -> bool:
    """Whether all programs of the node run, the API server answers and the node is ready.

    A busy machine gets time to answer: whoever hears False takes down what runs there.
    """
    running = processes.owned_names(SCOPE)
    if not running:
        return False
    try:
        if ended := _DAEMONS - running:
            raise NotReady(f"{', '.join(sorted(ended))} no longer runs")
        _wait(lambda: controlplane.missing_readiness(site()) or _missing_node(), "the node", _PATIENCE_S)
    except NotReady as error:
        steps.say(f"The running cluster is incomplete, so it is started again: {error}")
        return False
    return True


def start(pause_image: str) -> None:
    """Start the node's programs, after removing whatever is left of an earlier run.

    When this returns, the API server and containerd answer. The node is not ready before the pause image is loaded.
    """
    where = layout()
    prerequisites.check_machine()
    prerequisites.ensure_packages(prerequisites.NODE_PACKAGES)
    binaries.ensure(PROGRAMS)
    _check_home(where)
    stop()
    with steps.step("Start the node's programs", usually_s=10):
        _start(where, pause_image)


def wait_until_ready() -> None:
    """Return when the node takes pods."""
    with steps.step("Wait for the node to be ready", usually_s=5):
        _wait(_missing_node, "the node", timeout_s=120)


def stop() -> None:
    """End and remove everything that `start` made, and whatever a run that was cut off left; images stay.

    Safe to call when nothing runs, and when only parts are left. Where the cluster of another LUTHIER_HOME runs, what
    the machine has only one of is that cluster's, and left alone.
    """
    where = layout()
    processes.end(processes.owned(SCOPE))
    alone = not _other_homes(where)
    if alone:
        cgroups.end_members()
        cgroups.remove()
    runtime.remove_traces(where)
    kubelet.restore_machine(where)
    mounts.remove(where.run)
    if alone:
        network.remove(_NAMESPACE)


def fake_gpus(count: int) -> None:
    """Add `count` fake GPUs to the node's capacity; the kubelet keeps them, and the scheduler counts them."""
    patch = {"status": {"capacity": {"nvidia.com/gpu": str(count)}}}
    kubectl()("patch", "node", NAME, "--subresource=status", "--patch", json.dumps(patch))


def kubectl() -> Kubectl:
    """Kubectl as administrator of the node."""
    return Kubectl(site().admin)


def _start(where: Layout, pause_image: str) -> None:
    here = site()
    where.make(where.run).chmod(0o700)
    shutil.rmtree(_log("any").parent, ignore_errors=True)
    network.create(_NAMESPACE)
    cgroups.create()
    authority = controlplane.prepare(here)
    identity = authority.issue("kubelet", f"system:node:{NAME}", "system:nodes", hosts=[NAME, network.NODE_ADDRESS])
    kubeconfig.write(here.pki / "kubelet.kubeconfig", here.server, authority.pair.certificate, identity)
    _run(controlplane.etcd(here))
    _run(controlplane.apiserver(here))
    _run(runtime.configure(where, pause_image))
    _wait(lambda: runtime.missing(where), "containerd", timeout_s=60)
    _wait(lambda: controlplane.missing_readiness(here), "the API server", timeout_s=120)
    kubectl()(
        *("create", "clusterrolebinding", "luthier-dev-kube-proxy"),
        *("--clusterrole=system:node-proxier", "--user=system:kube-proxy"),
    )
    kubelet.save_machine(where)
    _run(controlplane.controller_manager(here))
    _run(controlplane.scheduler(here))
    _run(kubelet.kubelet(where, here, NAME))
    _run(kubelet.kube_proxy(where, here, NAME))


def _run(program: Program) -> None:
    inside = Program(program.name, _NAMESPACE.enter(program.argv), program.env)
    processes.start_daemon(inside, _log(program.name), SCOPE)


def _log(program: str) -> Path:
    return layout().logs / "node" / f"{program}.log"


def _wait(missing: Callable[[], str | None], what: str, timeout_s: float) -> None:
    """Wait until nothing is missing, or a program that should run has ended."""
    started = {log.stem for log in _log("any").parent.glob("*.log")} & _DAEMONS
    unseen: set[str] = set()

    def condition() -> str | None:
        nonlocal unseen
        before, unseen = unseen, started - processes.owned_names(SCOPE)
        for name in sorted(before & unseen):  # twice in a row: a program that execs has no environment to read
            tail = _log(name).read_text(errors="replace").splitlines()[-3:]
            raise NotReady(f"{name} ended: {' '.join(tail)[-600:]} (log: {_log(name)})")
        return missing()

    wait_until(condition, what, timeout_s)


def _missing_node() -> str | None:
    """None when the node is ready, else what kubelet says is missing."""
    try:
        node = kubectl().get("node", NAME)
    except KubectlFailed as error:
        return str(error)
    if not node["metadata"].get("labels"):
        return "the node has no labels yet"
    for condition in node["status"].get("conditions", []):
        if condition["type"] == "Ready":
            return None if condition["status"] == "True" else str(condition["message"])
    return "kubelet has not reported yet"


def _other_homes(where: Layout) -> set[str]:
    return processes.homes_in_use(SCOPE) - {str(where.home)}


def _check_home(where: Layout) -> None:
    if len(str(where.home)) + _LONGEST_SUFFIX > _LONGEST_SOCKET_PATH:
        raise MachineError(f"LUTHIER_HOME is too long a path for sockets: choose a shorter one than {where.home}.")
    for other in _other_homes(where):
        raise MachineError(
            f"The one-node cluster of LUTHIER_HOME={other} runs on this machine, which has room for one: "
            f"take it down first by LUTHIER_HOME={other} make cluster-down."
        )
