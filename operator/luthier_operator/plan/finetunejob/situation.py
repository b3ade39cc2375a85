"""What a policy for a FineTuneJob looks at, and what it returns.

The situation is the resource, what the cluster has for it, and what its runs have come to. A decision is what one
policy wants done and says about it. Here too is how a decision stops things: by deleting Jobs, or by suspending them.
Pure; the policies and the modules that they call are made of these.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from luthier_api.documents import ProgressDocument
from luthier_api.finetunejob import FineTuneJobSpec
from luthier_operator.manifests.pods import owner_reference
from luthier_operator.model import names
from luthier_operator.model.actions import Apply, Delete, EventNote, Patch
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.names import Stage
from luthier_operator.model.ownership import Jobs
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.views import JobView, Refusal, WorkloadView
from luthier_operator.plan.finetunejob import stuck
from luthier_operator.plan.finetunejob.runs import Run, RunRecord, Wanted
from luthier_operator.plan.verdict import Verdict

_BATCH = "batch/v1"
_MOST_TURNS = 2


@dataclass(frozen=True)
class ObservedRuns:
    """What the cluster has for one FineTuneJob."""

    jobs: Jobs = field(default_factory=Jobs)
    progress: ProgressDocument | None = None
    """What the pod last answered to this operator, if it did."""
    silent_s: float = 0.0
    """For how long the pod has not answered this operator."""
    pod_events: Mapping[str, str] = field(default_factory=dict)
    """{uid of a Job: message of the newest Event that says why its pod is not created or does not start}."""
    workloads: Mapping[str, WorkloadView] = field(default_factory=dict)
    """{uid of a Job: what Kueue says of it}."""
    kueue_installed: bool = True
    in_use: Collection[str] = ()
    """Versions of this resource that ModelDeployments serve or are to serve."""
    refused: Refusal | None = None
    """Set if the plan that followed from all this was carried out and the cluster did not accept it."""
    namespace_ending: bool = False
    """Whether the namespace is being deleted, so that nothing can be created in it."""


@dataclass(frozen=True)
class Situation:
    """All that a policy looks at."""

    resource: FineTuneJobResource
    wanted: Wanted
    record: RunRecord
    observed: ObservedRuns
    now: datetime
    defaults: Defaults

    @property
    def spec(self) -> FineTuneJobSpec:
        """What the user asks for."""
        return self.resource.spec

    @property
    def jobs(self) -> Sequence[JobView]:
        """The Jobs of the resource's runs."""
        return self.observed.jobs.runs

    @property
    def removals(self) -> Sequence[JobView]:
        """The resource's Jobs that take versions out of storage."""
        return self.observed.jobs.removals

    @property
    def run(self) -> Run | None:
        """The run of the spec as it is now, if it has begun."""
        run = self.record.run
        return run if run and run.name == self.wanted.run else None

    @property
    def jobs_of_run(self) -> list[JobView]:
        """Jobs of the run that the spec asks for."""
        return [job for job in self.jobs if job.run == self.wanted.run]

    @property
    def jobs_of_other_runs(self) -> list[JobView]:
        """Jobs of other runs that have not ended."""
        return [job for job in self.jobs if job.run != self.wanted.run and job.live]

    def changed_at(self) -> datetime | None:
        """When the training last finished a step, as far as is known."""
        before = self.resource.status
        same = self.record.run and before.current_run and before.current_run.name == self.record.run.name
        return stuck.changed_at(before.progress if same else None, self.observed.progress, self.now)

    def seconds_left(self, train: JobView) -> float | None:
        """How long a training may still go without a step; None if it does not run now."""
        return stuck.seconds_left(train.pods, self.changed_at(), self.spec.progress_deadline_seconds, self.now)

    def stuck(self, train: JobView) -> bool:
        """Whether a training has gone without a step for too long."""
        left = self.seconds_left(train) if train.live and not train.deleting else None
        deadline = self.spec.progress_deadline_seconds
        known = stuck.is_known(self.observed.progress, self.observed.silent_s, deadline)
        return known and left is not None and left < 0

    @property
    def orphans(self) -> list[JobView]:
        """Jobs of this very run that an earlier resource of this name left behind."""
        others, wanted = self.observed.jobs.others, self.wanted
        found = [job for job in others if job.orphan and not job.deleting and job.run == wanted.run]
        return [job for job in found if job.spec_hash == wanted.spec_hash]

    def trained_for_another(self, run_key: str) -> JobView | None:
        """Return a Job of an earlier resource of this name that still trains the same, under another name."""
        others = self.observed.jobs.others
        return next((job for job in others if job.live and job.stage == "train" and job.run_key == run_key), None)

    def name_taken(self, stage: Stage) -> JobView | None:
        """Return the Job that has the name of this run's, and belongs to an earlier resource, or to nobody."""
        name = names.job_name(self.wanted.run, stage)
        return next((job for job in self.observed.jobs.others if job.name == name), None)


