"""How it stands with a ModelDeployment, in a sentence or two: one function for each thing that a policy may say.

The policies choose; the words are here. `status` turns a verdict into conditions and Events.
"""

import re
from collections.abc import Sequence

from luthier_api.modeldeployment import AdapterStatus, ColdStart
from luthier_api.reasons import Reason
from luthier_operator.manifests.rayservice import Application
from luthier_operator.model.actions import EventNote
from luthier_operator.model.views import PodReport, RayServiceView, Refusal
from luthier_operator.plan.modeldeployment import memory
from luthier_operator.plan.modeldeployment.rollout import Rejection, Situation, Step
from luthier_operator.plan.pods.diagnosis import Diagnosis, clip
from luthier_operator.plan.target import NoTarget
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


def no_target(wait: NoTarget, answers: str | None) -> Verdict:
    """Nothing new may be served; the version now served, if there is one, stays in service."""
    if wait.final:
        return Verdict("Failed", wait.reason, wait.message, stalled=True)
    if answers is None:
        return Verdict("Waiting", wait.reason, wait.message, reconciling=True)
    return Verdict("Serving", Reason.SERVING, f"Version {answers} answers requests. {wait.message}", ready=True)


def rolling_out(
    step: Step,
    seen: Situation,
    wanted: Application,
    *,
    available: bool,
    diagnosis: Diagnosis | None,
    invalid: str | None,
    deadline_s: int,
) -> Verdict:
    """Return how a rollout stands, from its next step."""
    now = seen.layout
    old = now.stable if now and now.stable.name != wanted.name and available else None
    still = f" Version {old.version} still answers requests." if old else ""
    if invalid:
        text = f"KubeRay does not accept the RayService: {clip(invalid)}"
        return Verdict("Failed", Reason.POD_REFUSED, text, stalled=True)
    if step.rejection or seen.rejected:
        # It is tried again when the spec, the version or the retry annotation changes.
        reason, text = rejected(step.rejection, deadline_s) if step.rejection else seen.why_rejected
        return Verdict("Failed", reason, text + still, stalled=True)
    mine = seen.stable if now and now.stable.name == wanted.name else seen.canary
    settled = now is not None and step.layout == now and step.stage is None
    if settled and mine and mine.state == "Running" and available and seen.held is not False and not seen.upgrading:
        return Verdict("Serving", Reason.SERVING, f"Version {wanted.version} answers requests.", ready=True)
    if step.late or (settled and mine and mine.state == "Failed"):
        return _not_up(step, wanted, mine.message if mine else "", mine.state if mine else "", diagnosis, deadline_s)
    phase = "RollingOut" if available else "Deploying"
    if diagnosis:
        return Verdict(phase, diagnosis.reason, diagnosis.message + still, reconciling=True)
    reason = Reason.ROLLING_OUT if available else Reason.DEPLOYING
    return Verdict(phase, reason, _progress(step, seen, wanted, still, available=available), reconciling=True)


def _progress(step: Step, seen: Situation, wanted: Application, still: str, *, available: bool) -> str:
    """Return what a rollout waits for."""
    version, why = f"Version {wanted.version}", f" {_capital(step.message)}." if step.message else ""
    stable = _capital(seen.stable.message)
    if step.stage == "Step" and step.layout.step is not None:
        return f"{version} answers {step.layout.canary_weight} % of the requests, step {step.layout.step + 1}.{why}"
    if step.stage == "Shifted":
        return f"{version} answers all requests; those that the version before it still has are answered first."
    if step.stage == "Loading":
        return f"{version} answers all requests; the server replicas load it.{why}"
    if step.stage == "Dropping":
        return f"Another version is removed before version {wanted.version} starts.{still}"
    if step.stage == "Starting":
        return f"{version} is starting beside the one in service.{still}{why}"
    if seen.upgrading:
        return f"A second Ray cluster is starting for version {wanted.version}; the first answers requests until then."
    if seen.stable.state == "Unhealthy":
        text = f"{version} has lost a replica, which Ray Serve starts again. {stable}"
        return text.strip()
    if available:
        return f"{version} is being loaded; the one before it answers requests until then. {stable}".strip()
    return f"The server for version {wanted.version} is starting. {stable}".strip()


