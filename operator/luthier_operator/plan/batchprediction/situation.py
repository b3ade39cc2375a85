"""What a policy for a BatchPrediction looks at, and what it returns. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from luthier_api.batchprediction import BatchPredictionSpec, BatchPredictionStatus
from luthier_api.documents import ProgressDocument
from luthier_operator.model import names
from luthier_operator.model.actions import Apply, Delete
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.ownership import Jobs
from luthier_operator.model.resources import BatchPredictionResource
from luthier_operator.model.views import FineTuneJobView, JobView, Refusal, WorkloadView
from luthier_operator.plan.verdict import Verdict

_BATCH = "batch/v1"


@dataclass(frozen=True)
class ObservedBatch:
    """What the cluster has for one BatchPrediction."""

    jobs: Jobs = field(default_factory=Jobs)
    finetunejob: FineTuneJobView | None = None
    """The FineTuneJob that the spec names, if there is one."""
    progress: ProgressDocument | None = None
    """What a worker last answered to this operator, if one did."""
    pod_events: Mapping[str, str] = field(default_factory=dict)
    """{uid of a Job: why it gets no pod that starts}."""
    workloads: Mapping[str, WorkloadView] = field(default_factory=dict)
    """{uid of a Job: what Kueue says of it}."""
    kueue_installed: bool = True
    refused: Refusal | None = None
    """Set if the plan that followed from all this was carried out and the cluster did not accept it."""
    namespace_ending: bool = False
    """Whether the namespace is being deleted, so that nothing can be created in it."""


@dataclass(frozen=True)
class Situation:
    """All that a policy looks at.

    Attributes:
        run_hash: of what the spec asks for.
        record: the status, with what the run's Job has come to since; without what is of an earlier run.
        lost: whether the Job has ended well and its result is gone.
    """

    resource: BatchPredictionResource
    run_hash: str
    record: BatchPredictionStatus
    lost: bool
    observed: ObservedBatch
    now: datetime
    defaults: Defaults

    @property
    def spec(self) -> BatchPredictionSpec:
        """What the user asks for."""
        return self.resource.spec

    @property
    def run(self) -> str:
        """Name of the run that the spec asks for."""
        return names.batch_run_name(self.resource.meta.name, self.run_hash)

    @property
    def job(self) -> JobView | None:
        """The Job of that run."""
        return next((job for job in self.observed.jobs.runs if job.run == self.run), None)


@dataclass(frozen=True)
class Decision:
    """What a policy wants done, and what it says about it."""

    verdict: Verdict
    record: BatchPredictionStatus
    deletes: tuple[Delete, ...] = ()
    applies: tuple[Apply, ...] = ()
    requeue_after_s: float | None = None


Policy = Callable[[Situation], Decision | None]


def deletion(job: JobView | None) -> tuple[Delete, ...]:
    """Return the deletion of a Job, unless there is none or it is being deleted."""
    return () if job is None or job.deleting else (Delete(_BATCH, "Job", job.namespace, job.name, job.uid),)
