"""How one revision takes over from another without losing a request: a pure step function over what is on the server.

    Starting ──runs──> Step 1 .. n ──kept to the limits──> Shifted ──drained──> Loading ──all replicas hold it──> done
        └─────────────────┴── failed, too late, broke a limit, aborted ──> Dropping ──drained──> the old one alone

Starting: the new revision (canary) runs beside the old one, in an application of its own, with no requests. Step: it
has its share. Shifted: it has them all, still by itself. Loading: the server replicas free the old model and load the
new one into their own process, while the canary answers; then the canary goes. So a pod needs memory for two models,
and a version that crashes its process has shown it before it comes into the server's.

What is on the server is read from the RayService itself; the status remembers only since when, and what was rejected.
BlueGreen and InPlace have no canary: the server gets the new revision, and returns to the previous one if that fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from luthier_api.documents import SERVER_REPORT_PORT
from luthier_api.modeldeployment import RejectedRevision, Rollout, RolloutStep
from luthier_api.reasons import Reason
from luthier_operator.manifests.rayservice import Application, Layout
from luthier_operator.plan.modeldeployment.analysis import Judgement

State = Literal["Starting", "Running", "Unhealthy", "Failed", "Draining"]
Stage = Literal["Starting", "Step", "Shifted", "Loading", "Dropping"]
Cause = Literal["Failed", "Late", "Analysis", "Aborted"]


@dataclass(frozen=True)
class Seen:
    """How it stands with a revision on the server.

    Attributes:
        state: what it is doing.
        age_s: for how long it has been in that state, in seconds.
        message: why it is not running; of one that runs, that it ran out of memory before.
    """

    state: State
    age_s: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class Situation:
    """All that the next step depends on.

    Attributes:
        layout: what is on the server; None if nothing is.
        stable: how it stands with the stable revision.
        canary: how it stands with the canary.
        held: whether every server replica computes the stable revision in its own process; None if none was asked.
        served: whether some revision has ever answered requests.
        settled: whether the stable revision has been in service, so that trouble is no reason to go back.
        stage_s: for how long the present stage or step lasts, in seconds.
        judgement: what the figures of the present step say; None without an analysis, or before the interval is over.
        failures: judgements of this step that have failed before.
        paused: whether it waits for the user, who has paused it, or whose step does.
        wishes: what the user asks for now: promote, pause, abort or skip.
        rejected: why the wanted revision was rolled back before; None if it was not.
        quick: whether the wanted revision was in service lately, so that it may skip the steps.
        upgrading: whether KubeRay builds a second Ray cluster.
    """

    layout: Layout | None
    stable: Seen
    canary: Seen | None = None
    held: bool | None = True
    served: bool = True
    settled: bool = False
    stage_s: float = 0.0
    judgement: Judgement | None = None
    failures: int = 0
    paused: bool = False
    wishes: frozenset[str] = frozenset()
    rejected: RejectedRevision | None = None
    quick: bool = False
    upgrading: bool = False

    @property
    def why_rejected(self) -> tuple[Reason, str]:
        """Why the wanted revision was rolled back before, in one word and one sentence."""
        assert self.rejected is not None
        return Reason(self.rejected.reason), self.rejected.message


@dataclass(frozen=True)
class Times:
    """Times of a rollout, in seconds."""

    deadline_s: float
    drain_s: float
    settle_s: float


@dataclass(frozen=True)
class Rejection:
    """Why a revision is rolled back."""

    application: Application
    cause: Cause
    message: str


@dataclass(frozen=True)
class Step:
    """What is to be on the server next.

    Attributes:
        layout: the revisions and their weights.
        stage: the stage of the rollout, once that is on the server; None without a rollout.
        message: what it waits for.
        rejection: set if the wanted revision is rolled back now.
        late: whether the revision in service has not come up in time.
        handled: wishes that are carried out by this step.
        paused: whether the rollout waits for the user.
        failures: judgements of this step that have failed.
        wake_s: when time alone moves the rollout on.
    """

    layout: Layout
    stage: Stage | None = None
    message: str = ""
    rejection: Rejection | None = None
    late: bool = False
    handled: frozenset[str] = frozenset()
    paused: bool = False
    failures: int = 0
    wake_s: float | None = field(default=None, compare=False)


def stage_of(layout: Layout, wanted: Application, *, rejected: bool) -> Stage | None:
    """Return the stage that a layout is in."""
    canary = layout.canary
    if canary is None:
        return None
    if canary.name == layout.stable.name:
        return "Loading"
    if canary.name != wanted.name or rejected:
        return "Dropping"
    if layout.canary_weight == 100:
        return "Shifted"
    return "Starting" if layout.step is None else "Step"


def steps_of(rollout: Rollout) -> list[RolloutStep]:
    """Return the steps; one to judge the new revision by, if the spec has an analysis or a mirror and no steps."""
    if rollout.steps or not (rollout.analysis or rollout.mirror):
        return rollout.steps
    return [RolloutStep(traffic_percent=0 if rollout.mirror else 10)]


def next_step(s: Situation, wanted: Application, rollout: Rollout, times: Times) -> Step:
    """Return what is to be on the server next."""
    layout = s.layout
    if layout is None:
        return Step(Layout(wanted), wake_s=times.deadline_s)
    canary = layout.canary
    if s.upgrading and layout.stable.name != wanted.name and s.rejected is None:
        # The second cluster answers nobody yet: it gets the newest revision at once.
        return Step(Layout(wanted, previous=layout.previous), wake_s=times.deadline_s)
    if canary and canary.name == layout.stable.name:
        return _load(s, layout, times)
    if canary and (canary.name != wanted.name or s.rejected is not None):
        return _drop(s, layout, times)
    if canary is None:
        return _begin(s, layout, wanted, rollout, times)
    if layout.canary_weight == 100:
        return _shifted(s, layout, canary, times)
    return _canary(s, layout, canary, rollout, times)


def _begin(s: Situation, layout: Layout, wanted: Application, rollout: Rollout, times: Times) -> Step:
    """No revision runs beside the stable one."""
    if layout.stable.name == wanted.name and s.rejected is None:
        return _in_service(s, layout, times)
    if s.rejected is not None:
        back = layout.previous if layout.stable.name == wanted.name else None
        return Step(Layout(back) if back else layout)
    if not s.served:
        # Nothing is lost by replacing what has never answered.
        return Step(Layout(wanted), wake_s=times.deadline_s)
    if rollout.strategy != "Canary":
        return Step(Layout(wanted, previous=layout.stable), wake_s=times.deadline_s)
    return Step(Layout(layout.stable, wanted), "Starting", wake_s=times.deadline_s)


def _in_service(s: Situation, layout: Layout, times: Times) -> Step:
    """The wanted revision is the server's own; it may still be coming up."""
    here = s.stable.state == "Running" and s.held is not False and not s.upgrading
    if here:
        return Step(layout)
    late = s.stable.age_s > times.deadline_s
    failed = s.stable.state == "Failed" and not s.upgrading
    if layout.previous and not s.settled and (failed or late):
        cause: Cause = "Failed" if failed else "Late"
        return Step(Layout(layout.previous), rejection=Rejection(layout.stable, cause, s.stable.message))
    return Step(layout, late=late and not failed, wake_s=max(times.deadline_s - s.stable.age_s + 1, 1))


