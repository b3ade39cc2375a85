"""How it stands with a ModelDeployment, in a sentence or two: one function for each thing that a policy may say.

The policies choose; the words are here. `status` turns a verdict into conditions and Events.
"""

import re

from luthier_api.reasons import Reason
from luthier_operator.manifests.rayservice import Application
from luthier_operator.model.actions import EventNote
from luthier_operator.model.views import RayServiceView, Refusal
from luthier_operator.plan.modeldeployment.rollout import Live, Step
from luthier_operator.plan.modeldeployment.target import NoTarget
from luthier_operator.plan.pods.diagnosis import Diagnosis, clip
from luthier_operator.plan.verdict import Verdict

_LOAD_ERROR = re.compile(r"LoadError: (?:[A-Z][A-Za-z]+: )?(?P<sentence>[^\n]+)")


def sentence(message: str) -> str:
    """Return the one sentence for people in a message of Ray Serve, which may contain a whole traceback."""
    found = _LOAD_ERROR.findall(message)
    if found:
        return clip(found[-1])
    return clip(message.strip().partition("\n")[0])


def name_taken(other: RayServiceView) -> Verdict:
    """A RayService of this name belongs to something else."""
    if other.deleting:
        text = f"Waiting for the RayService {other.name} of an earlier resource to be removed."
        return Verdict("Waiting", Reason.DEPLOYING, text, reconciling=True)
    if other.orphan:
        text = (
            f"The RayService {other.name} was left behind by an earlier ModelDeployment of this name and is of another "
            f"spec or version, so it cannot be taken over. Apply the spec that it was made from, or delete it: kubectl "
            f"delete rayservice {other.name}. It answers requests until then."
        )
        return Verdict("Failed", Reason.CONFIG_ERROR, text, stalled=True)
    text = f"A RayService named {other.name} exists and is not Luthier's. Delete it, or rename this resource."
    return Verdict("Failed", Reason.CONFIG_ERROR, text, stalled=True)


def adopted(name: str) -> EventNote:
    """Return the Event about a RayService that an earlier resource of this name and spec left behind."""
    text = f"The RayService {name} of an earlier ModelDeployment of this name and spec is taken over as it is."
    return EventNote(Reason.ADOPTED, text)


def suspended() -> Verdict:
    """The user has suspended the resource."""
    return Verdict("Suspended", Reason.SUSPENDED, "Nothing is served while suspend is true.")


def no_kuberay() -> Verdict:
    """The cluster has no RayService resource."""
    text = "KubeRay is not installed in this cluster. Install its operator 1.6; serving then starts by itself."
    return Verdict("Waiting", Reason.KUBERAY_NOT_INSTALLED, text, reconciling=True)


def no_target(wait: NoTarget, live: tuple[Live, ...], *, available: bool) -> Verdict:
    """Nothing new may be served; the version now served stays in service."""
    if wait.final:
        return Verdict("Failed", wait.reason, wait.message, stalled=True)
    serving = next((each for each in live if each.weight > 0), None)
    if serving is None or not available:
        return Verdict("Waiting", wait.reason, wait.message, reconciling=True)
    text = f"Version {serving.application.version} answers requests. {wait.message}"
    return Verdict("Serving", Reason.SERVING, text, ready=True)


def rolling_out(
    step: Step,
    wanted: Application,
    *,
    available: bool,
    diagnosis: Diagnosis | None,
    invalid: str | None,
    failed_before: str | None,
    deadline_s: int,
) -> Verdict:
    """Return how a rollout stands, from its next step."""
    old = next((each for each in step.live if each.weight > 0 and each.name != wanted.name), None)
    still = f" Version {old.application.version} still answers requests." if old else ""
    if invalid:
        text = f"KubeRay does not accept the RayService: {clip(invalid)}"
        return Verdict("Failed", Reason.POD_REFUSED, text, stalled=True)
    if step.failed or failed_before is not None:
        return _failed(step, wanted, failed_before, diagnosis, still, deadline_s)
    mine = next(each for each in step.live if each.name == wanted.name)
    if mine.weight == 100 and mine.state == "Running" and available:
        return Verdict("Serving", Reason.SERVING, f"Version {wanted.version} answers requests.", ready=True)
    if diagnosis:
        return Verdict(
            "RollingOut" if old else "Deploying", diagnosis.reason, diagnosis.message + still, reconciling=True
        )
    if old or (available and mine.weight == 100):
        text = f"Version {wanted.version} is starting beside the one in service.{still}"
        return Verdict("RollingOut", Reason.ROLLING_OUT, text, reconciling=True)
    if mine.state == "Unhealthy":
        text = f"Version {wanted.version} has lost a replica, which Ray Serve starts again. {mine.message}".strip()
        return Verdict("Deploying", Reason.DEPLOYING, text, reconciling=True)
    text = f"The server for version {wanted.version} is starting." + (f" {mine.message}" if mine.message else "")
    return Verdict("Deploying", Reason.DEPLOYING, text, reconciling=True)


def _failed(
    step: Step, wanted: Application, before: str | None, diagnosis: Diagnosis | None, still: str, deadline_s: int
) -> Verdict:
    """The revision does not start. It is tried again when the spec, the version or the retry annotation changes."""
    if step.failed and step.late:
        why = diagnosis.message if diagnosis else step.failed.message
        what = "has been unhealthy for" if step.failed.state == "Unhealthy" else "did not start within"
        text = f"Version {wanted.version} {what} {deadline_s} s. {why}".strip()
        return Verdict("Failed", Reason.PROGRESS_DEADLINE_EXCEEDED, f"{text}{still}", stalled=True)
    why = (step.failed.message if step.failed else before) or "Ray Serve gave no reason; see the logs of its pods."
    text = f"Version {wanted.version} does not start: {why.rstrip('.')}.{still}"
    return Verdict("Failed", Reason.REVISION_FAILED, text, stalled=True)


def unreadable(why: str) -> Verdict:
    """This version of the operator cannot read the spec."""
    return Verdict("Failed", Reason.INVALID_SPEC, why, stalled=True)


def refused(refusal: Refusal) -> Verdict:
    """The cluster does not accept the RayService."""
    text = f"The cluster refuses the server: {clip(refusal.message)}"
    return Verdict("Failed", Reason.INVALID_SPEC, text, stalled=True)
