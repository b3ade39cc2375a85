"""What a policy for a FineTuneJob looks at, and what it answers.

The situation is the resource, what there is in the cluster for it, and what its runs have come to. A decision is what
one policy wants done and says about it. Here too is how a decision stops things: by deleting Jobs, or by letting them
rest.
Pure; `finetunejob` and the modules that it calls are made of these.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from luthier_api.documents import ProgressDocument
from luthier_api.finetunejob import FineTuneJobSpec
from luthier_operator.model import names
from luthier_operator.model.actions import Apply, Delete, Patch
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.names import Stage
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.views import JobView, PodView, Refusal, WorkloadView
from luthier_operator.plan.finetunejob import stuck
from luthier_operator.plan.finetunejob.runs import Memory, Run, Wanted
from luthier_operator.plan.finetunejob.status import Verdict
from luthier_operator.plan.pods import failures

_BATCH = "batch/v1"


@dataclass(frozen=True)
class ObservedRuns:
    """What there is in the cluster for one FineTuneJob."""

    jobs: Sequence[JobView] = ()
    pods: Sequence[PodView] = ()
    progress: ProgressDocument | None = None
    """What the training pod last answered to this operator, if it did."""
    silent_s: float = 0.0
    """For how long this operator has asked the training pod in vain."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """{uid of a Job: why the API server lets it make no pod}, from the Job controller's Events."""
    workloads: Mapping[str, WorkloadView] = field(default_factory=dict)
    """{uid of a Job: what Kueue says of it}."""
    kueue_installed: bool = True
    in_use: Collection[str] = ()
    """Versions that ModelDeployments serve, or are told to serve, of what this resource made."""
    refused: Refusal | None = None
    """What the cluster said when the plan that follows from all this was carried out, if it did not accept it."""
    namespace_ending: bool = False
    """Whether the namespace is being deleted, so that nothing new can be made in it."""


@dataclass(frozen=True)
class Situation:
    """All that a policy looks at."""

    resource: FineTuneJobResource
    wanted: Wanted
    memory: Memory
    observed: ObservedRuns
    now: str
    defaults: Defaults

    @property
    def spec(self) -> FineTuneJobSpec:
        """What the user asks for."""
        return self.resource.spec

    @property
    def jobs(self) -> list[JobView]:
        """The Jobs of the resource's runs. One of an earlier resource of the same name is not among them."""
        return [job for job in self._own if job.stage not in names.REMOVALS]

    @property
    def removals(self) -> list[JobView]:
        """The resource's own Jobs that take versions out of storage."""
        return [job for job in self._own if job.stage in names.REMOVALS]

    @property
    def _own(self) -> list[JobView]:
        return [job for job in self.observed.jobs if job.owner_uid == self.resource.meta.uid]

    @property
    def run(self) -> Run | None:
        """The run of the present spec, if it has begun."""
        run = self.memory.run
        return run if run and run.name == self.wanted.run else None

    @property
    def rivals(self) -> list[JobView]:
        """Jobs of other runs that have not ended."""
        return [job for job in self.jobs if job.run != self.wanted.run and job.live]

    def changed_at(self) -> str | None:
        """When the training last came a step further, as far as is known."""
        before = self.resource.status
        same = self.memory.run and before.current_run and before.current_run.name == self.memory.run.name
        return stuck.changed_at(before.progress if same else None, self.observed.progress, self.now)

    def seconds_left(self, train: JobView) -> float | None:
        """How long a training may still go without a step; None if it does not run just now."""
        pods = failures.pods_of(train, self.observed.pods)
        return stuck.seconds_left(pods, self.changed_at(), self.spec.progress_deadline_seconds, self.now)

    def stuck(self, train: JobView) -> bool:
        """Whether a training went without a step for too long."""
        left = self.seconds_left(train) if train.live and not train.deleting else None
        deadline = self.spec.progress_deadline_seconds
        known = stuck.is_heard_of(self.observed.progress, self.observed.silent_s, deadline)
        return known and left is not None and left < 0

    def trained_for_another(self, run_key: str) -> bool:
        """Whether a Job of an earlier resource of this name still trains the same, under another name."""
        others = [job for job in self.observed.jobs if job.owner_uid != self.resource.meta.uid]
        return any(job.live and job.stage == "train" and job.run_key == run_key for job in others)

    def taken(self, stage: Stage) -> bool:
        """Whether the name of this run's Job belongs to an earlier resource that is being removed."""
        name = names.job_name(self.wanted.run, stage)
        return any(job.name == name and job.owner_uid != self.resource.meta.uid for job in self.observed.jobs)


@dataclass(frozen=True)
class Decision:
    """What a policy wants done, and what it says about it."""

    verdict: Verdict
    memory: Memory
    deletes: tuple[Delete, ...] = ()
    patches: tuple[Patch, ...] = ()
    applies: tuple[Apply, ...] = ()
    requeue_after_s: float | None = None


Policy = Callable[[Situation], Decision | None]


def without_others(s: Situation) -> Memory:
    """Return the memory without a run that the spec no longer asks for, unless that run may finish."""
    if s.run or any(protected(s, job) for job in s.rivals):
        return s.memory
    return replace(s.memory, run=None, attempts=None, last_failure=None)


def protected(s: Situation, job: JobView) -> bool:
    """Whether a Job of another run may finish: it trains, and the policy says so. Preparing anew costs nothing."""
    if s.spec.concurrency_policy != "Forbid" or job.stage != "train" or job.deleting:
        return False
    # What would lose its place in any case, or does nothing, is not waited for.
    return not (s.spec.suspend and not rests(job)) and not s.stuck(job)


def deletions(jobs: Sequence[JobView]) -> tuple[Delete, ...]:
    """Return the deletions of Jobs that are not being deleted yet."""
    return tuple(Delete(_BATCH, "Job", job.namespace, job.name, job.uid) for job in jobs if not job.deleting)


def rests(job: JobView) -> bool:
    """Whether a Job can be suspended and go on. In a queue its `suspend` is not ours; several pods would each fail."""
    return job.queue is None and job.nodes == 1


def suspensions(s: Situation, jobs: Sequence[JobView]) -> tuple[Patch, ...]:
    """Return the patches that make Jobs rest while the resource is suspended, and go on when it is not.

    `suspend` of a Job in a queue is Kueue's and never written here.
    """
    wanted = s.spec.suspend
    live = [job for job in jobs if job.live and not job.deleting and rests(job)]
    return tuple(patch(job, {"suspend": wanted}) for job in live if job.suspended != wanted)


def patch(job: JobView, spec: dict[str, object]) -> Patch:
    """Return the change of one mutable field of a Job."""
    return Patch(_BATCH, "Job", job.namespace, job.name, {"spec": spec})