def _canary(s: Situation, layout: Layout, canary: Application, rollout: Rollout, times: Times) -> Step:
    """The canary starts, or has its share of a step."""
    seen = s.canary or Seen("Starting")
    late = seen.state != "Running" and seen.age_s > times.deadline_s
    if "abort" in s.wishes:
        return _reject(layout, canary, "Aborted", "It was aborted by luthier.dev/abort.", handled={"abort"})
    if seen.state == "Failed":
        return _reject(layout, canary, "Failed", seen.message)
    if late:
        return _reject(layout, canary, "Late", seen.message)
    if seen.state != "Running":
        return replace(_stay(s, layout, seen.message), wake_s=times.deadline_s - seen.age_s + 1)
    if layout.step is None and seen.age_s < times.settle_s:
        return replace(_stay(s, layout), wake_s=times.settle_s - seen.age_s)
    unhealthy = s.stable.state in ("Failed", "Unhealthy") and s.stable.age_s >= times.settle_s
    steps = steps_of(rollout)
    if "skip" in s.wishes or s.quick or unhealthy or not steps:
        return _shift(layout, canary, times, {"skip"} & s.wishes)
    if layout.step is None:
        return _enter(layout, canary, steps, 0, {"pause"} & s.wishes)
    return _judged(s, layout, canary, rollout, times)


