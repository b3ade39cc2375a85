"""What the parts say to each other arrives whole, fits, and is refused when it is something else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier_api.conditions import find_condition, merge_conditions
from luthier_api.documents import (
    TERMINATION_MESSAGE_BYTES,
    DocumentError,
    Failure,
    Prepared,
    Published,
    Removed,
    Resolved,
    Result,
    RunDocument,
    credential_env,
    read_result,
)
from luthier_api.exitcodes import OUTCOMES, ExitCode, Retry, codes_with, outcome_of
from luthier_api.reasons import ConditionType, Reason

pytestmark = pytest.mark.unit

KEY = "a" * 64
DIGEST = f"sha256:{KEY}"
text = st.text(st.characters(codec="utf-8"), max_size=1500)


@given(
    st.one_of(
        st.builds(
            lambda message, place: Result(failure=Failure(reason=Reason.CRASHED, message=message, place=place)),
            text,
            st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
        ),
        st.builds(
            lambda metrics, message: Result(
                published=Published(
                    run_key=KEY, version="20260101-000000-aaaaaaaa", uri="s3://b/m", digest=DIGEST, size_bytes=1,
                    metrics=metrics, promotable=False, message=message[:600],
                )
            ),
            st.dictionaries(st.text(max_size=128), st.text(max_size=32), max_size=64),
            text,
        ),
        st.builds(
            lambda warnings: Result(
                prepared=Prepared(
                    resolved=Resolved(run_key=KEY, data_key=KEY, model_digest=DIGEST, dataset_digest=DIGEST),
                    train_examples=1, eval_examples=1, labels=2, warnings=warnings,
                )
            ),
            st.lists(st.text(max_size=300), max_size=5),
        ),
        st.builds(
            lambda removed, kept, why: Result(
                removed=Removed(removed=[f"{n}-a" for n in range(removed)], kept={f"{n}-b": why for n in range(kept)})
            ),
            st.integers(0, 2000),
            st.integers(0, 500),
            st.text(max_size=300),
        ),
    )
)  # fmt: skip
def test_every_result_fits_a_termination_message_and_is_read_back(result: Result) -> None:
    message = result.to_termination_message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    back = read_result(message)
    assert (back.failure is None, back.published is None) == (result.failure is None, result.published is None)
    if result.published and back.published:
        assert back.published.digest == result.published.digest


@given(st.text(max_size=5000))
def test_a_termination_message_that_is_no_result_is_refused_in_one_sentence(garbage: str) -> None:
    with pytest.raises(DocumentError):
        read_result(garbage)


def test_a_termination_message_is_read_up_to_what_the_kubelet_keeps() -> None:
    message = Result(failure=Failure(reason=Reason.CRASHED, message="x")).to_termination_message()
    assert read_result(message + " " * (TERMINATION_MESSAGE_BYTES - len(message))).failure
    with pytest.raises(DocumentError, match="longer than 4096 bytes"):
        read_result(message + " " * (TERMINATION_MESSAGE_BYTES - len(message) + 1))


def test_a_result_says_one_thing() -> None:
    removed, failure = {"removed": {}}, {"failure": {"reason": "Crashed", "message": "x"}}
    assert read_result(json.dumps(removed)).removed and read_result(json.dumps(failure)).failure
    for wrong in ({**removed, **failure}, {}):
        with pytest.raises(DocumentError):
            read_result(json.dumps(wrong))


@pytest.mark.parametrize("character", ["a", "€", "😀", "\x01", '"'])
def test_the_longest_message_fits_in_every_script(character: str) -> None:
    result = Result(failure=Failure(reason=Reason.GPU_OUT_OF_MEMORY, message=character * 1500))
    message = result.to_termination_message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    back = read_result(message).failure
    assert back and set(back.message) == {character}


def test_a_typing_error_deep_in_a_run_document_is_refused_by_name() -> None:
    document = {
        "spec": {
            "model": {"uri": "s3://models/base"},
            "dataset": {"train": {"uri": "s3://data/a.csv"}, "preprocesing": {}},
            "output": {"name": "m", "uri": "s3://models/"},
        }
    }
    with pytest.raises(ValidationError, match="preprocesing"):
        RunDocument.model_validate(document, extra="forbid")


def test_each_role_has_its_own_variables() -> None:
    names = [name for role in ("output", "model", "dataset") for name in credential_env(role).values()]
    assert len(set(names)) == len(names)


def test_every_exit_code_but_success_has_one_meaning_and_one_retry_rule() -> None:
    assert set(OUTCOMES) == set(ExitCode) - {ExitCode.OK}
    assert sorted(code for retry in Retry for code in codes_with(retry)) == sorted(int(code) for code in OUTCOMES)
    assert outcome_of(3).reason is Reason.CRASHED
    assert outcome_of(ExitCode.OUT_OF_MEMORY).retry is Retry.NEVER
    assert codes_with(Retry.FREE) == [ExitCode.PREEMPTED, ExitCode.CREDENTIALS_EXPIRED]
    assert codes_with(Retry.COUNTED) == [ExitCode.CRASHED, ExitCode.STORAGE_UNAVAILABLE]


def test_a_transition_time_moves_only_when_the_status_does() -> None:
    first = merge_conditions([], [(ConditionType.READY, False, Reason.PREPARING, "a")], generation=1, now="t1")
    second = merge_conditions(first, [(ConditionType.READY, False, Reason.TRAINING, "b")], generation=2, now="t2")
    third = merge_conditions(second, [(ConditionType.READY, True, Reason.PUBLISHED, "c")], generation=2, now="t3")
    assert [condition.last_transition_time for (condition,) in (first, second, third)] == ["t1", "t1", "t3"]
    ready = find_condition(second, ConditionType.READY)
    assert ready is not None and ready.message == "b" and ready.observed_generation == 2


def test_fifty_versions_that_were_to_go_are_all_named_whatever_became_of_them() -> None:
    versions = [f"20260131-120000-{number:08x}" for number in range(50)]
    why = "The alias production points at 20260131-120000-00000000; move the alias first."
    for removed in (Removed(removed=versions), Removed(kept=dict.fromkeys(versions, why))):
        back = read_result(Result(removed=removed).to_termination_message()).removed
        assert back and [*back.removed, *back.kept] == versions and back.unnamed == 0


def test_what_finds_no_room_is_counted() -> None:
    removed = Removed(removed=[f"20260131-120000-{number:08x}" for number in range(1000)])
    back = read_result(Result(removed=removed).to_termination_message()).removed
    assert back and len(back.removed) > 50 and len(back.removed) + back.unnamed == 1000
