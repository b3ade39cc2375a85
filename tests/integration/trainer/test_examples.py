"""Each example of a FineTuneJob trains as it stands, on data of the form that it describes and a tiny base model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier_api.documents import Result, ServingDocument
from luthier_api.training import DataFile, Task, TrainingSpec
from luthier_trainer.cli import main
from support.examples import EXAMPLES, MANIFESTS

pytestmark = pytest.mark.integration

FINETUNEJOBS = [path for path in MANIFESTS if "kind: FineTuneJob" in path.read_text()]
LONGEST = 32
EXAMPLES_OF_EACH = 240
TOPICS = ["delivery", "packaging", "price"]


@pytest.mark.parametrize("path", FINETUNEJOBS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_becomes_a_version_with_the_metrics_that_its_gates_ask(
    path: Path,
    tmp_path: Path,
    tiny_models: Callable[[str], Path],
    reviews: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wire = trainers_part(yaml.safe_load(path.read_text())["spec"])
    spec = TrainingSpec.model_validate(wire)
    for number, (name, file) in enumerate(files(spec).items()):
        rows = reviews[number * EXAMPLES_OF_EACH : (number + 1) * EXAMPLES_OF_EACH]
        wire["dataset"][name]["uri"] = write(tmp_path, file, [row(spec, file, *each) for each in enumerate(rows)])
    wire["model"] = {"uri": tiny_models("bert").as_uri()}
    wire["output"] = {"name": spec.output.name, "uri": (tmp_path / "registry").as_uri()}
    wire["dataset"].setdefault("preprocessing", {})["maxLength"] = LONGEST
    wire["hyperparameters"]["epochs"] = 1
    wire.get("tracking", {}).pop("mlflow", None)
    # Exports take most of the time, and have tests of their own for each task.
    wire["export"] = ["safetensors"]

    document = tmp_path / "run.json"
    document.write_text(json.dumps({"spec": wire}))
    code = main([str(document), "--workspace", str(tmp_path / "workspace")])
    result = Result.from_json(capsys.readouterr().out)

    assert code == 0 and result.published, result
    assert {gate.metric for gate in spec.evaluation.gates} <= result.published.metrics.keys()
    folder = Path(result.published.uri.removeprefix("file://"))
    served = ServingDocument.from_json((folder / "luthier.json").read_bytes())
    assert served.task is spec.task and served.pairs == bool(spec.dataset.train.text_pair_column)
    if spec.labels:
        assert served.labels == spec.labels


def trainers_part(wire: dict[str, Any]) -> dict[str, Any]:
    """What of a FineTuneJob's spec the trainer is given."""
    names = {field.alias for field in TrainingSpec.model_fields.values()}
    return {name: value for name, value in wire.items() if name in names}


def files(spec: TrainingSpec) -> dict[str, DataFile]:
    dataset = spec.dataset
    named = {"train": dataset.train, "eval": dataset.eval, "test": dataset.test}
    return {name: file for name, file in named.items() if file}


def row(spec: TrainingSpec, file: DataFile, number: int, review: tuple[str, str]) -> dict[str, Any]:
    text, sentiment = review
    words = text.split()
    labels = spec.labels or TOPICS
    label: Any
    match spec.task:
        case Task.TEXT_CLASSIFICATION:
            label = labels[sentiment == "positive"]
            # As the file calls it, where it calls it something else.
            label = next((code for code, name in (spec.dataset.label_map or {}).items() if name == label), label)
        case Task.MULTI_LABEL:
            label = (file.label_separator or ",").join(TOPICS[: number % 3]) or file.label_separator
        case Task.REGRESSION:
            label = 4.5 if sentiment == "positive" else 1.5
        case Task.TOKEN_CLASSIFICATION:
            label = [labels[len(word) % len(labels)] for word in words]
    tokens = spec.task is Task.TOKEN_CLASSIFICATION
    pair = {file.text_pair_column: f"{words[0]} again?"} if file.text_pair_column else {}
    return {file.text_column: words if tokens else text, **pair, file.label_column: label}


def write(folder: Path, file: DataFile, rows: list[dict[str, Any]]) -> str:
    path = folder / f"{len(list(folder.iterdir()))}-{file.uri.rpartition('/')[2]}"
    with path.open("w", newline="") as out:
        if path.suffix == ".jsonl":
            out.writelines(json.dumps(each) + "\n" for each in rows)
        else:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path.as_uri()
