"""Kubernetes' two programs of a node, kubelet and kube-proxy, and what they change on the machine around them.

Owns their configuration, and keeps and restores the kernel settings and folders outside of $LUTHIER_HOME that kubelet
touches. When they are started is the node module's.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from luthier_dev import cgroups, mounts, network, runtime
from luthier_dev.controlplane import Site
from luthier_dev.paths import Layout
from luthier_dev.processes import Program

_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
# kubelet makes these whatever its root is.
_STATE = Path("/var/lib/kubelet")
_LOG_LINKS = Path("/var/log/containers")
_LOGS = Path("/var/log/pods")
_SYSCTLS = [
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "vm/overcommit_memory",
]


def kubelet(where: Layout, site: Site, name: str) -> Program:
    """Write kubelet's configuration and return the program to start."""
    resolver = where.run / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.53\n")  # for pods that use no cluster DNS: nobody answers there
    configuration = where.run / "kubelet.yaml"
    configuration.write_text(yaml.safe_dump(_configuration(where, site, resolver)))
    return Program(
        "kubelet",
        [
            str(where.bin / "kubelet"),
            f"--config={configuration}",
            f"--kubeconfig={site.pki / 'kubelet.kubeconfig'}",
            f"--hostname-override={name}",
            f"--node-ip={site.address}",
            f"--root-dir={where.run / 'kubelet'}",
        ],
    )


def kube_proxy(where: Layout, site: Site, name: str) -> Program:
    """kube-proxy by iptables, whose rules lie in the node's network namespace alone."""
    arguments = [
        f"--kubeconfig={site.pki / 'proxy.kubeconfig'}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={network.POD_RANGE}",
        f"--hostname-override={name}",
        "--conntrack-max-per-core=0",  # a setting of the whole machine otherwise
    ]
    if not _BRIDGED.exists():
        # Answers between two pods of one bridge pass no iptables here: lead them through the node.
        arguments.append("--masquerade-all")
    return Program("kube-proxy", [str(where.bin / "kube-proxy"), *arguments])


def save_machine(where: Layout) -> None:
    """Keep what kubelet is about to change outside of $LUTHIER_HOME."""
    values = {each: (Path("/proc/sys") / each).read_text().strip() for each in _SYSCTLS}
    _kept(where).write_text(json.dumps({"sysctls": values, "state": _STATE.exists()}))


def restore_machine(where: Layout) -> None:
    """Put back the kernel settings, and remove kubelet's traces outside of $LUTHIER_HOME."""
    if _kept(where).exists():
        before = json.loads(_kept(where).read_text())
        for name, value in before["sysctls"].items():
            (Path("/proc/sys") / name).write_text(value)
        if not before["state"]:
            mounts.remove(_STATE)
        _kept(where).unlink()
    for link in _LOG_LINKS.glob("*.log"):
        if link.is_symlink() and where.run in link.readlink().parents:
            link.unlink()
    for folder in (_LOG_LINKS, _LOGS):
        runtime.remove_if_empty(folder)


def _kept(where: Layout) -> Path:
    return where.run / "machine-before.json"


def _configuration(where: Layout, site: Site, resolver: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.NAME}",
        "containerRuntimeEndpoint": f"unix://{runtime.socket(where)}",
        "clusterDNS": [network.DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolver),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(site.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(site.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(site.pki / "kubelet.key"),
        "failSwapOn": False,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "imageGCHighThresholdPercent": 100,  # never: our images cannot be pulled again
        "serializeImagePulls": False,
        "podLogsDir": str(where.run / "podlogs"),
        "containerLogMaxSize": "20Mi",
        "nodeStatusUpdateFrequency": "5s",
    }
