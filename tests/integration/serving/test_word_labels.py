"""Labels of words end to end: what metrics.json says is what seqeval says, and what the server's answers come to."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from transformers import AutoModelForTokenClassification, AutoTokenizer

from luthier_api.documents import Result
from luthier_serving.compute.model import open_model
from luthier_serving.tasks import OUTPUTS
from luthier_trainer.cli import main
from support.trainer.families import families_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NAMES = {
    "PER": ["Ada", "Grace Hopper", "Emmy Noether", "Juana Ines de Asbaje"],
    "LOC": ["Paris", "New York", "Rio", "Villa de la Paz"],
}
FILLERS = ["saw", "walked to", "wrote of", "is now in", "and then", "near"]
# seqeval's own letters for the last word of an entity and for one of one word.
SEQEVAL = {"L": "E", "U": "S"}


def bilou(kind: str, words: list[str]) -> list[str]:
    letters = "U" if len(words) == 1 else "B" + "I" * (len(words) - 2) + "L"
    return [f"{letter}-{kind}" for letter in letters]


def sentence(chance: random.Random) -> tuple[list[str], list[str]]:
    words, labels = [], []
    for _ in range(chance.randint(1, 4)):
        kind = chance.choice([*NAMES, "O"])
        found = chance.choice(NAMES.get(kind, FILLERS)).split()
        words += found
        labels += ["O"] * len(found) if kind == "O" else bilou(kind, found)
    return words, labels


TRAIN = [sentence(random.Random(seed)) for seed in range(200)]
# Of every fourth text other kinds are true than it was learned, so that no model is always right.
SWAPPED = {"PER": "LOC", "LOC": "PER"}
HELD_OUT = [
    (words, [label if seed % 4 else label[:2] + SWAPPED.get(label[2:], label[2:]) for label in labels])
    for seed in range(1000, 1040)
    for words, labels in [sentence(random.Random(seed))]
]


@pytest.fixture
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers warn about their own insides
        yield families_in(tmp_path_factory.mktemp, [" ".join(words) for words, _ in TRAIN])


def trained(base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, rows in (("train", TRAIN), ("eval", HELD_OUT)):
        lines = (json.dumps({"text": words, "label": labels}) + "\n" for words, labels in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    spec = {
        "task": "token-classification",
        "model": {"uri": base.as_uri()},
        "dataset": {name: {"uri": (folder / f"{name}.jsonl").as_uri()} for name in ("train", "eval")}
        | {"preprocessing": {"maxLength": 40, "dropDuplicates": False}},
        "hyperparameters": {"epochs": 6, "batchSize": 8, "learningRate": "5e-3"},
        "export": ["safetensors", "onnx"],
        "output": {"name": "model", "uri": (folder / "registry").as_uri()},
    }
    (folder / "run.json").write_text(json.dumps({"spec": spec}))
    monkeypatch.setenv("LUTHIER_TERMINATION_LOG", str(folder / "termination-log"))
    main(["run", str(folder / "run.json"), "--workspace", str(folder / "workspace"), "--port", "0"])
    published = Result.from_json((folder / "termination-log").read_text()).published
    assert published
    return Path(published.uri.removeprefix("file://"))


def answered_by_transformers(artifact: Path) -> list[list[str]]:
    """Return the label of each word, read off its first token."""
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    model = AutoModelForTokenClassification.from_pretrained(artifact).eval()
    found = []
    for words, _ in HELD_OUT:
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            likeliest = model(**encoded).logits[0].argmax(-1).tolist()
        places = encoded.word_ids()
        found.append([model.config.id2label[likeliest[places.index(word)]] for word in range(len(words))])
    return found


def of_seqeval(labels: list[list[str]]) -> list[list[str]]:
    return [[SEQEVAL.get(label[0], label[0]) + label[1:] for label in each] for each in labels]


def true_spans(words: list[str], labels: list[str]) -> set[tuple[str, int, int]]:
    """Return the kind and the characters of each entity."""
    spans, start, begun = set(), 0, 0
    for word, label in zip(words, labels, strict=True):
        begun = start if label[0] in "BU" else begun
        if label[0] in "LU":
            spans.add((label[2:], begun, start + len(word)))
        start += len(word) + 1
    return spans


def test_metrics_of_bilou_are_those_of_seqeval_and_those_of_the_answers(
    families: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = trained(families("bert"), tmp_path, monkeypatch)
    metrics = json.loads((artifact / "metrics.json").read_text())["metrics"]
    measured = [metrics[f"eval_{name}_entities"] for name in ("precision", "recall", "f1")]
    assert 0.1 < measured[2] < 1, "a model that knows nothing or everything would prove little"

    true, found = of_seqeval([labels for _, labels in HELD_OUT]), of_seqeval(answered_by_transformers(artifact))
    assert measured == pytest.approx([score(true, found) for score in (precision_score, recall_score, f1_score)])

    model = open_model(artifact, "onnxruntime")
    texts = [" ".join(words) for words, _ in HELD_OUT]
    right = given = wanted = 0
    for text, row, (words, labels) in zip(texts, model.predict(texts), HELD_OUT, strict=True):
        answer = OUTPUTS[model.info.task].result(text, row.values, model.info)["prediction"]
        spans, expected = {(each["label"], each["start"], each["end"]) for each in answer}, true_spans(words, labels)
        right, given, wanted = right + len(spans & expected), given + len(spans), wanted + len(expected)
    assert measured == pytest.approx([right / given, right / wanted, 2 * right / (given + wanted)])
