"""Watches a resource until it is ready, and shows its state in one line.

Owns how both resources' status is shown to a person at a terminal. Decides nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from luthier_api.finetunejob import FineTuneJobStatus
from luthier_api.modeldeployment import ModelDeploymentStatus
from luthier_api.reasons import ConditionType
from luthier_dev import steps
from luthier_dev.errors import DevError
from luthier_dev.kubectl import Kubectl
from luthier_dev.waiting import wait_until


class Stalled(DevError):
    """A resource reports that it is stalled; the message is its own."""


@dataclass(frozen=True)
class Watched:
    """One resource in one namespace."""

    kubectl: Kubectl
    namespace: str
    kind: str
    name: str

    def read(self) -> Mapping[str, Any]:
        """Return the object as the cluster holds it."""
        return self.kubectl.get(self.kind, self.name, "-n", self.namespace)

    def wait_until_ready(self, timeout_s: float, describe: Callable[[Mapping[str, Any]], str]) -> Mapping[str, Any]:
        """Wait for condition Ready of the present generation, showing `describe(status)` meanwhile.

        Raises:
            Stalled: the resource reports that it is stalled.
            NotReady: the time is up.
        """
        found: dict[str, Any] = {}

        def missing() -> str | None:
            seen = self.read()
            status = seen.get("status", {})
            line = describe(status)
            if (step := steps.PROGRESS.current()) is not None:
                step.note(line)
            if status.get("observedGeneration") != seen["metadata"]["generation"]:
                return line
            conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
            stalled = conditions.get(ConditionType.STALLED, {})
            if stalled.get("status") == "True":
                raise Stalled(f"{self.kind}/{self.name}: {stalled['reason']}: {stalled['message']}")
            if conditions.get(ConditionType.READY, {}).get("status") == "True":
                found.update(seen)
                return None
            return line

        wait_until(missing, f"{self.kind}/{self.name}", timeout_s, interval_s=0.5)
        return found


def describe_training(status: Mapping[str, Any]) -> str:
    """Return one line on a FineTuneJob: phase, percent, steps, time left, latest metrics."""
    seen = FineTuneJobStatus.model_validate(status)
    progress = seen.progress
    if progress is None or seen.phase != "Training":
        return seen.phase
    parts = [progress.stage or seen.phase]
    if progress.total_steps:
        parts.append(f"{progress.percent} %, step {progress.step} of {progress.total_steps}")
    if progress.eta_seconds:
        parts.append(f"{progress.eta_seconds} s left")
    parts += [
        f"{name} {value}" for name, value in sorted(progress.metrics.items()) if "loss" in name or "f1_macro" in name
    ]
    return " · ".join(parts)


def describe_serving(status: Mapping[str, Any]) -> str:
    """Return one line on a ModelDeployment: phase, and each revision with its state and share of the traffic."""
    seen = ModelDeploymentStatus.model_validate(status)
    revisions = [f"{revision.version} {revision.state} {revision.traffic_percent} %" for revision in seen.revisions]
    return " · ".join([seen.phase, *revisions])
