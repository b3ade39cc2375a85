"""Resources of Luthier as the API server would return them, in the states that the command meets."""

from __future__ import annotations

from typing import Any

from luthier.kinds import FINETUNEJOB, MODELDEPLOYMENT, Kind, Resource

Raw = dict[str, Any]
V1, V2 = "20260101-120000-0a1b2c3d", "20260202-120000-99999999"
DIGEST = f"sha256:{'1' * 64}"
AT = "2026-02-02T12:00:00Z"


def condition(type_: str, status: str = "True", reason: str = "Reason", message: str = "A sentence.") -> Raw:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": AT,
        "observedGeneration": 7,
    }


def version(name: str, **changes: Any) -> Raw:
    return {
        "version": name,
        "uri": f"s3://models/reviews/versions/{name}",
        "digest": DIGEST,
        "sizeBytes": 17_000_000,
        "metrics": {"eval_f1_macro": "0.91"},
        "promotable": True,
        "specHash": "2" * 64,
        "runKey": "3" * 64,
        "chosenAt": AT,
        **changes,
    }


def _resource(kind: Kind, spec: Raw, status: Raw, annotations: Raw | None = None, observed: int = 7) -> Resource:
    metadata = {"name": "reviews", "namespace": "team", "generation": 7, "annotations": annotations or {}}
    raw = {"metadata": metadata, "spec": spec, "status": {"observedGeneration": observed, **status}}
    return Resource(kind, raw)


def job(annotations: Raw | None = None, observed: int = 7, **status: Any) -> Resource:
    spec = {"output": {"name": "reviews", "uri": "s3://models/"}, "suspend": False}
    return _resource(FINETUNEJOB, spec, {"phase": "Succeeded", **status}, annotations, observed)


def deployment(annotations: Raw | None = None, spec: Raw | None = None, **status: Any) -> Resource:
    wanted = spec or {"model": {"fineTuneJobRef": {"name": "reviews"}}}
    return _resource(MODELDEPLOYMENT, wanted, {"phase": "Serving", **status}, annotations)


def revision(name: str, of: str, percent: int, state: str = "Running", **figures: Any) -> Raw:
    uri = f"s3://models/reviews/versions/{of}"
    return {
        "name": name, "version": of, "uri": uri, "digest": DIGEST, "trafficPercent": percent, "state": state,
        "since": AT, **figures,
    }  # fmt: skip


def rollout(stage: str = "Step", **changes: Any) -> Raw:
    return {"revision": "rev-2", "stage": stage, "step": 1, "steps": 3, "weight": 10, "since": AT, **changes}


def rolling(annotations: Raw | None = None, stage: str = "Step", **status: Any) -> Resource:
    """A ModelDeployment in the first step of a rollout."""
    revisions = [
        revision("rev-1", V1, 90),
        revision("rev-2", V2, 10, requests=120, errorRate="0.02", p99Milliseconds=48),
    ]
    return deployment(
        annotations, phase="RollingOut", currentVersion=V1, revisions=revisions, rollout=rollout(stage), **status
    )
