"""The status of a ModelDeployment: conditions as kstatus defines them, the revisions, and Events on transitions.

`Available` says whether requests are answered, and stays true while an update fails. `Ready` says whether the version
that the spec asks for answers them all. What the sentences say is up to `verdicts`.
"""

from dataclasses import dataclass
from datetime import datetime

from luthier_api.conditions import find_condition, merge_conditions
from luthier_api.documents import SERVE_PORT
from luthier_api.finetunejob import LastFailure
from luthier_api.modeldeployment import ModelDeploymentStatus, RevisionStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.model import names
from luthier_operator.model.actions import EventNote
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import Meta, RayServiceView
from luthier_operator.plan.modeldeployment.rollout import Live
from luthier_operator.plan.verdict import Verdict


@dataclass(frozen=True)
class Outlook:
    """What the server has, for the status."""

    live: tuple[Live, ...]
    given_up: Live | None
    update: str | None
    available: bool
    server: RayServiceView | None


def status_of(
    meta: Meta, before: ModelDeploymentStatus, verdict: Verdict, outlook: Outlook, now: datetime
) -> ModelDeploymentStatus:
    """Return the whole new status."""
    current = next((each for each in outlook.live if each.weight > 0), None)
    server = outlook.server
    failure = before.last_failure
    if verdict.stalled:
        failure = LastFailure(reason=verdict.reason, message=verdict.message)
    return ModelDeploymentStatus(
        observed_generation=meta.generation,
        phase=verdict.phase,
        conditions=merge_conditions(
            before.conditions, _conditions(verdict, outlook), generation=meta.generation, now=rfc3339(now)
        ),
        url=f"http://{names.serve_service(meta.name)}.{meta.namespace}.svc:{SERVE_PORT}" if server else None,
        replicas=server.workers if server else 0,
        ready_replicas=server.ready_workers if server and outlook.available else 0,
        selector=f"{names.MODELDEPLOYMENT}={meta.name},{names.COMPONENT}=worker",
        current_revision=current.name if current else None,
        current_version=current.application.version if current else None,
        update_revision=outlook.update,
        revisions=_revisions(before, outlook, now),
        last_failure=None if verdict.ready else failure,
    )


def with_conditions(
    meta: Meta, before: ModelDeploymentStatus, verdict: Verdict, now: datetime
) -> ModelDeploymentStatus:
    """Return the status with new conditions and nothing else changed, for a resource that cannot be acted on."""
    available = find_condition(before.conditions, ConditionType.AVAILABLE)
    rows = [
        (ConditionType.READY, verdict.ready, verdict.reason, verdict.message),
        (ConditionType.STALLED, verdict.stalled, verdict.reason, verdict.message),
    ]
    conditions = merge_conditions(before.conditions, rows, generation=meta.generation, now=rfc3339(now))
    kept = [*conditions, *([available] if available else [])]
    update = {"observed_generation": meta.generation, "phase": verdict.phase, "conditions": kept}
    return before.model_copy(update=update)


def _revisions(before: ModelDeploymentStatus, outlook: Outlook, now: datetime) -> list[RevisionStatus]:
    """Return the live revisions, and the one that was given up for as long as it is what the spec asks for."""
    known = {each.name: each for each in before.revisions}
    rows = []
    text_now = rfc3339(now)
    for live in (*outlook.live, *([outlook.given_up] if outlook.given_up else [])):
        state = "Failed" if live is outlook.given_up else live.state
        old = known.get(live.name)
        rows.append(
            RevisionStatus(
                name=live.name,
                version=live.application.version,
                uri=live.application.args["modelUri"],
                digest=live.application.args["digest"],
                traffic_percent=0 if live is outlook.given_up else live.weight,
                state=state,
                since=old.since if old and old.state == state else text_now,
                message=live.message or None,
            )
        )
    listed = {row.name for row in rows}
    kept = [each for each in before.revisions if each.state == "Failed" and each.name == outlook.update]
    return rows + [each for each in kept if each.name not in listed]


def _conditions(verdict: Verdict, outlook: Outlook) -> list[tuple[ConditionType, bool, Reason, str]]:
    answers = next((each.application.version for each in outlook.live if each.weight > 0), None)
    availability = f"Version {answers} answers requests." if outlook.available else "No request is answered."
    rows = [
        (ConditionType.READY, verdict.ready, verdict.reason, verdict.message),
        (ConditionType.RECONCILING, verdict.reconciling, verdict.reason, verdict.message),
        (ConditionType.STALLED, verdict.stalled, verdict.reason, verdict.message),
        (
            ConditionType.AVAILABLE,
            outlook.available,
            Reason.SERVING if outlook.available else Reason.UNAVAILABLE,
            availability,
        ),
    ]
    only_when_true = (ConditionType.RECONCILING, ConditionType.STALLED)
    return [row for row in rows if row[1] or row[0] not in only_when_true]


def transitions(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> tuple[EventNote, ...]:
    """Return an Event if the reason, or the version that answers, has changed."""
    old = find_condition(before.conditions, ConditionType.READY)
    new = find_condition(after.conditions, ConditionType.READY)
    assert new is not None
    moved = before.current_version != after.current_version and new.status == "True"
    if old and old.reason == new.reason and not moved:
        return ()
    return (EventNote(Reason(new.reason), new.message, warning=new.reason not in _NORMAL),)


_NORMAL = {
    Reason.WAITING_FOR_MODEL,
    Reason.DEPLOYING,
    Reason.ROLLING_OUT,
    Reason.SERVING,
    Reason.SUSPENDED,
}
