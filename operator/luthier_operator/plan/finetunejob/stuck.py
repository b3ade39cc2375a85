"""Whether a training is stuck: no step finished and no other stage begun for longer than progressDeadlineSeconds.

Counted from when the status last saw a change, or the pods that run were started. But while no operator ran nobody saw
a change: so a training is stuck only if its pod says so now, or has been asked in vain for a while. Pods that are being
stopped, or do not run yet, have other troubles.
"""

from collections.abc import Sequence
from datetime import datetime

from luthier_api.documents import ProgressDocument
from luthier_api.finetunejob import LastFailure, Progress
from luthier_api.reasons import Reason
from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import PodView

_PATIENCE_S = 60.0


def changed_at(before: Progress | None, document: ProgressDocument | None, now: str) -> str | None:
    """Return when the step or the stage last changed, with what the pod says now.

    Progress that an older release wrote has no such time; it counts as new.
    """
    if before is None:
        return now if document else None
    same = document is None or (before.step, before.stage) == (document.step, document.stage)
    return (before.changed_at if same else None) or now


def seconds_left(pods: Sequence[PodView], changed: str | None, deadline_s: int, now: str) -> float | None:
    """Return how long the running pods may still go without a step; None if none runs. Negative: they are stuck."""
    started = [pod.started_at for pod in pods if pod.phase == "Running" and not pod.deleting and pod.started_at]
    if not started:
        return None
    return deadline_s - seconds_since(max(*started, changed or ""), datetime.fromisoformat(now))


def is_heard_of(document: ProgressDocument | None, silent_s: float, deadline_s: int) -> bool:
    """Whether this operator knows how it stands with the pod: it answered, or was asked in vain long enough."""
    return document is not None or silent_s >= min(_PATIENCE_S, deadline_s)


def failure(pods: Sequence[PodView], progress: Progress | None, deadline_s: int, now: str) -> LastFailure:
    """Return why the training is stopped."""
    running = min((pod for pod in pods if pod.phase == "Running"), key=lambda pod: pod.index)
    if progress is None:
        what = (
            f"The pod {running.name} has not told any progress for {deadline_s} s. If kubectl logs shows that it trains"
            ", let the operator reach its port 8080 (NetworkPolicy)"
        )
    else:
        where = f" at step {progress.step} of {progress.total_steps}" if progress.total_steps else ""
        what = (
            f"The pod {running.name} finished no step for {deadline_s} s (stage {progress.stage}{where}). If its steps "
            "are that slow, raise progressDeadlineSeconds"
        )
    text = (
        f"{what}; otherwise kubectl logs says what it waits for. It is stopped and goes on from its newest checkpoint."
    )
    return LastFailure(reason=Reason.STUCK, message=text, pod=running.name, at=now)
