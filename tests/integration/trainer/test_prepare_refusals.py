"""*prepare* says each bad input in one sentence, before any GPU is asked for, and tries again what may heal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import Access, Role, credential_env, read_result
from luthier_api.exitcodes import OUTCOMES, ExitCode

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "train.csv is empty (0 bytes)."),
        (b"text,label\n", "train.csv holds no rows."),
        (b"text,stars\ngood,5\n", "train.csv has no column 'label'; it has 'text', 'stars'."),
        (b"text,label\ngood,x\nbad,x\n", "train.csv holds only one label, 'x'"),
        (
            b"text,label\ngood,x\nbad,x\nugly,y\n",
            "Each label needs at least 2 examples (quality.minExamplesPerLabel), ",
        ),
        (b'text,label\n"good,x\n', "train.csv, line 2 opens a quote that is never closed."),
        (b"text,label\ncaf\xe9,x\n", "train.csv, line 2 is not UTF-8"),
        (b"text,label\ngo\0od,x\n", "train.csv, line 2 holds a NUL byte"),
        (b"text,label\n" + b"x" * 11_000_000 + b",x\n", "train.csv, line 2 is longer than 10 MB"),
    ],
    ids=["empty", "no rows", "column", "one label", "single row", "quote", "Latin-1", "NUL", "huge cell"],
)
def test_bad_data_is_refused_in_one_sentence_and_leaves_nothing(
    bench: Any, document: dict[str, Any], content: bytes, sentence: str
) -> None:
    bench.put("train.csv", content)
    refused = bench.run("prepare", document)
    assert refused.code == ExitCode.INVALID_DATA
    assert refused.message.startswith(sentence)
    assert read_result((bench.folder / "termination-log").read_text()) == refused.result
    assert bench.keys("registry/sentiment/prepared") == []


def cut_weights(bench: Any, document: dict[str, Any], models: Models) -> None:
    bench.put("base/model.safetensors", (models("bert") / "model.safetensors").read_bytes()[:-100])


def make_it_speech(bench: Any, document: dict[str, Any], models: Models) -> None:
    config = json.loads((models("bert") / "config.json").read_text())
    bench.put("base/config.json", json.dumps(config | {"model_type": "whisper"}).encode())


def lose_the_bucket(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["output"]["uri"] = "s3://no-such-bucket/registry"


def lose_the_dataset(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["dataset"]["train"]["uri"] = f"{bench.uri}/nothing.csv"


def lose_the_model(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["model"]["uri"] = f"{bench.uri}/nothing"


def misspell_an_argument(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["trainingArguments"] = {"lerning_rate": "1"}


def ask_for_too_many_tokens(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["dataset"]["preprocessing"]["maxLength"] = 41


def choose_another_scheduler(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"].setdefault("hyperparameters", {})["scheduler"] = "cosine"
    document["spec"]["trainingArguments"] = {"lr_scheduler_kwargs": '{"power": 2}'}


def add_a_field(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["learnin_rate"] = 1


@pytest.mark.parametrize(
    ("damage", "code", "sentence"),
    [
        (cut_weights, ExitCode.INVALID_MODEL, "model.safetensors is damaged or incomplete"),
        (make_it_speech, ExitCode.INVALID_MODEL, "is of type 'whisper', which has no AutoModelForSequ"),
        (lose_the_bucket, ExitCode.BUCKET_NOT_FOUND, "no-such-bucket"),
        (lose_the_dataset, ExitCode.INPUT_NOT_FOUND, "nothing.csv"),
        (lose_the_model, ExitCode.INPUT_NOT_FOUND, "/nothing"),
        (misspell_an_argument, ExitCode.INVALID_SPEC, "trainingArguments.lerning_rate is not a field"),
        (choose_another_scheduler, ExitCode.INVALID_SPEC, "scheduler cosine does not take; it takes num_cycles."),
        (ask_for_too_many_tokens, ExitCode.INVALID_SPEC, "reads at most 40 tokens; lower it."),
        (add_a_field, ExitCode.INVALID_SPEC, "is not a run document: spec.learnin_rate"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_any_gpu(
    bench: Any, document: dict[str, Any], tiny_models: Models, damage: Any, code: ExitCode, sentence: str
) -> None:
    damage(bench, document, tiny_models)
    refused = bench.run("prepare", document)
    assert (refused.code, refused.result.failure.reason) == (code, OUTCOMES[code].reason)
    assert sentence in refused.message
    assert "\n" not in refused.message
    assert "Traceback" not in refused.log


def test_a_wrong_key_is_denied(bench: Any, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(credential_env("output")["AWS_SECRET_ACCESS_KEY"], "wrong")
    assert bench.run("prepare", document).code == ExitCode.STORAGE_DENIED


def test_a_missing_key_is_denied_by_name(bench: Any, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    variable = credential_env("output")["AWS_ACCESS_KEY_ID"]
    monkeypatch.delenv(variable)
    denied = bench.run("prepare", document)
    assert denied.code == ExitCode.STORAGE_DENIED
    assert variable in denied.message


def only_read(role: Role, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a role the key that may only read."""
    names = credential_env(role)
    monkeypatch.setenv(names["AWS_ACCESS_KEY_ID"], s3.server.reader.access_key)
    monkeypatch.setenv(names["AWS_SECRET_ACCESS_KEY"], s3.server.reader.secret_key)


def test_a_key_that_may_only_read_is_denied_before_a_gpu_waits_for_it(
    bench: Any, document: dict[str, Any], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_read("output", s3, monkeypatch)
    assert bench.run("prepare", document).code == ExitCode.STORAGE_DENIED


def test_storage_that_does_not_answer_is_tried_again_by_the_job(bench: Any, document: dict[str, Any]) -> None:
    document["outputAccess"]["endpoint"] = "http://127.0.0.1:9"
    assert bench.run("prepare", document).code == ExitCode.STORAGE_UNAVAILABLE


def test_inputs_may_lie_behind_another_key_than_the_output(
    bench: Any, document: dict[str, Any], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_read("dataset", s3, monkeypatch)
    document["datasetAccess"] = Access(endpoint=s3.endpoint, credentials="dataset").to_wire()
    assert bench.run("prepare", document).code == 0
    monkeypatch.setenv(credential_env("dataset")["AWS_SECRET_ACCESS_KEY"], "wrong")
    assert bench.run("prepare", document).code == ExitCode.STORAGE_DENIED
