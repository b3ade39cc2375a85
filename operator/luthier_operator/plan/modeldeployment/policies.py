"""What to do for a ModelDeployment: which version, on which server, with which share of the requests.

      1. name_taken    a RayService of this name belongs to something else
      2. suspended     there is no server
      3. not_allowed   the image that the spec names may not run here; the version now served stays in service
      4. no_kuberay    nothing can be served here yet
      5. no_target     nothing is published yet; the version now served stays in service
      6. rolling_out   see `rollout`

Beside all of them, `exposure` says which way in there is from outside.

What is live is read from the RayService; the status remembers only since when, and what has failed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from luthier_api.documents import ServerReport
from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_operator.manifests import grpc, scaling
from luthier_operator.manifests import rayservice as manifests
from luthier_operator.manifests.rayservice import Application, Layout
from luthier_operator.model.actions import Apply, Delete, Plan, Scale
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.views import FineTuneJobView, Meta, PodReport, PodView, RayServiceView, Refusal
from luthier_operator.plan.modeldeployment import drift, observe, pods_missing, sleep, verdicts
from luthier_operator.plan.modeldeployment.adapters import adapters_of
from luthier_operator.plan.modeldeployment.exposure import Outside, exposure_of
from luthier_operator.plan.modeldeployment.rollout import Situation as Rollout
from luthier_operator.plan.modeldeployment.rollout import Step, Times, next_step
from luthier_operator.plan.modeldeployment.status import Outlook, status_of, transitions, with_conditions
from luthier_operator.plan.pods import image_policy
from luthier_operator.plan.pods.diagnosis import Diagnosis
from luthier_operator.plan.target import NoTarget, Target, target_of
from luthier_operator.plan.verdict import Verdict, image_not_allowed


@dataclass(frozen=True)
class ObservedServing:
    """What the cluster has for one ModelDeployment."""

    rayservice: RayServiceView | None = None
    finetunejob: FineTuneJobView | None = None
    """The FineTuneJob that the spec names, if there is one."""
    pods: Sequence[PodView] = ()
    reports: Sequence[PodReport] = ()
    """What the server replicas in those pods last said of themselves."""
    kuberay_installed: bool = True
    pod_event: str = ""
    """Message of the newest Event that says why one of its pods could not be created."""
    outside: Outside = field(default_factory=Outside)
    """What there is of the way in from outside the cluster."""
    refused: Refusal | None = None
    """Set if the plan that followed from all this was carried out and the cluster did not accept it."""
    ended: Sequence[ServerReport] = ()
    """The last words of replicas that have ended, for what they had counted."""


@dataclass(frozen=True)
class Situation:
    """All that a policy looks at."""

    resource: ModelDeploymentResource
    observed: ObservedServing
    target: Target | NoTarget
    layout: Layout | None
    rollout: Rollout
    now: datetime
    defaults: Defaults

    @property
    def spec(self) -> ModelDeploymentSpec:
        """What the user asks for."""
        return self.resource.spec

    @property
    def server(self) -> RayServiceView | None:
        """The resource's own RayService."""
        return own_server(self.resource, self.observed)

    @property
    def available(self) -> bool:
        """Whether requests are answered now: what the server replicas say; KubeRay's word only where none was asked."""
        if self.server is None:
            return False
        if self.holds_requests:
            return True
        if self.observed.reports:
            return any(each.report and each.report.ready for each in self.observed.reports)
        if scaling.may_sleep(self.spec) and self.diagnosis:
            return False  # the head alone is an endpoint too
        if not self.server.serving:
            return False
        # KubeRay reports only the new cluster of two, while the old one answers, and neither before it has read the
        # new configuration. One that an earlier release wrote is not read here.
        lags = self.server.observed_generation < self.server.generation
        return self.layout is None or self.server.upgrading or lags or self.rollout.stable.state == "Running"

    @property
    def diagnosis(self) -> Diagnosis | None:
        """Why pods do not start, or were not even created."""
        return pods_missing.diagnosis(self.server, self.observed.pods, self.observed.pod_event)

    @property
    def holds_requests(self) -> bool:
        """Whether there is no replica, and requests wait until one has started."""
        reports, hindered = self.observed.reports, self.diagnosis is not None
        return sleep.holds_requests(self.spec, self.server, self.rollout, reports, hindered=hindered)


