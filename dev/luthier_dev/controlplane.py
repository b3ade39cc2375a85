"""Kubernetes' control plane as plain processes: etcd, API server, controller-manager, scheduler.

Owns their command lines, certificates and readiness. `ControlPlane` runs three of them on loopback for the
integration tests: a real API server without a node, whose processes die with the process that made it. The
node module runs all four in a network namespace, from the same command lines.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from luthier_dev import binaries, kubeconfig, pki
from luthier_dev.errors import NotReady
from luthier_dev.kubectl import Kubectl, KubectlFailed
from luthier_dev.paths import layout
from luthier_dev.processes import Program, free_ports, start_child
from luthier_dev.waiting import wait_until

SCOPE = "controlplane"
PROGRAMS = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"]


@dataclass(frozen=True)
class Site:
    """Where a control plane lives: its folder, addresses and ports."""

    directory: Path
    address: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    service_range: str
    service_address: str
    advertised: bool
    """Whether `address` may stand in the endpoints of the Service `kubernetes`; loopback may not."""

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.address}:{self.api_port}"

    @property
    def pki(self) -> Path:
        """Folder of certificates and kubeconfigs."""
        return self.directory / "pki"

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig."""
        return self.pki / "admin.kubeconfig"


@dataclass(frozen=True)
class User:
    """A user of the API server, as its certificate names it."""

    name: str
    group: str | None = None


USERS = {
    "admin": User("luthier-dev-admin", "system:masters"),
    "controller-manager": User("system:kube-controller-manager"),
    "scheduler": User("system:kube-scheduler"),
    "proxy": User("system:kube-proxy"),
}


def prepare(site: Site) -> pki.Authority:
    """Make the certificates and one kubeconfig per user; return the authority for further ones."""
    site.pki.mkdir(parents=True)
    authority = pki.Authority(site.pki)
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    authority.issue("apiserver", "kube-apiserver", hosts=[*names, "127.0.0.1", site.address, site.service_address])
    pki.signing_key(site.pki, "service-accounts")
    for name, user in USERS.items():
        pair = authority.issue(name, user.name, user.group)
        kubeconfig.write(site.pki / f"{name}.kubeconfig", site.server, authority.pair.certificate, pair)
    return authority


