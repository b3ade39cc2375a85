"""What to do for a ModelDeployment: which version, on which server, with which share of the requests.

      1. name_taken    a RayService of this name belongs to something else
      2. suspended     there is no server
      3. not_allowed   the image that the spec names may not run here; the version now served stays in service
      4. no_kuberay    nothing can be served here yet
      5. no_target     nothing is published yet; the version now served stays in service
      6. rolling_out   see `rollout`

What is live is read from the RayService; the status remembers only since when, and what has failed.
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
from luthier_operator.model.timestamps import parse_time, seconds_since
from luthier_operator.model.views import FineTuneJobView, Meta, PodView, RayServiceView, Refusal
from luthier_operator.plan.modeldeployment import pods_missing, verdicts
from luthier_operator.plan.modeldeployment.rollout import Live, Step, Times, next_step, state_of
from luthier_operator.plan.modeldeployment.status import Outlook, status_of, transitions, with_conditions
from luthier_operator.plan.modeldeployment.target import NoTarget, Target, target_of
from luthier_operator.plan.pods import image_policy
from luthier_operator.plan.verdict import Verdict, image_not_allowed


@dataclass(frozen=True)
class ObservedServing:
    """What the cluster has for one ModelDeployment."""

    rayservice: RayServiceView | None = None
    finetunejob: FineTuneJobView | None = None
    """The FineTuneJob that the spec names, if there is one."""
    pods: Sequence[PodView] = ()
    kuberay_installed: bool = True
    pod_event: str = ""
    """Message of the newest Event that says why one of its pods could not be created."""
    refused: Refusal | None = None
    """Set if the plan that followed from all this was carried out and the cluster did not accept it."""


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
        if self.server.upgrading:  # KubeRay reports only the new cluster, while the old one answers
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
_ADOPTED_S = 1.0


def plan_modeldeployment(
    resource: ModelDeploymentResource, observed: ObservedServing, now: datetime, defaults: Defaults
) -> Plan:
    """Return all that is to be done for a ModelDeployment."""
    if resource.meta.deleting:
        return Plan()  # the garbage collector removes the RayService
    if observed.refused is not None:
        verdict = verdicts.refused(observed.refused)
        return _only_status(resource.meta, resource.status, verdict, now, defaults.refused_retry_s)
    target = target_of(resource.spec, observed.finetunejob)
    if adoption := _adoption(resource, observed, target, defaults):
        note = verdicts.adopted(resource.meta.name)
        return Plan(applies=(adoption,), events=(note,), requeue_after_s=_ADOPTED_S)
    situation = Situation(resource, observed, target, _live(resource, observed, target, now), now, defaults)
    decision = next(decision for policy in POLICIES if (decision := policy(situation)))
    outlook = Outlook(
        live=decision.live,
        given_up=decision.given_up,
        update=decision.update,
        available=situation.available and not resource.spec.suspend,
        server=situation.server,
    )
    status = status_of(resource.meta, resource.status, decision.verdict, outlook, now)
    return Plan(
        deletes=decision.deletes,
        applies=decision.applies,
        status=None if status == resource.status else status.to_wire(),
        events=transitions(resource.status, status),
        requeue_after_s=decision.requeue_after_s,
    )


def _adoption(
    resource: ModelDeploymentResource, observed: ObservedServing, target: Target | NoTarget, defaults: Defaults
) -> Apply | None:
    """Return the RayService with its owner, if one that an earlier resource left behind is as this one would make it.

    It is applied as it is, so nothing restarts. One in the middle of a rollout, or of another spec, is not taken over.
    """
    server = observed.rayservice
    if server is None or not server.orphan or server.deleting or not isinstance(target, Target):
        return None
    wanted = _wanted(resource, target)
    config = manifests.serve_config(resource.meta, resource.spec, [wanted], {wanted.name: 100})
    grant = target.grant
    manifest = manifests.rayservice(resource.meta, resource.spec, config=config, grant=grant, defaults=defaults)
    return Apply(manifest) if manifests.hash_of(manifest) == server.spec_hash else None


def plan_unreadable(meta: Meta, before: ModelDeploymentStatus, why: str, now: datetime) -> Plan:
    """Return what is to be done for a resource whose spec cannot be read, which `why` explains: to say so."""
    return _only_status(meta, before, verdicts.unreadable(why), now)


def _only_status(
    meta: Meta, before: ModelDeploymentStatus, verdict: Verdict, now: datetime, again_s: float | None = None
) -> Plan:
    """Return the plan that writes only conditions and their Events."""
    after = with_conditions(meta, before, verdict, now)
    status = None if after == before else after.to_wire()
    return Plan(status=status, events=transitions(before, after), requeue_after_s=again_s)


def name_taken(s: Situation) -> Decision | None:
    """A RayService of this name exists and is not this resource's: it is never touched."""
    if s.observed.rayservice is None or s.server is not None:
        return None
    return Decision(verdicts.name_taken(s.observed.rayservice))


