"""The resources with the least that a user may say."""

from __future__ import annotations

from typing import Any

FINETUNEJOB: dict[str, Any] = {
    "apiVersion": "luthier.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "reviews"},
    "spec": {
        "model": {"uri": "s3://models/base"},
        "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
        "output": {"name": "sentiment", "uri": "s3://models/"},
    },
}
MODELDEPLOYMENT: dict[str, Any] = {
    "apiVersion": "luthier.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "reviews"},
    "spec": {"model": {"fineTuneJobRef": {"name": "reviews"}}},
}
BATCHPREDICTION: dict[str, Any] = {
    "apiVersion": "luthier.dev/v1alpha1",
    "kind": "BatchPrediction",
    "metadata": {"name": "reviews"},
    "spec": {
        "model": {"fineTuneJobRef": {"name": "reviews"}},
        "input": {"uri": "s3://data/reviews.csv"},
        "output": {"uri": "s3://predictions/reviews/"},
    },
}
