"""Crashes that come again at the same place: the second one in a row ends a run, since a third pod would crash too.

A pod names the place in its own result, and only for an error of which the same is to be expected again. Disruptions in
between say nothing about that, any other failure begins the row anew. Decides nothing: a Job that tries again by itself
is ended by `stages`, a run that starts over by `restarts`.
"""

from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.sanitize import printable
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.finetunejob.attempts import failed_pods, order
from luthier_operator.plan.pods import failures


def last_place(job: JobView, before: str | None) -> str | None:
    """Return where a run crashed when it failed last; None if that was no crash, or nobody knows where.

    Args:
        job: its Job.
        before: the same of the Jobs that this one replaced.
    """
    return [before, *_places(job)][-1]


def repeated(job: JobView, before: str | None) -> str | None:
    """Return the place at which the last two failures of a run both crashed, if they did."""
    *_, second_last, last = [None, before, *_places(job)]
    return last if last == second_last else None


def _places(job: JobView) -> list[str | None]:
    """Return where each pod of a Job that failed crashed, the oldest first."""
    failed = [pod for pod in failed_pods(job) if not failures.is_disruption(pod)]
    return [_place(pod) for pod in sorted(failed, key=order)]


def _place(pod: PodView) -> str | None:
    result = failures.result_of(pod)
    failure = result.failure if result else None
    return printable(failure.place) if failure and failure.place and failure.reason is Reason.CRASHED else None


def with_place(failure: LastFailure, place: str) -> LastFailure:
    """Return the failure of a run that crashed twice at one place."""
    text = f"It crashed twice at the same place, {place}, so it is not tried a third time. {failure.message}"
    return failure.model_copy(update={"message": text})
