"""Runs that are killed, asked to stop, or whose storage fails end with what an undisturbed run ends with."""

from __future__ import annotations

import contextlib
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

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

# 20 take minutes.
KILLS = int(os.environ.get("LUTHIER_TEST_KILLS", "6"))
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

    def wait_until_it_trains(self, *, or_resumes: bool = False) -> None:
        deadline = time.monotonic() + 120
        while not (self.steps or (or_resumes and self.resumed_from)):
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
        copy = elsewhere(bench, document, "undisturbed")
        assert copy["resolved"]["runKey"] == document["resolved"]["runKey"]
        trainer.finish(copy)
        return ending(bench, "undisturbed", bench.folder / "undisturbed")

    return run


def elsewhere(bench: Any, document: dict[str, Any], output: str) -> dict[str, Any]:
    """The same run with another output, so that it is trained there too."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    copy["spec"]["output"]["uri"] = f"{bench.uri}/{output}"
    prepared: dict[str, Any] = bench.prepared(copy)
    return prepared


@dataclass
class Ending:
    """What a run ended with."""

    weights: dict[str, torch.Tensor]
    metrics: dict[str, float]
    best_step: int
    steps: int
    evaluations: list[dict[str, float]]
    losses: dict[int, float]

    def equals(self, other: Ending) -> bool:
        """Weights to the bit, and every evaluation on the way there."""
        same = [torch.equal(weight, other.weights[name]) for name, weight in self.weights.items()]
        rest = [
            (each.best_step, each.steps, each.evaluations, each.losses, each.metrics["eval_loss"])
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
        losses={each["step"]: each["loss"] for each in log if "loss" in each},
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
    with bench.capture.disabled():
        print(f"\nkilled after steps {moments}, resumed from {resumed}, then from {last.resumed_from}")
    known = [step for step in resumed if step]
    assert last.resumed_from and known == sorted(known)
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
        attempt.wait_until_it_trains(or_resumes=True)
        time.sleep(chance.uniform(0, 0.5))
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
    with bench.capture.disabled():
        print(f"\nasked to stop {KILLS} times, {made_up} of them in or before an evaluation; at last after step {last}")
    assert finished.resumed_from == last
    assert made_up > 0 or KILLS < 10
    assert ending(bench, "registry", bench.folder / "stopped").equals(undisturbed())
    assert bench.keys("registry/sentiment/checkpoints") == []


@pytest.mark.parametrize("method", ["LoRA", "Frozen"])
def test_every_method_resumes_and_stops_early_as_if_nothing_had_happened(
    bench: Any, trainer: Trainer, document: dict[str, Any], undisturbed: Callable[[], Ending], method: str
) -> None:
    document["spec"]["method"] = {"type": method}
    document["spec"]["hyperparameters"] |= {"evalSteps": 2, "earlyStopping": {"patience": 9, "threshold": "0.5"}}
    document |= bench.prepared(document)
    stopped(trainer, document)
    assert trainer.finish(document).resumed_from
    found = ending(bench, "registry", bench.folder / "stopped")
    assert found.steps == 20
    assert found.equals(undisturbed())


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    bench: Any, trainer: Trainer, document: dict[str, Any]
) -> None:
    document["spec"]["checkpoint"]["everySteps"] = 1000
    steps = [stopped(trainer, document) for _ in range(2)]
    run_key = document["resolved"]["runKey"]
    assert bench.registry.checkpoints(run_key) == steps
    (damaged,) = [key for key in bench.keys(f"registry/sentiment/checkpoints/{run_key}/{steps[1]}/") if "optim" in key]
    flip_a_byte(bench, damaged)

    attempt = trainer.start(document)
    attempt.wait_until_it_trains()
    attempt.signal(signal.SIGTERM)
    assert attempt.wait() == ExitCode.PREEMPTED
    assert attempt.resumed_from == steps[0]
    assert f"the checkpoint of step {steps[1]} is damaged, the one before is taken: " in attempt.log

    document["spec"]["checkpoint"]["resume"] = "Never"
    anew = trainer.start(document)
    anew.wait_until_it_trains()
    anew.signal(signal.SIGKILL)
    assert anew.wait() == -signal.SIGKILL
    assert anew.resumed_from is None and 1 in anew.steps
    assert bench.registry.checkpoints(run_key) == []


def stopped(trainer: Trainer, document: dict[str, Any]) -> int:
    """Train a little, and return the step of the checkpoint that a request to stop left."""
    attempt = trainer.start(document)
    attempt.wait_until_it_trains()
    time.sleep(0.1)
    attempt.signal(signal.SIGTERM)
    assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
    assert attempt.result.failure
    return int(re.findall(r"checkpoint of step (\d+) is stored", attempt.result.failure.message)[0])


def flip_a_byte(bench: Any, key: str) -> None:
    bucket, _, prefix = bench.uri.removeprefix("s3://").partition("/")
    content = bytearray(bench.client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read())
    content[len(content) // 2] ^= 1
    bench.put(key, bytes(content))


def busy_for_checkpoints(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    return lambda handler: "/checkpoints/" in handler.path and handler.command == "PUT" and busy(handler)


def busy_for_versions(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    return lambda handler: "/versions/" in handler.path and handler.command == "PUT" and busy(handler)


def busy_now_and_then(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    return lambda handler: chance.random() < 0.15 and busy(handler)


def dropping(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    """The connection ends before the answer, of which the server may have done its part."""

    def fault(handler: Any) -> bool:
        if chance.random() >= 0.1:
            return False
        if chance.random() < 0.5:
            server.forward(handler)
        handler.cut()
        return True

    return fault


def truncating(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    def fault(handler: Any) -> bool:
        if handler.command != "GET" or chance.random() >= 0.2:
            return False
        status, headers, body = server.forward(handler)
        handler.answer(status, headers, body, cut_at=len(body) // 2)
        return True

    return fault


def slow(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    return lambda handler: time.sleep(chance.uniform(0, 0.1)) is not None


def lying(server: Any, chance: random.Random) -> Callable[[Any], bool]:
    """Every answer is whole, and the weights of the base model have one wrong byte."""

    def fault(handler: Any) -> bool:
        if handler.command != "GET" or not handler.path.endswith("/base/model.safetensors"):
            return False
        status, headers, body = server.forward(handler)
        checksums = ("x-amz-checksum", "etag")
        kept = [(name, value) for name, value in headers if not name.lower().startswith(checksums[0])]
        handler.answer(status, kept, body[:-1] + bytes([body[-1] ^ 1]))
        return True

    return fault


def busy(handler: Any) -> bool:
    handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    handler.answer(503, [("Content-Type", "application/xml")], b"<Error><Code>SlowDown</Code></Error>")
    return True


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (busy_for_checkpoints, ExitCode.OK, "could not be uploaded"),
        (busy_for_versions, ExitCode.STORAGE_UNAVAILABLE, "try again later"),
        (busy_now_and_then, ExitCode.OK, ""),
        (dropping, ExitCode.OK, ""),
        (truncating, ExitCode.OK, ""),
        (slow, ExitCode.OK, ""),
        (lying, ExitCode.INTEGRITY_ERROR, "has changed since the run was prepared"),
    ],
)
def test_storage_that_fails_gives_a_right_version_or_a_reason(
    bench: Any,
    trainer: Trainer,
    document: dict[str, Any],
    faulty_server: Any,
    fault: Callable[[Any, random.Random], Callable[[Any], bool]],
    code: ExitCode,
    sentence: str,
) -> None:
    document["spec"]["hyperparameters"]["epochs"] = 4
    document = bench.prepared(document)
    faulty_server.fault = fault(faulty_server, random.Random(6))
    attempt = trainer.start(through(document, faulty_server))
    assert attempt.wait() == code, attempt.log
    assert sentence in attempt.log
    versions = bench.registry.list_versions()
    if code is ExitCode.OK:
        # Downloads and verifies.
        assert ending(bench, "registry", bench.folder / "artifact").steps == 48
    else:
        assert versions == []
        assert attempt.result.failure and attempt.result.failure.message


def test_two_processes_learn_what_one_does_also_when_one_of_them_is_lost(
    bench: Any, trainer: Trainer, document: dict[str, Any]
) -> None:
    """Without dropout, which is random in each process by itself."""
    config = json.loads((bench.folder / "workspace-1" / "model" / "config.json").read_text())
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bench.put("base/config.json", json.dumps(config | without).encode())
    document["spec"]["hyperparameters"]["epochs"] = 10
    together = bench.prepared(document)
    trainer.finish(elsewhere(bench, document, "alone"))

    (bench.folder / "together.json").write_text(json.dumps(together))
    command = [sys.executable, "-m", "luthier_trainer", "train", str(bench.folder / "together.json")]
    environment = os.environ | {"LUTHIER_PROCESSES_PER_NODE": "2"}
    with (bench.folder / "log").open("w") as log:
        launcher = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            wait_for_text(bench.folder / "log", "stored the checkpoint", launcher)
            os.kill(second_of(launcher.pid), signal.SIGKILL)
            out, _ = launcher.communicate(timeout=300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()
    text = (bench.folder / "log").read_text()
    assert launcher.returncode == 0, text
    assert "going on from the checkpoint of step" in text
    assert read_result(out).published

    one, two = ending(bench, "alone", bench.folder / "one"), ending(bench, "registry", bench.folder / "two")
    assert len(one.losses) == one.steps == 120
    assert one.losses.keys() == two.losses.keys()
    assert max(abs(one.losses[step] - two.losses[step]) for step in one.losses) < 1e-4
    assert one.evaluations == [pytest.approx(each, abs=1e-4) for each in two.evaluations]
    for name, weight in one.weights.items():
        torch.testing.assert_close(weight, two.weights[name], atol=1e-3, rtol=0)


def wait_for_text(path: Path, text: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while text not in path.read_text():
        assert process.poll() is None and time.monotonic() < deadline, path.read_text()
        time.sleep(0.01)


def second_of(launcher: int) -> int:
    """Return the process id of the launcher's process of rank 1."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = [pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    return int(found)
