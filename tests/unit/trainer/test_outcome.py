"""How a run ends: exit codes and results."""

import errno
import re
from collections.abc import Callable

import pytest

from luthier_api.documents import Failure, Published, Result, read_result
from luthier_api.exitcodes import OUTCOMES, ExitCode
from luthier_api.reasons import Reason
from luthier_artifacts import (
    BucketNotFound,
    ConditionalWritesUnsupported,
    CredentialsExpired,
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
        (CredentialsExpired("x"), ExitCode.CREDENTIALS_EXPIRED),
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


def crash_in(act: Callable[[], object]) -> Failure:
    try:
        act()
    except Exception as error:
        failure = failure_result(error).failure
    assert failure
    return failure


def test_a_crash_names_the_place_it_comes_from_the_same_each_time() -> None:
    places = [crash_in(lambda: read_result(1)).place for _ in range(2)]  # type: ignore[arg-type]
    assert places[0] == places[1]
    assert places[0] and re.fullmatch(r"AttributeError at luthier_api\.documents\.result:\d+", places[0])


def test_a_crash_in_a_library_names_our_own_line_too() -> None:
    result = failure_result(MemoryError())
    place = crash_in(lambda: result.to_json(indent=object())).place  # type: ignore[arg-type]
    assert place and re.fullmatch(r"TypeError at luthier_api\.base:\d+ \(json\.encoder:\d+\)", place)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), OSError(errno.ENOSPC, "full"), TimeoutError()])
def test_an_error_of_the_system_has_no_place_because_the_next_pod_may_not_meet_it(error: OSError) -> None:
    def raised() -> None:
        raise error

    assert crash_in(raised).place is None


def test_a_failure_that_is_no_crash_has_no_place() -> None:
    def raised() -> None:
        raise errors.InvalidData("x")

    assert crash_in(raised).place is None and "place" not in failure_result(errors.InvalidData("x")).to_json()


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
