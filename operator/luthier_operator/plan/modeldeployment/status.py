"""The status of a ModelDeployment: conditions as kstatus defines them, the revisions, and Events on transitions.

`Available` says whether requests are answered, and stays true while an update fails. `Ready` says whether the version
that the spec asks for answers them all. What the sentences say is up to `verdicts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from luthier_api.base import decimal_text
from luthier_api.conditions import find_condition, merge_conditions
from luthier_api.documents import SERVE_PORT, ServerReport
from luthier_api.finetunejob import LastFailure
from luthier_api.modeldeployment import (
    ModelDeploymentStatus,
    RejectedRevision,
    RevisionStatus,
    RolloutStatus,
    ServedRevision,
)
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests.rayservice import Application, Layout
from luthier_operator.model import names
from luthier_operator.model.actions import EventNote
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import Meta, PodReport, PodView, RayServiceView
from luthier_operator.plan.modeldeployment import drift, sleep, verdicts
from luthier_operator.plan.modeldeployment.adapters import adapters_of
from luthier_operator.plan.modeldeployment.analysis import figures_of
from luthier_operator.plan.modeldeployment.exposure import Exposure
from luthier_operator.plan.modeldeployment.rollout import Seen, Situation, Step, steps_of
from luthier_operator.plan.verdict import Verdict

_KEPT_REVISIONS = 11
_KEPT_REJECTED = 8


@dataclass(frozen=True)
class Outlook:
    """What the server has, for the status.

    Attributes:
        layout: what is on the server now; the step has what is to be there next.
        rollout: how the rollout stands.
        step: what is done now; None if the rollout does not move.
        update: the revision that the spec asks for.
        holds_requests: whether there is no replica, and requests wait until one has started.
    """

    layout: Layout | None
    rollout: Situation
    step: Step | None
    update: str | None
    available: bool
    server: RayServiceView | None
    workers: int = 0
    reports: Sequence[PodReport] = ()
    pods: Sequence[PodView] = ()
    holds_requests: bool = False
    exposure: Exposure = field(default_factory=Exposure)
    ended: Sequence[ServerReport] = ()

    @property
    def next_layout(self) -> Layout | None:
        """What is on the server once the plan is carried out."""
        return self.step.layout if self.step else self.layout

    @property
    def answering(self) -> Application | None:
        """The revision with the most requests now."""
        layout = self.layout
        if layout is None:
            return None
        weights = layout.weights
        best = max(weights, key=lambda name: weights[name])
        return layout.canary if layout.canary and layout.canary.name == best else layout.stable


def status_of(
    resource: ModelDeploymentResource, verdict: Verdict, outlook: Outlook, now: datetime
) -> ModelDeploymentStatus:
    """Return the whole new status."""
    meta, before = resource.meta, resource.status
    server = outlook.server
    revision, version = _current(before, outlook)
    failure = before.last_failure
    if verdict.stalled:
        failure = LastFailure(reason=verdict.reason, message=verdict.message)
    rows = [
        *_conditions(verdict, outlook, version),
        *drift.conditions(resource, outlook.answering if outlook.available else None, outlook.reports),
    ]
    return ModelDeploymentStatus(
        observed_generation=meta.generation,
        phase=verdict.phase,
        conditions=merge_conditions(before.conditions, rows, generation=meta.generation, now=rfc3339(now)),
        url=f"http://{names.serve_service(meta.name)}.{meta.namespace}.svc:{SERVE_PORT}" if server else None,
        urls=list(outlook.exposure.urls),
        replicas=outlook.workers,
        ready_replicas=_ready_replicas(outlook),
        selector=f"{names.MODELDEPLOYMENT}={meta.name},{names.COMPONENT}=worker",
        current_revision=revision,
        current_version=version,
        update_revision=outlook.update,
        revisions=_revisions(before, outlook, now),
        rollout=_rollout(resource, outlook, now),
        adapters=adapters_of(resource.spec, outlook.reports, before.adapters),
        cold_start=sleep.cold_start(resource.spec, outlook.pods, outlook.reports, before.cold_start),
        rejected=_rejected(resource, outlook, now),
        history=_history(before, outlook),
        handled=_handled(resource, outlook),
        last_failure=None if verdict.ready else failure,
    )


def with_conditions(
    meta: Meta, before: ModelDeploymentStatus, verdict: Verdict, now: datetime
) -> ModelDeploymentStatus:
    """Return the status with new conditions and nothing else changed, for a resource that cannot be acted on."""
    unchanged = [find_condition(before.conditions, each) for each in (ConditionType.AVAILABLE, ConditionType.EXPOSED)]
    rows = [
        (ConditionType.READY, verdict.ready, verdict.reason, verdict.message),
        (ConditionType.STALLED, verdict.stalled, verdict.reason, verdict.message),
    ]
    conditions = merge_conditions(before.conditions, rows, generation=meta.generation, now=rfc3339(now))
    kept = [*conditions, *(each for each in unchanged if each)]
    update = {"observed_generation": meta.generation, "phase": verdict.phase, "conditions": kept}
    return before.model_copy(update=update)


def _ready_replicas(outlook: Outlook) -> int:
    """Return how many server replicas answer, by their own word; KubeRay's count of pods where none was asked."""
    if outlook.server is None or not outlook.available or outlook.holds_requests:
        return 0
    if outlook.reports:
        return sum(1 for each in outlook.reports if each.report and each.report.ready)
    return outlook.server.ready_workers


