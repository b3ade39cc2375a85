"""Runs that are killed, asked to stop, or whose storage fails end with what an undisturbed run ends with."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from luthier_api.documents import Result, read_result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_artifacts import StorageConfig, open_registry

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("LUTHIER_TEST_KILLS", "20"))
Models = Callable[[str], Path]


@dataclass
class Attempt:
    """One process that trains."""

    pid: int
    log_file: Path
    server: subprocess.Popen[str]
    result_file: Path

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the exit code, -n for signal n."""
        assert self.server.stdout
        return int(self.server.stdout.readline())

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def steps(self) -> list[int]:
        """The steps that it told of as done."""
        return [int(step) for step in re.findall(r" step (\d+)/\d+ loss=", self.log)]

    @property
    def resumed_from(self) -> int | None:
        found = [line for line in self.log.splitlines() if "going on from the checkpoint of step " in line]
        return int(found[0].rpartition(" ")[2]) if found else None

    @property
    def result(self) -> Result:
        return read_result(self.result_file.read_text())

    def wait_until_it_trains(self) -> None:
        deadline = time.monotonic() + 60
        while not (self.steps or self.resumed_from):
            assert time.monotonic() < deadline, self.log
            time.sleep(0.002)


@dataclass
class Trainer:
    """Starts attempts of runs, one at a time."""

    server: subprocess.Popen[str]
    folder: Path
    attempts: int = 0

    def start(self, document: dict[str, Any], **environment: str) -> Attempt:
        self.attempts += 1
        here = self.folder / f"attempt-{self.attempts}"
        here.mkdir()
        (here / "run.json").write_text(json.dumps(document))
        argv = ["train", str(here / "run.json"), "--workspace", str(here / "workspace")]
        credentials = {name: value for name, value in os.environ.items() if name.startswith("LUTHIER_OUTPUT_")}
        environment = credentials | {"LUTHIER_TERMINATION_LOG": str(here / "result.json")} | environment
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps({"argv": argv, "env": environment, "log": str(here / "log")}) + "\n")
        self.server.stdin.flush()
        pid = int(self.server.stdout.readline())
        return Attempt(pid, here / "log", self.server, here / "result.json")

    def finish(self, document: dict[str, Any], **environment: str) -> Attempt:
        """Run to the end, which must be a version."""
        attempt = self.start(document, **environment)
        assert attempt.wait() == 0, attempt.log
        return attempt


@pytest.fixture(scope="module")
def warm() -> Iterator[subprocess.Popen[str]]:
    """A process with everything imported, whose children train."""
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
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
def document(bench: Any, tiny_models: Models, reviews: Any) -> dict[str, Any]:
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


@pytest.fixture
def undisturbed(bench: Any, trainer: Trainer, document: dict[str, Any]) -> Callable[[], Ending]:
    """Trains the same run in another place, without disturbance."""

    def run() -> Ending:
        copy: dict[str, Any] = json.loads(json.dumps(document))
        copy["spec"]["output"]["uri"] = f"{bench.uri}/undisturbed"
        copy = bench.prepared(copy)
        assert copy["resolved"]["runKey"] == document["resolved"]["runKey"]
        trainer.finish(copy)
        return ending(bench, "undisturbed", bench.folder / "undisturbed")

    return run


@dataclass
class Ending:
    """What a run ended with."""

    weights: dict[str, torch.Tensor]
    metrics: dict[str, float]
    best_step: int
    steps: int
    evaluations: list[dict[str, float]]

    def equals(self, other: Ending) -> bool:
        """Weights to the bit, and every evaluation on the way there."""
        same = [torch.equal(weight, other.weights[name]) for name, weight in self.weights.items()]
        rest = [
            (each.best_step, each.steps, each.evaluations, each.metrics["eval_loss"], each.metrics["test_loss"])
            for each in (self, other)
        ]
        return len(same) == len(other.weights) and all(same) and rest[0] == rest[1]