@dataclass(frozen=True)
class Decision:
    """What a policy wants done, and what it says about it."""

    verdict: Verdict
    step: Step | None = None
    update: str | None = None
    deletes: tuple[Delete, ...] = ()
    applies: tuple[Apply, ...] = ()
    scales: tuple[Scale, ...] = ()
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
    target = target_of(resource.spec.model, observed.finetunejob)
    if adoption := _adoption(resource, observed, target, defaults):
        note = verdicts.adopted(resource.meta.name)
        return Plan(applies=(adoption,), events=(note,), requeue_after_s=_ADOPTED_S)
    situation = situation_of(resource, observed, target, now, defaults)
    decision = next(decision for policy in POLICIES if (decision := policy(situation)))
    exposure = exposure_of(resource, observed.outside)
    outlook = Outlook(
        layout=situation.layout,
        rollout=situation.rollout,
        step=decision.step,
        update=decision.update,
        available=situation.available and not resource.spec.suspend,
        server=situation.server,
        workers=pods_missing.workers(situation.server, observed.pods),
        reports=observed.reports,
        pods=observed.pods,
        holds_requests=situation.holds_requests and not resource.spec.suspend,
        exposure=exposure,
        ended=observed.ended,
    )
    verdict = exposure.judged(verdicts.with_api_keys(decision.verdict, observed.reports))
    status = status_of(resource, verdict, outlook, now)
    return Plan(
        deletes=(*decision.deletes, *exposure.deletes),
        applies=(*decision.applies, *exposure.applies),
        scales=decision.scales,
        status=None if status == resource.status else status.to_wire(),
        events=transitions(resource.status, status),
        requeue_after_s=_sooner(
            decision.requeue_after_s,
            exposure.requeue_after_s,
            drift.INTERVAL_S if drift.wanted(resource) else None,
        ),
    )


def own_server(resource: ModelDeploymentResource, observed: ObservedServing) -> RayServiceView | None:
    """Return the RayService if it is the resource's own."""
    server = observed.rayservice
    return server if server and server.owner_uid == resource.meta.uid else None


def situation_of(
    resource: ModelDeploymentResource,
    observed: ObservedServing,
    target: Target | NoTarget,
    now: datetime,
    defaults: Defaults,
) -> Situation:
    """Return all that the policies look at."""
    server = own_server(resource, observed)
    layout = manifests.read_layout(server.serve_config, server.previous) if server else None
    wanted = _wanted(resource, target) if isinstance(target, Target) else None
    rollout = observe.rollout_of(resource, server, layout, wanted, observed.reports, observed.ended, observed.pods, now)
    return Situation(resource, observed, target, layout, rollout, now, defaults)


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
    layout, grant = Layout(wanted), target.grant
    for awake in (False, True):
        manifest = manifests.rayservice(
            resource.meta, resource.spec, layout=layout, grant=grant, defaults=defaults, awake=awake
        )
        if manifests.hash_of(manifest) == server.spec_hash:
            return Apply(manifest)
    return None


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
    return None if violation is None else Decision(image_not_allowed(violation))


def no_kuberay(s: Situation) -> Decision | None:
    """The cluster has no RayService resource; KubeRay may be installed at any time."""
    if s.observed.kuberay_installed:
        return None
    return Decision(verdicts.no_kuberay(), requeue_after_s=s.defaults.kuberay_retry_s)


def no_target(s: Situation) -> Decision | None:
    """Nothing is published that may be served. The version now served stays in service, untouched."""
    if isinstance(s.target, Target):
        return None
    answers = s.layout.stable.version if s.layout and s.available else None
    return Decision(verdicts.no_target(s.target, answers))


