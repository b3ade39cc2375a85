"""Resources as the API server would return them, in the states that the command meets, and manifests of versions."""

from __future__ import annotations

from typing import Any

from luthier.kinds import BATCHPREDICTION, FINETUNEJOB, MODELDEPLOYMENT, Kind, Resource
from luthier_artifacts import Manifest

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


def training(**status: Any) -> Resource:
    """A FineTuneJob in the middle of its training."""
    progress = {
        "stage": "Training", "percent": 42, "step": 420, "totalSteps": 1000, "epoch": "1.26", "eta": "4m10s",
        "examplesPerSecond": "310", "metrics": {"loss": "0.31", "eval_f1_macro": "0.88"},
    }  # fmt: skip
    run = {"name": "reviews-6f7a", "specHash": "2" * 64, "stage": "Train", "startedAt": AT}
    return job(**{"phase": "Training", "progress": progress, "currentRun": run, **status})


def manifest(name: str, **changes: Any) -> Manifest:
    empty = "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
    values: Raw = {
        "name": "reviews", "version": name, "created_at": "2026-01-01T00:00:00Z", "writer": "w", "files": [],
        "digest": empty, "metrics": {"eval_f1_macro": 0.9, "eval_loss": 0.3}, **changes,
    }  # fmt: skip
    return Manifest(**values)


def deployment(annotations: Raw | None = None, spec: Raw | None = None, **status: Any) -> Resource:
    wanted = spec or {"model": {"fineTuneJobRef": {"name": "reviews"}}}
    return _resource(MODELDEPLOYMENT, wanted, {"phase": "Serving", **status}, annotations)


PREDICTIONS = "s3://predictions/reviews/predictions-0123456789abcdef/"


def batch(annotations: Raw | None = None, spec: Raw | None = None, observed: int = 7, **status: Any) -> Resource:
    wanted = {
        "model": {"fineTuneJobRef": {"name": "reviews"}},
        "input": {"uri": "s3://data/reviews.csv"},
        "output": {"uri": "s3://predictions/reviews/"},
        **(spec or {}),
    }
    return _resource(BATCHPREDICTION, wanted, {"phase": "Predicting", **status}, annotations, observed)


def predicting(annotations: Raw | None = None, **status: Any) -> Resource:
    """A BatchPrediction of which one shard of four is stored."""
    sentence = "1 of 4 shards are stored, about 1m1s left."
    conditions = [
        condition("Ready", "False", "Predicting", sentence),
        condition("Reconciling", "True", "Predicting", sentence),
    ]
    far: Raw = {"shards": {"done": 1, "total": 4}, "percent": 25, "rows": 100, "textsPerSecond": "51.2", "eta": "1m1s"}
    run = {"name": "reviews-0a1b", "state": "Running", "startedAt": AT}
    return batch(annotations, **{"conditions": conditions, "run": run, "version": V1, **far, **status})


def predicted(**status: Any) -> Resource:
    """A BatchPrediction that is done."""
    sentence = f"{PREDICTIONS} holds the predictions of all 100 rows, 3 of them with an error in place of one."
    done: Raw = {"shards": {"done": 4, "total": 4}, "percent": 100, "rows": 100, "errors": 3, "output": PREDICTIONS}
    run = {"name": "reviews-0a1b", "state": "Succeeded", "startedAt": AT, "finishedAt": AT}
    conditions = [condition("Ready", "True", "Predicted", sentence)]
    return batch(**{"phase": "Succeeded", "conditions": conditions, "run": run, "version": V1, **done, **status})


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