@dataclass(frozen=True)
class Decision:
    """What a policy wants done, and what it says about it."""

    verdict: Verdict
    record: RunRecord
    deletes: tuple[Delete, ...] = ()
    patches: tuple[Patch, ...] = ()
    applies: tuple[Apply, ...] = ()
    events: tuple[EventNote, ...] = ()
    requeue_after_s: float | None = None


Policy = Callable[[Situation], Decision | None]


def without_other_run(s: Situation) -> RunRecord:
    """Return the record without a run that the spec no longer asks for, unless that run may finish."""
    if s.run or any(may_finish(s, job) for job in s.jobs_of_other_runs):
        return s.record
    return replace(s.record, run=None, attempts=None, last_failure=None, warnings=())


def may_finish(s: Situation, job: JobView) -> bool:
    """Whether a Job of another run may finish: it trains, and the policy is Forbid. Preparing again costs nothing."""
    if s.spec.concurrency_policy != "Forbid" or job.stage != "train" or job.deleting:
        return False
    # A Job that cannot be suspended would lose its place anyway; one that is stuck is not waited for.
    return not (s.spec.suspend and not can_be_suspended(job)) and not s.stuck(job)


def deletions(jobs: Iterable[JobView]) -> tuple[Delete, ...]:
    """Return the deletions of those Jobs that are not being deleted yet."""
    return tuple(Delete(_BATCH, "Job", job.namespace, job.name, job.uid) for job in jobs if not job.deleting)


def can_be_suspended(job: JobView) -> bool:
    """Whether a Job can be suspended and resumed.

    In a queue `suspend` is Kueue's; several pods would each fail; and one that somebody has resumed after it was
    suspended twice would be written by two for ever.
    """
    return job.queue is None and job.nodes == 1 and (job.suspended or job.suspensions < _MOST_TURNS)


def suspensions(s: Situation, jobs: Iterable[JobView]) -> tuple[Patch, ...]:
    """Return the patches that suspend Jobs while the resource is suspended, and resume them when it is not.

    `suspend` of a Job in a queue is Kueue's and never written here, nor is a Job resumed that somebody else has
    suspended: a mark on the Job says that it was the operator.
    """
    wanted = s.spec.suspend
    live = [job for job in jobs if job.outcome is None and not job.deleting and can_be_suspended(job)]
    if wanted:
        # What a release that set no mark has suspended is marked, or it would be taken for somebody else's.
        unmarked = [job for job in live if job.held and not (job.suspended_by or job.uid in s.observed.workloads)]
        return tuple(_suspend(job) for job in live if not job.suspended or job in unmarked)
    return tuple(_mark(job, False, None) for job in live if job.suspended and not job.held)


def _suspend(job: JobView) -> Patch:
    return _mark(job, True, str(job.suspensions + 1))


def _mark(job: JobView, suspend: bool, mark: str | None) -> Patch:
    merge = {"metadata": {"annotations": {names.SUSPENDED: mark}}, "spec": {"suspend": suspend}}
    return Patch(_BATCH, "Job", job.namespace, job.name, merge)


def adoption(s: Situation, job: JobView) -> Patch:
    """Return the change that makes an orphan the resource's own; refused if another Job has the name by now."""
    merge = {"metadata": {"uid": job.uid, "ownerReferences": [owner_reference(s.resource.meta)]}}
    return Patch(_BATCH, "Job", job.namespace, job.name, merge)


def patch(job: JobView, spec: dict[str, object]) -> Patch:
    """Return the change of one mutable field of a Job."""
    return Patch(_BATCH, "Job", job.namespace, job.name, {"spec": spec})
