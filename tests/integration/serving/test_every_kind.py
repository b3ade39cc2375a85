"""An artifact of each kind, made by the trainer, answers the same from the server as from plain transformers."""

from __future__ import annotations

import json
import os
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import Published, Result, RevisionConfig
from luthier_artifacts import download_version
from luthier_serving.answers import Text
from luthier_serving.compute.loading import load_model
from luthier_serving.compute.model import Model, open_model
from luthier_serving.tasks import OUTPUTS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PEOPLE = ["Ada", "Zoë", "Grace Hopper", "Noether", "Emmy Noether", "Hypatia"]
PLACES = ["Paris", "New York", "Łódź", "Rio", "Addis Ababa"]
FILLERS = ["saw", "the film was", "walked to", "yesterday in", "said that", "never", "wrote of", "is now in", "and"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
# Random weights of this size tell texts apart without having learned anything.
SPREAD = {"initializer_range": 0.3}


@dataclass(frozen=True)
class Kind:
    """What is trained."""

    task: str
    architecture: str
    method: str = "Full"
    pairs: bool = False
    int8: bool = False

    def __str__(self) -> str:
        words = (self.task, self.architecture, self.method, "pairs" if self.pairs else "", "int8" if self.int8 else "")
        return "-".join(word for word in words if word)


KINDS = [
    Kind("text-classification", "bert", pairs=True, int8=True),
    Kind("text-classification", "roberta", method="LoRA"),
    Kind("text-classification", "distilbert", method="Frozen"),
    Kind("multi-label", "distilbert"),
    Kind("regression", "bert"),
    Kind("token-classification", "bert", int8=True),
    Kind("token-classification", "roberta", method="LoRA"),
]


def sentence(chance: random.Random) -> list[tuple[str, str]]:
    """Return words with their labels."""
    words: list[tuple[str, str]] = []
    for kind, choices in (("PER", PEOPLE), ("", FILLERS), ("LOC", PLACES), ("", FILLERS))[: chance.randint(1, 4)]:
        for place, word in enumerate(chance.choice(choices).split()):
            words.append((word, f"{'I' if place else 'B'}-{kind}" if kind else "O"))
    return words


def example(task: str, chance: random.Random) -> dict[str, Any]:
    """Return a row of the data; the label depends on the words."""
    words = sentence(chance)
    text, labels = " ".join(word for word, _ in words), {label[2:] for _, label in words if label != "O"}
    match task:
        case "token-classification":
            return {"text": [word for word, _ in words], "label": [label for _, label in words]}
        case "multi-label":
            label: Any = sorted(labels | {"short"} if len(words) < 5 else labels)
        case "regression":
            label = len(words) / 2
        case _:
            label = "with a place" if "LOC" in labels else "without"
    return {"text": text, "second": " ".join(word for word, _ in sentence(chance)), "label": label}


TEXTS = [" ".join(word for word, _ in sentence(random.Random(seed))) for seed in range(100, 130)]


@dataclass
class Workshop:
    """Trains each kind once, with nothing but folders of this machine."""

    folder: Path
    bases: dict[str, Path] = field(default_factory=dict)
    made: dict[Kind, Published] = field(default_factory=dict)

    def artifact(self, kind: Kind) -> Published:
        if kind not in self.made:
            self.made[kind] = self._train(kind)
        return self.made[kind]

    def _train(self, kind: Kind) -> Published:
        from luthier_trainer.cli import main

        place = self.folder / str(kind)
        place.mkdir()
        chance = random.Random(7)
        data = place / "rows.jsonl"
        data.write_text("".join(json.dumps(example(kind.task, chance)) + "\n" for _ in range(160)))
        train = {"uri": data.as_uri()} | ({"textPairColumn": "second"} if kind.pairs else {})
        spec = {
            "task": kind.task,
            "model": {"uri": self._base(kind.architecture).as_uri()},
            "dataset": {"train": train, "preprocessing": {"maxLength": 32}},
            "method": {"type": kind.method},
            "hyperparameters": {"epochs": 1, "batchSize": 16, "learningRate": "5e-3"},
            "evaluation": {"maxInt8Loss": "1"},
            "export": ["safetensors", "onnx", *(["onnx-int8"] if kind.int8 else [])],
            "output": {"name": "model", "uri": (place / "registry").as_uri()},
        }
        (place / "run.json").write_text(json.dumps({"spec": spec}))
        log = place / "termination-log"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LUTHIER_TERMINATION_LOG", str(log))
            code = main(["run", str(place / "run.json"), "--workspace", str(place / "workspace"), "--port", "0"])
        result = Result.from_json(log.read_text())
        assert code == 0 and result.published, result
        return result.published

    def _base(self, architecture: str) -> Path:
        if architecture not in self.bases:
            self.bases[architecture] = base_model(self.folder / architecture, architecture)
        return self.bases[architecture]


def base_model(folder: Path, architecture: str) -> Path:
    """Write a random model with the tokenizer that is usual for it, trained on the sentences."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    texts = [" ".join(word for word, _ in sentence(random.Random(seed))) for seed in range(200)]
    torch.manual_seed(3)
    if architecture == "roberta":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet)
        )
        # As in the files that are usual for it.
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2), add_prefix_space=False)
        config = transformers.RobertaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            max_position_embeddings=64,
            type_vocab_size=1,
            pad_token_id=0,
            **SIZES,
            **SPREAD,
        )
        model = transformers.RobertaModel(config, add_pooling_layer=False)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=70, special_tokens=SPECIAL))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        size = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 64}
        if architecture == "bert":
            model = transformers.BertModel(transformers.BertConfig(**size, **SIZES, **SPREAD))
        else:
            config = transformers.DistilBertConfig(**size, dim=32, n_layers=2, n_heads=2, hidden_dim=64, **SPREAD)
            model = transformers.DistilBertModel(config)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    # A class of its own that knows better than tokenizer.json, and one that knows of no token types by itself.
    names |= {"tokenizer_class": "RobertaTokenizer" if architecture == "roberta" else "PreTrainedTokenizerFast"}
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers warn about their own insides
        yield Workshop(tmp_path_factory.mktemp("kinds"))


def load(version: Published, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """Load a version as a revision does, with downloads that are verified."""
    monkeypatch.setenv("LUTHIER_CACHE", str(cache))
    monkeypatch.setenv("RAYON_NUM_THREADS", os.environ.get("RAYON_NUM_THREADS", "1"))
    names = {"name": "rev", "model_uri": version.uri, "version": version.version, "digest": version.digest}
    return load_model(RevisionConfig(**names))


def answers(model: Model, texts: list[Text]) -> list[dict[str, Any]]:
    """Return what the server would answer."""
    rows = model.predict(texts)
    assert [row.error for row in rows] == [None] * len(texts)
    return [
        OUTPUTS[model.info.task].result(text if isinstance(text, str) else text[0], row.values, model.info)
        for text, row in zip(texts, rows, strict=True)
    ]


def plain_transformers(kind: Kind, folder: Path, texts: list[Text]) -> list[Any]:
    """Return what a transformers pipeline answers, given only the folder."""
    from transformers import pipeline

    if kind.task == "token-classification":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a pipeline finds words of byte-level tokens by their spaces
            find = pipeline(kind.task, model=str(folder), device="cpu", aggregation_strategy="first")
            return [find(text) for text in texts]
    asked = [text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]} for text in texts]
    classify = pipeline("text-classification", model=str(folder), device="cpu", top_k=None, truncation=True)
    # A list of one for a string, and what is in it for a pair.
    return [found[0] if isinstance(found[0], list) else found for found in map(classify, asked)]


def agree(kind: Kind, answer: dict[str, Any], expected: Any) -> None:
    if kind.task == "token-classification":
        assert [(span["label"], span["start"], span["end"]) for span in answer["prediction"]] == [
            (span["entity_group"], span["start"], span["end"]) for span in expected
        ]
        confidences = [span["confidence"] for span in answer["prediction"]]
        assert confidences == pytest.approx([span["score"] for span in expected], abs=1e-3)
        return
    scores = {one["label"]: one["score"] for one in expected}
    if kind.task == "regression":
        assert answer["prediction"] == pytest.approx(*scores.values(), abs=1e-3)
        return
    assert answer["probabilities"] == pytest.approx(scores, abs=1e-3)
    if kind.task == "multi-label":
        assert set(answer["prediction"]) == {label for label, score in scores.items() if score >= 0.5}
    else:
        assert answer["prediction"] == max(scores, key=scores.__getitem__)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_server_answers_what_plain_transformers_answers(
    kind: Kind, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, folder = workshop.artifact(kind), tmp_path / "artifact"
    texts: list[Text] = list(zip(TEXTS, reversed(TEXTS), strict=True)) if kind.pairs else list(TEXTS)
    served = load(version, tmp_path / "cache", monkeypatch)
    assert (served.info.weights, served.info.pairs) == ("model.int8.onnx" if kind.int8 else "model.onnx", kind.pairs)
    assert served.predict(["a" if kind.pairs else ("a", "b")])[0].invalid_input

    download_version(version.uri, folder, digest=version.digest)
    expected = plain_transformers(kind, folder, texts)
    if kind.int8:
        check_int8(kind, answers(served, texts), expected)
        (folder / "model.int8.onnx").unlink()
        served = open_model(folder, "onnxruntime")
        assert served.info.weights == "model.onnx"
    for model in (served, open_model(folder, "torch")):
        found = answers(model, texts)
        for answer, wanted in zip(found, expected, strict=True):
            agree(kind, answer, wanted)
        assert varied(found), "texts that all get the same answer would prove nothing"


def varied(found: list[dict[str, Any]]) -> bool:
    if isinstance(found[0]["prediction"], list) and "probabilities" not in found[0]:
        return len({json.dumps([span["label"] for span in answer["prediction"]]) for answer in found}) > 1
    numbers = [next(iter(answer.get("probabilities", {0: answer["prediction"]}).values())) for answer in found]
    return max(numbers) - min(numbers) > 0.05


def check_int8(kind: Kind, found: list[dict[str, Any]], expected: list[Any]) -> None:
    """Allow int8 what its rounding costs."""
    if kind.task == "token-classification":
        wanted = [[(span["entity_group"], span["start"], span["end"]) for span in spans] for spans in expected]
        answered = [[(span["label"], span["start"], span["end"]) for span in one["prediction"]] for one in found]
        assert sum(one == other for one, other in zip(answered, wanted, strict=True)) > 0.7 * len(answered)
        return
    for answer, scores in zip(found, expected, strict=True):
        assert answer["probabilities"] == pytest.approx({one["label"]: one["score"] for one in scores}, abs=0.1)
