"""Whether a training is stuck: no step finished and no other stage begun for longer than progressDeadlineSeconds.

Counted from when the status last saw a change, or the pods that run were started. But while no operator ran nobody saw
a change: so a training is stuck only if its pod reports so now, or has not answered for a while. Pods that are being
stopped, or do not run yet, are not stuck.
"""

from collections.abc import Sequence
from datetime import datetime

from luthier_api.documents import ProgressDocument
from luthier_api.finetunejob import LastFailure, Progress
from luthier_api.reasons import Reason
from luthier_operator.model.timestamps import EARLIEST, parse_time, rfc3339, seconds_since
from luthier_operator.model.views import PodView

_PATIENCE_S = 60.0


def changed_at(before: Progress | None, document: ProgressDocument | None, now: datetime) -> datetime | None:
    """Return when the step or the stage last changed, with what the pod reports now.

    Progress that an older release wrote has no such time; it counts as new.
    """
    if before is None:
        return now if document else None
    same = document is None or (before.step, before.stage) == (document.step, document.stage)
    return (parse_time(before.changed_at) if same else None) or now


def seconds_left(pods: Sequence[PodView], changed_at: datetime | None, deadline_s: int, now: datetime) -> float | None:
    """Return how long the running pods may still go without a step; None if none runs. Negative: they are stuck."""
    started = [pod.started_at for pod in pods if pod.phase == "Running" and not pod.deleting and pod.started_at]
    if not started:
        return None
    return deadline_s - seconds_since(max(*started, changed_at or EARLIEST), now)


def is_known(document: ProgressDocument | None, silent_s: float, deadline_s: int) -> bool:
    """Whether this operator knows how far the pod is: it has answered, or has been silent for long enough."""
    return document is not None or silent_s >= min(_PATIENCE_S, deadline_s)


def failure(pods: Sequence[PodView], progress: Progress | None, deadline_s: int, now: datetime) -> LastFailure:
    """Return why the training is stopped."""
    running = min((pod for pod in pods if pod.phase == "Running"), key=lambda pod: pod.index)
    if progress is None:
        what = (
            f"The pod {running.name} has reported no progress for {deadline_s} s. If kubectl logs shows that it trains"
            ", let the operator reach its port 8080 (NetworkPolicy)"
        )
    else:
        where = f" at step {progress.step} of {progress.total_steps}" if progress.total_steps else ""
        what = (
            f"The pod {running.name} has finished no step for {deadline_s} s (stage {progress.stage}{where}). If its "
            "steps take that long, raise progressDeadlineSeconds"
        )
    text = (
        f"{what}; otherwise kubectl logs shows what it waits for. The training is stopped and continues from its newest"
        " checkpoint."
    )
    return LastFailure(reason=Reason.STUCK, message=text, pod=running.name, at=rfc3339(now))
