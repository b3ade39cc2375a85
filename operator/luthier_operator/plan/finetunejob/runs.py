"""What the Jobs of a run have come to: from Jobs, their pods and what the status remembers, to one value.

This comes before every decision about a FineTuneJob. It reads the results of pods that have ended and turns them into a
version or a failure. The status then remembers the outcome, so that a Job that is deleted after its time to live is
never made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from luthier_api.base import MAX_WARNING_CHARACTERS
from luthier_api.documents import Prepared, Published, Resolved
from luthier_api.finetunejob import Attempts, FineTuneJobStatus, LastFailure, RunStatus, Usage, VersionStatus
from luthier_operator.model import names
from luthier_operator.model.names import Stage
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import JobView, WorkloadView
from luthier_operator.plan.finetunejob import attempts, crashes
from luthier_operator.plan.finetunejob.usage import usage
from luthier_operator.plan.pods import failures, kueue
from luthier_operator.plan.pods.diagnosis import clip

MAX_VERSIONS = 50


@dataclass(frozen=True)
class Wanted:
    """What the spec asks for now."""

    spec_hash: str
    run: str


@dataclass(frozen=True)
class Run:
    """A run: what the status remembers of it, and its Jobs, where they exist."""

    status: RunStatus
    prepare: JobView | None = None
    train: JobView | None = None
    resolved: Resolved | None = None
    """What prepare found, as soon as it has ended well."""
    abandoned: JobView | None = None
    """Its Job that was given up, as long as it exists; see `restarts`."""
    lost: bool = False
    """Whether its training must begin again with prepare: a Job or the pod with its result is gone, or it ended because
    another run trains the same."""

    @property
    def name(self) -> str:
        """The name that its Jobs begin with."""
        return self.status.name

    def starts_over(self, job: JobView, wanted: Wanted) -> bool:
        """Whether one of its Jobs failed of something that may not happen again; see `restarts`."""
        return self.name == wanted.run and failures.starts_over(job)

    @property
    def ended(self) -> bool:
        """Whether its outcome is known."""
        return self.status.stage in ("Succeeded", "Failed")


@dataclass(frozen=True)
class RunRecord:
    """All that is known of a resource's runs."""

    run: Run | None
    versions: tuple[VersionStatus, ...]
    attempts: Attempts | None = None
    last_failure: LastFailure | None = None
    published: Published | None = None
    """The version that a Job has published since the status was written."""
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()
    """What prepare found odd for this run."""

    def with_disruption(self) -> "RunRecord":
        """Return the record with one more disruption counted."""
        known = self.attempts or Attempts()
        return replace(self, attempts=known.model_copy(update={"preempted": known.preempted + 1}))

    def answer_to(self, spec_hash: str) -> VersionStatus | None:
        """Return the version that answers a spec, if one is known and is not being removed from storage."""
        known = (version for version in self.versions if not version.removing)
        return next((version for version in known if version.spec_hash == spec_hash), None)


def record_of(
    before: FineTuneJobStatus,
    wanted: Wanted,
    jobs: Sequence[JobView],
    workloads: Mapping[str, WorkloadView],
    now: datetime,
) -> RunRecord:
    """Return what is known of the runs: what the status remembers, and what Jobs, pods and Kueue report since."""
    return _with_evictions(_with_outcomes(before, wanted, jobs, now), workloads)


def _with_outcomes(before: FineTuneJobStatus, wanted: Wanted, jobs: Sequence[JobView], now: datetime) -> RunRecord:
    remembered = _adopt(before, wanted, jobs)
    record = RunRecord(None, tuple(before.versions), usage=usage(before, jobs))
    if remembered is None:
        return record
    run = _with_jobs(remembered, jobs)
    counted, last = _earlier(before, run.name)
    warnings = tuple(before.warnings) if before.current_run and before.current_run.name == run.name else ()
    record = replace(record, run=run, attempts=counted, last_failure=last, warnings=warnings)
    if run.ended:
        return record
    record = _with_what_prepare_found(record, run)
    assert record.run is not None
    run = record.run
    own = [job for job in (run.prepare, run.train) if job]
    record = replace(
        record,
        attempts=attempts.attempts(own, run.status.earlier_failures, counted, last),
        last_failure=attempts.latest(run.train or run.prepare, last),
    )
    if run.abandoned and (published := _published_before_its_end(run.abandoned)):
        return _published(record, run, published, now)
    if run.train is not None and failures.yields(run.train):
        return replace(record, run=replace(run, lost=True))
    if run.train is not None:
        return record if run.starts_over(run.train, wanted) else _after(record, run, run.train, now)
    if run.status.stage == "Train":
        return replace(record, run=replace(run, lost=True))
    if run.prepare is not None:
        return record if run.starts_over(run.prepare, wanted) else _after(record, run, run.prepare, now)
    return record


def _with_evictions(record: RunRecord, workloads: Mapping[str, WorkloadView]) -> RunRecord:
    """Return the record with each time that Kueue stopped the run, once."""
    run = record.run
    if run is None or run.ended:
        return record
    for job in (run.prepare, run.train):
        evicted = kueue.eviction(workloads.get(job.uid), record.last_failure) if job else None
        if evicted is not None:
            record = replace(record.with_disruption(), last_failure=evicted)
    return record


def _adopt(before: FineTuneJobStatus, wanted: Wanted, jobs: Sequence[JobView]) -> RunStatus | None:
    """Return the run to look at: that in the status, or one whose Jobs were created before a status was written."""
    remembered = before.current_run
    if remembered and (remembered.name == wanted.run or remembered.stage in ("Prepare", "Train")):
        return remembered
    if any(version.spec_hash == wanted.spec_hash for version in before.versions):
        return remembered  # the outcome of its Jobs is known, although they may still exist
    mine = [job for job in jobs if job.run == wanted.run] or [job for job in jobs if job.live and not job.deleting]
    if not mine:
        return remembered
    return RunStatus(name=mine[0].run, spec_hash=mine[0].spec_hash, stage="Prepare")