def ending(bench: Any, output: str, folder: Path) -> Ending:
    registry = open_registry(f"{bench.uri}/{output}", "sentiment", StorageConfig.from_access(bench.access))
    (version,) = registry.list_versions()
    registry.download(version, folder)
    found = json.loads((folder / "metrics.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return Ending(
        weights=load_file(folder / "model.safetensors"),
        metrics=found["metrics"],
        best_step=found["bestStep"],
        steps=found["steps"],
        evaluations=[{"step": each["step"], "loss": each["eval_loss"]} for each in log if "eval_loss" in each],
    )


class Disturber:
    """Kills an attempt at the n-th write of its checkpoints, before it reaches storage or after."""

    def __init__(self, server: Any, at: int, *, after: bool) -> None:
        self._server, self._left, self._after = server, at, after
        self._lock = threading.Lock()
        self.attempt: Attempt | None = None
        server.fault = self

    def __call__(self, handler: Any) -> bool:
        if handler.command != "PUT" or "/checkpoints/" not in handler.path or not self.attempt:
            return False
        with self._lock:
            self._left -= 1
            now = self._left == 0
        if not now:
            return False
        answer = self._server.forward(handler) if self._after else None
        self.attempt.signal(signal.SIGKILL)
        if answer:
            handler.cut()
        return True


def through(document: dict[str, Any], server: Any) -> dict[str, Any]:
    """The same run, whose storage is reached through the server that disturbs."""
    return document | {"outputAccess": document["outputAccess"] | {"endpoint": server.endpoint}}


def test_a_run_that_is_killed_again_and_again_ends_with_the_weights_of_an_undisturbed_one(
    bench: Any, trainer: Trainer, document: dict[str, Any], undisturbed: Callable[[], Ending], faulty_server: Any
) -> None:
    """At random moments of all phases, and at random requests of a checkpoint's upload, its manifest among them."""
    chance = random.Random(4)
    moments, resumed = [], []
    for number in range(KILLS):
        faulty_server.fault = lambda handler: False
        disturber = Disturber(faulty_server, chance.randint(1, 40), after=chance.random() < 0.5) if number % 2 else None
        attempt = trainer.start(through(document, faulty_server))
        if disturber:
            disturber.attempt = attempt
        else:
            if number % 8:
                attempt.wait_until_it_trains()
            time.sleep(chance.uniform(0, 1.5))
            attempt.signal(signal.SIGKILL)
        assert attempt.wait() == -signal.SIGKILL, attempt.log
        moments.append(attempt.steps[-1] if attempt.steps else 0)
        resumed.append(attempt.resumed_from or 0)
    faulty_server.fault = lambda handler: False
    last = trainer.finish(through(document, faulty_server))
    print(f"killed after steps {moments}, resumed from {resumed}, then from {last.resumed_from}")
    assert last.resumed_from and resumed == sorted(resumed)
    assert ending(bench, "registry", bench.folder / "killed").equals(undisturbed())
    assert bench.keys("registry/sentiment/checkpoints") == []


def test_a_run_that_is_asked_to_stop_loses_no_finished_step(
    bench: Any, trainer: Trainer, document: dict[str, Any], undisturbed: Callable[[], Ending]
) -> None:
    """At random moments of the training, its evaluations among them; they are made up for first of all."""
    chance = random.Random(5)
    document["spec"]["checkpoint"]["everySteps"] = 1000
    last, made_up = 0, 0
    for _ in range(KILLS):
        attempt = trainer.start(document)
        attempt.wait_until_it_trains()
        time.sleep(chance.uniform(0, 0.3))
        attempt.signal(signal.SIGTERM)
        assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
        assert attempt.resumed_from == (last or None)
        done = max(attempt.steps, default=last)
        assert attempt.result.failure and attempt.result.failure.reason is Reason.PREEMPTED
        assert attempt.result.failure.message == (
            f"The run was asked to stop; the checkpoint of step {done} is stored, and the next attempt goes on from it."
        )
        evaluated = [line for line in attempt.log.splitlines() if f"evaluated after step {done}:" in line]
        made_up += done % 4 == 0 and not evaluated
        last = done
    finished = trainer.finish(document)
    print(f"asked to stop {KILLS} times, {made_up} times before or in an evaluation; at last from step {last}")
    assert finished.resumed_from == last
    assert made_up > 0
    assert ending(bench, "registry", bench.folder / "stopped").equals(undisturbed())
    assert bench.keys("registry/sentiment/checkpoints") == []