def _judged(s: Situation, layout: Layout, canary: Application, rollout: Rollout, times: Times) -> Step:
    """The canary has its share of a step: stay, go on, or go back."""
    index = layout.step or 0
    steps, analysis = steps_of(rollout), rollout.analysis
    step = steps[index] if index < len(steps) else None
    failures = s.failures
    interval_s = float(analysis.interval_seconds) if analysis else None
    if step is None:  # the spec has fewer steps than before
        return _shift(layout, canary, times)
    if s.judgement and s.judgement.outcome == "Failed":
        failures += 1
        if analysis and failures > analysis.failure_limit and rollout.auto_rollback:
            return _reject(layout, canary, "Analysis", _with_cause(s.judgement.message, s.canary))
        limit = analysis.failure_limit if analysis else 0
        text = f"{s.judgement.message}: failure {failures}, of which {limit} are allowed"
        return replace(_stay(s, layout, text), failures=failures, wake_s=interval_s)
    if "pause" in s.wishes:
        return replace(_stay(s, layout, "paused by luthier.dev/pause"), paused=True, handled=frozenset({"pause"}))
    promote = {"promote"} & s.wishes
    if promote:
        return _go_on(layout, canary, steps, index, times, promote)
    if s.paused or step.pause == "Manual":
        return replace(_stay(s, layout, "waits for luthier.dev/promote"), paused=True, wake_s=interval_s)
    left_s = (step.pause_seconds or 0) - s.stage_s
    if left_s > 0:
        return replace(_stay(s, layout, _text(s.judgement)), wake_s=min(left_s, interval_s or left_s))
    if analysis is None:
        return _go_on(layout, canary, steps, index, times)
    if s.judgement is None:
        return replace(_stay(s, layout), wake_s=interval_s)
    if s.judgement.outcome == "Passed":
        return _go_on(layout, canary, steps, index, times)
    waited_s = s.stage_s - (step.pause_seconds or 0)
    if waited_s >= analysis.inconclusive_after_seconds:
        if analysis.on_inconclusive == "Promote":
            return _go_on(layout, canary, steps, index, times)
        if analysis.on_inconclusive == "RollBack":
            return _reject(
                layout, canary, "Analysis", _with_cause(f"{s.judgement.message}: too few to judge", s.canary)
            )
    return replace(_stay(s, layout, _text(s.judgement)), wake_s=interval_s)


def _stay(s: Situation, layout: Layout, message: str = "") -> Step:
    stage: Stage = "Starting" if layout.step is None else "Step"
    return Step(layout, stage, message, paused=s.paused, failures=s.failures)


def _with_cause(message: str, canary: Seen | None) -> str:
    """Return which limit was broken, and why if that is known."""
    return f"{message}; {canary.message}" if canary and canary.message else message


def _text(judgement: Judgement | None) -> str:
    """Return the figures, and what measures that are only reported say of them."""
    if judgement is None:
        return ""
    return judgement.message + (f" (dry run: {judgement.dry})" if judgement.dry else "")


