"""Which Jobs are a resource's own, and which pods are a Job's: by uid, since anybody may write labels.

Joined once, when the cluster is observed; everything that decides reads the joined Jobs. Pure.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from luthier_operator.model import names
from luthier_operator.model.timestamps import EARLIEST
from luthier_operator.model.views import JobView, PodView

_COMPLETE: Literal["Complete", "Failed"] = "Complete"
_FAILED: Literal["Complete", "Failed"] = "Failed"


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
    return _by_own_containers(replace(job, pods=tuple(newest_first)))


def _by_own_containers(job: JobView) -> JobView:
    """Return a Job with the outcome of the container that Luthier made, where others in its pods say otherwise."""
    well = {pod.index: pod for pod in job.pods if pod.phase == "Succeeded"}
    newest = job.pods if job.nodes > 1 else job.pods[:1]
    failed = [pod for pod in newest if pod.phase == "Failed" and pod.outlived_by]
    if job.outcome != "Complete" and len(well) == job.nodes and any(pod.outlived_by for pod in well.values()):
        telling, outcome = list(well.values()), _COMPLETE
    elif job.outcome is None and failed:
        telling, outcome = failed, _FAILED
    else:
        return job
    return replace(
        job,
        outcome=outcome,
        lingering=job.outcome is None,
        outlived_by=tuple(dict.fromkeys(name for pod in telling for name in pod.outlived_by)),
        ended_at=job.ended_at or telling[0].finished_at,
    )
