"""Which Jobs are a resource's own, and which pods are a Job's: by uid, since anybody may write labels.

Joined once, when the cluster is observed; everything that decides reads the joined Jobs. Pure.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from luthier_operator.model import names
from luthier_operator.model.timestamps import EARLIEST
from luthier_operator.model.views import JobView, PodView


@dataclass(frozen=True)
class Jobs:
    """The Jobs that carry the labels of one FineTuneJob; its own with their pods, newest first."""

    runs: tuple[JobView, ...] = ()
    """Its own that prepare or train."""
    removals: tuple[JobView, ...] = ()
    """Its own that take versions out of storage."""
    others: tuple[JobView, ...] = ()
    """Not its own: those of an earlier resource of the same name, for instance."""

    @property
    def own(self) -> tuple[JobView, ...]:
        """All that are its own."""
        return (*self.runs, *self.removals)

    def has(self, name: str) -> bool:
        """Whether a Job has this name, whoever owns it."""
        return any(job.name == name for job in (*self.own, *self.others))


def join(owner_uid: str, jobs: Iterable[JobView], pods: Iterable[PodView]) -> Jobs:
    """Return the Jobs of a resource, each of its own with the pods that it made."""
    made_by: dict[str, list[PodView]] = defaultdict(list)
    for pod in pods:
        made_by[pod.owner_uid].append(pod)
    runs: list[JobView] = []
    removals: list[JobView] = []
    others: list[JobView] = []
    for job in jobs:
        if job.owner_uid != owner_uid:
            others.append(job)
            continue
        own = _with_pods(job, made_by[job.uid]) if job.uid in made_by else job
        (removals if job.stage in names.REMOVALS else runs).append(own)
    return Jobs(tuple(runs), tuple(removals), tuple(others))


def _with_pods(job: JobView, pods: list[PodView]) -> JobView:
    newest_first = sorted(pods, key=lambda pod: (pod.created_at or EARLIEST, pod.name), reverse=True)
    return replace(job, pods=tuple(newest_first))
