"""How it stands with a FineTuneJob, in a sentence or two: one function for each thing that a policy may say.

The policies choose; the words are here. `status` turns a verdict into conditions and Events.
"""

from collections.abc import Sequence

from luthier_api.conditions import find_condition
from luthier_api.documents import ProgressDocument, Published
from luthier_api.finetunejob import FineTuneJobStatus, LastFailure, VersionStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.model.actions import EventNote
from luthier_operator.model.timestamps import duration
from luthier_operator.model.views import JobView, Refusal
from luthier_operator.plan.finetunejob.runs import RunRecord
from luthier_operator.plan.pods.diagnosis import Diagnosis, clip
from luthier_operator.plan.verdict import Verdict

_RETRY = "To try the same spec again, set the annotation luthier.dev/retry to any new value."


def answered(before: FineTuneJobStatus, version: VersionStatus, published: Published | None) -> Verdict:
    """A version answers the spec; how it came about is said once and then kept."""
    if not version.promotable:
        why = version.message or "it missed a gate."
        text = (
            f"Version {version.version} is published but not promotable: {why} Improve the data or the hyperparameters"
            ", or change evaluation.gates; the version now served stays in service."
        )
        return Verdict("Failed", Reason.GATE_FAILED, text, stalled=True)
    ready = find_condition(before.conditions, ConditionType.READY)
    same = before.artifact is not None and before.artifact.version == version.version
    if ready and ready.status == "True" and same and published is None:
        return Verdict("Succeeded", Reason(ready.reason), ready.message, ready=True)
    if published and not published.reused:
        return Verdict("Succeeded", Reason.PUBLISHED, f"Version {version.version} is published.", ready=True)
    text = f"Version {version.version}, which an earlier run produced, answers this spec; nothing was trained."
    return Verdict("Succeeded", Reason.REUSED, text, ready=True)


def failed(failure: LastFailure | None) -> Verdict:
    """The run failed, and trying again would not help."""
    if failure is None:
        return Verdict("Failed", Reason.CRASHED, f"The run failed. {_RETRY}", stalled=True)
    return Verdict("Failed", Reason(failure.reason), f"{failure.message} {_RETRY}", stalled=True)


def starting_over(record: RunRecord) -> Verdict:
    """A Job was given up and begins again, or has failed once too often."""
    if record.run and record.run.status.stage == "Failed":
        return failed(record.last_failure)
    if record.run and record.run.abandoned and record.run.abandoned.stage == "prepare":
        return preparing(failure=record.last_failure)
    text = "The training starts again from its newest checkpoint."
    return _under_way("Training", Reason.TRAINING, text, None, record.last_failure)


def suspended() -> Verdict:
    """The user has suspended the resource."""
    return Verdict("Suspended", Reason.SUSPENDED, "The run is suspended. Set suspend to false to continue.")


def resumed_again(job: JobView) -> EventNote:
    """Return the Event about a Job that somebody else resumes again and again while the resource is suspended."""
    who = job.suspended_by or "Somebody other than Luthier"
    text = (
        f"{who} resumes the Job {job.name} each time that Luthier suspends it. It is deleted instead, and made again "
        "when suspend is false."
    )
    return EventNote(Reason.SUSPENDED, text, warning=True)


def waiting_for_run(run: str) -> Verdict:
    """Another run of the same resource still holds, or may still hold, a GPU."""
    text = f"Waiting for run {run} of an earlier spec to end."
    return Verdict("Waiting", Reason.WAITING_FOR_RUN, text, reconciling=True)


def waiting_for_removal() -> Verdict:
    """A Job that removes an old version must stop before a run begins."""
    text = "Waiting for the removal of an old version to stop."
    return Verdict("Waiting", Reason.WAITING_FOR_RUN, text, reconciling=True)


def adopted(jobs: Sequence[JobView]) -> EventNote:
    """Return the Event about Jobs that an earlier resource of this name and spec left behind."""
    listed = ", ".join(job.name for job in jobs)
    return EventNote(Reason.ADOPTED, f"Taken over from an earlier FineTuneJob of this name and spec: {listed}.")


def name_taken(job: JobView) -> Verdict:
    """A Job of an earlier resource of the same name is still being removed, or was left behind without an owner."""
    text = f"Waiting for the Job {job.name} of an earlier FineTuneJob of this name to be removed."
    if not (job.owner_uid or job.deleting):
        text = (
            f"The Job {job.name} was left behind by an earlier FineTuneJob of this name and is of another spec, so it "
            f"cannot be taken over. Delete it: kubectl delete job {job.name}. The run then continues by itself."
        )
    return Verdict("Waiting", Reason.WAITING_FOR_RUN, text, reconciling=True)


def preparing(
    diagnosis: Diagnosis | None = None, failure: LastFailure | None = None, progress: ProgressDocument | None = None
) -> Verdict:
    """The CPU stage is under way, or waits for a run of another resource."""
    text = "Inputs are resolved and the data is checked. No GPU is requested yet."
    if progress is not None and progress.waiting_for and not diagnosis:
        text = f"Waiting for {clip(progress.waiting_for).rstrip('.')}, which trains the same. No GPU is requested."
        return Verdict("Waiting", Reason.WAITING_FOR_RUN, text, reconciling=True)
    return _under_way("Preparing", Reason.PREPARING, text, diagnosis, failure)


def training(
    diagnosis: Diagnosis | None = None,
    failure: LastFailure | None = None,
    progress: ProgressDocument | None = None,
    kept: str | None = None,
) -> Verdict:
    """The training stage is under way; `kept` is a version that has the weights, of which only exports are made."""
    text = "The training pod is starting."
    if kept:
        stage = f"{progress.stage}. " if progress else ""
        text = f"{stage}The weights of version {kept} are used, on a CPU: nothing is trained."
        return _under_way("Training", Reason.TRAINING, text, diagnosis, failure)
    if progress is not None:
        steps = f": step {progress.step} of {progress.total_steps}" if progress.total_steps else ""
        left = f", about {duration(progress.eta_seconds)} left" if steps and progress.eta_seconds else ""
        text = f"{progress.stage}{steps}{left}."
    return _under_way("Training", Reason.TRAINING, text, diagnosis, failure)


def _under_way(
    phase: str, reason: Reason, text: str, diagnosis: Diagnosis | None, failure: LastFailure | None
) -> Verdict:
    if diagnosis:
        return Verdict(phase, diagnosis.reason, diagnosis.message, reconciling=True)
    if failure:
        return Verdict(phase, Reason.RETRYING, f"Trying again after: {failure.message}", reconciling=True)
    return Verdict(phase, reason, text, reconciling=True)


def unreadable(why: str) -> Verdict:
    """This version of the operator cannot read the spec."""
    return Verdict("Failed", Reason.INVALID_SPEC, why, stalled=True)


def refused(refusal: Refusal) -> Verdict:
    """The cluster does not accept what the run needs."""
    text = f"The cluster refuses what the run needs: {clip(refusal.message)}"
    if refusal.quota_exceeded:
        # The quota may change without an edit, and the object is sent again.
        return Verdict("Waiting", Reason.QUOTA_EXCEEDED, text, reconciling=True)
    return Verdict("Failed", Reason.INVALID_SPEC, text, stalled=True)