def _revisions(before: ModelDeploymentStatus, outlook: Outlook, now: datetime) -> list[RevisionStatus]:
    """Return the revisions that are on the server once the plan is carried out."""
    layout = outlook.next_layout
    if layout is None:
        return []
    known = {each.name: each for each in before.revisions}
    answers = [*(each.report for each in outlook.reports if each.report), *outlook.ended]
    rows = []
    for application, seen in _seen(layout, outlook):
        old = known.get(application.name)
        figures = figures_of(answers, application.name, layout.window) if layout.step is not None else None
        counted = figures if figures and figures.requests else None
        rate = figures.agreement_rate if figures else None
        rows.append(
            RevisionStatus(
                name=application.name,
                version=application.version,
                uri=application.args["modelUri"],
                digest=application.args["digest"],
                traffic_percent=layout.weights[application.name],
                state=seen.state,
                since=old.since if old and old.state == seen.state else rfc3339(now),
                message=seen.message or None,
                requests=counted.requests if counted else None,
                error_rate=decimal_text(counted.error_rate) if counted else None,
                p99_milliseconds=round(counted.p99_ms) if counted and counted.p99_ms is not None else None,
                agreement=decimal_text(rate) if rate is not None else None,
            )
        )
    return rows


def _seen(layout: Layout, outlook: Outlook) -> list[tuple[Application, Seen]]:
    """Return the revisions with their states; one that is only now put on the server is starting."""
    now = outlook.layout
    rows: list[tuple[Application, Seen]] = []
    for application in (layout.stable, layout.canary):
        if application is None or any(application.name == row[0].name for row in rows):
            continue
        seen = Seen("Starting")
        if now and application.name == now.stable.name:
            seen = outlook.rollout.stable
        elif now and now.canary and application.name == now.canary.name:
            seen = outlook.rollout.canary or seen
        if outlook.step and outlook.step.stage == "Dropping" and application is layout.canary:
            seen = Seen("Draining")
        rows.append((application, seen))
    return rows


def _rollout(resource: ModelDeploymentResource, outlook: Outlook, now: datetime) -> RolloutStatus | None:
    step, before = outlook.step, resource.status.rollout
    if step is None:
        return before
    if step.stage is None or step.layout.canary is None:
        return None
    layout, name = step.layout, step.layout.canary.name
    number = 0 if layout.step is None else layout.step + 1
    same = before is not None and (before.revision, before.stage, before.step) == (name, step.stage, number)
    judged = rfc3339(now) if outlook.rollout.judgement else (before.judged if same and before else None)
    message = step.message or (before.message if same and before else None)
    return RolloutStatus(
        revision=name,
        stage=step.stage,
        step=number,
        steps=len(steps_of(resource.spec.rollout)),
        weight=layout.canary_weight,
        since=before.since if same and before else rfc3339(now),
        paused=step.paused,
        failures=step.failures,
        judged=judged if same else None,
        message=message or None,
    )


