"""*train* and *run* on a real S3 server: what an artifact holds, and how each run that cannot end well ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from luthier_api.documents import ProgressDocument, RunDocument, ServingDocument, Stage, read_result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_api.training import Task
from luthier_artifacts import Metadata, Registry
from luthier_dev import samples
from luthier_dev.processes import free_ports
from luthier_trainer.formats.prepared import read_prepared
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.workspace import Workspace
from luthier_trainer.spec.metric_names import all_metrics
from luthier_trainer.tasks.registry import task_of
from luthier_trainer.train import train

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]
ORIGIN = {"name": "sentiment", "namespace": "default", "uid": "1", "generation": 9, "run": "sentiment-1"}


@pytest.fixture
def document(bench: Any, tiny_models: Models, reviews: Any) -> dict[str, Any]:
    """A run that takes about a second."""
    model = bench.put_folder("base", tiny_models("bert"))
    found: dict[str, Any] = bench.document(model=model, train=bench.put_csv("train.csv", reviews[:120]))
    return found


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_every_encoder_becomes_a_verified_artifact_that_plain_transformers_loads(
    bench: Any, tiny_models: Models, reviews: Any, architecture: str
) -> None:
    model = bench.put_folder("base", tiny_models(architecture))
    document = bench.document(model=model, train=bench.put_csv("train.csv", reviews[:120]))
    document["origin"] = ORIGIN
    document["spec"]["dataset"]["preprocessing"]["lowercase"] = True
    answer = bench.run("run", document)
    assert answer.code == 0, answer.log
    published = answer.result.published
    assert not published.reused
    assert {"eval_accuracy", "untrained_accuracy", "baseline_majority_accuracy", "eval_loss"} <= set(published.metrics)
    assert set(published.metrics) <= set(all_metrics(task_of(Task.TEXT_CLASSIFICATION)))

    folder = bench.folder / "artifact"
    manifest = bench.registry.download(published.version, folder)
    assert (manifest.digest, manifest.run_key) == (published.digest, published.run_key)
    assert manifest.lineage.base_model_uri == model
    assert manifest.lineage.dataset_quality["files"][0]["rows"] == 120
    assert bench.access.endpoint not in (folder / "run.json").read_text()

    loaded = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert loaded.config.id2label == {0: "negative", 1: "positive"}
    assert loaded.config.model_type == architecture
    serving = ServingDocument.from_json((folder / "luthier.json").read_bytes())
    assert (serving.labels, serving.max_length, serving.lowercase) == (["negative", "positive"], 32, True)

    bench.registry.get_prepared(manifest.lineage.run_document["resolved"]["dataKey"], bench.folder / "data")
    held_out = read_prepared(bench.folder / "data").held_out
    for tokenize in (
        lambda text: Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids,
        lambda text: AutoTokenizer.from_pretrained(folder)(text, truncation=True)["input_ids"],
    ):
        for index in range(len(held_out)):
            assert tokenize(held_out.text(index)) == held_out.input_ids(index).tolist()

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    right = 0
    for index in range(len(held_out)):
        ids, label = held_out.input_ids(index).astype(np.int64), held_out.target(index)
        inputs = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}
        (logits,) = session.run(["logits"], inputs)
        with torch.no_grad():
            expected = loaded(**{name: torch.tensor(value) for name, value in inputs.items()}).logits.numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-3)
        right += int(logits.argmax() == label)
    assert right / len(held_out) == pytest.approx(float(published.metrics["eval_accuracy"]), abs=1e-5)


def test_real_weights_learn_from_real_reviews(bench: Any, reviews: Any) -> None:
    """The same model before training knows nothing; after one epoch on 480 sentences it does."""
    model = bench.put_folder("base", samples.base_model())
    document = bench.document(model=model, train=bench.put_csv("train.csv", reviews[:600]))
    document["spec"]["dataset"]["split"] = {"fraction": "0.2"}
    document["spec"]["hyperparameters"] = {"epochs": 1, "learningRate": "2e-4", "batchSize": 16}
    answer = bench.run("run", document)
    assert answer.code == 0, answer.log
    metrics = {name: float(value) for name, value in answer.result.published.metrics.items()}
    assert metrics["baseline_majority_accuracy"] == 0.5
    assert metrics["eval_accuracy"] > max(0.7, metrics["untrained_accuracy"] + 0.1)
    folder = bench.folder / "artifact"
    bench.registry.download(answer.result.published.version, folder)
    found = json.loads((folder / "metrics.json").read_text())
    assert sum(sum(row) for row in found["confusionMatrix"]["rows"]) == 120
    assert sum(row["support"] for row in found["labels"]) == 120
    assert next(each for each in found["exports"] if each["format"] == "onnx")["difference"] < 1e-3
    report = (folder / "report.html").read_text()
    assert f"{metrics['eval_accuracy']:.4f}" in report
    assert "http://" not in report and "https://" not in report
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert any("loss" in entry for entry in log) and any("eval_f1_macro" in entry for entry in log)
    assert "published" not in (folder / "console.log").read_text()
    assert "step" in (folder / "console.log").read_text()


def test_the_same_run_is_found_and_not_trained_again(bench: Any, document: dict[str, Any]) -> None:
    document["spec"]["export"] = ["safetensors"]
    first = bench.run("run", document).result.published
    again = bench.run("run", document | {"origin": ORIGIN})
    assert again.result.published == first.model_copy(update={"reused": True})
    assert "nothing is trained" in again.log and "step" not in again.log
    assert bench.registry.list_versions() == [first.version]
    # A limit that was tightened since is judged all the same.
    strict = json.loads(json.dumps(document))
    strict["spec"]["dataset"]["quality"] = {"minExamplesPerLabel": 1000}
    assert "minExamplesPerLabel" in bench.run("prepare", strict).message
    # A pod that starts late finds it too.
    resolved = bench.run("prepare", document | {"image": "other"}).result.prepared.resolved
    late = document | {"resolved": resolved.model_copy(update={"run_key": first.run_key}).to_wire()}
    assert bench.run("train", late).result.published.version == first.version


def test_a_race_that_is_lost_gives_the_winners_version(bench: Any, document: dict[str, Any]) -> None:
    document["spec"]["export"] = ["safetensors"]
    document = bench.prepared(document)
    winners: list[str] = []

    class Rival(Progress):
        """Another pod of the same run, which publishes while this one is about to."""

        def enter(self, stage: Stage) -> None:
            super().enter(stage)
            if stage == "Uploading":
                folder = bench.folder / "rival"
                folder.mkdir()
                (folder / "model.safetensors").write_bytes(b"won")
                winners.append(bench.registry.publish(folder, document["resolved"]["runKey"], Metadata()).version)

    published = train(RunDocument.from_json(json.dumps(document)), Workspace.of(bench.folder / "loser"), Rival())
    assert [published.version] == winners == bench.registry.list_versions()
    assert published.reused


def test_a_missed_gate_is_published_and_not_promotable(bench: Any, document: dict[str, Any]) -> None:
    document["spec"]["export"] = ["safetensors"]
    document["spec"]["evaluation"] = {"gates": [{"metric": "eval_accuracy", "operator": "GT", "threshold": "1"}]}
    published = bench.run("run", document).result.published
    assert not published.promotable
    assert published.message.startswith("eval_accuracy is 0.") and published.message.endswith("must be more than 1.")
    assert bench.registry.list_versions() == [published.version]
    assert not bench.registry.get_manifest(published.version).promotable


def test_training_stops_early_and_keeps_the_best_weights(bench: Any, document: dict[str, Any]) -> None:
    document["spec"]["export"] = ["safetensors"]
    document["spec"]["hyperparameters"] = {
        "epochs": 20,
        "learningRate": "1e-9",
        "evalSteps": 2,
        "earlyStopping": {"patience": 2, "threshold": "0.01"},
        "metricForBestModel": "eval_loss",
        "gradientAccumulationSteps": 2,
        "scheduler": "cosine",
        "labelSmoothing": "0.1",
    }
    document["spec"]["trainingArguments"] = {"optim": "adafactor"}
    published = bench.run("run", document).result.published
    bench.registry.download(published.version, bench.folder / "artifact")
    found = json.loads((bench.folder / "artifact" / "metrics.json").read_text())
    # Of 80 steps: the first evaluation is the best, and two more see no improvement.
    assert (found["steps"], found["bestStep"]) == (6, 2)


def test_a_loss_that_is_no_number_ends_the_run_with_the_step(
    bench: Any, document: dict[str, Any], tiny_models: Models
) -> None:
    """One word's weights are infinite, and that word is only among the training texts."""
    folder = tiny_models("bert")
    word = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("phone")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][word] = float("inf")
    save_file(weights, bench.folder / "damaged.safetensors", metadata={"format": "pt"})
    bench.put("base/model.safetensors", (bench.folder / "damaged.safetensors").read_bytes())
    rows = [("good sound", "x"), ("bad sound", "y")] * 3
    document["spec"]["dataset"]["eval"] = {"uri": bench.put_csv("eval.csv", rows)}
    bench.put_csv("train.csv", [(f"{text} {n}", label) for n, (text, label) in enumerate(rows * 9)] + [("phone", "x")])
    answer = bench.run("run", document)
    assert answer.code == ExitCode.LOSS_NOT_FINITE
    assert answer.message.startswith("The loss is nan at step ")
    assert "Lower hyperparameters.learningRate" in answer.message
    assert bench.registry.list_versions() == []


