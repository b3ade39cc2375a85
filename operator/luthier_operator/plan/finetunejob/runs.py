"""What the Jobs of a run have come to: from Jobs, pods and what the status remembers, to one value.

This is the harvest that comes before every decision about a FineTuneJob. It reads the last word of pods that have ended
and turns it into a version or a failure; what it says is then remembered in the status, so that a Job that goes with
its time to live is never made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from luthier_api.documents import Published, Resolved
from luthier_api.exitcodes import Retry
from luthier_api.finetunejob import Attempts, FineTuneJobStatus, LastFailure, RunStatus, Usage, VersionStatus
from luthier_api.reasons import Reason
from luthier_operator.model import names
from luthier_operator.model.names import Stage
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.finetunejob import attempts
from luthier_operator.plan.finetunejob.usage import usage
from luthier_operator.plan.pods import failures
from luthier_operator.plan.pods.diagnosis import clip

MAX_VERSIONS = 50


@dataclass(frozen=True)
class Wanted:
    """What the present spec asks for."""

    spec_hash: str
    run: str


@dataclass(frozen=True)
class Run:
    """A run as it stands: what is remembered of it, and its Jobs, if they are there."""

    status: RunStatus
    prepare: JobView | None = None
    train: JobView | None = None
    resolved: Resolved | None = None
    """What prepare found, as soon as it has ended well."""
    abandoned: JobView | None = None
    """Its training Job that was given up, as long as it is there; see `restarts`."""
    lost: bool = False
    """Whether something that was there is gone, and with it the result."""

    @property
    def name(self) -> str:
        """The name that its Jobs begin with."""
        return self.status.name

    @property
    def ended(self) -> bool:
        """Whether its outcome is known."""
        return self.status.stage in ("Succeeded", "Failed")


@dataclass(frozen=True)
class Memory:
    """All that is known of a resource's runs after the harvest."""

    run: Run | None
    versions: tuple[VersionStatus, ...]
    attempts: Attempts | None = None
    last_failure: LastFailure | None = None
    published: Published | None = None
    """What was harvested just now."""
    usage: Usage | None = None

    def with_disruption(self) -> "Memory":
        """Return the memory with one more disruption counted."""
        known = self.attempts or Attempts()
        return replace(self, attempts=known.model_copy(update={"preempted": known.preempted + 1}))

    def answer_to(self, spec_hash: str) -> VersionStatus | None:
        """Return the version that answers a spec, if one is known and not on its way out of storage."""
        known = (version for version in self.versions if not version.removing)
        return next((version for version in known if version.spec_hash == spec_hash), None)


def harvest(
    before: FineTuneJobStatus, wanted: Wanted, jobs: Sequence[JobView], pods: Sequence[PodView], now: str
) -> Memory:
    """Return what is known of the runs, from what the status remembers and what Jobs and pods now tell."""
    remembered = _adopt(before, wanted, jobs)
    memory = Memory(None, tuple(before.versions), usage=usage(before, jobs, pods))
    if remembered is None:
        return memory
    run = _with_jobs(remembered, jobs)
    counted, last = _earlier(before, run.name)
    memory = replace(memory, run=run, attempts=counted, last_failure=last)
    if run.ended:
        return memory
    run = _with_data_key(run, pods)
    mine = [job for job in (run.prepare, run.train) if job]
    memory = replace(
        memory,
        run=run,
        attempts=attempts.attempts(mine, pods, run.status.earlier_failures, counted, last),
        last_failure=attempts.latest(run.train or run.prepare, pods, last),
    )
    if run.abandoned and (published := _at_the_last_moment(run.abandoned, pods)):
        return _published(memory, run, published, now)
    if run.train is not None:
        if _may_start_over(run, run.train, wanted, pods):
            return memory
        return _after(memory, run, run.train, pods, now)
    if run.status.stage == "Train":
        return replace(memory, run=replace(run, lost=True))
    if run.prepare is not None:
        return _after(memory, run, run.prepare, pods, now)
    return memory


def _adopt(before: FineTuneJobStatus, wanted: Wanted, jobs: Sequence[JobView]) -> RunStatus | None:
    """Return the run to look at; one whose Jobs exist although no status was written for it counts as remembered."""
    remembered = before.current_run
    if remembered and (remembered.name == wanted.run or remembered.stage in ("Prepare", "Train")):
        return remembered
    if any(version.spec_hash == wanted.spec_hash for version in before.versions):
        return remembered  # what its Jobs came to is known, although they may still be there
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
    if train is not None and status.stage == "Prepare":
        status = status.model_copy(update={"stage": "Train", "run_key": train.run_key})
    return Run(status, prepare, train)


