"""Same spec, same hash; what does not decide the result is not in it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.keys import data_key, run_hash, run_key, spec_hash
from luthier_api.training import Hyperparameters

pytestmark = pytest.mark.unit

MINIMAL: dict[str, Any] = {
    "model": {"uri": "s3://models/base/bert"},
    "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
    "output": {"name": "sentiment", "uri": "s3://models/"},
}


def spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate({**MINIMAL, **changes})


def with_output(**changes: Any) -> FineTuneJobSpec:
    return spec(output={**MINIMAL["output"], **changes})


BASE = spec()


@pytest.mark.parametrize(
    ("changed", "same_result", "same_run"),
    [
        (spec(hyperparameters={"learningRate": "0.00002"}), True, True),
        (spec(hyperparameters={"learningRate": "2.0e-05"}), True, True),
        (spec(hyperparameters={"learningRate": "3e-5"}), False, False),
        (spec(labels=["a", "b"]), False, False),
        (spec(checkpoint={"everySteps": 7, "keep": 1, "resume": "Never"}), True, False),
        (spec(tracking={"mlflow": {"uri": "http://mlflow:5000"}, "tensorboard": False}), True, False),
        (spec(suspend=True), True, True),
        (spec(concurrencyPolicy="Forbid"), True, True),
        (spec(ttlSecondsAfterFinished=5), True, True),
        (spec(resources={"limits": {"memory": "8Gi"}}), True, False),
        (with_output(secretRef={"name": "other"}), True, False),
        (with_output(endpoint="https://minio.example.com"), True, False),
        (with_output(name="other"), False, False),
    ],
)
def test_a_hash_changes_exactly_with_what_it_stands_for(
    changed: FineTuneJobSpec, same_result: bool, same_run: bool
) -> None:
    assert (spec_hash(changed, "image:1") == spec_hash(BASE, "image:1")) is same_result
    assert (run_hash(changed, "image:1") == run_hash(BASE, "image:1")) is same_run


class LaterHyperparameters(Hyperparameters):
    momentum: int = 9


class LaterSpec(FineTuneJobSpec):
    hyperparameters: Hyperparameters = Field(default=LaterHyperparameters())
    node_count: int = 1


@pytest.mark.parametrize("said", [{}, {"epochs": 5}])
def test_a_release_that_adds_fields_neither_stops_a_run_nor_starts_one(said: dict[str, Any]) -> None:
    now = spec(hyperparameters=said)
    later = LaterSpec.model_validate(MINIMAL).model_copy(update={"hyperparameters": LaterHyperparameters(**said)})
    assert spec_hash(later, "") == spec_hash(now, "")
    assert run_hash(later, "") == run_hash(now, "")
    assert run_hash(later.model_copy(update={"node_count": 2}), "") != run_hash(now, "")


def test_another_image_is_another_result_and_the_retry_annotation_another_run() -> None:
    assert spec_hash(BASE, "image:1") != spec_hash(BASE, "image:2")
    assert run_hash(BASE, "image:1", retry="1") != run_hash(BASE, "image:1")


def test_the_run_key_knows_digests_and_not_places() -> None:
    moved = spec(model={"uri": "hf://org/bert"}, dataset={"train": {"uri": "s3://elsewhere/x.csv"}})
    digests = {"model_digest": "sha256:" + "a" * 64, "image": "i"}
    key = data_key(BASE, dataset_digest="d", tokenizer_digest="t")
    assert key == data_key(moved, dataset_digest="d", tokenizer_digest="t")
    assert run_key(BASE, data_key=key, **digests) == run_key(moved, data_key=key, **digests)
    assert key != data_key(BASE, dataset_digest="e", tokenizer_digest="t")
    assert run_key(BASE, data_key=key, **digests) != run_key(BASE, data_key="other", **digests)


RATES = st.decimals(min_value="1e-9", max_value=1, allow_nan=False, allow_infinity=False)


@given(RATES.filter(lambda rate: len(str(rate)) <= 32))  # the schema lets no longer text in
def test_a_spec_survives_the_wire_with_its_hash(rate: Any) -> None:
    original = spec(hyperparameters={"learningRate": str(rate)})
    returned = FineTuneJobSpec.model_validate(original.to_wire())
    assert returned == original
    assert spec_hash(returned, "i") == spec_hash(original, "i")
