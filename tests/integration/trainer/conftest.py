"""Inputs for the trainer: real reviews, tiny models with their own tokenizer, and the trainer's command line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer

from luthier_api.documents import Access, Result, credential_env
from luthier_artifacts import Registry, StorageConfig, open_registry
from luthier_dev import samples
from luthier_trainer.cli import main
from luthier_trainer.runtime.cpus import limit_threads
from support.trainer.attempts import FORK_SERVER, Trainer

# Before anything imports torch, as the command line does it.
limit_threads()

Rows = list[tuple[str, str]]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@pytest.fixture(scope="session")
def reviews() -> Rows:
    """Real review sentences, evenly of both labels."""
    with samples.reviews_csv().train.open(newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    by_label = [[row for row in rows if row[1] == label] for label in ("negative", "positive")]
    return [row for pair in zip(*by_label, strict=False) for row in pair]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, reviews: Rows) -> Callable[[str], Path]:
    """Random models of a few thousand weights, one for each architecture, in hub format."""
    made: dict[str, Path] = {}

    def get(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tiny_model(
                tmp_path_factory.mktemp(architecture), architecture, [text for text, _ in reviews]
            )
        return made[architecture]

    return get


def tiny_model(folder: Path, architecture: str, texts: Iterable[str]) -> Path:
    """Write a random base model of one architecture, with a tokenizer trained on the texts."""
    import torch
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), BertPreTokenizer()
    tokenizer.train_from_iterator(texts, WordLevelTrainer(vocab_size=600, special_tokens=SPECIAL))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | {"cls_token": "[CLS]", "sep_token": "[SEP]"}))

    common: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 40}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    match architecture:
        case "bert":
            model = BertModel(BertConfig(**common, **sizes))
        case "roberta":
            model = RobertaModel(RobertaConfig(**common, **sizes, pad_token_id=0), add_pooling_layer=False)
        case "distilbert":
            model = DistilBertModel(DistilBertConfig(**common, dim=32, n_layers=2, n_heads=2, hidden_dim=64))
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Answer:
    """What the command line left."""

    code: int
    result: Result
    log: str

    @property
    def message(self) -> str:
        assert self.result.failure, self.log
        return self.result.failure.message


@dataclass
class Bench:
    """A prefix in the bucket with inputs and outputs of its own, and the trainer to run on them."""

    uri: str
    access: Access
    client: Any
    folder: Path
    capture: pytest.CaptureFixture[str]
    workspaces: int = field(default=0)

    def put(self, key: str, content: bytes) -> str:
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=content)
        return f"{self.uri}/{key}"

    def put_folder(self, key: str, folder: Path, *, without: str = "") -> str:
        for path in folder.iterdir():
            if path.is_file() and path.name != without:
                self.put(f"{key}/{path.name}", path.read_bytes())
        return f"{self.uri}/{key}"

    def put_csv(self, key: str, rows: Rows) -> str:
        path = self.folder / "rows.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        return self.put(key, path.read_bytes())

    def keys(self, prefix: str = "") -> list[str]:
        bucket, _, root = self.uri.removeprefix("s3://").partition("/")
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{root}/{prefix}")
        return [found["Key"].removeprefix(f"{root}/") for page in pages for found in page.get("Contents", [])]

    @property
    def registry(self) -> Registry:
        return open_registry(f"{self.uri}/registry", "sentiment", StorageConfig.from_access(self.access))

    def document(self, *, model: str, train: str, **spec: Any) -> dict[str, Any]:
        """A run document that trains for one short epoch; keyword arguments replace parts of its spec."""
        wire = {
            "model": {"uri": model},
            "dataset": {"train": {"uri": train}, "preprocessing": {"maxLength": 32}},
            "hyperparameters": {"epochs": 1, "batchSize": 16, "learningRate": "5e-4"},
            "output": {"name": "sentiment", "uri": f"{self.uri}/registry"},
        }
        return {"spec": wire | spec, "outputAccess": self.access.to_wire()}

    def write(self, document: dict[str, Any]) -> Path:
        path = self.folder / "run.json"
        path.write_text(json.dumps(document))
        return path

    def run(self, command: str, document: dict[str, Any], workspace: Path | None = None) -> Answer:
        """Run the command line in this process."""
        self.workspaces += 1
        workspace = workspace or self.folder / f"workspace-{self.workspaces}"
        self.capture.readouterr()
        # A free port, because a document with an origin opens the one that pods have.
        code = main([command, str(self.write(document)), "--workspace", str(workspace), "--port", "0"])
        captured = self.capture.readouterr()
        return Answer(code, Result.from_json(captured.out), captured.err)

    def prepared(self, document: dict[str, Any]) -> dict[str, Any]:
        """Run prepare, and return the document that train is to be given."""
        answer = self.run("prepare", document)
        assert answer.result.prepared, answer
        return document | {"resolved": answer.result.prepared.resolved.to_wire()}


@pytest.fixture
def bench(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    names = credential_env("output")
    monkeypatch.setenv(names["AWS_ACCESS_KEY_ID"], s3.access_key)
    monkeypatch.setenv(names["AWS_SECRET_ACCESS_KEY"], s3.secret_key)
    monkeypatch.setenv("LUTHIER_TERMINATION_LOG", str(tmp_path / "termination-log"))
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )
    return Bench(s3.fresh_uri(), Access(endpoint=s3.endpoint, credentials="output"), client, tmp_path, capsys)


@pytest.fixture
def document(bench: Any, tiny_models: Callable[[str], Path], reviews: Any) -> dict[str, Any]:
    """A run of 60 reviews."""
    model = bench.put_folder("base", tiny_models("bert"))
    found: dict[str, Any] = bench.document(model=model, train=bench.put_csv("train.csv", reviews[:60]))
    return found


@pytest.fixture(scope="session")
def warm() -> Iterator[subprocess.Popen[str]]:
    """A process with everything imported, whose children train."""
    command = [sys.executable, str(FORK_SERVER)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdin and server.stdout
    assert server.stdout.readline() == "ready\n"
    yield server
    server.stdin.close()
    server.wait(30)
    server.stdout.close()


@pytest.fixture
def trainer(bench: Any, warm: subprocess.Popen[str], tmp_path: Path) -> Trainer:
    folder = tmp_path / "attempts"
    folder.mkdir()
    return Trainer(warm, folder)


@pytest.fixture
def long_run(bench: Any, tiny_models: Callable[[str], Path], reviews: Any) -> dict[str, Any]:
    """A prepared run of 480 short steps, a checkpoint after every 3 and an evaluation of some length after every 4."""
    found: dict[str, Any] = bench.document(
        model=bench.put_folder("base", tiny_models("bert")),
        train=bench.put_csv("train.csv", reviews[:96]),
        export=["safetensors"],
        checkpoint={"everySteps": 3, "keep": 2},
        tracking={"tensorboard": False},
        trainingArguments={"logging_steps": "1"},
    )
    found["spec"]["dataset"]["eval"] = {"uri": bench.put_csv("eval.csv", reviews[100:160])}
    found["spec"]["dataset"]["test"] = {"uri": bench.put_csv("test.csv", reviews[160:180])}
    found["spec"]["hyperparameters"] = {
        "epochs": 40,
        "batchSize": 8,
        "evalBatchSize": 4,
        "learningRate": "1e-3",
        "scheduler": "cosine",
        "evalSteps": 4,
        "metricForBestModel": "eval_loss",
    }
    prepared: dict[str, Any] = bench.prepared(found)
    return prepared