def _with_data_key(run: Run, pods: Sequence[PodView]) -> Run:
    """Return the run with what prepare found, where the training was made but no status was written after it."""
    if run.train is None or run.prepare is None or run.status.data_key:
        return run
    words = [failures.last_word(pod) for pod in failures.pods_of(run.prepare, pods) if pod.phase == "Succeeded"]
    found = (word.prepared.resolved for word in words if word and word.prepared)
    data_key = next((resolved.data_key for resolved in found if resolved.run_key == run.train.run_key), None)
    return replace(run, status=run.status.model_copy(update={"data_key": data_key}))


_STAGES: tuple[Stage, Stage] = ("prepare", "train")


def _earlier(before: FineTuneJobStatus, run: str) -> tuple[Attempts | None, LastFailure | None]:
    same = before.current_run is not None and before.current_run.name == run
    return (before.attempts, before.last_failure) if same else (None, None)


def _after(memory: Memory, run: Run, job: JobView, pods: Sequence[PodView], now: str) -> Memory:
    """Return the memory with what this Job, if it has ended, came to."""
    if job.outcome is None:
        return memory
    if job.outcome == "Failed":
        earlier = run.status.earlier_failures if job is run.train else 0
        return _failed(memory, run, failures.job_failure(job, pods, earlier), now)
    # Of pods that trained together, the first tells what came of it.
    succeeded = [pod for pod in failures.pods_of(job, pods) if pod.phase == "Succeeded"]
    pod = min(succeeded, key=lambda pod: pod.index, default=None)
    if pod is None:
        return replace(memory, run=replace(run, lost=True))
    result = failures.last_word(pod)
    if result is None:
        text = f"The pod {pod.name} ended well and left no result that Luthier understands; is it Luthier's image?"
        return _failed(memory, run, failures.unusable(pod, text), now)
    if result.failure:
        return _failed(memory, run, failures.failure_of(pod), now)
    if result.prepared and job is run.prepare:
        if job.deleting:
            return memory  # what it found is being looked up again
        resolved = result.prepared.resolved
        keys = {"run_key": resolved.run_key, "data_key": resolved.data_key}
        return replace(memory, run=replace(run, resolved=resolved, status=run.status.model_copy(update=keys)))
    if result.published and (job is run.prepare or result.published.run_key == job.run_key):
        return _published(memory, run, result.published, now)
    text = f"The pod {pod.name} reported the result of another run; it was not taken. Its log says what it did."
    return _failed(memory, run, failures.unusable(pod, text, Reason.INTEGRITY_ERROR), now)


def _may_start_over(run: Run, train: JobView, wanted: Wanted, pods: Sequence[PodView]) -> bool:
    """Whether pods that trained together failed of something that another try may not meet; see `restarts`."""
    if train.nodes == 1 or train.outcome != "Failed" or run.name != wanted.run:
        return False
    return failures.job_retry(train, pods) is not Retry.NEVER


def _at_the_last_moment(job: JobView, pods: Sequence[PodView]) -> Published | None:
    """Return the version that a pod published after its Job was given up, and before it was stopped."""
    words = [failures.last_word(pod) for pod in failures.pods_of(job, pods) if pod.phase == "Succeeded"]
    found = (word.published for word in words if word and word.published)
    return next((published for published in found if published.run_key == job.run_key), None)


def _failed(memory: Memory, run: Run, failure: LastFailure, now: str) -> Memory:
    return replace(memory, run=ended(run, "Failed", now), last_failure=failure)


def _published(memory: Memory, run: Run, published: Published, now: str) -> Memory:
    """Remember the version as the answer to the spec that the run was for, which need not be the present one."""
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
        chosen_at=now,
    )
    return replace(
        memory,
        run=ended(run, "Succeeded", now, run_key=published.run_key),
        versions=first_in(memory.versions, version),
        last_failure=None,
        published=published,
    )


def first_in(versions: Sequence[VersionStatus], version: VersionStatus) -> tuple[VersionStatus, ...]:
    """Return the versions with this one first, in place of an earlier answer to the same spec."""
    others = [other for other in versions if other.spec_hash != version.spec_hash]
    return (version, *others)[:MAX_VERSIONS]


def ended(run: Run, stage: str, now: str, **more: str) -> Run:
    """Return the run with its outcome."""
    return replace(run, status=run.status.model_copy(update={"stage": stage, "finished_at": now, **more}))
