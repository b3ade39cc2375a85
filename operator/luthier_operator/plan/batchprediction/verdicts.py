"""How it stands with a BatchPrediction, in a sentence or two: one function for each thing that a policy may say."""

from luthier_api.batchprediction import BatchPredictionStatus
from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.views import JobView, Refusal
from luthier_operator.plan.pods.diagnosis import Diagnosis, clip
from luthier_operator.plan.target import NoTarget
from luthier_operator.plan.verdict import Verdict

_RETRY = "To try the same spec again, set the annotation luthier.dev/retry to any new value."


def answered(record: BatchPredictionStatus) -> Verdict:
    """All predictions are in storage."""
    errors = f", {record.errors} of them with an error in place of one" if record.errors else ""
    text = f"{record.output} holds the predictions of all {record.rows} rows{errors}"
    if record.reused:
        text = f"{text}. An earlier run had computed them, so nothing was computed."
        return Verdict("Succeeded", Reason.REUSED, text, ready=True)
    return Verdict("Succeeded", Reason.PREDICTED, f"{text}.", ready=True)


def failed(failure: LastFailure | None) -> Verdict:
    """The run failed, and trying again would not help."""
    if failure is None:
        return Verdict("Failed", Reason.CRASHED, f"The run failed. {_RETRY}", stalled=True)
    return Verdict("Failed", Reason(failure.reason), f"{failure.message} {_RETRY}", stalled=True)


def suspended() -> Verdict:
    """The user has suspended the resource."""
    text = "The workers are stopped. Set suspend to false to compute the shards that are missing."
    return Verdict("Suspended", Reason.SUSPENDED, text)


def name_taken(job: JobView) -> Verdict:
    """A Job of an earlier resource of the same name is still being removed, or was left behind without an owner."""
    text = f"Waiting for the Job {job.name} of an earlier BatchPrediction of this name to be removed."
    if not (job.owner_uid or job.deleting):
        text = (
            f"The Job {job.name} was left behind by an earlier BatchPrediction of this name. Delete it: kubectl delete "
            f"job {job.name}. The run then begins by itself, and what is stored already is not computed again."
        )
    return Verdict("Waiting", Reason.WAITING_FOR_RUN, text, reconciling=True)


def no_target(wait: NoTarget) -> Verdict:
    """There is no version to predict with."""
    if wait.final:
        return Verdict("Failed", wait.reason, wait.message, stalled=True)
    return Verdict("Waiting", wait.reason, wait.message, reconciling=True)


def predicting(
    record: BatchPredictionStatus, diagnosis: Diagnosis | None = None, failure: LastFailure | None = None
) -> Verdict:
    """The workers are at it, or are starting."""
    if diagnosis:
        return Verdict("Predicting", diagnosis.reason, diagnosis.message, reconciling=True)
    if failure:
        return Verdict("Predicting", Reason.RETRYING, f"Trying again after: {failure.message}", reconciling=True)
    text = "The workers are starting."
    if record.shards:
        left = f", about {record.eta} left" if record.eta else ""
        text = f"{record.shards.done} of {record.shards.total} shards are stored{left}."
    return Verdict("Predicting", Reason.PREDICTING, text, reconciling=True)


def unreadable(why: str) -> Verdict:
    """This version of the operator cannot read the spec."""
    return Verdict("Failed", Reason.INVALID_SPEC, why, stalled=True)


def refused(refusal: Refusal) -> Verdict:
    """The cluster does not accept the Job."""
    text = f"The cluster refuses what the run needs: {clip(refusal.message)}"
    if refusal.quota_exceeded:
        return Verdict("Waiting", Reason.QUOTA_EXCEEDED, text, reconciling=True)
    return Verdict("Failed", Reason.INVALID_SPEC, text, stalled=True)
