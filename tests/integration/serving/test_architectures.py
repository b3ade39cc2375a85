"""A tiny model of each family of architectures is trained, evaluated, exported and served, and judged by transformers.

Whatever shares its batch, a text has the answer that plain transformers gives to it alone.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import set_seed

from luthier_api.documents import Result
from luthier_api.training import Task
from luthier_serving.compute.engines.torch_engine import TorchEngine
from luthier_serving.compute.model import Model, open_model, read_document
from luthier_trainer.cli import main
from luthier_trainer.data.tokenization import configure
from luthier_trainer.export.exporter import export_onnx, held_out_collator
from luthier_trainer.export.trial import EXPORTABLE
from luthier_trainer.formats.prepared import Part, PreparedFolder
from luthier_trainer.models.base_model import BaseModel, check_base_model
from luthier_trainer.models.load import load_model
from luthier_trainer.publish.artifact import serving_document
from luthier_trainer.publish.tokenizer_files import write_tokenizer
from luthier_trainer.tasks.registry import task_of
from support.trainer.engine import data_of_parts, spec_of, tuner_of
from support.trainer.families import FAMILIES, families_in
from support.trainer.models import read_reviews

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

# What ONNX cannot hold, with the cause that the run names, and where else batches are padded.
NOT_IN_ONNX = {"xlnet": "aten.sub", "longformer": "data-dependent", "funnel": "tracing inferred a static shape"}
PADDED = {"xlnet": "left", "fnet": "none"}
TASK, LABELS, MAX_LENGTH = task_of(Task.TEXT_CLASSIFICATION), ["negative", "positive"], 40
REVIEWS = read_reviews()[:96]
TRAIN, HELD_OUT = REVIEWS[:48], [row for row in REVIEWS[48:] if len(row[0]) < 160][:30]

Families = Callable[[str], Path]


@dataclass(frozen=True)
class Row:
    """What one family came to."""

    family: str
    padding: str
    at_64: float
    at_1: float
    plain: float
    served: float
    engine: str
    difference: float


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Families]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers warn about their own insides
        yield families_in(tmp_path_factory.mktemp, [text for text, _ in REVIEWS])


_FORM = "{:<12} {:<7} {:>12} {:>6} {:>12} {:>7}  {:<17} {}"


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Return what shows a row on the terminal."""
    reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter")
    heads = ("padding", "batch of 64", "of 1", "transformers", "served", "from", "largest difference of a probability")
    reporter.write_line("\n" + _FORM.format("accuracy of", *heads))

    def show(row: Row) -> None:
        numbers = (f"{number:.3f}" for number in (row.at_64, row.at_1, row.plain, row.served))
        reporter.write_line(_FORM.format(row.family, row.padding, *numbers, row.engine, f"{row.difference:.0e}"))

    return show


