"""A namespace of a test's own on a real API server; its methods are what a user does there, and what the node does."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from luthier_dev.controlplane import ControlPlane
from luthier_dev.waiting import wait_until
from support.operator.api import Raw, api_of
from support.operator.operator_process import finetunejob, prepared, published

_SECONDS = itertools.count(1)


class Namespace:
    """A namespace of a test's own, and the node that plays its pods."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane, self._api = control_plane, api_of(control_plane)
        self.name = f"t-{secrets.token_hex(4)}"
        self._api.create_namespace(self.name)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self._control_plane.kubectl("-n", self.name, *arguments, stdin=stdin)

    def apply(self, manifest: Raw) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def get(self, kind: str, name: str) -> Raw:
        return self._api.get(self.name, kind, name)

    def all(self, kind: str, selector: str = "") -> list[Raw]:
        return self._api.all(self.name, kind, selector)

    def merge(self, kind: str, name: str, patch: Raw, *, status: bool = False) -> None:
        self._api.merge(self.name, kind, name, patch, status=status)

    def until(self, what: str, condition: Callable[[], object], timeout_s: float = 60) -> None:
        wait_until(lambda: None if condition() else "not so yet", what, timeout_s, interval_s=0.05)

    def ready_reason(self, kind: str, name: str) -> str:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")

    def await_reason(self, kind: str, name: str, reason: str, timeout_s: float = 60) -> Raw:
        self.until(f"{kind} {name} {reason}", lambda: self.ready_reason(kind, name) == reason, timeout_s)
        return self.get(kind, name)

    # The FineTuneJob `reviews`

    def submit(self, **changes: Any) -> None:
        """Apply the FineTuneJob, with changes at the top of its spec."""
        self.apply(finetunejob(**changes))

    def run_through(self, key: str = "a", version: str = "v1") -> None:
        """Play both pods of a run."""
        self.prepare_ends(key)
        self.train_ends(key, version)
        self.await_version(version)

    def await_version(self, version: str) -> None:
        self.until(version, lambda: self.version == version)

    def prepare_ends(self, key: str = "a") -> None:
        self.end(self.await_pod("prepare"), 0, prepared(key))

    def train_ends(self, key: str = "a", version: str = "v1") -> None:
        self.end(self.await_pod("train"), 0, published(key, version))

    @property
    def version(self) -> str:
        return str(self.get("ftj", "reviews").get("status", {}).get("artifact", {}).get("version", ""))

    @property
    def jobs(self) -> list[str]:
        return sorted(job["metadata"]["name"] for job in self.all("jobs"))

    # The node

    def await_pod(self, stage: str, *, ended: bool = False) -> Raw:
        """Return the pod that the Job controller made for a stage."""

        def found() -> list[Raw]:
            pods = self.all("pods", f"app.kubernetes.io/component={stage}")
            return [p for p in pods if (p["status"]["phase"] in ("Succeeded", "Failed")) == ended]

        self.until(f"a pod of {stage}", found)
        return found()[0]

    def play(self, pod: Raw, phase: str, state: Raw, **status: Any) -> None:
        """Write a pod's status as its kubelet would."""
        container = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        self.merge(
            "pod",
            pod["metadata"]["name"],
            {"status": {"phase": phase, "containerStatuses": [container], **status}},
            status=True,
        )

    def end(self, pod: Raw, exit_code: int, message: str = "", reason: str = "") -> None:
        # Each pod ends after the one before it, as in life.
        ended = f"{datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(_SECONDS)):%Y-%m-%dT%H:%M:%SZ}"
        times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": ended}
        terminated = {"exitCode": exit_code, "message": message, "reason": reason or "Completed", **times}
        self.play(pod, "Failed" if exit_code else "Succeeded", {"terminated": terminated})
