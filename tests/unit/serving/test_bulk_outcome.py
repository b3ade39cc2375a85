"""How a worker ends: an exit code and a sentence for whatever stops it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier_api.documents import Result
from luthier_api.exitcodes import OUTCOMES, ExitCode
from luthier_api.reasons import Reason
from luthier_artifacts import BucketNotFound, ConditionalWritesUnsupported, CredentialsExpired, ObjectNotFound
from luthier_artifacts.readers.errors import InvalidData
from luthier_serving.bulk import __main__ as program
from luthier_serving.bulk.errors import InputChanged, StopRequested, WrongModel
from luthier_serving.bulk.outcome import exit_code_of, failure_result
from luthier_serving.errors import LoadError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidData("a.csv has no column."), ExitCode.INVALID_DATA),
        (InputChanged("a.csv changed."), ExitCode.INTEGRITY_ERROR),
        (WrongModel("It reads pairs."), ExitCode.INVALID_SPEC),
        (BucketNotFound("The bucket is not there."), ExitCode.BUCKET_NOT_FOUND),
        (ObjectNotFound("a.csv does not exist."), ExitCode.INPUT_NOT_FOUND),
        (CredentialsExpired("They have expired."), ExitCode.CREDENTIALS_EXPIRED),
        (ConditionalWritesUnsupported("It ignores them."), ExitCode.STORAGE_UNSAFE),
        (LoadError(Reason.MODEL_NOT_FOUND, "There is no version."), ExitCode.INPUT_NOT_FOUND),
        (LoadError(Reason.INVALID_MODEL, "It has no model.onnx."), ExitCode.INVALID_MODEL),
        (LoadError(Reason.INTEGRITY_ERROR, "One byte differs."), ExitCode.INTEGRITY_ERROR),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (StopRequested(), ExitCode.PREEMPTED),
        (ValueError("what?"), ExitCode.CRASHED),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else each.name,
)
def test_every_end_has_an_exit_code_its_reason_and_a_sentence(error: BaseException, code: ExitCode) -> None:
    failure = failure_result(error).failure
    assert exit_code_of(error) == code
    assert failure and failure.reason is OUTCOMES[code].reason and failure.message.endswith(".")
    assert str(error).rpartition(": ")[2] in failure.message


def test_a_crash_says_where_unless_it_is_the_systems() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        failure = failure_result(error).failure
    assert failure and failure.place and failure.place.startswith("JSONDecodeError at json.decoder:")
    crash = failure_result(ConnectionError("lost")).failure
    assert crash and crash.place is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("{}", "model: Field required"), ('{"inputUri": "s3://d/a.csv", "more": 1}', "model: Field required")],
)
def test_a_document_that_is_none_ends_with_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    sentence: str,
) -> None:
    (tmp_path / "bulk.json").write_text(content)
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setenv("LUTHIER_TERMINATION_LOG", str(tmp_path / "termination"))
    assert program.main([str(tmp_path / "bulk.json")]) == ExitCode.INVALID_SPEC
    result = Result.from_json(capsys.readouterr().out)
    assert result.failure and sentence in result.failure.message
    assert Result.from_json((tmp_path / "termination").read_text()) == result
