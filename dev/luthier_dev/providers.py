"""The three clusters that the demo and the tests can use, and the choice between them.

    LUTHIER_USE_CLUSTER=1        the cluster that KUBECONFIG points at; never taken down
    a Docker engine runs         kind
    otherwise                    our own one-node cluster (see node)

Owns bringing up and down, images on the cluster, and the way from this machine to a Service. What is installed on it
is the addons module's. The tests cover our own node; the other two are tested by hand.
"""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from luthier_dev import addons, binaries, docker, images, loading, node, processes, steps
from luthier_dev.buildah import Buildah
from luthier_dev.cluster import Cluster
from luthier_dev.docker import Docker
from luthier_dev.errors import MachineError
from luthier_dev.kubectl import Kubectl
from luthier_dev.locks import locked
from luthier_dev.paths import layout
from luthier_dev.processes import Program
from luthier_dev.waiting import wait_until

SCOPE = "forward"
USE_CLUSTER = "LUTHIER_USE_CLUSTER"
REGISTRY = "LUTHIER_IMAGE_REGISTRY"


def provider() -> Cluster:
    """The cluster that this machine and its environment ask for."""
    if os.environ.get(USE_CLUSTER) == "1":
        return ExistingCluster()
    if docker.is_running():
        return KindCluster()
    return NodeCluster()


class NodeCluster:
    """Our own one-node cluster, for a Linux machine without Docker."""

    description = "our own one-node cluster"

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._builder = Buildah()

    @property
    def kubeconfig(self) -> Path:
        """See Cluster."""
        return node.site().admin

    @property
    def kubectl(self) -> Kubectl:
        """See Cluster."""
        return Kubectl(self.kubeconfig)

    def up(self) -> Path:
        """See Cluster."""
        with locked("node", "starting or stopping the cluster"):
            if not node.is_well():
                # All at once, and before any image: they share compiled packages, which are then removed.
                binaries.ensure([*node.PROGRAMS, "ray-operator", "helm"])
                self._builder.build(images.NODE)
                node.start(pause_image=self._builder.reference("luthier-pause"))
                loading.load(self._builder, images.NODE)
                node.wait_until_ready()
                loading.forget_old(self._builder)
        addons.install_dns(self)
        return self.kubeconfig

    def down(self) -> None:
        """See Cluster."""
        with (
            locked("node", "starting or stopping the cluster"),
            steps.step("Take the one-node cluster down", usually_s=2),
        ):
            node.stop()

    def image_ref(self, name: str) -> str | None:
        """See Cluster."""
        return self._builder.reference(name)

    def build_images(self, names: Sequence[str]) -> None:
        """See Cluster."""
        self._builder.build(names)

    def load_images(self, names: Sequence[str]) -> None:
        """See Cluster."""
        self.build_images(names)
        loading.load(self._builder, names)

    @contextmanager
    def url_for_service(self, namespace: str, name: str, port: int) -> Iterator[str]:
        """See Cluster. Service addresses are routed from this machine, so the URL outlives the context."""
        yield self._url(namespace, name, port)

    def how_to_open(self, namespace: str, name: str, port: int) -> list[str]:
        """See Cluster."""
        return [f"{self._url(namespace, name, port)}  (from this machine only)"]

    def _url(self, namespace: str, name: str, port: int) -> str:
        service = self.kubectl.get("service", name, "--namespace", namespace)
        return f"http://{service['spec']['clusterIP']}:{port}"


class _ForwardedCluster(ABC):
    """What the two clusters have in common whose Service addresses this machine cannot reach."""

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """See Cluster."""

    @property
    def kubectl(self) -> Kubectl:
        """See Cluster."""
        return Kubectl(self.kubeconfig)

    @contextmanager
    def url_for_service(self, namespace: str, name: str, port: int) -> Iterator[str]:
        """See Cluster. By `kubectl port-forward`, which ends with the context."""
        local = processes.free_ports(1)[0]
        forward = [str(binaries.path("kubectl")), "--kubeconfig", str(self.kubeconfig), "port-forward"]
        argv = [*forward, "--namespace", namespace, f"service/{name}", f"{local}:{port}"]
        log = layout().logs / f"forward-{namespace}-{name}.log"
        child = processes.start_child(Program("port-forward", argv), log, SCOPE)
        try:
            wait_until(lambda: _not_forwarding(child, log), f"the port-forward to {name}", timeout_s=60)
            yield f"http://127.0.0.1:{local}"
        finally:
            child.kill()
            child.wait()

    def how_to_open(self, namespace: str, name: str, port: int) -> list[str]:
        """See Cluster."""
        forward = f"kubectl port-forward --namespace {namespace} service/{name} {port}:{port}"
        return [f"{forward}   and open http://127.0.0.1:{port}"]