def _rejected(resource: ModelDeploymentResource, outlook: Outlook, now: datetime) -> list[RejectedRevision]:
    rejection, before = outlook.step.rejection if outlook.step else None, resource.status
    if rejection is None:
        return before.rejected
    reason, message = verdicts.rejected(rejection, resource.spec.rollout.progress_deadline_seconds)
    row = RejectedRevision(
        name=rejection.application.name,
        version=rejection.application.version,
        reason=reason,
        message=message,
        at=rfc3339(now),
    )
    return [row, *(each for each in before.rejected if each.name != row.name)][:_KEPT_REJECTED]


def _history(before: ModelDeploymentStatus, outlook: Outlook) -> list[ServedRevision]:
    """Return the revisions that have had all requests, the newest first."""
    layout, step = outlook.layout, outlook.step
    answered = outlook.available and not outlook.holds_requests
    settled = layout and step and step.layout == layout and layout.canary is None and answered
    if not (layout and settled and outlook.rollout.stable.state == "Running" and outlook.rollout.held is not False):
        return before.history
    row = ServedRevision(name=layout.stable.name, version=layout.stable.version)
    return [row, *(each for each in before.history if each.name != row.name)][:_KEPT_REVISIONS]


def _handled(resource: ModelDeploymentResource, outlook: Outlook) -> dict[str, str]:
    """Return the wishes that are carried out; without a rollout there is nothing that they could still ask for."""
    step, wishes = outlook.step, resource.meta.wishes
    kept = {wish: value for wish, value in resource.status.handled.items() if wishes.get(wish) == value}
    if step is None:
        return kept
    over = step.stage is None and step.layout == outlook.layout
    done = outlook.rollout.wishes if over else step.handled
    return {**kept, **{wish: wishes[wish] for wish in sorted(done)}}


def _current(before: ModelDeploymentStatus, outlook: Outlook) -> tuple[str | None, str | None]:
    """Return the revision and the version with the most requests; the last ones known, if an earlier release's."""
    if outlook.server is None:
        return None, None
    now = outlook.answering
    return (now.name, now.version) if now else (before.current_revision, before.current_version)


def _conditions(
    verdict: Verdict, outlook: Outlook, answers: str | None
) -> list[tuple[ConditionType, bool | None, Reason, str]]:
    availability = f"Version {answers} answers requests." if outlook.available else "No request is answered."
    if outlook.holds_requests:
        availability = f"No replica runs: a request waits until one has started, and version {answers} answers it."
    rows: list[tuple[ConditionType, bool | None, Reason, str]] = [
        (ConditionType.READY, verdict.ready, verdict.reason, verdict.message),
        (ConditionType.RECONCILING, verdict.reconciling, verdict.reason, verdict.message),
        (ConditionType.STALLED, verdict.stalled, verdict.reason, verdict.message),
        (
            ConditionType.AVAILABLE,
            outlook.available,
            _availability(outlook),
            availability,
        ),
    ]
    way = outlook.exposure
    if way.open is not None:
        rows.append((ConditionType.EXPOSED, way.open, way.reason, f"{way.message[0].upper()}{way.message[1:]}"))
    only_when_true = (ConditionType.RECONCILING, ConditionType.STALLED)
    return [row for row in rows if row[1] or row[0] not in only_when_true]


def _availability(outlook: Outlook) -> Reason:
    if outlook.holds_requests:
        return Reason.IDLE
    return Reason.SERVING if outlook.available else Reason.UNAVAILABLE


def transitions(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> tuple[EventNote, ...]:
    """Return an Event if the reason, or the version that answers, has changed, and one if its texts begin to drift."""
    old = find_condition(before.conditions, ConditionType.READY)
    new = find_condition(after.conditions, ConditionType.READY)
    assert new is not None
    moved = before.current_version != after.current_version and new.status == "True"
    drifting = drift.transition(before.conditions, after.conditions)
    if old and old.reason == new.reason and not moved:
        return drifting
    return (EventNote(Reason(new.reason), new.message, warning=new.reason not in _NORMAL), *drifting)


_NORMAL = {
    Reason.WAITING_FOR_MODEL,
    Reason.DEPLOYING,
    Reason.ROLLING_OUT,
    Reason.SERVING,
    Reason.IDLE,
    Reason.SUSPENDED,
    Reason.WAITING_FOR_ROUTE,
}
