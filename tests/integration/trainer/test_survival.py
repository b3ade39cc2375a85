"""Runs that are killed or asked to stop end with what an undisturbed run ends with."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

import pytest

from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from support.trainer.attempts import Attempt, Trainer, stopped, through
from support.trainer.endings import ending, undisturbed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

# 20 take minutes.
KILLS = int(os.environ.get("LUTHIER_TEST_KILLS", "4"))


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


def test_a_run_that_is_killed_again_and_again_ends_with_the_weights_of_an_undisturbed_one(
    bench: Any, trainer: Trainer, long_run: dict[str, Any], faulty_server: Any
) -> None:
    """At random moments of all phases, and at random requests of a checkpoint's upload, its manifest among them."""
    chance = random.Random(4)
    moments, resumed = [], []
    for number in range(KILLS):
        faulty_server.fault = lambda handler: False
        disturber = Disturber(faulty_server, chance.randint(1, 40), after=chance.random() < 0.5) if number % 2 else None
        attempt = trainer.start(through(long_run, faulty_server))
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
    last = trainer.finish(through(long_run, faulty_server))
    with bench.capture.disabled():
        print(f"\nkilled after steps {moments}, resumed from {resumed}, then from {last.resumed_from}")
    known = [step for step in resumed if step]
    assert last.resumed_from and known == sorted(known)
    assert ending(bench, "registry", bench.folder / "killed").equals(undisturbed(bench, trainer, long_run))
    assert bench.keys("registry/sentiment/checkpoints") == []


def test_a_run_that_is_asked_to_stop_loses_no_finished_step(
    bench: Any, trainer: Trainer, long_run: dict[str, Any]
) -> None:
    """At random moments of the training, its evaluations among them; they are made up for first of all."""
    chance = random.Random(5)
    long_run["spec"]["checkpoint"]["everySteps"] = 1000
    last, made_up = 0, 0
    for _ in range(KILLS):
        attempt = trainer.start(long_run)
        attempt.wait_until_it_trains(or_resumes=True)
        time.sleep(chance.uniform(0, 0.5))
        attempt.signal(signal.SIGTERM)
        assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
        assert attempt.resumed_from == (last or None)
        done = max(attempt.steps, default=last)
        assert attempt.result.failure and attempt.result.failure.reason is Reason.PREEMPTED
        assert attempt.result.failure.message == (
            f"The run was asked to stop; the checkpoint of step {done} is stored, and the next attempt resumes from it."
        )
        evaluated = [line for line in attempt.log.splitlines() if f"evaluated after step {done}:" in line]
        made_up += done % 4 == 0 and not evaluated
        last = done
    finished = trainer.finish(long_run)
    with bench.capture.disabled():
        print(f"\nasked to stop {KILLS} times, {made_up} of them in or before an evaluation; at last after step {last}")
    assert finished.resumed_from == last
    assert made_up > 0 or KILLS < 10
    assert ending(bench, "registry", bench.folder / "stopped").equals(undisturbed(bench, trainer, long_run))
    assert bench.keys("registry/sentiment/checkpoints") == []


@pytest.mark.parametrize("method", ["LoRA", "Frozen"])
def test_every_method_resumes_and_stops_early_as_if_nothing_had_happened(
    bench: Any, trainer: Trainer, long_run: dict[str, Any], method: str
) -> None:
    long_run["spec"]["method"] = {"type": method}
    long_run["spec"]["hyperparameters"] |= {"evalSteps": 2, "earlyStopping": {"patience": 9, "threshold": "0.5"}}
    long_run |= bench.prepared(long_run)
    stopped(trainer, long_run)
    assert trainer.finish(long_run).resumed_from
    found = ending(bench, "registry", bench.folder / "stopped")
    assert found.steps == 20
    assert found.equals(undisturbed(bench, trainer, long_run))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    bench: Any, trainer: Trainer, long_run: dict[str, Any]
) -> None:
    long_run["spec"]["checkpoint"]["everySteps"] = 1000
    steps = [stopped(trainer, long_run) for _ in range(2)]
    run_key = long_run["resolved"]["runKey"]
    assert bench.registry.checkpoints(run_key) == steps
    (damaged,) = [key for key in bench.keys(f"registry/sentiment/checkpoints/{run_key}/{steps[1]}/") if "optim" in key]
    flip_a_byte(bench, damaged)

    attempt = trainer.start(long_run)
    attempt.wait_until_it_trains()
    attempt.signal(signal.SIGTERM)
    assert attempt.wait() == ExitCode.PREEMPTED
    assert attempt.resumed_from == steps[0]
    assert f"the checkpoint of step {steps[1]} is damaged; trying the one before it: " in attempt.log

    long_run["spec"]["checkpoint"]["resume"] = "Never"
    anew = trainer.start(long_run)
    anew.wait_until_it_trains()
    anew.signal(signal.SIGKILL)
    assert anew.wait() == -signal.SIGKILL
    assert anew.resumed_from is None and 1 in anew.steps
    assert bench.registry.checkpoints(run_key) == []


def flip_a_byte(bench: Any, key: str) -> None:
    bucket, _, prefix = bench.uri.removeprefix("s3://").partition("/")
    content = bytearray(bench.client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read())
    content[len(content) // 2] ^= 1
    bench.put(key, bytes(content))