def _with_jobs(status: RunStatus, jobs: Sequence[JobView]) -> Run:
    prepare, train = (
        next((job for job in jobs if job.name == names.job_name(status.name, stage)), None) for stage in _STAGES
    )
    if train is not None and train.uid == status.given_up:
        return Run(status, prepare, abandoned=train)
    if prepare is not None and prepare.uid == status.given_up:
        return Run(status, abandoned=prepare)
    if train is not None and status.stage == "Prepare":
        status = status.model_copy(update={"stage": "Train", "run_key": train.run_key})
    return Run(status, prepare, train)


def _with_what_prepare_found(record: RunRecord, run: Run) -> RunRecord:
    """Return the record with what prepare found, if the training was created but no status was written after it."""
    if run.train is None or run.prepare is None or run.status.data_key:
        return replace(record, run=run)
    results = [failures.result_of(pod) for pod in run.prepare.pods if pod.phase == "Succeeded"]
    found = (result.prepared for result in results if result and result.prepared)
    prepared = next((each for each in found if each.resolved.run_key == run.train.run_key), None)
    if prepared is None:
        return replace(record, run=run)
    status = run.status.model_copy(update={"data_key": prepared.resolved.data_key})
    return replace(record, run=replace(run, status=status), warnings=_warnings(prepared))


def _warnings(prepared: Prepared) -> tuple[str, ...]:
    """Return prepare's warnings as a status may have them: a pod may write anything."""
    # A full stop may be added.
    return tuple(clip(warning, MAX_WARNING_CHARACTERS - 1) for warning in prepared.warnings)


_STAGES: tuple[Stage, Stage] = ("prepare", "train")


def _earlier(before: FineTuneJobStatus, run: str) -> tuple[Attempts | None, LastFailure | None]:
    same = before.current_run is not None and before.current_run.name == run
    return (before.attempts, before.last_failure) if same else (None, None)


def _after(record: RunRecord, run: Run, job: JobView, now: datetime) -> RunRecord:
    """Return the record with the outcome of this Job, if it has ended."""
    if job.outcome is None:
        return record
    if job.outcome == "Failed":
        return _failed(record, run, _failure_of(run, job), now)
    # Of pods that trained together, the first has the result.
    succeeded = [pod for pod in job.pods if pod.phase == "Succeeded"]
    pod = min(succeeded, key=lambda pod: pod.index, default=None)
    if pod is None:
        return replace(record, run=replace(run, lost=True))
    result = failures.result_of(pod)
    if result is None:
        return _failed(record, run, failures.no_result(pod), now)
    if result.failure:
        return _failed(record, run, failures.failure_of(pod), now)
    if result.prepared and job is run.prepare:
        if job.deleting:
            return record  # prepare runs again
        resolved = result.prepared.resolved
        keys = {"run_key": resolved.run_key, "data_key": resolved.data_key}
        run = replace(run, resolved=resolved, status=run.status.model_copy(update=keys))
        return replace(record, run=run, warnings=_warnings(result.prepared))
    if result.published and (job is run.prepare or result.published.run_key == job.run_key):
        return _published(record, run, result.published, now)
    return _failed(record, run, failures.result_of_another_run(pod), now)


def _failure_of(run: Run, job: JobView) -> LastFailure:
    """Return why a run failed with this Job."""
    place = crashes.repeated(job, run.status.crashed_at) if job.reason == "BackoffLimitExceeded" else None
    if place is not None:
        return crashes.with_place(failures.failure_of(job.pods[0]), place)
    return failures.job_failure(job, run.status.earlier_failures if job is run.train else 0)


def _published_before_its_end(job: JobView) -> Published | None:
    """Return the version that a pod published after its Job was given up, and before it was stopped."""
    results = [failures.result_of(pod) for pod in job.pods if pod.phase == "Succeeded"]
    found = (result.published for result in results if result and result.published)
    return next((published for published in found if published.run_key == job.run_key), None)


def _failed(record: RunRecord, run: Run, failure: LastFailure, now: datetime) -> RunRecord:
    return replace(record, run=ended(run, "Failed", now), last_failure=failure)


def _published(record: RunRecord, run: Run, published: Published, now: datetime) -> RunRecord:
    """Return the record with the version as the answer to the spec that the run was for, be it an earlier one."""
    version = VersionStatus(
        version=published.version,
        uri=published.uri,
        digest=published.digest,
        size_bytes=published.size_bytes,
        metrics={n: value for n, value in published.metrics.items() if f"{n}{value}".isprintable()},
        promotable=published.promotable,
        message=published.message and clip(published.message),
        spec_hash=run.status.spec_hash,
        run_key=published.run_key,
        chosen_at=rfc3339(now),
    )
    return replace(
        record,
        run=ended(run, "Succeeded", now, run_key=published.run_key),
        versions=first_in(record.versions, version),
        last_failure=None,
        published=published,
    )


def first_in(versions: Sequence[VersionStatus], version: VersionStatus) -> tuple[VersionStatus, ...]:
    """Return the versions with this one first, in place of an earlier answer to the same spec."""
    others = [other for other in versions if other.spec_hash != version.spec_hash]
    return (version, *others)[:MAX_VERSIONS]


def ended(run: Run, stage: str, now: datetime, **more: str) -> Run:
    """Return the run with its outcome."""
    return replace(run, status=run.status.model_copy(update={"stage": stage, "finished_at": rfc3339(now), **more}))
