"""What to do for a ModelDeployment: which version, on which server, with which share of the requests.

      1. taken         a RayService of this name belongs to somebody else
      2. suspended     there is no server
      3. not allowed   the image that the spec names may not run here; what is served already goes on
      4. no KubeRay    nothing can be served here yet
      5. no target     nothing is published yet; what is served already goes on
      6. rolling out   see `rollout`

Pure: no clock, no network, no randomness. What is live is read from the RayService; the status is memory only for since
when, and for what has failed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_operator.manifests import rayservice as manifests
from luthier_operator.manifests.rayservice import Application
from luthier_operator.model.actions import Apply, Delete, Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.timestamps import rfc3339, seconds_since
from luthier_operator.model.views import FineTuneJobView, Meta, PodView, RayServiceView, Refusal
from luthier_operator.plan.finetunejob import status as report
from luthier_operator.plan.finetunejob.status import Verdict
from luthier_operator.plan.modeldeployment import status as serving_report
from luthier_operator.plan.modeldeployment.rollout import Limits, Live, Step, next_step, state_of
from luthier_operator.plan.modeldeployment.status import Outlook
from luthier_operator.plan.modeldeployment.target import NoTarget, Target, target_of
from luthier_operator.plan.pods import diagnosis as troubles
from luthier_operator.plan.pods import image_policy


@dataclass(frozen=True)
class ObservedServing:
    """What there is in the cluster for one ModelDeployment."""

    rayservice: RayServiceView | None = None
    finetunejob: FineTuneJobView | None = None
    """The FineTuneJob that the spec names, if there is one."""
    pods: Sequence[PodView] = ()
    kuberay_installed: bool = True
    refused: Refusal | None = None
    """What the cluster said when the plan that follows from all this was carried out, if it did not accept it."""


@dataclass(frozen=True)
class Situation:
    """All that a policy looks at."""

    resource: ModelDeploymentResource
    observed: ObservedServing
    target: Target | NoTarget
    live: tuple[Live, ...]
    now: datetime
    defaults: Defaults

    @property
    def spec(self) -> ModelDeploymentSpec:
        """What the user asks for."""
        return self.resource.spec

    @property
    def server(self) -> RayServiceView | None:
        """The resource's own RayService."""
        server = self.observed.rayservice
        return server if server and server.owner_uid == self.resource.meta.uid else None

    @property
    def available(self) -> bool:
        """Whether requests are answered now."""
        if self.server is None or not self.server.serving:
            return False
        if self.server.upgrading:  # KubeRay tells of the new cluster only, while the old one answers
            return True
        return any(each.weight > 0 and each.state == "Running" for each in self.live)


@dataclass(frozen=True)
class Decision:
    """What a policy wants done, and what it says about it."""

    verdict: Verdict
    live: tuple[Live, ...] = ()
    given_up: Live | None = None
    update: str | None = None
    deletes: tuple[Delete, ...] = ()
    applies: tuple[Apply, ...] = ()
    requeue_after_s: float | None = None


Policy = Callable[[Situation], Decision | None]


def plan_modeldeployment(
    resource: ModelDeploymentResource, observed: ObservedServing, now: datetime, defaults: Defaults
) -> Plan:
    """Return all that is to be done for a ModelDeployment."""
    if resource.meta.deleting:
        return Plan()  # the garbage collector removes the RayService
    if observed.refused is not None:
        said = serving_report.refused(observed.refused)
        return _saying(resource.meta, resource.status, said, now, defaults.refused_retry_s)
    target = target_of(resource.spec, observed.finetunejob)
    situation = Situation(resource, observed, target, _live(resource, observed, target, now), now, defaults)
    decision = next(decision for policy in POLICIES if (decision := policy(situation)))
    outlook = Outlook(
        live=decision.live,
        given_up=decision.given_up,
        update=decision.update,
        available=situation.available and not resource.spec.suspend,
        server=situation.server,
    )
    status = serving_report.status(resource.meta, resource.status, decision.verdict, outlook, rfc3339(now))
    return Plan(
        deletes=decision.deletes,
        applies=decision.applies,
        status=None if status == resource.status else status.to_wire(),
        events=serving_report.transitions(resource.status, status),
        requeue_after_s=decision.requeue_after_s,
    )


def plan_unreadable(meta: Meta, before: ModelDeploymentStatus, why: str, now: datetime) -> Plan:
    """Return what is to be done for a resource whose spec cannot be read, which `why` explains: to say so."""
    return _saying(meta, before, why, now)


def _saying(
    meta: Meta, before: ModelDeploymentStatus, message: str, now: datetime, again_s: float | None = None
) -> Plan:
    """Return the plan that writes nothing but a status and its Events."""
    after = serving_report.only_saying(meta, before, message, rfc3339(now))
    status = None if after == before else after.to_wire()
    return Plan(status=status, events=serving_report.transitions(before, after), requeue_after_s=again_s)


