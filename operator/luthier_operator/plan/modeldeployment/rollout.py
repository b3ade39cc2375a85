"""How one revision takes over from another without losing a request: a pure step function over what is live.

    absent ──add at weight 0──> starting ──RUNNING──> weight 100, the others 0 ──drained──> the others removed
                                   └──failed, or too late──> removed again; the old one was never touched

What is live, and with which weight, is read from the RayService itself; the status remembers only since when, and what
has failed. Only a running revision is ever given weight, except the very first: no request is answered before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from luthier_operator.manifests.rayservice import Application
from luthier_operator.model.views import ApplicationView

State = Literal["Starting", "Running", "Unhealthy", "Failed", "Draining"]
# UNHEALTHY is no failure: Ray Serve has lost replicas, and starts others by itself within seconds.
_STATES: dict[str, State] = {"RUNNING": "Running", "UNHEALTHY": "Unhealthy", "DEPLOY_FAILED": "Failed"}


@dataclass(frozen=True)
class Live:
    """A revision on the server.

    Attributes:
        application: what it is made from.
        weight: its share of the requests in percent.
        age_s: for how long it has been in its present state, in seconds.
        state: what it is doing.
        message: why it is not running.
    """

    application: Application
    weight: int
    age_s: float
    state: State
    message: str = ""

    @property
    def name(self) -> str:
        """Name of the Ray Serve application."""
        return self.application.name


@dataclass(frozen=True)
class Times:
    """Times of a rollout, in seconds."""

    deadline_s: float
    drain_s: float
    settle_s: float


@dataclass(frozen=True)
class Step:
    """What is to be live next.

    Attributes:
        live: the revisions that are to be in the RayService.
        failed: the target, if it was given up.
        late: whether it was given up for its deadline.
        wake_s: when time alone moves the rollout on.
    """

    live: tuple[Live, ...]
    failed: Live | None = None
    late: bool = False
    wake_s: float | None = field(default=None, compare=False)

    @property
    def weights(self) -> dict[str, int]:
        """Return {revision: share of the requests}."""
        return {each.name: each.weight for each in self.live}


def state_of(view: ApplicationView | None, weight: int, *, is_target: bool) -> tuple[State, str]:
    """Return the state of a revision and why, from what Ray Serve reports of its application."""
    state = _STATES.get(view.status, "Starting") if view else "Starting"
    if state != "Failed" and weight == 0 and not is_target:
        state = "Draining"
    return state, view.message if view and state != "Running" else ""


def next_step(live: Sequence[Live], target: Application, times: Times, *, given_up: bool = False) -> Step:
    """Return what is to be live next.

    Args:
        live: the revisions on the server now.
        target: the revision that is to have all requests.
        times: how long it may take, and how long it waits.
        given_up: whether this target has failed before and was removed; it is not tried again.
    """
    candidate = next((each for each in live if each.name == target.name), None)
    serving = [each for each in live if each.weight > 0 and each is not candidate]
    if candidate is None:
        if given_up:
            return Step(tuple(serving))
        first = not serving
        new = Live(target, 100 if first else 0, 0.0, "Starting")
        return Step((*serving, new), wake_s=times.deadline_s)
    if candidate.weight == 100:
        return _drain(live, candidate, times)
    if not serving:
        return Step((replace(candidate, weight=100),))
    if candidate.state == "Running" and candidate.age_s >= times.settle_s:
        others = tuple(replace(each, weight=0, state="Draining", age_s=0.0) for each in serving)
        return Step((*others, replace(candidate, weight=100)), wake_s=times.drain_s)
    if candidate.state == "Running":
        return Step((*serving, candidate), wake_s=times.settle_s - candidate.age_s)
    late = candidate.age_s > times.deadline_s
    if candidate.state == "Failed" or late:
        return Step(tuple(serving), failed=candidate, late=late and candidate.state != "Failed")
    return Step((*serving, candidate), wake_s=times.deadline_s - candidate.age_s + 1)


def _drain(live: Sequence[Live], candidate: Live, times: Times) -> Step:
    """Keep what lost its weight a moment ago: the front may still route to it."""
    draining = [each for each in live if each is not candidate and each.age_s < times.drain_s]
    wake = min((times.drain_s - each.age_s for each in draining), default=None)
    not_there = candidate.state in ("Starting", "Unhealthy")
    first_wait = times.deadline_s - candidate.age_s + 1 if not_there else None
    waits = [wait for wait in (wake, first_wait) if wait is not None and wait > 0]
    late = not_there and candidate.age_s > times.deadline_s
    failed = candidate if candidate.state == "Failed" or late else None
    return Step((*draining, candidate), failed=failed, late=late, wake_s=min(waits, default=None))
