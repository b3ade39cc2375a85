"""What a training pod's exit code means, in one table.

The trainer exits with these codes, the operator maps them to a reason and to the Job's podFailurePolicy. Codes lie
between 64 and 113, clear of the shell's (1, 2, 126 and up) and of those for signals (128 + n).
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from luthier_api.reasons import Reason


class Retry(StrEnum):
    """What the Job does with a pod that exited so."""

    NEVER = "Never"
    COUNTED = "Counted"
    FREE = "Free"
    PREPARE = "Prepare"
    """The Job ends, and the run begins again with prepare."""


class ExitCode(IntEnum):
    """The exit codes of `python -m luthier_trainer`."""

    OK = 0
    CRASHED = 1
    INVALID_SPEC = 64
    INVALID_DATA = 65
    INPUT_NOT_FOUND = 66
    INVALID_MODEL = 67
    BUCKET_NOT_FOUND = 68
    STORAGE_DENIED = 69
    STORAGE_UNSAFE = 70
    INTEGRITY_ERROR = 71
    OUT_OF_MEMORY = 72
    GPU_OUT_OF_MEMORY = 73
    LOSS_NOT_FINITE = 74
    EXPORT_FAILED = 75
    STORAGE_UNAVAILABLE = 80
    PREEMPTED = 81
    PREPARE_AGAIN = 82
    CREDENTIALS_EXPIRED = 83
    KILLED = 137


@dataclass(frozen=True)
class Outcome:
    """The reason a user reads, whether the Job tries again, and what to do if nothing says more."""

    reason: Reason
    retry: Retry
    hint: str


OUTCOMES: dict[ExitCode, Outcome] = {
    ExitCode.CRASHED: Outcome(Reason.CRASHED, Retry.COUNTED, "The pod's log says where."),
    ExitCode.INVALID_SPEC: Outcome(Reason.INVALID_SPEC, Retry.NEVER, "Correct the spec and apply it again."),
    ExitCode.INVALID_DATA: Outcome(
        Reason.INVALID_DATA, Retry.NEVER, "Correct the data, or the columns that the spec names."
    ),
    ExitCode.INPUT_NOT_FOUND: Outcome(
        Reason.INPUT_NOT_FOUND, Retry.NEVER, "Check the URI of the model and of the dataset."
    ),
    ExitCode.INVALID_MODEL: Outcome(Reason.INVALID_MODEL, Retry.NEVER, "Use a complete model that can learn the task."),
    ExitCode.BUCKET_NOT_FOUND: Outcome(Reason.BUCKET_NOT_FOUND, Retry.NEVER, "Create the bucket or correct its name."),
    ExitCode.STORAGE_DENIED: Outcome(Reason.STORAGE_DENIED, Retry.NEVER, "Check the Secret and what it may do."),
    ExitCode.STORAGE_UNSAFE: Outcome(
        Reason.STORAGE_UNSAFE, Retry.NEVER, "Use storage that honours If-None-Match on writes."
    ),
    ExitCode.INTEGRITY_ERROR: Outcome(
        Reason.INTEGRITY_ERROR, Retry.NEVER, "The stored files differ from their manifest; upload them again."
    ),
    ExitCode.OUT_OF_MEMORY: Outcome(
        Reason.OUT_OF_MEMORY, Retry.NEVER, "Raise resources.limits.memory, or lower batchSize or maxLength."
    ),
    ExitCode.GPU_OUT_OF_MEMORY: Outcome(
        Reason.GPU_OUT_OF_MEMORY,
        Retry.NEVER,
        "Set batchSize to auto, or lower maxLength, or set gradientCheckpointing.",
    ),
    ExitCode.LOSS_NOT_FINITE: Outcome(
        Reason.LOSS_NOT_FINITE, Retry.NEVER, "Lower learningRate, add warmup, or use precision bf16 or fp32."
    ),
    ExitCode.EXPORT_FAILED: Outcome(
        Reason.EXPORT_FAILED, Retry.NEVER, "Leave the format out of export, or use another model."
    ),
    ExitCode.STORAGE_UNAVAILABLE: Outcome(Reason.STORAGE_UNAVAILABLE, Retry.COUNTED, "Storage did not answer."),
    ExitCode.PREEMPTED: Outcome(
        Reason.PREEMPTED, Retry.FREE, "The pod was asked to stop; the next one goes on from the newest checkpoint."
    ),
    ExitCode.PREPARE_AGAIN: Outcome(
        Reason.WAITING_FOR_RUN,
        Retry.PREPARE,
        "Another run trains the same, or a version whose weights were to be used is gone; prepare looks again.",
    ),
    # Only whoever renews the Secret can help, and nothing tells the operator of that: it may not read Secrets.
    ExitCode.CREDENTIALS_EXPIRED: Outcome(
        Reason.CREDENTIALS_EXPIRED, Retry.FREE, "Put valid keys into the Secret; the next pod uses them."
    ),
    # Without a DisruptionTarget condition a SIGKILL is nearly always the kernel's OOM killer, and would come again.
    ExitCode.KILLED: Outcome(
        Reason.OUT_OF_MEMORY, Retry.NEVER, "Raise resources.limits.memory, or lower batchSize or maxLength."
    ),
}


def outcome_of(exit_code: int) -> Outcome:
    """Return the meaning of an exit code; one that is not in the table is a crash."""
    try:
        return OUTCOMES[ExitCode(exit_code)]
    except (ValueError, KeyError):
        return OUTCOMES[ExitCode.CRASHED]


def codes_with(*retries: Retry) -> list[int]:
    """Return the exit codes of these retry rules, sorted, for a Job's podFailurePolicy."""
    return sorted(int(code) for code, outcome in OUTCOMES.items() if outcome.retry in retries)