class KindCluster(_ForwardedCluster):
    """A kind cluster, where a Docker engine runs."""

    description = "a kind cluster"
    name = "luthier"

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._builder = Docker()

    @property
    def kubeconfig(self) -> Path:
        """See Cluster."""
        return layout().home / "kind.kubeconfig"

    def up(self) -> Path:
        """See Cluster."""
        binaries.ensure(["kind", "kubectl"])
        clusters = subprocess.run(
            [str(binaries.path("kind")), "get", "clusters"], capture_output=True, text=True, check=True
        )
        if self.name not in clusters.stdout.split():
            with steps.step("Create a kind cluster", usually_s=60):
                self._kind("create", "cluster", "--wait", "180s")
        return self.kubeconfig

    def down(self) -> None:
        """See Cluster."""
        binaries.ensure(["kind"])
        with steps.step("Delete the kind cluster", usually_s=5):
            self._kind("delete", "cluster")

    def image_ref(self, name: str) -> str | None:
        """See Cluster."""
        return self._builder.reference(name)

    def build_images(self, names: Sequence[str]) -> None:
        """See Cluster."""
        self._builder.build(names)

    def load_images(self, names: Sequence[str]) -> None:
        """See Cluster."""
        self.build_images(names)
        for name in names:
            with steps.step(f"Load image {name}", images.CATALOGUE[name].usually_s / 3):
                self._kind("load", "docker-image", self._builder.reference(name))

    def _kind(self, *arguments: str) -> None:
        """Kind's own verbs; all of them take the cluster's name, and those that write one, the kubeconfig."""
        verb = [*arguments, "--name", self.name]
        if arguments[1] == "cluster":
            verb += ["--kubeconfig", str(self.kubeconfig)]
        steps.run_logged([str(binaries.path("kind")), *verb])


class ExistingCluster(_ForwardedCluster):
    """The cluster that KUBECONFIG points at: used, and never taken down."""

    def __init__(self) -> None:
        """The cluster is neither started nor checked yet."""
        self._builder: Buildah | Docker = Docker() if docker.is_running() else Buildah()
        self._registry = os.environ.get(REGISTRY, "").rstrip("/")

    @property
    def description(self) -> str:
        """See Cluster."""
        return f"the cluster of KUBECONFIG={self.kubeconfig}"

    @property
    def kubeconfig(self) -> Path:
        """See Cluster."""
        found = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        return Path(found).expanduser()

    def up(self) -> Path:
        """See Cluster. Only checks that it answers."""
        binaries.ensure(["kubectl"])
        if not self.kubeconfig.is_file():
            raise MachineError(f"{USE_CLUSTER}=1 needs a kubeconfig, and there is none at {self.kubeconfig}.")
        self.kubectl("get", "--raw", "/readyz")
        return self.kubeconfig

    def down(self) -> None:
        """See Cluster."""
        steps.say(f"{USE_CLUSTER}=1: {self.description} is left as it is.")

    def image_ref(self, name: str) -> str | None:
        """See Cluster."""
        if self._registry:
            return f"{self._registry}/{self._builder.reference(name).removeprefix('localhost/')}"
        return images.CATALOGUE[name].public

    def build_images(self, names: Sequence[str]) -> None:
        """See Cluster. Without LUTHIER_IMAGE_REGISTRY there is nothing to build for."""
        if self._registry:
            self._builder.build(names)

    def load_images(self, names: Sequence[str]) -> None:
        """See Cluster. Pushes to LUTHIER_IMAGE_REGISTRY; without one, the cluster pulls what is published."""
        self.build_images(names)
        for name in names if self._registry else []:
            self._builder.push(name, self._registry)


def _not_forwarding(child: subprocess.Popen[bytes], log: Path) -> str | None:
    said = log.read_text(errors="replace").strip()
    if child.poll() is not None:
        raise MachineError(f"kubectl port-forward ended: {said}")
    return None if "Forwarding from" in said else said or "nothing said yet"
