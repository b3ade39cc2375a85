"""Inputs for the trainer: real reviews, tiny models with their own tokenizer, and the trainer's command line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from luthier_api.documents import Access, Result, credential_env
from luthier_artifacts import Registry, StorageConfig, open_registry
from luthier_trainer.cli import main
from luthier_trainer.runtime.cpus import limit_threads
from luthier_trainer.runtime.turns import LAPSE_VARIABLE
from support.trainer.attempts import FORK_SERVER, SOON, Trainer
from support.trainer.fixtures import reviews, tiny_models
from support.trainer.models import Rows

__all__ = ["reviews", "tiny_models"]

# Before anything imports torch, as the command line does it.
limit_threads()


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
    monkeypatch.setenv(LAPSE_VARIABLE, SOON)
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
