"""What is answered of a run in progress: speed, time left, metrics, over HTTP too."""

import json
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from luthier_api.documents import ProgressDocument
from luthier_trainer.runtime import errors
from luthier_trainer.runtime.progress import Progress, ProgressServer

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed_is_that_of_training_and_the_time_left_that_of_everything() -> None:
    clock = Clock()
    progress = Progress(clock)
    # An earlier attempt did six of ten steps; an evaluation lies between the two of this one.
    progress.begin_steps(total_steps=10, step=6)
    clock.now += 2
    progress.finish_step(7, epoch=0.7, examples=32, tokens=800)
    clock.now += 10
    progress.pause()
    clock.now += 4
    progress.finish_step(8, epoch=0.8, examples=16, tokens=400)
    document = progress.document()
    assert (document.stage, document.step, document.total_steps, document.epoch) == ("Training", 8, 10, 0.8)
    assert (document.examples_per_second, document.tokens_per_second) == (8.0, 200.0)
    assert document.eta_seconds == 16.0


def test_steps_that_early_stopping_leaves_out_do_not_count() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.begin_steps(total_steps=100)
    clock.now += 1
    progress.finish_step(30, epoch=1.0, examples=1, tokens=1)
    progress.end_steps()
    document = progress.document()
    assert (document.step, document.total_steps, document.eta_seconds) == (30, 30, 0.0)


def test_a_metric_that_is_not_finite_keeps_its_last_value() -> None:
    progress = Progress()
    progress.record_metrics({"loss": 0.5, "grad_norm": float("inf")})
    progress.record_metrics({"loss": float("nan")})
    assert progress.document().metrics == {"loss": 0.5}


def test_progress_is_answered_over_http_as_a_document_and_as_metrics() -> None:
    progress = Progress()
    progress.begin_steps(total_steps=10)
    progress.record_metrics({"eval_accuracy": 0.75})
    with ProgressServer(progress, "127.0.0.1", 0) as server:

        def get(path: str) -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
                body: bytes = answer.read()
                return body

        assert ProgressDocument.from_json(get("/progress")) == progress.document()
        assert get("/healthz") == b"ok\n"
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(get("/metrics").decode())
            for sample in family.samples
        }
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            get("/secrets")
        refused.value.close()
    assert samples[("luthier_training_step",)] == 0
    assert samples[("luthier_training_stage", "Training")] == 1
    assert samples[("luthier_training_metric", "eval_accuracy")] == 0.75


def test_a_taken_port_is_refused_with_the_fix() -> None:
    with (
        ProgressServer(Progress(), "127.0.0.1", 0) as server,
        pytest.raises(errors.InvalidSpec, match=rf"^Port {server.port} cannot be used .*choose another with --port"),
    ):
        ProgressServer(Progress(), "127.0.0.1", server.port)


def test_the_progress_document_is_json_on_the_wire() -> None:
    assert json.loads(Progress().document().to_json())["stage"] == "Starting"


def test_a_run_that_waits_for_storage_says_why_and_a_stored_checkpoint_ends_that() -> None:
    progress = Progress()
    progress.record_waiting("the keys have expired.")
    assert progress.document().storage_failure == "The run waits for storage: the keys have expired."
    progress.record_waiting(None)
    assert progress.document().storage_failure is None
    progress.record_storage_failure("x" * 2000)
    assert len(progress.document().storage_failure or "") == 500
    progress.record_checkpoint(7)
    assert progress.document().storage_failure is None