def etcd(site: Site) -> Program:
    """The store, on loopback; without fsync, since what it holds is never worth a power cut."""
    client, peer = f"http://127.0.0.1:{site.etcd_port}", f"http://127.0.0.1:{site.etcd_peer_port}"
    return Program(
        "etcd",
        [
            str(layout().bin / "etcd"),
            f"--data-dir={site.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    )


def apiserver(site: Site) -> Program:
    """The API server, with RBAC and working service account tokens."""
    keys = site.pki
    arguments = [
        f"--etcd-servers=http://127.0.0.1:{site.etcd_port}",
        f"--bind-address={site.address}",
        f"--advertise-address={site.address}",
        f"--secure-port={site.api_port}",
        f"--tls-cert-file={keys / 'apiserver.crt'}",
        f"--tls-private-key-file={keys / 'apiserver.key'}",
        f"--client-ca-file={keys / 'ca.crt'}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={keys / 'service-accounts.key'}",
        f"--service-account-signing-key-file={keys / 'service-accounts.key'}",
        f"--service-cluster-ip-range={site.service_range}",
        f"--kubelet-client-certificate={keys / 'admin.crt'}",
        f"--kubelet-client-key={keys / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged",
        # Policies that change pods, with which a test gives them a user as OpenShift does.
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
    ]
    if not site.advertised:
        arguments.append("--endpoint-reconciler-type=none")
    return Program("kube-apiserver", [str(layout().bin / "kube-apiserver"), *arguments])


def controller_manager(site: Site) -> Program:
    """The controllers of Jobs, garbage collection, service accounts and the rest."""
    keys = site.pki
    return Program(
        "kube-controller-manager",
        [
            str(layout().bin / "kube-controller-manager"),
            f"--kubeconfig={keys / 'controller-manager.kubeconfig'}",
            f"--service-account-private-key-file={keys / 'service-accounts.key'}",
            f"--root-ca-file={keys / 'ca.crt'}",
            f"--cluster-signing-cert-file={keys / 'ca.crt'}",
            f"--cluster-signing-key-file={keys / 'ca.key'}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
        ],
    )


def scheduler(site: Site) -> Program:
    """The scheduler; only a control plane with a node needs one."""
    return Program(
        "kube-scheduler",
        [
            str(layout().bin / "kube-scheduler"),
            f"--kubeconfig={site.pki / 'scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
        ],
    )


def missing_readiness(site: Site) -> str | None:
    """None when the API server answers /readyz with ok, else what it answers.

    /readyz includes the post-start hooks that make the default RBAC roles and priority classes.
    """
    context = ssl.create_default_context(cafile=str(site.pki / "ca.crt"))
    context.load_cert_chain(site.pki / "admin.crt", site.pki / "admin.key")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"{site.server}/readyz", timeout=2):
            return None
    except urllib.error.HTTPError as error:
        failing = [line for line in error.read().decode().splitlines() if line.startswith("[-]")]
        return f"kube-apiserver answers {error.code}: {'; '.join(failing)}"
    except OSError as error:
        return f"no answer from {site.server}: {error}"


def remove_abandoned() -> None:
    """Remove the folders of control planes whose maker was killed; the kernel ended their processes."""
    for folder in layout().controlplanes.glob("*-*"):
        if not psutil.pid_exists(int(folder.name.partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)


class ControlPlane:
    """A real API server with etcd and controllers, on free loopback ports, in a temporary folder.

    There is no kubelet and no scheduler: pods are made and never run, and a test plays the node by writing
    their status. The processes are killed by the kernel when the thread that started them ends.

        with ControlPlane() as control_plane:
            kubernetes.config.load_kube_config(str(control_plane.kubeconfig))
    """

    def __init__(self, arguments: Mapping[str, Sequence[str]] | None = None) -> None:
        """Reserve a folder and ports; `start` or the `with` statement starts the processes.

        Args:
            arguments: further ones by the name of the program; `{directory}` in them is the folder.
        """
        self._arguments = arguments or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        remove_abandoned()
        parent = layout().make(layout().controlplanes)
        self._directory = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        api_port, etcd_port, peer_port = free_ports(3)
        self.site = Site(
            directory=self._directory,
            address="127.0.0.1",
            api_port=api_port,
            etcd_port=etcd_port,
            etcd_peer_port=peer_port,
            service_range="198.19.0.0/16",  # RFC 2544; without a node, nothing is ever sent there
            service_address="198.19.0.1",
            advertised=False,
        )

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.site.admin

    @property
    def logs(self) -> Path:
        """Folder with one log per process."""
        return self._directory / "logs"

    def start(self) -> Self:
        """Start everything; returns when the API server is ready and the default service account exists.

        The programs are built first where they are missing, which takes minutes.
        """
        try:
            binaries.ensure(PROGRAMS)
            prepare(self.site)
            self._start(etcd(self.site))
            self._start(apiserver(self.site))
            self._wait_for_apiserver()
            self._start(controller_manager(self.site))
            wait_until(self._missing_service_account, "the default service account", timeout_s=60)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill the processes and remove their folder."""
        for name in list(self._processes):
            self._kill(name)
        shutil.rmtree(self._directory, ignore_errors=True)

    def restart_apiserver(self) -> None:
        """Kill the API server as a crash would, start it again and wait until it is ready.

        Watches break, and requests meanwhile find nobody; what etcd holds stays.
        """
        self.stop_apiserver()
        self.start_apiserver()

    def stop_apiserver(self) -> None:
        """Kill the API server: from now on requests are refused."""
        self._kill("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start the API server again and wait until it is ready."""
        self._start(apiserver(self.site))
        self._wait_for_apiserver()

    @property
    def kubectl(self) -> Kubectl:
        """Kubectl as administrator: `control_plane.kubectl("get", "pods")` returns what it prints."""
        return Kubectl(self.kubeconfig)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, program: Program) -> None:
        """Run a further program beside the control plane, for as long as that runs."""
        self._start(program)

    def _start(self, program: Program) -> None:
        more = [each.format(directory=self._directory) for each in self._arguments.get(program.name, ())]
        program = replace(program, argv=[*program.argv, *more])
        self._processes[program.name] = start_child(program, self._log(program.name), SCOPE)

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _wait_for_apiserver(self) -> None:
        wait_until(self._missing_apiserver, "the API server", timeout_s=90, interval_s=0.1)

    def _missing_apiserver(self) -> str | None:
        self._raise_if_one_ended()
        return missing_readiness(self.site)

    def _missing_service_account(self) -> str | None:
        self._raise_if_one_ended()
        try:
            self.kubectl("get", "serviceaccount", "default")
        except KubectlFailed as error:
            return str(error)
        return None

    def _raise_if_one_ended(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                tail = self._log(name).read_text(errors="replace").splitlines()[-5:]
                raise NotReady(f"{name} ended with status {process.returncode}: " + "\n".join(tail))