def damage_precision(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["precision"] = "fp16"


def damage_argument(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["trainingArguments"] = {"optim": "sgdd"}


def swap_weights(bench: Any, document: dict[str, Any], models: Models) -> None:
    bench.put("base/model.safetensors", (models("distilbert") / "model.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("damage", "code", "sentence"),
    [
        pytest.param(
            damage_precision,
            ExitCode.INVALID_SPEC,
            "precision is fp16, which needs a GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (damage_argument, ExitCode.INVALID_SPEC, "transformers refuses the training arguments (optim)"),
        (swap_weights, ExitCode.INVALID_MODEL, "has no fitting weights for "),
    ],
)
def test_what_only_training_can_know_is_refused_in_one_sentence(
    bench: Any, document: dict[str, Any], tiny_models: Models, damage: Any, code: ExitCode, sentence: str
) -> None:
    damage(bench, document, tiny_models)
    answer = bench.run("run", document)
    assert (answer.code, sentence in answer.message) == (code, True), answer
    assert bench.registry.list_versions() == []


def test_a_base_model_that_changed_after_prepare_is_refused(
    bench: Any, document: dict[str, Any], tiny_models: Models
) -> None:
    document = bench.prepared(document)
    weights = bytearray((tiny_models("bert") / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    bench.put("base/model.safetensors", bytes(weights))
    answer = bench.run("train", document)
    assert answer.code == ExitCode.INTEGRITY_ERROR
    assert "has changed since the run was prepared" in answer.message


def test_prepared_data_with_one_byte_changed_is_refused(bench: Any, document: dict[str, Any]) -> None:
    document = bench.prepared(document)
    (key,) = [key for key in bench.keys("registry/sentiment/prepared") if key.endswith("train.arrow")]
    bucket, _, prefix = bench.uri.removeprefix("s3://").partition("/")
    content = bytearray(bench.client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read())
    content[len(content) // 2] ^= 1
    bench.put(key, bytes(content))
    assert bench.run("train", document).code == ExitCode.INTEGRITY_ERROR


def test_train_without_prepare_says_what_is_missing(bench: Any, document: dict[str, Any]) -> None:
    answer = bench.run("train", document)
    assert answer.code == ExitCode.INVALID_SPEC
    assert answer.message.startswith("The run document has no `resolved`: run `prepare` first")


def test_a_pod_that_is_asked_to_stop_says_so_and_leaves_no_version(
    bench: Any, document: dict[str, Any], reviews: Any
) -> None:
    """As a process of its own, watched over HTTP as the operator does."""
    document["spec"]["hyperparameters"] = {"epochs": 1000, "batchSize": 4}
    (port,) = free_ports(1)
    environment = os.environ | {"LUTHIER_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "luthier_trainer", "run", str(bench.write(document)), "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        seen = wait_for_steps(process, port)
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == ExitCode.PREEMPTED, log
    assert (seen.stage, seen.total_steps, seen.examples_per_second is not None) == ("Training", 27_000, True)
    result = read_result(out)
    assert result.failure and result.failure.reason is Reason.PREEMPTED
    assert (bench.folder / "termination-log").read_text() == result.to_termination_message()
    assert json.loads(log.splitlines()[0])["level"] == "INFO"
    assert isinstance(bench.registry, Registry) and bench.registry.list_versions() == []


def wait_for_steps(process: subprocess.Popen[str], port: int) -> ProgressDocument:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=5) as answer:
                document = ProgressDocument.from_json(answer.read())
        except OSError:
            document = None
        if document and document.step >= 3:
            return document
        time.sleep(0.1)
    raise AssertionError("no step was done in 120 s")
