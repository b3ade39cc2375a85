"""What a BatchPrediction may say, and which of it makes another run."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from luthier_api.batchprediction import BatchPredictionSpec
from luthier_api.documents import DocumentError, Predicted, Result, read_result
from support.operator.least import BATCHPREDICTION

pytestmark = pytest.mark.unit

LEAST: dict[str, Any] = BATCHPREDICTION["spec"]


def spec(**changes: Any) -> BatchPredictionSpec:
    return BatchPredictionSpec.model_validate({**LEAST, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"fineTuneJobRef": {"name": "reviews", "version": "v1"}}},
        {"input": {**LEAST["input"], "idColumn": "id"}},
        {"input": {**LEAST["input"], "format": {"separator": ";"}}},
        {"output": {**LEAST["output"], "format": "Parquet"}},
        {"output": {**LEAST["output"], "includeText": True}},
        {"parallelism": 2},
        {"shardRows": 5},
        {"runtime": {"resources": {"limits": {"memory": "4Gi"}}}},
        {"podMetadata": {"labels": {"team": "a"}}},
        {"queueName": "team"},
        {"backoffLimit": 0},
        {"activeDeadlineSeconds": 60},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_shapes_the_pods_makes_another_run(changes: dict[str, Any]) -> None:
    assert spec(**changes).run_hash("") != spec().run_hash("")


def test_what_is_as_its_default_or_only_says_when_makes_none() -> None:
    same = [{"suspend": True}, {"ttlSecondsAfterFinished": 5}, {"shardRows": 10_000}, {"runtime": {"engine": "auto"}}]
    assert {spec(**each).run_hash("") for each in same} == {spec().run_hash("")}
    assert spec().run_hash("1") != spec().run_hash(""), "the annotation does"


def test_the_hash_of_the_least_spec_is_the_same_in_every_release() -> None:
    """A release that changes it would begin every run anew."""
    assert spec().run_hash("") == "b77d0e75c812e76d9a3d0741e8a6ece3af17872ea056b4b16ce5569becfa984d"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"input": {"uri": "s3://data/in/"}, "output": {"uri": "s3://data/in/out/"}}, "lies below input.uri"),
        ({"input": {**LEAST["input"], "textColumn": "a", "textColumns": ["b"]}}, "textColumn or textColumns"),
        ({"shardRows": 0}, "greater than or equal to 1"),
        ({"model": {}}, "exactly one"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        spec(**changes)


def test_a_workers_last_words_are_read_as_they_were_written() -> None:
    predicted = Predicted(output="s3://out/predictions-1/", rows=5, shards=1, complete=True)
    assert read_result(Result(predicted=predicted).to_termination_message()).predicted == predicted
    with pytest.raises(DocumentError):
        read_result('{"predicted": {"output": "s3://out/"}}')
