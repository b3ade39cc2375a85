"""Where the operators work: a real API server, etcd and controllers, a real scheduler, and kwok in place of nodes.

Owns their start, how fast they may work (the controllers' own defaults of 20 requests a second would be measured
instead of the operators), and the audit log, in which the API server itself writes down each write of a contender.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.operator_bench import stages
from luthier_dev import binaries
from luthier_dev.controlplane import ControlPlane, scheduler
from luthier_dev.paths import REPOSITORY
from luthier_dev.processes import Program

NAMESPACE = "load"
_USERS = "system:serviceaccount:default:"
_CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "ttl-after-finished-controller",
    "serviceaccount-controller",
    "namespace-controller",
)
_FAST = ["--kube-api-qps=5000", "--kube-api-burst=5000"]


@dataclass(frozen=True)
class Write:
    """A write as the API server recorded it."""

    verb: str
    resource: str
    """Plural, with the subresource: finetunejobs/status."""
    name: str
    code: int


class Plant:
    """A cluster without a kubelet, for one case."""

    def __init__(self, contenders: list[str], profile: stages.Profile | None, train_s: float = 0.5) -> None:
        """Give each contender a user of its own; without a profile, pods are made and nothing becomes of them."""
        self._contenders, self._profile, self._train_s = contenders, profile, train_s
        self.control_plane = ControlPlane(
            {
                "etcd": ["--quota-backend-bytes=8589934592"],
                "kube-apiserver": [
                    "--audit-policy-file={directory}/audit.yaml",
                    "--audit-log-path={directory}/audit.log",
                    "--etcd-compaction-interval=1m",
                    # It makes a new node wait for the node controller, which does not run.
                    "--disable-admission-plugins=TaintNodesByCondition",
                    # Fairness among so few users takes a tenth of its CPU.
                    "--enable-priority-and-fairness=false",
                    "--max-requests-inflight=2000",
                    "--max-mutating-requests-inflight=1000",
                ],
                "kube-controller-manager": [
                    *_FAST,
                    f"--controllers={','.join(_CONTROLLERS)}",
                    "--concurrent-job-syncs=20",
                ],
            }
        )
        (self.control_plane.site.directory / "audit.yaml").write_text(json.dumps(_audit_policy(contenders)))

    @property
    def audit_log(self) -> Path:
        """The API server's record."""
        return self.control_plane.site.directory / "audit.log"

    def __enter__(self) -> Plant:
        binaries.ensure(["kwok", "kube-scheduler"])
        plane = self.control_plane.start()
        try:
            plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
            crds = ("crd/finetunejobs.luthier.dev", "crd/modeldeployments.luthier.dev")
            plane.kubectl("wait", "--for=condition=Established", *crds)
            plane.kubectl("create", "namespace", NAMESPACE)
            for contender in self._contenders:
                plane.kubectl("create", "serviceaccount", contender)
                role = ("--clusterrole=cluster-admin", f"--serviceaccount=default:{contender}")
                plane.kubectl("create", "clusterrolebinding", contender, *role)
            if self._profile:
                self._play(self._profile)
        except BaseException:
            plane.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.control_plane.stop()

    def kubeconfig(self, contender: str) -> Path:
        """Write and return the kubeconfig of a contender, with a token as a pod has."""
        plane = self.control_plane
        content = yaml.safe_load(plane.kubeconfig.read_text())
        token = plane.kubectl("create", "token", contender, "--duration=24h").strip()
        content["users"][0]["user"] = {"token": token}
        path = plane.site.directory / f"{contender}.kubeconfig"
        path.write_text(yaml.safe_dump(content))
        return path

    def writes(self, contender: str) -> list[Write]:
        """Return every write of a contender up to now."""
        found = []
        with self.audit_log.open() as lines:
            for line in lines:
                # A line that is being written just now has no end yet.
                if contender in line and line.endswith("\n"):
                    record = json.loads(line)
                    if record["user"]["username"] == _USERS + contender:
                        found.append(_write(record))
        return found

    def _play(self, profile: stages.Profile) -> None:
        plane = self.control_plane
        directory = plane.site.directory
        plane.run(Program("kube-scheduler", [*scheduler(plane.site).argv, *_FAST]))
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(stages.node()))
        plane.kubectl("patch", "node", stages.NODE, "--subresource=status", "-p", json.dumps(stages.node()))
        config = directory / "kwok.yaml"
        config.write_text(yaml.safe_dump_all(stages.documents(profile, self._train_s)))
        arguments = [f"--config={config}", f"--kubeconfig={plane.kubeconfig}", "--manage-all-nodes"]
        plane.run(Program("kwok", [str(binaries.path("kwok")), *arguments]))


def tally(writes: list[Write]) -> dict[str, int]:
    """Return {verb and kind of object: how often}, with the code of what was not accepted."""
    return dict(sorted(Counter(_label(write) for write in writes).items()))


def _label(write: Write) -> str:
    return f"{write.verb} {write.resource}" + ("" if write.code < 300 else f" ({write.code})")


def _write(record: dict[str, Any]) -> Write:
    about = record["objectRef"]
    resource = "/".join(part for part in (about["resource"], about.get("subresource")) if part)
    return Write(record["verb"], resource, about.get("name", ""), record["responseStatus"]["code"])


def _audit_policy(contenders: list[str]) -> dict[str, Any]:
    verbs = ["create", "update", "patch", "delete", "deletecollection"]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "users": [_USERS + each for each in contenders], "verbs": verbs},
            {"level": "None"},
        ],
    }
