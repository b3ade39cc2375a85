"""Which Events to ask for, and when: those that say why a pod is not made, or cannot mount what it names.

Only Events tell of a pod that an admission check refused, or of a ConfigMap that is not there to be mounted, and
nothing wakes the operator for them. Looking costs a request, so it begins after two seconds and grows rarer. The Job
controller's `startTime` goes before: about a Job that it has not come to yet, among thousands, there is nothing to ask.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.pods import failures

_FIRST_LOOK_S = 2.0
_SELDOM_S = 10.0


@dataclass(frozen=True)
class Question:
    """What to ask the API server about a Job that has waited for so long."""

    job_uid: str
    about_uid: str
    """uid of the object whose Events tell: the Job, or its pod."""
    reason: Literal["FailedCreate", "FailedMount"]
    waited_s: float

    @property
    def due(self) -> bool:
        """Whether it has waited long enough to be asked about."""
        return self.waited_s >= _FIRST_LOOK_S

    @property
    def again_s(self) -> float:
        """When to look again: after 2, 4, 8 s, and then every 10 s."""
        return min(self.waited_s, _SELDOM_S) if self.due else _FIRST_LOOK_S - max(self.waited_s, 0.0)


def questions(spec: FineTuneJobSpec, jobs: Iterable[JobView], pods: Sequence[PodView], now: datetime) -> list[Question]:
    """Return what there is to ask about these Jobs."""
    found = (_about(spec, job, failures.pods_of(job, pods), now) for job in jobs if job.live and not job.deleting)
    return [question for question in found if question]


def _about(spec: FineTuneJobSpec, job: JobView, pods: Sequence[PodView], now: datetime) -> Question | None:
    if job.suspended or not job.started_at:
        return None
    if not pods:
        waited = seconds_since(job.started_at, now)
        return None if job.active else Question(job.uid, job.uid, "FailedCreate", waited)
    pod = pods[0]
    # Without a ConfigMap to mount, a pod that is being made just draws its image.
    if _mounts(spec) and pod.phase == "Pending" and pod.node and pod.waiting_reason == "ContainerCreating":
        return Question(job.uid, pod.uid, "FailedMount", seconds_since(pod.created_at, now))
    return None


def _mounts(spec: FineTuneJobSpec) -> bool:
    return any(part.ca_bundle is not None for part in (spec.output, spec.model, spec.dataset))
