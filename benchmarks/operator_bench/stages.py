"""What kwok does with the pods: stages, chosen by profile.

    runs       a pod runs at once, and later ends well with the result that its component leaves
    troubled   as `runs`, but first its image cannot be pulled for a while: a change that the status has to follow
    pulled     the same, but a pod that runs then runs for ever
    running    prepare ends well; a training pod runs for ever, on loopback, where somebody answers for it

Only nodes and pods are played; the Jobs are the real controller's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from luthier_api.documents import Prepared, Published, Resolved, Result

Profile = Literal["runs", "troubled", "pulled", "running"]
NODE = "played"


def documents(profile: Profile, train_s: float) -> Iterator[dict[str, Any]]:
    """Yield kwok's configuration and the stages of a profile, of which a training takes so long."""
    yield {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "options": {"manageAllNodes": True, "podPlayStageParallelism": 16, "nodePlayStageParallelism": 1},
    }
    # kwok plays only the pods of nodes that it plays too; this stage has nothing left to do for ours.
    yield {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": "node"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Node"},
            "selector": {"matchExpressions": [{"key": ".status.phase", "operator": "NotIn", "values": ["Running"]}]},
            "next": {"statusTemplate": "phase: Running\n"},
        },
    }
    pending = {"key": ".status.phase", "operator": "In", "values": ["Pending"]}
    waiting = ".status.containerStatuses.[].state.waiting.reason"
    if profile in ("troubled", "pulled"):
        yield _stage("pull", [pending, {"key": waiting, "operator": "DoesNotExist"}], _PULL, 100)
        yield _stage("start", [pending, {"key": waiting, "operator": "Exists"}], _RUN, 2000)
    else:
        yield _stage("start", [pending], _RUN + (_ADDRESS if profile == "running" else ""), 100)
    running = {"key": ".status.phase", "operator": "In", "values": ["Running"]}
    for component, message, seconds in (("prepare", prepared(), 0.5), ("train", published(), train_s)):
        if profile == "pulled" or (profile == "running" and component == "train"):
            continue
        yield _stage(f"end-{component}", [running], _END % json.dumps(message), int(1000 * seconds), component)
    yield {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": "pod-delete"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}]},
            "next": {"finalizers": {"empty": True}, "delete": True},
        },
    }


def node() -> dict[str, Any]:
    """Return a node that takes any number of pods."""
    room = {"cpu": "1000000", "memory": "1000000Gi", "pods": "1000000", "nvidia.com/gpu": "1000000"}
    ready = {"type": "Ready", "status": "True", "reason": "Played", "message": "kwok plays this node"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE},
        "status": {"allocatable": room, "capacity": room, "conditions": [ready], "phase": "Running"},
    }


def prepared() -> str:
    """Return what a prepare pod leaves behind."""
    resolved = Resolved(
        run_key=_sha("run"), data_key=_sha("data"), model_digest=_digest("model"), dataset_digest=_digest("dataset")
    )
    document = Prepared(resolved=resolved, train_examples=90, eval_examples=10, labels=2)
    return Result(prepared=document).to_termination_message()


def published() -> str:
    """Return what a training pod leaves behind."""
    document = Published(
        run_key=_sha("run"),
        version="v1",
        uri="s3://models/sentiment/versions/v1",
        digest=_digest("v1"),
        size_bytes=90_000_000,
        metrics={"eval_accuracy": "0.93", "eval_f1_macro": "0.91", "eval_loss": "0.2"},
    )
    return Result(published=document).to_termination_message()


def _stage(
    name: str, expressions: list[dict[str, Any]], template: str, delay_ms: int, component: str | None = None
) -> dict[str, Any]:
    alive = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    labels = {"app.kubernetes.io/component": component} if component else {}
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchLabels": labels, "matchExpressions": [alive, *expressions]},
            "delay": {"durationMilliseconds": delay_ms},
            "next": {"statusTemplate": template},
        },
    }


_CONTAINER = """
  - name: {{ (index .spec.containers 0).name }}
    image: {{ (index .spec.containers 0).image }}
    imageID: ""
    ready: %s
    restartCount: 0
    state:
"""
_PULL = (
    """
phase: Pending
startTime: {{ Now | Quote }}
containerStatuses:"""
    + _CONTAINER % "false"
    + """      waiting: {reason: ImagePullBackOff, message: "Back-off pulling image: not found"}
"""
)
_RUN = (
    """
phase: Running
startTime: {{ Now | Quote }}
conditions:
  - {type: Ready, status: "True", lastTransitionTime: {{ Now | Quote }}}
containerStatuses:"""
    + _CONTAINER % "true"
    + """      running: {startedAt: {{ Now | Quote }}}
"""
)
_ADDRESS = """podIP: 127.0.0.1
podIPs:
  - ip: 127.0.0.1
"""
_END = (
    """
phase: Succeeded
conditions:
  - {type: Ready, status: "False", reason: PodCompleted, lastTransitionTime: {{ Now | Quote }}}
containerStatuses:"""
    + _CONTAINER % "false"
    + """      terminated:
        exitCode: 0
        reason: Completed
        startedAt: {{ Now | Quote }}
        finishedAt: {{ Now | Quote }}
        message: %s
"""
)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(text: str) -> str:
    return f"sha256:{_sha(text)}"