def taken(s: Situation) -> Decision | None:
    """A RayService of this name is there, and is not ours: it is never touched."""
    if s.observed.rayservice is None or s.server is not None:
        return None
    return Decision(serving_report.name_taken(s.observed.rayservice))


def suspended(s: Situation) -> Decision | None:
    """There is no server while `suspend` is set."""
    if not s.spec.suspend:
        return None
    server = s.server
    gone = () if server is None or server.deleting else (_delete(s, server),)
    return Decision(serving_report.suspended(), deletes=gone)


def not_allowed(s: Situation) -> Decision | None:
    """The image that the spec names may not run here. What is served already goes on, untouched."""
    refusal = image_policy.violation(s.spec.runtime.image, s.defaults.allowed_images, s.defaults.server_image)
    return None if refusal is None else Decision(report.image_not_allowed(refusal), live=s.live)


def no_kuberay(s: Situation) -> Decision | None:
    """The cluster knows no RayService; the user may install KubeRay at any time."""
    if s.observed.kuberay_installed:
        return None
    return Decision(serving_report.no_kuberay(), requeue_after_s=s.defaults.kuberay_retry_s)


def no_target(s: Situation) -> Decision | None:
    """Nothing is published that may be served. What is served already goes on, untouched."""
    if isinstance(s.target, Target):
        return None
    return Decision(serving_report.no_target(s.target, s.live, available=s.available), live=s.live)


def rolling_out(s: Situation) -> Decision | None:
    """Take the next step of the rollout, which is none when all is as it should be."""
    assert isinstance(s.target, Target)
    wanted = _wanted(s.resource, s.target)
    given_up_before = _given_up(s.resource.status, wanted)
    step = next_step(s.live, wanted, _limits(s), given_up=given_up_before is not None)
    applies = _applies(s, s.target, step)
    trouble = troubles.trouble_of(s.observed.pods)
    verdict = serving_report.rolling_out(
        step, wanted, available=s.available, trouble=trouble, refused=s.server.refused if s.server else None,
        failed_before=given_up_before, deadline_s=s.spec.rollout.progress_deadline_seconds,
    )  # fmt: skip
    removed = step.failed if step.failed and step.failed.name not in step.weights else None
    return Decision(
        verdict,
        live=step.live,
        given_up=removed,
        update=wanted.name,
        applies=applies,
        requeue_after_s=step.wake_s,
    )


POLICIES: tuple[Policy, ...] = (taken, suspended, not_allowed, no_kuberay, no_target, rolling_out)


def _wanted(resource: ModelDeploymentResource, target: Target) -> Application:
    return manifests.revision(
        resource.spec,
        version=target.version,
        uri=target.uri,
        digest=target.digest,
        grant=target.grant,
        retry=resource.meta.retry,
    )


def _live(
    resource: ModelDeploymentResource, observed: ObservedServing, target: Target | NoTarget, now: datetime
) -> tuple[Live, ...]:
    """Return the revisions that the RayService holds, each with what Ray Serve says of it."""
    server = observed.rayservice
    if server is None or server.owner_uid != resource.meta.uid:
        return ()
    applications, weights = manifests.read_serve_config(server.serve_config)
    wanted = _wanted(resource, target).name if isinstance(target, Target) else None
    before = {each.name: each for each in resource.status.revisions}
    told = server.observed_generation >= server.generation
    live = []
    for application in applications:
        weight = weights.get(application.name, 0)
        # What KubeRay last told may be older than this configuration: a name may have been there before.
        view = server.applications.get(application.name) if told or weight else None
        state, message = state_of(view, weight, is_target=application.name == wanted)
        known = before.get(application.name)
        age = seconds_since(known.since, now) if known and known.state == state else 0.0
        live.append(Live(application, weight, age, state, serving_report.sentence(message)))
    return tuple(live)


def _given_up(status: ModelDeploymentStatus, wanted: Application) -> str | None:
    """Return why this very revision was given up before, if it was."""
    found = next((each for each in status.revisions if each.name == wanted.name and each.state == "Failed"), None)
    if found is None or found.traffic_percent:
        return None
    return found.message or ""


def _limits(s: Situation) -> Limits:
    return Limits(float(s.spec.rollout.progress_deadline_seconds), s.defaults.drain_s, s.defaults.settle_s)


def _applies(s: Situation, target: Target, step: Step) -> tuple[Apply, ...]:
    """Return the RayService, if what is applied differs from what is wanted."""
    meta = s.resource.meta
    config = manifests.serve_config(meta, s.spec, [each.application for each in step.live], step.weights)
    manifest = manifests.rayservice(meta, s.spec, config=config, grant=target.grant, defaults=s.defaults)
    unchanged = s.server is not None and s.server.spec_hash == manifests.hash_of(manifest)
    return () if unchanged or (s.server and s.server.deleting) else (Apply(manifest),)


def _delete(s: Situation, server: RayServiceView) -> Delete:
    return Delete(manifests.API_VERSION, "RayService", s.resource.meta.namespace, server.name, server.uid)