def suspended(s: Situation) -> Decision | None:
    """There is no server while `suspend` is set."""
    if not s.spec.suspend:
        return None
    server = s.server
    deletes = () if server is None or server.deleting else (_delete(s, server),)
    return Decision(verdicts.suspended(), deletes=deletes)


def not_allowed(s: Situation) -> Decision | None:
    """The image that the spec names may not run here. The version now served stays in service, untouched."""
    violation = image_policy.violation(s.spec.runtime.image, s.defaults.allowed_images, s.defaults.server_image)
    return None if violation is None else Decision(image_not_allowed(violation), live=s.live)


def no_kuberay(s: Situation) -> Decision | None:
    """The cluster has no RayService resource; KubeRay may be installed at any time."""
    if s.observed.kuberay_installed:
        return None
    return Decision(verdicts.no_kuberay(), requeue_after_s=s.defaults.kuberay_retry_s)


def no_target(s: Situation) -> Decision | None:
    """Nothing is published that may be served. The version now served stays in service, untouched."""
    if isinstance(s.target, Target):
        return None
    return Decision(verdicts.no_target(s.target, s.live, available=s.available), live=s.live)


def rolling_out(s: Situation) -> Decision | None:
    """Take the next step of the rollout; none is left when the target has all requests."""
    assert isinstance(s.target, Target)
    wanted = _wanted(s.resource, s.target)
    given_up_before = _given_up(s.resource.status, wanted)
    step = next_step(s.live, wanted, _times(s), given_up=given_up_before is not None)
    applies = _applies(s, s.target, step)
    verdict = verdicts.rolling_out(
        step,
        wanted,
        available=s.available,
        diagnosis=pods_missing.diagnosis(s.server, s.observed.pods, s.observed.pod_event),
        invalid=s.server.invalid if s.server else None,
        failed_before=given_up_before,
        deadline_s=s.spec.rollout.progress_deadline_seconds,
    )
    removed = step.failed if step.failed and step.failed.name not in step.weights else None
    return Decision(
        verdict,
        live=step.live,
        given_up=removed,
        update=wanted.name,
        applies=applies,
        requeue_after_s=_sooner(step.wake_s, pods_missing.ask_again_s(s.server, s.observed.pods, s.now)),
    )


def _sooner(*times: float | None) -> float | None:
    return min((each for each in times if each is not None), default=None)


POLICIES: tuple[Policy, ...] = (name_taken, suspended, not_allowed, no_kuberay, no_target, rolling_out)


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
    """Return the revisions in the RayService, each with what Ray Serve reports of it."""
    server = observed.rayservice
    if server is None or server.owner_uid != resource.meta.uid:
        return ()
    applications, weights = manifests.read_serve_config(server.serve_config)
    wanted = _wanted(resource, target).name if isinstance(target, Target) else None
    before = {each.name: each for each in resource.status.revisions}
    current = server.observed_generation >= server.generation
    live = []
    for application in applications:
        weight = weights.get(application.name, 0)
        # A status older than this configuration may be about an earlier application of the same name.
        view = server.applications.get(application.name) if current or weight else None
        state, message = state_of(view, weight, is_target=application.name == wanted)
        known = before.get(application.name)
        age = seconds_since(parse_time(known.since), now) if known and known.state == state else 0.0
        live.append(Live(application, weight, age, state, verdicts.sentence(message)))
    return tuple(live)


def _given_up(status: ModelDeploymentStatus, wanted: Application) -> str | None:
    """Return why this very revision was given up before, if it was."""
    found = next((each for each in status.revisions if each.name == wanted.name and each.state == "Failed"), None)
    if found is None or found.traffic_percent:
        return None
    return found.message or ""


def _times(s: Situation) -> Times:
    return Times(float(s.spec.rollout.progress_deadline_seconds), s.defaults.drain_s, s.defaults.settle_s)


def _applies(s: Situation, target: Target, step: Step) -> tuple[Apply, ...]:
    """Return the RayService, if what is applied differs from what is wanted."""
    meta = s.resource.meta
    config = manifests.serve_config(meta, s.spec, [each.application for each in step.live], step.weights)
    manifest = manifests.rayservice(meta, s.spec, config=config, grant=target.grant, defaults=s.defaults)
    unchanged = s.server is not None and s.server.spec_hash == manifests.hash_of(manifest)
    return () if unchanged or (s.server and s.server.deleting) else (Apply(manifest),)


def _delete(s: Situation, server: RayServiceView) -> Delete:
    return Delete(manifests.API_VERSION, "RayService", s.resource.meta.namespace, server.name, server.uid)
