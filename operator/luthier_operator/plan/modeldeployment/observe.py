"""How a rollout stands: what KubeRay reports, what the server replicas say, and what the status remembers. Pure."""

from collections.abc import Sequence
from datetime import datetime

from luthier_api.documents import ServerReport
from luthier_api.modeldeployment import ModelDeploymentStatus, RolloutStatus
from luthier_operator.manifests.rayservice import Application, Layout
from luthier_operator.model import names
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.timestamps import parse_time, seconds_since
from luthier_operator.model.views import Meta, PodReport, PodView, RayServiceView
from luthier_operator.plan.modeldeployment import memory, verdicts
from luthier_operator.plan.modeldeployment.analysis import Judgement, figures_of, judge
from luthier_operator.plan.modeldeployment.rollout import Seen, Situation, Stage, stage_of, state_of

# Stages in which a canary may be to blame for what happens to the pods that it shares.
_BESIDE = ("Starting", "Step", "Shifted")


def rollout_of(
    resource: ModelDeploymentResource,
    server: RayServiceView | None,
    layout: Layout | None,
    wanted: Application | None,
    reports: Sequence[PodReport],
    ended: Sequence[ServerReport],
    pods: Sequence[PodView],
    now: datetime,
) -> Situation:
    """Return how the rollout of the wanted revision stands."""
    status = resource.status
    if server is None or layout is None:
        return Situation(None, Seen("Starting"), served=bool(status.history))
    answers = [each.report for each in reports if each.report]
    rejected = next((each for each in status.rejected if wanted and each.name == wanted.name), None)
    stage = stage_of(layout, wanted, rejected=rejected is not None) if wanted else None
    going = status.rollout if layout.canary and _same_stage(status.rollout, layout, stage) else None
    stage_s = seconds_since(parse_time(going.since), now) if going else 0.0
    kept = [each.name for each in status.history[: resource.spec.rollout.rollback_window + 1]]
    return Situation(
        layout,
        stable=_stable(server, layout, status, answers, pods, now),
        canary=_canary(server, layout, status, stage, going, answers, pods, now),
        held=held(answers, layout.stable.name),
        served=bool(status.history),
        settled=bool(status.history) and status.history[0].name == layout.stable.name,
        stage_s=stage_s,
        judgement=_judgement(resource, layout, going, answers, ended, stage_s, now),
        failures=going.failures if going and stage == "Step" else 0,
        paused=bool(going and going.paused),
        wishes=wishes_of(resource.meta, status),
        rejected=rejected,
        quick=wanted is not None and wanted.name in kept,
        upgrading=server.upgrading,
    )


def wishes_of(meta: Meta, status: ModelDeploymentStatus) -> frozenset[str]:
    """Return what the user asks for now: annotations that name this generation and were not carried out before."""
    return frozenset(
        wish
        for wish, value in meta.wishes.items()
        if value.partition("#")[0] == str(meta.generation) and status.handled.get(wish) != value
    )


def held(answers: Sequence[ServerReport], revision: str) -> bool | None:
    """Return whether every replica that answers requests computes the revision itself; None if none does.

    One that starts answers no requests until it holds the revision: it says nothing about how the others do.
    """
    ready = [answer for answer in answers if answer.ready]
    if not ready:
        return None
    return all(any(m.revision == revision and m.state == "Ready" for m in answer.models) for answer in ready)


def _same_stage(before: RolloutStatus | None, layout: Layout, stage: Stage | None) -> bool:
    if before is None or layout.canary is None or before.revision != layout.canary.name or before.stage != stage:
        return False
    return stage != "Step" or before.step == (layout.step or 0) + 1


def _stable(
    server: RayServiceView,
    layout: Layout,
    status: ModelDeploymentStatus,
    answers: Sequence[ServerReport],
    pods: Sequence[PodView],
    now: datetime,
) -> Seen:
    view = server.applications.get(names.SERVER)
    state, message = state_of(view.status if view else None), view.message if view else ""
    name = layout.stable.name
    # A replica that starts waits for storage by itself, and says why; Ray Serve does not.
    waiting = [(a.ready, m.message) for a in answers for m in a.models if m.revision == name and m.state == "Failed"]
    failures = [message for ready, message in waiting if ready]
    if failures and layout.previous and not layout.canary:
        state = "Failed"  # loaded in place, beside a revision that works
    text = f"LoadError: {waiting[0][1]}" if waiting else message
    why = ""
    if state != "Running" or failures:
        why = memory.cause(text, (), answers, pods, now) or verdicts.sentence(text)
    return Seen(state, _age_s(status, name, state, now), why)


def _canary(
    server: RayServiceView,
    layout: Layout,
    status: ModelDeploymentStatus,
    stage: Stage | None,
    going: RolloutStatus | None,
    answers: Sequence[ServerReport],
    pods: Sequence[PodView],
    now: datetime,
) -> Seen | None:
    canary = layout.canary
    if canary is None:
        return None
    # A status older than this configuration may be about an earlier application of the same name.
    current = server.observed_generation >= server.generation or layout.canary_weight > 0
    view = server.applications.get(canary.name) if current else None
    state = "Draining" if stage == "Dropping" else state_of(view.status if view else None)
    began = parse_time(going.since) if going else None
    if began and stage in _BESIDE and canary.name != layout.stable.name and memory.killed_since(pods, began, now):
        # It would end the pod, and the stable revision in it, again and again.
        return Seen("Failed", 0.0, memory.ended_with_pod(pods))
    text = view.message if view else ""
    deaths = [answer.deaths[canary.name] for answer in answers if canary.name in answer.deaths]
    if state != "Running":
        why = memory.cause(text, deaths, answers, pods, now) or verdicts.sentence(text)
        return Seen(state, _age_s(status, canary.name, state, now), why)
    # It came up again; only what will come again is worth a word.
    why = memory.cause("", deaths, answers, pods, now)
    why = why if why.startswith(memory.RAN_OUT) else ""
    return Seen(state, _age_s(status, canary.name, state, now), why)


def _age_s(status: ModelDeploymentStatus, name: str, state: str, now: datetime) -> float:
    known = next((each for each in status.revisions if each.name == name and each.state == state), None)
    return seconds_since(parse_time(known.since), now) if known else 0.0


def _judgement(
    resource: ModelDeploymentResource,
    layout: Layout,
    going: RolloutStatus | None,
    answers: Sequence[ServerReport],
    ended: Sequence[ServerReport],
    stage_s: float,
    now: datetime,
) -> Judgement | None:
    """Return what the figures say, once in each interval; None in between, and if no replica can be asked."""
    analysis = resource.spec.rollout.analysis
    if analysis is None or going is None or going.stage != "Step" or layout.canary is None or not answers:
        return None
    last = parse_time(going.judged) or parse_time(going.since)
    if seconds_since(last, now) < analysis.interval_seconds:
        return None
    canary, stable = (
        figures_of([*answers, *ended], each.name, layout.window) for each in (layout.canary, layout.stable)
    )
    return judge(analysis, canary, stable, stage_s)