def document(base: Path, folder: Path, **spec: Any) -> dict[str, Any]:
    for name, rows in (("train", TRAIN), ("eval", HELD_OUT)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    data = {name: {"uri": (folder / f"{name}.csv").as_uri()} for name in ("train", "eval")}
    hyperparameters = {"epochs": 1, "batchSize": 16, "learningRate": "1e-3"} | spec.pop("hyperparameters", {})
    return {
        "model": {"uri": base.as_uri()},
        "dataset": data | {"preprocessing": {"maxLength": MAX_LENGTH}},
        "hyperparameters": hyperparameters,
        "output": {"name": "model", "uri": (folder / "registry").as_uri()},
        "tracking": {"tensorboard": False},
        **spec,
    }


def run(spec: dict[str, Any], folder: Path) -> Result:
    (folder / "run.json").write_text(json.dumps({"spec": spec}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_TERMINATION_LOG", str(folder / "termination-log"))
        main(["run", str(folder / "run.json"), "--workspace", str(folder / "workspace"), "--port", "0"])
    return Result.from_json((folder / "termination-log").read_text())


def data_of(base: Path) -> PreparedFolder:
    """Return the texts as *prepare* leaves them."""
    tokenizer = configure(Tokenizer.from_file(str(base / "tokenizer.json")), MAX_LENGTH)
    parts = [
        Part.of(
            [tokenizer.encode(text).ids for text, _ in rows],
            [LABELS.index(label) for _, label in rows],
            TASK.target_type,
            texts=[text for text, _ in rows],
        )
        for rows in (TRAIN, HELD_OUT)
    ]
    return data_of_parts(Task.TEXT_CLASSIFICATION, *parts, max_length=MAX_LENGTH)


def trained(base: BaseModel, artifact: Path, work: Path, *, onnx: bool) -> tuple[str, float, float]:
    """Train, export and save as a run does, and return where it pads, and the accuracy at two batch sizes."""
    data, accuracies = data_of(base.folder), []
    set_seed(0)
    model = load_model(base, "file:///base", TASK, LABELS)
    for size in (64, 1):
        spec = spec_of(Task.TEXT_CLASSIFICATION, epochs=1, learningRate="1e-3", evalBatchSize=size)
        tuner = tuner_of(work, model, data, spec)
        if size == 64:
            tuner.train()
            tuner.use(model)
        predictions = tuner.predictions(data.held_out)
        accuracies.append((predictions.loss, TASK.measure(predictions, LABELS)["accuracy"]))
    assert accuracies[0][0] == pytest.approx(accuracies[1][0], rel=1e-4)
    padding = tuner.forward.padding
    if onnx:
        artifact.mkdir()
        export_onnx(model, artifact / "model.onnx", held_out_collator(model, TASK, data).padded(padding), threads=1)
    model.save_pretrained(artifact)
    write_tokenizer(artifact, model, base, data, spec, padding)
    (artifact / "luthier.json").write_text(serving_document(spec, data, padding).to_json())
    return padding, accuracies[0][1], accuracies[1][1]


def plain_transformers(artifact: Path) -> np.ndarray[Any, Any]:
    """Return the probabilities of each text alone, computed with nothing but the folder."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(artifact)
    model = AutoModelForSequenceClassification.from_pretrained(artifact).eval()
    with torch.no_grad():
        each = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text, _ in HELD_OUT]
    return torch.cat(each).softmax(-1).numpy()


def answers(model: Model) -> np.ndarray[Any, Any]:
    """Return the probabilities of all texts, asked for at once."""
    rows = model.predict([text for text, _ in HELD_OUT])
    assert [row.error for row in rows] == [None] * len(rows)
    return np.array([row.values for row in rows])


def accuracy(probabilities: np.ndarray[Any, Any]) -> float:
    predicted = np.array(LABELS)[probabilities.argmax(1)]
    return float(np.mean(predicted == [label for _, label in HELD_OUT]))


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_shares_its_batch_a_text_is_answered_as_plain_transformers_answers_it_alone(
    family: str, families: Families, table: Callable[[Row], None], tmp_path: Path
) -> None:
    base = check_base_model(families(family), "file:///base", auto_class=TASK.auto_class, max_length=MAX_LENGTH)
    artifact, onnx = tmp_path / "artifact", family not in NOT_IN_ONNX
    padding, at_64, at_1 = trained(base, artifact, tmp_path / "training", onnx=onnx)

    plain = plain_transformers(artifact)
    assert np.ptp(plain[:, 0]) > 0.01, "texts that all get the same answer would prove nothing"
    served = open_model(artifact, "onnxruntime" if onnx else "torch")
    differences = [
        float(np.abs(answers(model) - plain).max())
        for model in (served, open_model(artifact, "torch"), _padding_as_on_a_gpu(artifact))
    ]
    found, weights = accuracy(answers(served)), served.info.weights
    table(Row(family, padding, at_64, at_1, accuracy(plain), found, weights, max(differences)))
    assert max(differences) < 1e-4
    assert at_64 == at_1 == pytest.approx(accuracy(plain)) == pytest.approx(found)
    assert padding == PADDED.get(family, "right")


def _padding_as_on_a_gpu(artifact: Path) -> Model:
    """Return the model in an engine that computes texts of different lengths together."""
    engine = TorchEngine(artifact, per_token=False, gpus=0, threads=1)
    engine.pads = True
    return Model(artifact, read_document(artifact), engine, version="v", max_tokens=2048)


@pytest.mark.parametrize("family", NOT_IN_ONNX)
def test_what_onnx_cannot_hold_is_said_before_anything_is_trained(
    family: str, families: Families, tmp_path: Path
) -> None:
    failure = run(document(families(family), tmp_path, export=["safetensors", "onnx"]), tmp_path).failure
    assert failure and failure.reason == "ExportFailed"
    assert NOT_IN_ONNX[family] in failure.message and "\x1b" not in failure.message
    assert failure.message.endswith("nothing was trained.")


def test_the_artifact_says_where_its_batches_are_padded(families: Families, tmp_path: Path) -> None:
    published = run(document(families("xlnet"), tmp_path, export=["safetensors"]), tmp_path).published
    assert published
    artifact = Path(published.uri.removeprefix("file://"))
    assert json.loads((artifact / "luthier.json").read_text())["otherPadding"] == "left"
    assert json.loads((artifact / "tokenizer_config.json").read_text())["padding_side"] == "left"
    metrics = json.loads((artifact / "metrics.json").read_text())["metrics"]
    assert metrics["eval_accuracy"] == pytest.approx(accuracy(plain_transformers(artifact)))


def test_what_is_not_tried_before_training_is_what_is_exported_here() -> None:
    assert {json_type(family) for family in FAMILIES if family not in NOT_IN_ONNX} >= EXPORTABLE


def json_type(family: str) -> str:
    import transformers

    return str(getattr(transformers, FAMILIES[family][0]).model_type)