def rejected(rejection: Rejection, deadline_s: int) -> tuple[Reason, str]:
    """Return why a revision is rolled back, in one word and one sentence; the status keeps both."""
    version, why = rejection.application.version, rejection.message.strip().rstrip(".")
    if rejection.cause == "Late":
        text = f"Version {version} did not start within {deadline_s} s." + (f" {_capital(why)}." if why else "")
        return Reason.PROGRESS_DEADLINE_EXCEEDED, text
    if rejection.cause == "Failed":
        return Reason.REVISION_FAILED, _failed(version, why)
    if rejection.cause == "Aborted":
        why = "luthier.dev/abort asked for it"
    return Reason.ROLLED_BACK, f"Version {version} was rolled back: {why}."


def _not_up(
    step: Step, wanted: Application, message: str, state: str, diagnosis: Diagnosis | None, deadline_s: int
) -> Verdict:
    """The server's own revision has not come up."""
    why = diagnosis.message if diagnosis else message
    if step.late:
        what = "has been unhealthy for" if state == "Unhealthy" else "did not start within"
        text = f"Version {wanted.version} {what} {deadline_s} s. {_capital(why)}".strip()
        return Verdict("Failed", Reason.PROGRESS_DEADLINE_EXCEEDED, text, stalled=True)
    return Verdict("Failed", Reason.REVISION_FAILED, _failed(wanted.version, message.rstrip(".")), stalled=True)


def _failed(version: str, why: str) -> str:
    """Return that a version does not start, or that it did and failed."""
    what = "failed" if why.startswith((memory.RAN_OUT, memory.PERHAPS)) else "does not start"
    return f"Version {version} {what}: {why or 'Ray Serve gave no reason; see the logs of its pods'}."


def _capital(text: str) -> str:
    """Return a text as a sentence of its own; an address stays as it is."""
    return text if "//" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def with_api_keys(verdict: Verdict, reports: Sequence[PodReport]) -> Verdict:
    """Return a verdict with what the replicas say of their API keys: where no key is valid, nobody is answered."""
    keys = [each.report.api_keys for each in reports if each.report and each.report.api_keys]
    why = next((clip(each.message) for each in keys if each.message), "")
    if not why or not verdict.ready:
        return verdict
    text = f"{verdict.message} But {why[0].lower()}{why[1:]} Put a key into the Secret of auth.apiKeysSecretRef."
    return Verdict(verdict.phase, Reason.NO_API_KEYS, text, reconciling=True)


def idle(last: ColdStart | None, *, starting: bool) -> Verdict:
    """There is no replica, because nobody asked for one."""
    took = f", which took {float(last.seconds):.0f} s last time" if last else ""
    text = f"Scaled to zero; the first request starts a replica{took}."
    if starting:
        text = f"Scaled to zero; a replica is starting{took}, and requests wait for it."
    return Verdict("Idle", Reason.IDLE, text, ready=True)


def waking(version: str) -> Verdict:
    """A server that slept starts a replica for a version that has not answered yet."""
    text = f"A replica is starting for version {version}; requests wait for it."
    return Verdict("RollingOut", Reason.ROLLING_OUT, text, reconciling=True)


def with_adapters(verdict: Verdict, name: str, version: str, rows: Sequence[AdapterStatus]) -> Verdict:
    """A version is in service: what its adapters do."""
    answers = f"Version {version} answers requests"
    if failed := [row for row in rows if row.state == "Failed"]:
        first, more = failed[0], f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        text = f"{answers}, but the adapter {name}:{first.name} cannot be loaded{more}: {clip(first.message or '')}"
        return Verdict("Serving", Reason.ADAPTER_FAILED, text.rstrip(": "), stalled=True)
    if loading := [row.name for row in rows if row.state == "Loading"]:
        text = f"{answers}; adapters are being loaded: {', '.join(loading[:5])}."
        return Verdict("Serving", Reason.ROLLING_OUT, text, reconciling=True)
    return verdict


def unreadable(why: str) -> Verdict:
    """This version of the operator cannot read the spec."""
    return Verdict("Failed", Reason.INVALID_SPEC, why, stalled=True)


def refused(refusal: Refusal) -> Verdict:
    """The cluster does not accept the RayService."""
    text = f"The cluster refuses the server: {clip(refusal.message)}"
    return Verdict("Failed", Reason.INVALID_SPEC, text, stalled=True)