def _enter(
    layout: Layout,
    canary: Application,
    steps: list[RolloutStep],
    index: int,
    handled: set[str] | frozenset[str] = frozenset(),
) -> Step:
    window = f"{canary.name}/{index}"
    new = replace(layout, canary_weight=steps[index].traffic_percent, window=window)
    paused = "pause" in handled or steps[index].pause == "Manual"
    return Step(new, "Step", paused=paused, handled=frozenset(handled), wake_s=float(steps[index].pause_seconds or 1))


def _go_on(
    layout: Layout,
    canary: Application,
    steps: list[RolloutStep],
    index: int,
    times: Times,
    handled: set[str] | frozenset[str] = frozenset(),
) -> Step:
    if index + 1 < len(steps):
        return _enter(layout, canary, steps, index + 1, handled)
    return _shift(layout, canary, times, handled)


def _shift(layout: Layout, canary: Application, times: Times, handled: set[str] | frozenset[str] = frozenset()) -> Step:
    new = replace(layout, canary_weight=100)
    return Step(new, "Shifted", handled=frozenset(handled), wake_s=times.drain_s)


def _shifted(s: Situation, layout: Layout, canary: Application, times: Times) -> Step:
    """The canary has all requests: once none is left at the old revision, the replicas load the new one."""
    seen = s.canary or Seen("Starting")
    if "abort" in s.wishes:
        return _reject(layout, canary, "Aborted", "It was aborted by luthier.dev/abort.", handled={"abort"})
    if seen.state == "Failed" or (
        seen.state == "Unhealthy" and seen.age_s > times.settle_s and s.stable.state == "Running"
    ):
        return _reject(layout, canary, "Failed", seen.message or "it lost its replicas")
    if s.stage_s < times.drain_s or seen.state != "Running":
        return Step(layout, "Shifted", wake_s=max(times.drain_s - s.stage_s, 1.0))
    return Step(Layout(canary, canary, 100), "Loading", wake_s=times.deadline_s)


def _load(s: Situation, layout: Layout, times: Times) -> Step:
    """The canary answers until every server replica holds the revision itself."""
    if s.held:
        return Step(Layout(layout.stable))
    late = s.stage_s > times.deadline_s
    unasked = f"no server replica can be asked on port {SERVER_REPORT_PORT}: does a NetworkPolicy forbid it?"
    message = unasked if s.held is None else s.stable.message
    return Step(layout, "Loading", message, late=late, wake_s=times.deadline_s)


def _reject(
    layout: Layout, canary: Application, cause: Cause, message: str, handled: set[str] | frozenset[str] = frozenset()
) -> Step:
    rejection = Rejection(canary, cause, message)
    if layout.canary_weight == 0 and layout.step is None:
        return Step(Layout(layout.stable), rejection=rejection, handled=frozenset(handled))
    new = Layout(layout.stable, canary)
    return Step(new, "Dropping", rejection=rejection, handled=frozenset(handled), wake_s=1.0)


def _drop(s: Situation, layout: Layout, times: Times) -> Step:
    """The canary is not wanted: it loses its requests at once, and goes when it has answered those that it had."""
    canary = layout.canary
    assert canary is not None
    if layout.canary_weight > 0 or layout.step is not None:
        return Step(Layout(layout.stable, canary), "Dropping", wake_s=times.drain_s)
    if s.stage_s < times.drain_s and s.canary and s.canary.state == "Draining":
        return Step(layout, "Dropping", wake_s=times.drain_s - s.stage_s)
    return Step(Layout(layout.stable), wake_s=0.1)


def state_of(status: str | None) -> State:
    """Return the state of a revision from the status of its Ray Serve application."""
    return _STATES.get(status or "", "Starting")


# UNHEALTHY is no failure: Ray Serve has lost replicas, and starts others by itself within seconds.
_STATES: Mapping[str, State] = {"RUNNING": "Running", "UNHEALTHY": "Unhealthy", "DEPLOY_FAILED": "Failed"}
