"""Two runs that would train the same at the same moment: one trains, the other waits, and takes over if that dies."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_artifacts import Holder
from luthier_dev.waiting import wait_until
from support.trainer.attempts import Attempt, Trainer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FIRST, SECOND = ({"name": name, "namespace": "team", "uid": name, "generation": 1, "run": f"{name}-1"} for name in "ab")
WAITS = "waiting for run a-1 of FineTuneJob team/a, which trains the same"


@pytest.fixture
def twin_run(bench: Any, long_run: dict[str, Any]) -> dict[str, Any]:
    """A run of 144 steps: long enough to be waited for."""
    long_run["spec"]["hyperparameters"]["epochs"] = 12
    prepared: dict[str, Any] = bench.prepared(not_prepared(long_run))
    return prepared


def of(origin: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    return document | {"origin": origin}


def not_prepared(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "resolved"}


@contextmanager
def when_it_waits(bench: Any, act: Callable[[], None]) -> Iterator[None]:
    """Act as soon as the next command of the bench waits for another run."""
    log = bench.folder / f"workspace-{bench.workspaces + 1}" / "console.log"

    def missing() -> str | None:
        return None if log.exists() and WAITS in log.read_text() else "the sentence"

    def work() -> None:
        wait_until(missing, "a run that waits", timeout_s=60, interval_s=0.02)
        act()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def claim(bench: Any, document: dict[str, Any]) -> dict[str, Any]:
    key = f"registry/sentiment/claims/{document['resolved']['weightsKey']}.json"
    bucket, _, prefix = bench.uri.removeprefix("s3://").partition("/")
    found: dict[str, Any] = json.loads(bench.client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read())
    return found


def training(trainer: Trainer, bench: Any, document: dict[str, Any]) -> Attempt:
    """A run that trains and has left checkpoints."""
    attempt = trainer.start(of(FIRST, document))
    run_key = document["resolved"]["runKey"]

    def missing() -> str | None:
        return None if bench.registry.checkpoints(run_key) else attempt.log

    wait_until(missing, "a checkpoint", timeout_s=120, interval_s=0.02)
    return attempt


def test_the_second_of_two_runs_waits_in_prepare_and_gets_the_version_of_the_first(
    bench: Any, trainer: Trainer, twin_run: dict[str, Any]
) -> None:
    attempt = training(trainer, bench, twin_run)
    waited: list[bool] = []
    with when_it_waits(bench, lambda: waited.append(True)):
        second = bench.run("prepare", of(SECOND, not_prepared(twin_run)))
    assert attempt.wait() == 0, attempt.log
    assert waited and second.code == 0
    assert second.result.published.reused
    assert second.result.published.version == attempt.result.published.version
    assert len(bench.registry.list_versions()) == 1
    assert bench.keys("registry/sentiment/claims") == [], "what is published needs no claim"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_trainer_dies_is_taken_over_from_its_newest_checkpoint(
    bench: Any, trainer: Trainer, twin_run: dict[str, Any], how: signal.Signals
) -> None:
    attempt = training(trainer, bench, twin_run)
    with when_it_waits(bench, lambda: attempt.signal(how)):
        second = bench.run("prepare", of(SECOND, not_prepared(twin_run)))
    assert attempt.wait() in (-signal.SIGKILL, ExitCode.PREEMPTED), attempt.log
    assert second.result.prepared, second
    assert claim(bench, twin_run)["holder"] == "b"
    steps = bench.registry.checkpoints(twin_run["resolved"]["runKey"])
    taken_over = trainer.finish(of(SECOND, twin_run))
    assert taken_over.resumed_from == steps[-1] > 0
    assert bench.keys("registry/sentiment/claims") == []


def test_the_next_pod_of_a_killed_run_goes_on_at_once(bench: Any, trainer: Trainer, twin_run: dict[str, Any]) -> None:
    attempt = training(trainer, bench, twin_run)
    attempt.signal(signal.SIGKILL)
    attempt.wait()
    # With so much time to lapse it would never begin.
    again = trainer.finish(of(FIRST, twin_run), LUTHIER_CLAIM_LAPSE_S="3600")
    assert again.resumed_from
    assert "waiting for" not in again.log


def test_a_training_that_finds_another_at_work_ends_before_it_loads_anything(
    bench: Any, document: dict[str, Any]
) -> None:
    document = bench.prepared(document)
    other = bench.registry.claim(
        document["resolved"]["weightsKey"], Holder("a", "run a-1 of FineTuneJob team/a"), trains=True
    )
    assert other.take() is None
    ended = bench.run("train", of(SECOND, document))
    assert ended.code == ExitCode.PREPARE_AGAIN
    assert ended.result.failure.reason is Reason.WAITING_FOR_RUN
    assert ended.message == (
        "The same is being trained by run a-1 of FineTuneJob team/a; this run waits for it in prepare, without a GPU."
    )
    assert bench.registry.list_versions() == [] and "training on" not in ended.log
    other.beat()
    assert other.lost_to is None


@pytest.mark.parametrize("asked_to_stop", [False, True], ids=["goes on", "asked to stop"])
def test_a_training_that_hung_and_was_taken_over_ends_and_leaves_the_claim_alone(
    bench: Any, trainer: Trainer, twin_run: dict[str, Any], asked_to_stop: bool
) -> None:
    attempt = training(trainer, bench, twin_run)
    attempt.signal(signal.SIGSTOP)
    holder = Holder("b", "run b-1 of FineTuneJob team/b")
    other = bench.registry.claim(twin_run["resolved"]["weightsKey"], holder, trains=True, lapse_s=0.6)
    wait_until(lambda: (found := other.take()) and found.about, "the takeover", timeout_s=60, interval_s=0.05)
    if asked_to_stop:
        attempt.signal(signal.SIGTERM)
    attempt.signal(signal.SIGCONT)
    code = attempt.wait()
    assert attempt.result.failure
    if asked_to_stop:
        assert code == ExitCode.PREEMPTED and "the checkpoint of step" in attempt.result.failure.message, attempt.log
    else:
        assert code == ExitCode.PREPARE_AGAIN, attempt.log
        assert "trained by run b-1 of FineTuneJob team/b" in attempt.result.failure.message
    assert claim(bench, twin_run)["holder"] == "b" and not claim(bench, twin_run).get("released")
    assert bench.registry.list_versions() == []


def test_without_kubernetes_the_second_training_waits_itself(bench: Any, document: dict[str, Any]) -> None:
    document = bench.prepared(document)
    holder = Holder("a", "run a-1 of FineTuneJob team/a")
    other = bench.registry.claim(document["resolved"]["weightsKey"], holder, trains=True, lapse_s=0.6)
    assert other.take() is None
    other.keep_alive()
    with when_it_waits(bench, other.release):
        ended = bench.run("train", document)
    assert ended.code == 0 and not ended.result.published.reused, ended.log


def test_data_that_is_refused_holds_nobody_up(bench: Any, document: dict[str, Any]) -> None:
    document["spec"]["dataset"]["quality"] = {"minExamplesPerLabel": 1000}
    assert bench.run("prepare", of(FIRST, document)).code == ExitCode.INVALID_DATA
    (key,) = bench.keys("registry/sentiment/claims")
    bucket, _, prefix = bench.uri.removeprefix("s3://").partition("/")
    assert json.loads(bench.client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read())["released"]
