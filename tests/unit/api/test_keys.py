"""Same spec, same hash; what does not decide the result is not in it."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.keys import data_key, digest_of, run_hash, run_key, spec_hash, weights_key
from luthier_api.training import Hyperparameters, Preprocessing, Split

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


def test_the_weights_key_knows_all_that_the_run_key_does_but_what_is_made_of_the_weights() -> None:
    digests = {"model_digest": "sha256:" + "a" * 64, "data_key": "d" * 64, "image": "i"}
    made_of_weights = [
        spec(export=["safetensors"]),
        spec(evaluation={"gates": [{"metric": "eval_f1_macro", "operator": "GTE", "threshold": "0.9"}]}),
    ]
    for other in made_of_weights:
        assert run_key(other, **digests) != run_key(BASE, **digests)
        assert weights_key(other, **digests) == weights_key(BASE, **digests)
    for other in (spec(hyperparameters={"seed": 7}), spec(method={"type": "LoRA"}), spec(precision="fp32")):
        assert weights_key(other, **digests) != weights_key(BASE, **digests)
    for name in digests:
        assert weights_key(BASE, **{**digests, name: "other"}) != weights_key(BASE, **digests)
    assert run_key(BASE, **digests) == "0c0abab4ecee4e1422329323c6286160383e40d8cb8313c1bf7ce8f8d5e58758"


def data_key_of(changed: FineTuneJobSpec, **digests: str) -> str:
    return data_key(changed, **{"dataset_digest": "d", "tokenizer_digest": "t", **digests})


def with_data(**changes: Any) -> FineTuneJobSpec:
    return spec(dataset={**MINIMAL["dataset"], **changes})


def test_the_data_key_knows_all_that_shapes_the_prepared_data() -> None:
    train = MINIMAL["dataset"]["train"]
    keys = [
        data_key_of(BASE),
        data_key_of(BASE, dataset_digest="other"),
        data_key_of(BASE, tokenizer_digest="other"),
        data_key_of(with_data(split={"fraction": "0.2"})),
        data_key_of(with_data(split={"seed": 7})),
        data_key_of(with_data(eval={"uri": "s3://data/eval.csv"})),
        data_key_of(with_data(test={"uri": "s3://data/test.csv"})),
        data_key_of(with_data(train={**train, "textColumn": "label", "labelColumn": "text"})),
        data_key_of(with_data(labelMap={"0": "a"})),
        data_key_of(with_data(preprocessing={"lowercase": True})),
        data_key_of(spec(labels=["a", "b"])),
        data_key_of(spec(labels=["b", "a"])),
    ]
    assert len(set(keys)) == len(keys)
    assert data_key_of(with_data(split={"fraction": "0.1", "seed": 42})) == keys[0], "the default, said by name"
    assert data_key_of(with_data(quality={"minExamplesPerLabel": 9})) == keys[0], "checked, and changes nothing"


class LaterSplit(Split):
    fraction: Any = Decimal("0.2")


class LaterPreprocessing(Preprocessing):
    max_length: int = 256


def test_a_release_that_changes_a_default_prepares_and_trains_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = data_key_of(BASE)
    dataset = BASE.dataset.model_copy(update={"preprocessing": LaterPreprocessing()})
    assert data_key_of(BASE.model_copy(update={"dataset": dataset})) != before
    monkeypatch.setattr("luthier_api.dataset.Split", LaterSplit)
    assert data_key_of(BASE) != before
    run = {"model_digest": "m", "data_key": "d", "image": "i"}
    later = BASE.model_copy(update={"hyperparameters": LaterHyperparameters()})
    assert run_key(later, **run) != run_key(BASE, **run)


def test_the_order_of_export_formats_decides_nothing_and_the_image_all() -> None:
    def key(image: str, *export: str) -> str:
        return run_key(spec(export=list(export)), model_digest="m", data_key="d", image=image)

    assert key("i", "safetensors", "onnx") == key("i", "onnx", "safetensors") != key("i", "safetensors")
    assert key("i", "onnx") != key("j", "onnx")


def test_a_hash_is_over_the_same_text_on_every_machine() -> None:
    assert digest_of({"b": 1, "a": "é"}) == digest_of({"a": "é", "b": 1})
    assert digest_of({"a": "é"}) == "b3a092a6af48807fa9482b2ee140105575daa26d5b24b3c0e60a7e2dee6683b1"


RATES = st.decimals(min_value="1e-9", max_value=1, allow_nan=False, allow_infinity=False)


@given(RATES.filter(lambda rate: len(str(rate)) <= 32))  # the schema lets no longer text in
def test_a_spec_survives_the_wire_with_its_hash(rate: Any) -> None:
    original = spec(hyperparameters={"learningRate": str(rate)})
    returned = FineTuneJobSpec.model_validate(original.to_wire())
    assert returned == original
    assert spec_hash(returned, "i") == spec_hash(original, "i")
