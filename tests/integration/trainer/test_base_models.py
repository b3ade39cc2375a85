"""Base models as people bring them: classifiers of labels in another order, tokenizers that contradict themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedModel

from luthier_api.documents import ServingDocument
from luthier_api.training import Task
from luthier_serving.compute.tokenization import Tokenization
from luthier_trainer.formats.prepared import Part
from luthier_trainer.models.base_model import check_base_model
from luthier_trainer.models.load import load_model
from luthier_trainer.publish.artifact import serving_document
from luthier_trainer.publish.tokenizer_files import write_tokenizer
from luthier_trainer.runtime.errors import InvalidModel
from luthier_trainer.tasks.registry import task_of
from support.trainer.engine import data_of_parts, spec_of

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]
TASK = task_of(Task.TEXT_CLASSIFICATION)
TEXTS = ["A Great phone, Really.", "NOT good at all", "It was the Best  of Films\tever", "plain words"]


def loaded(folder: Path, labels: list[str], task: Task = Task.TEXT_CLASSIFICATION) -> PreTrainedModel:
    auto_class = task_of(task).auto_class
    base = check_base_model(folder, "file:///base", auto_class=auto_class, max_length=32)
    return load_model(base, "file:///base", task_of(task), labels).eval()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("task", [Task.TEXT_CLASSIFICATION, Task.MULTI_LABEL, Task.TOKEN_CLASSIFICATION])
def test_the_rows_of_a_head_follow_the_names_of_their_labels(
    tiny_models: Models, tmp_path: Path, architecture: str, task: Task
) -> None:
    names, labels = ["POS", "NEG", "MIXED"], ["mixed", "neg", "pos"]
    torch.manual_seed(0)
    classifier = getattr(transformers, task_of(task).auto_class).from_pretrained(
        tiny_models(architecture), id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    )
    classifier.eval().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_models(architecture) / name).read_bytes())
    ids = torch.tensor([[2, 17, 45, 8, 3]])
    with torch.no_grad():
        wanted = classifier(input_ids=ids).logits
        model = loaded(tmp_path, labels, task)
        torch.testing.assert_close(model(input_ids=ids).logits, wanted[..., [2, 1, 0]])
        assert model.config.id2label == dict(enumerate(labels))

        # Other labels, as many: what the rows mean is of no use.
        other = loaded(tmp_path, ["x", "y", "z"], task)
        assert not torch.isclose(other(input_ids=ids).logits, wanted).any()


def test_prepare_says_what_becomes_of_the_head(bench: Any, tiny_models: Models, reviews: Any, tmp_path: Path) -> None:
    names = {0: "positive", 1: "negative"}
    made = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_models("bert"), id2label=names)
    made.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_bytes((tiny_models("bert") / name).read_bytes())
    model = bench.put_folder("base", tmp_path / "base")
    document = bench.document(model=model, train=bench.put_csv("train.csv", reviews[:60]))
    answer = bench.run("prepare", document)
    said = "used again, its rows in the order of this run's labels by their names."
    assert any(said in warning for warning in answer.result.prepared.warnings), answer
    assert said in answer.log


def tokenizer_of(folder: Path, texts: list[str], kind: str, *, lowercase: bool) -> None:
    """Put a tokenizer whose tokenizer.json lowers the case or not into a folder."""
    from tokenizers import models, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if kind == "RobertaTokenizer":
        made = Tokenizer(models.BPE(unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer: Any = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        made.normalizer = normalizers.Lowercase() if lowercase else None
    else:
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))
    if kind != "RobertaTokenizer":
        vocabulary = sorted(made.get_vocab().items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in vocabulary))


@pytest.mark.parametrize(
    "kind", ["BertTokenizer", "DistilBertTokenizer", "PreTrainedTokenizerFast", "RobertaTokenizer"]
)
@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("settings", [{"do_lower_case": True}, {"do_lower_case": False}, {"truncation_side": "left"}])
@pytest.mark.parametrize("cleaning", [{}, {"lowercase": True}, {"stripWhitespace": False}])
def test_whatever_tokenizer_files_say_the_published_ones_are_read_as_the_server_reads_them(
    tmp_path: Path, kind: str, lowercase: bool, settings: dict[str, Any], cleaning: dict[str, Any]
) -> None:
    base, artifact = tmp_path / "base", tmp_path / "artifact"
    base.mkdir()
    tokenizer_of(base, [*TEXTS, *map(str.lower, TEXTS)], kind, lowercase=lowercase)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | names | settings))
    spec = spec_of(Task.TEXT_CLASSIFICATION)
    preprocessing = spec.dataset.preprocessing.model_validate({"maxLength": 8} | cleaning)
    spec = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"preprocessing": preprocessing})})
    write(artifact, base, spec)
    server = Tokenization(
        artifact, ServingDocument.from_json((artifact / "luthier.json").read_bytes()), per_token=False
    )
    theirs = AutoTokenizer.from_pretrained(artifact)
    for text in TEXTS:
        assert theirs(text, truncation=True)["input_ids"] == server.encode([text])[0].ids
    # And as it was trained: by the base model's tokenizer.json.
    trained = Tokenizer.from_file(str(base / "tokenizer.json"))
    trained.enable_truncation(8)
    assert server.encode(["plain words"])[0].ids == trained.encode("plain words").ids


def write(artifact: Path, folder: Path, spec: Any) -> None:
    """Write the published tokenizer of a base model's folder that has nothing but a tokenizer."""
    from luthier_trainer.models.base_model import BaseModel

    part = Part.of([[2, 3]] * len(TEXTS), [0] * len(TEXTS), TASK.target_type, texts=TEXTS)
    data = data_of_parts(Task.TEXT_CLASSIFICATION, part, part, max_length=8)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    write_tokenizer(artifact, model, BaseModel(folder, "bert", 0, ""), data, spec, "right")
    (artifact / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (artifact / "luthier.json").write_text(serving_document(spec, data, "right").to_json())


def test_a_tokenizer_that_transformers_cannot_read_alike_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    tokenizer_of(base, TEXTS, "BertTokenizer", lowercase=False)
    # A class by its own rules, whatever tokenizer.json says.
    (base / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda *_, **__: lambda text, *_, **__: {"input_ids": [2, 1, 3]}
    )
    with pytest.raises(InvalidModel, match=r"^The tokenizer of file:///model is not read alike: of 'A Great phone"):
        write(tmp_path / "artifact", base, spec_of(Task.TEXT_CLASSIFICATION))
