"""What a ModelDeployment's status says: the sentence, the conditions as kstatus defines them, and the Events.

`Available` tells whether requests are answered, and stays true while an update fails. `Ready` tells whether the version
that the spec asks for answers them all.
"""

import re
from dataclasses import dataclass

from luthier_api.conditions import find_condition, merge_conditions
from luthier_api.documents import SERVE_PORT
from luthier_api.finetunejob import LastFailure
from luthier_api.modeldeployment import ModelDeploymentStatus, RevisionStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests.rayservice import Application
from luthier_operator.model import names
from luthier_operator.model.actions import EventNote
from luthier_operator.model.views import Meta, RayServiceView, Refusal
from luthier_operator.plan.finetunejob.status import Verdict
from luthier_operator.plan.modeldeployment.rollout import Live, Step
from luthier_operator.plan.modeldeployment.target import NoTarget
from luthier_operator.plan.pods.diagnosis import Trouble, clip

_LOAD_ERROR = re.compile(r"LoadError: (?:[A-Z][A-Za-z]+: )?(?P<sentence>[^\n]+)")


@dataclass(frozen=True)
class Outlook:
    """What the server holds, as the status tells it."""

    live: tuple[Live, ...]
    given_up: Live | None
    update: str | None
    available: bool
    server: RayServiceView | None


def sentence(message: str) -> str:
    """Return the one sentence for people in a message of Ray Serve, which may hold a whole traceback."""
    found = _LOAD_ERROR.findall(message)
    if found:
        return clip(found[-1])
    return clip(message.strip().partition("\n")[0])


def name_taken(other: RayServiceView) -> Verdict:
    """A RayService of this name belongs to somebody else."""
    if other.deleting:
        text = f"Waiting for the RayService {other.name} of an earlier resource to be removed."
        return Verdict("Waiting", Reason.DEPLOYING, text, going_on=True)
    text = f"A RayService named {other.name} exists and is not Luthier's; delete it, or rename this resource."
    return Verdict("Failed", Reason.CONFIG_ERROR, text, stalled=True)


def suspended() -> Verdict:
    """The user asked for rest."""
    return Verdict("Suspended", Reason.SUSPENDED, "Nothing is served while suspend is true.")


def no_kuberay() -> Verdict:
    """The cluster knows no RayService."""
    text = "This cluster has no KubeRay; install KubeRay's operator 1.6, and serving starts by itself."
    return Verdict("Waiting", Reason.KUBERAY_NOT_INSTALLED, text, going_on=True)


def no_target(wait: NoTarget, live: tuple[Live, ...], *, available: bool) -> Verdict:
    """Nothing new may be served; what is served already goes on."""
    if wait.final:
        return Verdict("Failed", wait.reason, wait.message, stalled=True)
    serving = next((each for each in live if each.weight > 0), None)
    if serving is None or not available:
        return Verdict("Waiting", wait.reason, wait.message, going_on=True)
    text = f"Version {serving.application.version} answers requests. {wait.message}"
    return Verdict("Serving", Reason.SERVING, text, ready=True)


def rolling_out(
    step: Step,
    wanted: Application,
    *,
    available: bool,
    trouble: Trouble | None,
    refused: str | None,
    failed_before: str | None,
    deadline_s: int,
) -> Verdict:
    """Return how a rollout stands, from its next step."""
    old = next((each for each in step.live if each.weight > 0 and each.name != wanted.name), None)
    still = f" Version {old.application.version} still answers requests." if old else ""
    if refused:
        return Verdict("Failed", Reason.POD_REFUSED, f"KubeRay refuses the RayService: {clip(refused)}", stalled=True)
    if step.failed or failed_before is not None:
        return _failed(step, wanted, failed_before, trouble, still, deadline_s)
    mine = next(each for each in step.live if each.name == wanted.name)
    if mine.weight == 100 and mine.state == "Running" and available:
        return Verdict("Serving", Reason.SERVING, f"Version {wanted.version} answers requests.", ready=True)
    if trouble:
        return Verdict("RollingOut" if old else "Deploying", trouble.reason, trouble.message + still, going_on=True)
    if old or (available and mine.weight == 100):
        text = f"Version {wanted.version} is being started beside the one in service.{still}"
        return Verdict("RollingOut", Reason.ROLLING_OUT, text, going_on=True)
    text = f"The server for version {wanted.version} is starting." + (f" {mine.message}" if mine.message else "")
    return Verdict("Deploying", Reason.DEPLOYING, text, going_on=True)


def _failed(
    step: Step, wanted: Application, before: str | None, trouble: Trouble | None, still: str, deadline_s: int
) -> Verdict:
    """The revision does not start; it is tried again when the spec, the version or the retry annotation changes."""
    if step.failed and step.late:
        why = trouble.message if trouble else step.failed.message
        text = f"Version {wanted.version} did not start within {deadline_s} s. {why}".strip()
        return Verdict("Failed", Reason.PROGRESS_DEADLINE_EXCEEDED, f"{text}{still}", stalled=True)
    why = (step.failed.message if step.failed else before) or "Ray Serve gave no reason; see the logs of its pods."
    text = f"Version {wanted.version} does not start: {why.rstrip('.')}.{still}"
    return Verdict("Failed", Reason.REVISION_FAILED, text, stalled=True)


def status(
    meta: Meta, before: ModelDeploymentStatus, verdict: Verdict, outlook: Outlook, now: str
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
            before.conditions, _conditions(verdict, outlook), generation=meta.generation, now=now
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


def refused(refusal: Refusal) -> str:
    """Return the sentence that says that the cluster does not accept the RayService."""
    return f"The cluster refuses the server: {clip(refusal.message)}"


def only_saying(meta: Meta, before: ModelDeploymentStatus, message: str, now: str) -> ModelDeploymentStatus:
    """Return the status of a resource that cannot be acted on: it says why, and forgets nothing."""
    available = find_condition(before.conditions, ConditionType.AVAILABLE)
    rows = [(type_, value, Reason.INVALID_SPEC, message) for type_, value in _REFUSED]
    conditions = merge_conditions(before.conditions, rows, generation=meta.generation, now=now)
    kept = [*conditions, *([available] if available else [])]
    update = {"observed_generation": meta.generation, "phase": "Failed", "conditions": kept}
    return before.model_copy(update=update)


_REFUSED = ((ConditionType.READY, False), (ConditionType.STALLED, True))


def _revisions(before: ModelDeploymentStatus, outlook: Outlook, now: str) -> list[RevisionStatus]:
    """Return the live revisions, and the one that was given up for as long as it is what the spec asks for."""
    known = {each.name: each for each in before.revisions}
    rows = []
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
                since=old.since if old and old.state == state else now,
                message=live.message or None,
            )
        )
    listed = {row.name for row in rows}
    kept = [each for each in before.revisions if each.state == "Failed" and each.name == outlook.update]
    return rows + [each for each in kept if each.name not in listed]


def _conditions(verdict: Verdict, outlook: Outlook) -> list[tuple[ConditionType, bool, Reason, str]]:
    answers = next((each.application.version for each in outlook.live if each.weight > 0), None)
    told = f"Version {answers} answers requests." if outlook.available else "No request is answered."
    rows = [
        (ConditionType.READY, verdict.ready, verdict.reason, verdict.message),
        (ConditionType.RECONCILING, verdict.going_on, verdict.reason, verdict.message),
        (ConditionType.STALLED, verdict.stalled, verdict.reason, verdict.message),
        (
            ConditionType.AVAILABLE,
            outlook.available,
            Reason.SERVING if outlook.available else Reason.UNAVAILABLE,
            told,
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