def rolling_out(s: Situation) -> Decision | None:
    """Take the next step of the rollout; none is left when the target has all requests."""
    assert isinstance(s.target, Target)
    wanted = _wanted(s.resource, s.target)
    times = Times(float(s.spec.rollout.progress_deadline_seconds), s.defaults.drain_s, s.defaults.settle_s)
    if s.layout and s.rollout.rejected is None and _needs_cluster(s, s.target, s.layout):
        step = Step(Layout(wanted), wake_s=times.deadline_s)
    else:
        step = next_step(s.rollout, wanted, s.spec.rollout, times)
    verdict = verdicts.rolling_out(
        step,
        s.rollout,
        wanted,
        available=s.available,
        diagnosis=s.diagnosis,
        invalid=s.server.invalid if s.server else None,
        deadline_s=s.spec.rollout.progress_deadline_seconds,
    )
    return Decision(
        _of_what_serves(s, verdict, wanted),
        step=step,
        update=wanted.name,
        applies=_applies(s, s.target, step.layout),
        scales=_scales(s),
        requeue_after_s=_sooner(step.wake_s, pods_missing.ask_again_s(s.server, s.observed.pods, s.now)),
    )


def _of_what_serves(s: Situation, verdict: Verdict, wanted: Application) -> Verdict:
    """Return the verdict, and of a version in service also whether it sleeps and what its adapters do."""
    if not verdict.ready:
        return verdict
    before = s.resource.status
    rows = adapters_of(s.spec, s.observed.reports, before.adapters) or []
    if s.holds_requests and not s.rollout.settled:
        return verdicts.waking(wanted.version)
    if s.holds_requests:
        starting = sleep.is_starting(s.observed.pods, s.observed.reports)
        return verdicts.idle(before.cold_start, starting=starting)
    return verdicts.with_adapters(verdict, s.resource.meta.name, wanted.version, rows)


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


def _needs_cluster(s: Situation, target: Target, layout: Layout) -> bool:
    """Whether the spec asks for another Ray cluster than the one that was applied last."""
    if s.server is None or s.spec.rollout.strategy == "BlueGreen":
        return False  # there the cluster goes with the revision
    return manifests.cluster_hash_of(_manifest(s, target, layout)) != s.server.cluster_hash


def _applies(s: Situation, target: Target, layout: Layout) -> tuple[Apply, ...]:
    """Return the RayService, if what is applied differs from what is wanted."""
    manifest = _manifest(s, target, layout)
    new_cluster = s.server is None or manifests.cluster_hash_of(manifest) != s.server.cluster_hash
    if sleep.stays_awake(s.spec, s.server, s.rollout, layout, new_cluster=new_cluster):
        manifest = _manifest(s, target, layout, awake=True)
    unchanged = s.server is not None and s.server.spec_hash == manifests.hash_of(manifest)
    if unchanged or (s.server and s.server.deleting):
        return ()
    services = (Apply(grpc.service(s.resource.meta), once=True),) if s.spec.runtime.grpc else ()
    return (Apply(manifests.disruption_budget(s.resource.meta, s.spec)), *services, Apply(manifest))


def _scales(s: Situation) -> tuple[Scale, ...]:
    """Return the size that the Ray cluster is to have, if it has another one.

    Fewer pods come last: Ray Serve takes its replicas away first, and those pods go that hold none.
    """
    server = s.server
    if server is None or server.deleting or server.upgrading or not server.most_workers:
        return ()
    fewest, most = manifests.workers_of(s.spec)
    workers = pods_missing.workers(server, s.observed.pods)
    # KubeRay says the new bounds only when it next has another reason to write its status.
    there = workers == fewest and not s.spec.autoscaling
    if there or (server.fewest_workers, server.most_workers) == (fewest, most):
        return ()
    ready = [each.pod for each in s.observed.reports if each.report and each.report.ready]
    empty = [each.pod for each in s.observed.reports if each.pod not in ready]
    if fewest < workers and len(ready) > fewest:
        return ()
    count = None if s.spec.autoscaling else fewest
    remove = tuple(sorted(empty))[: max(workers - fewest, 0)] if count is not None else ()
    return (Scale(s.resource.meta.namespace, server.cluster, count, fewest, most, remove),)


def _manifest(s: Situation, target: Target, layout: Layout, *, awake: bool = False) -> dict[str, Any]:
    meta, grant, defaults = s.resource.meta, target.grant, s.defaults
    return manifests.rayservice(meta, s.spec, layout=layout, grant=grant, defaults=defaults, awake=awake)


def _delete(s: Situation, server: RayServiceView) -> Delete:
    return Delete(manifests.API_VERSION, "RayService", s.resource.meta.namespace, server.name, server.uid)
