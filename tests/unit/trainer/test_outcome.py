"""How a run ends: exit codes, results, and progress on the way."""

import errno
import json
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from luthier_api.documents import ProgressDocument, Published, Result, read_result
from luthier_api.exitcodes import OUTCOMES, ExitCode
from luthier_api.reasons import Reason
from luthier_artifacts import (
    BucketNotFound,
    ConditionalWritesUnsupported,
    IntegrityError,
    InvalidUri,
    ObjectNotFound,
    PreconditionFailed,
    StorageDenied,
    StorageUnavailable,
)
from luthier_trainer.runtime import errors
from luthier_trainer.runtime.errors import StopRequested, TrainerError
from luthier_trainer.runtime.outcome import exit_code_of, failure_result, is_known
from luthier_trainer.runtime.progress import Progress, ProgressServer

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidSpec("x"), ExitCode.INVALID_SPEC),
        (errors.InvalidData("x"), ExitCode.INVALID_DATA),
        (errors.InvalidModel("x"), ExitCode.INVALID_MODEL),
        (errors.InputNotFound("x"), ExitCode.INPUT_NOT_FOUND),
        (errors.InputChanged("x"), ExitCode.INTEGRITY_ERROR),
        (errors.OutOfMemory("x"), ExitCode.OUT_OF_MEMORY),
        (errors.GpuOutOfMemory("x"), ExitCode.GPU_OUT_OF_MEMORY),
        (errors.LossNotFinite("x"), ExitCode.LOSS_NOT_FINITE),
        (errors.ExportFailed("x"), ExitCode.EXPORT_FAILED),
        (errors.Preempted("x"), ExitCode.PREEMPTED),
        (StopRequested(), ExitCode.PREEMPTED),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (InvalidUri("x"), ExitCode.INVALID_SPEC),
        (StorageDenied("x"), ExitCode.STORAGE_DENIED),
        (BucketNotFound("x"), ExitCode.BUCKET_NOT_FOUND),
        (ObjectNotFound("x"), ExitCode.INPUT_NOT_FOUND),
        (StorageUnavailable("x"), ExitCode.STORAGE_UNAVAILABLE),
        (IntegrityError("x"), ExitCode.INTEGRITY_ERROR),
        (ConditionalWritesUnsupported("x"), ExitCode.STORAGE_UNSAFE),
        (PreconditionFailed("x"), ExitCode.STORAGE_UNAVAILABLE),
        (KeyError("x"), ExitCode.CRASHED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_has_its_exit_code_and_reason(error: BaseException, code: ExitCode) -> None:
    assert exit_code_of(error) is code
    assert is_known(error) is (code is not ExitCode.CRASHED)
    failure = failure_result(error).failure
    assert failure
    assert failure.reason is OUTCOMES[code].reason
    assert failure.message


def test_no_error_of_the_trainer_lacks_an_exit_code() -> None:
    assert all(type_.exit_code in OUTCOMES for type_ in TrainerError.__subclasses__())


def test_a_failure_of_any_length_fits_the_termination_message() -> None:
    text = failure_result(errors.InvalidData("ü" * 20_000)).to_termination_message()
    assert len(text.encode()) <= 4096
    assert read_result(text).failure


def test_a_crash_names_the_error_and_a_full_disk_says_what_to_do() -> None:
    crash = failure_result(ValueError("first line\nsecond")).failure
    assert crash and crash.message == "ValueError: first line. The pod's log says where."
    full = failure_result(OSError(errno.ENOSPC, "No space left on device")).failure
    assert full and full.message == "The disk is full; give the pod more ephemeral storage."
    assert full.reason is Reason.CRASHED


def test_a_published_version_fits_the_termination_message_with_its_metrics() -> None:
    published = Published(
        run_key="0" * 64,
        version="v" * 40,
        uri="s3://bucket/" + "x" * 900,
        digest="sha256:" + "0" * 64,
        size_bytes=1,
        metrics={f"metric_{number}": "0.123456" for number in range(40)},
        message="m" * 600,
    )
    assert read_result(Result(published=published).to_termination_message()).published == published


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
    progress.measure({"loss": 0.5, "grad_norm": float("inf")})
    progress.measure({"loss": float("nan")})
    assert progress.document().metrics == {"loss": 0.5}


def test_progress_is_answered_over_http_as_a_document_and_as_metrics() -> None:
    progress = Progress()
    progress.begin_steps(total_steps=10)
    progress.measure({"eval_accuracy": 0.75})
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
