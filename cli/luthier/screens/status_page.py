"""One page on a name: what it does now, why, and what to do next.

Read from the top: a heading, the sentence of the operator, then how far it is, and what there is already.
"""

from __future__ import annotations

from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from luthier.kinds import BATCHPREDICTION, FINETUNEJOB, MODELDEPLOYMENT, Raw, Resource
from luthier.overview import Overview, event_time
from luthier.screens import words
from luthier.screens.bars import bar
from luthier_api.batchprediction import BatchPredictionStatus
from luthier_api.finetunejob import FineTuneJobStatus, Progress
from luthier_api.modeldeployment import ModelDeploymentStatus, RevisionStatus, RolloutStatus
from luthier_api.reasons import ConditionType

# A step with pause: Manual says in its message that it waits for it.
_VERSIONS = 5
_EVENTS = 8


def status_page(found: Overview, now: datetime, *, verbose: bool = False) -> RenderableType:
    """Return the page on everything of a name."""
    parts: list[RenderableType] = []
    for resource in found.resources:
        parts += [*resource_part(resource, now, verbose=verbose), Text()]
    if verbose:
        parts += _pods(found.pods, now)
        parts += _events(found.events, now)
    return Group(*parts[:-1] if parts and isinstance(parts[-1], Text) and not parts[-1].plain else parts)


def resource_part(resource: Resource, now: datetime, *, verbose: bool = False) -> list[RenderableType]:
    """Return the part of the page on one resource."""
    parts = [_heading(resource, now), *_sentence(resource), *_BODIES[resource.kind](resource, now)]
    if verbose:
        parts.append(_conditions(resource, now))
    return [parts[0], *(Padding(part, (0, 0, 0, 2), expand=False) for part in parts[1:])]


def phase_style(resource: Resource) -> str:
    """Return the colour of a resource's state."""
    if resource.is_true(ConditionType.STALLED):
        return "red"
    if resource.is_true(ConditionType.READY):
        return "green"
    return "yellow"


def phase_of(resource: Resource) -> str:
    """Return its state in a word; a spec that the operator has not seen yet says so."""
    return resource.status.phase if resource.observed else f"{resource.status.phase}, new spec not seen yet"


def _heading(resource: Resource, now: datetime) -> Text:
    ready = resource.condition(ConditionType.READY)
    since = words.since(ready.last_transition_time if ready else None, now)
    return Text.assemble(
        (f"{resource.kind.name} ", "dim"),
        (resource.name, "bold"),
        (f"  {resource.namespace}  ", "dim"),
        (phase_of(resource), phase_style(resource)),
        (f"  for {since}" if since else "", "dim"),
    )


def _sentence(resource: Resource) -> list[RenderableType]:
    """The condition to read first: why it is stalled, or else what Ready says."""
    stalled = resource.condition(ConditionType.STALLED)
    chosen = stalled if stalled and stalled.status == "True" else resource.condition(ConditionType.READY)
    if chosen is None:
        hint = "No operator has seen this resource yet; if that stays so, `luthier doctor` says why."
        return [Text(hint, "yellow")]
    return [Text.assemble((f"{chosen.reason}: ", "bold"), chosen.message)] if chosen.message else [Text(chosen.reason)]


def _training(job: Resource, now: datetime) -> list[RenderableType]:
    status = job.job_status
    parts: list[RenderableType] = []
    if status.progress and status.phase not in ("Succeeded", "Failed"):
        parts += progress_lines(status.progress)
    parts += _facts(_of_the_run(status, now))
    parts += [Text(f"warning: {warning}", "yellow") for warning in status.warnings]
    return parts + _versions(status, now)


def _of_the_run(status: FineTuneJobStatus, now: datetime) -> list[tuple[str, str]]:
    """Return what is known of the current run, or of the last one that failed."""
    facts: list[tuple[str, str]] = []
    if run := status.current_run:
        started = f", started {words.since(run.started_at, now)} ago" if run.started_at else ""
        facts.append(("run", f"{run.name}, {run.stage.lower()}{started}"))
    if status.checkpoint:
        facts.append(("checkpoint", f"step {status.checkpoint.step}"))
    if (attempts := status.attempts) and (attempts.failed or attempts.preempted):
        facts.append(("attempts", f"{attempts.failed} failed, {attempts.preempted} interrupted"))
    if failure := status.last_failure:
        facts.append(("failure", f"{failure.reason}: {failure.message}"))
    if status.artifact and status.artifact.message:
        facts.append(("gate", status.artifact.message))
    return facts


def progress_lines(progress: Progress) -> list[RenderableType]:
    """Return how far a training is: a bar, and the figures below it."""
    about = [f"{progress.percent} %", progress.stage.lower()]
    if progress.total_steps:
        about.append(f"step {progress.step} of {progress.total_steps}")
    about += [f"epoch {progress.epoch}"] if progress.total_steps else []
    about += [f"{progress.eta} left"] if progress.eta else []
    about += [f"{progress.examples_per_second} examples/s"] if progress.examples_per_second else []
    lines: list[RenderableType] = [
        Text.assemble(bar(progress.percent), "  ", " · ".join(word for word in about if word))
    ]
    if progress.metrics:
        chosen = sorted(progress.metrics.items(), key=lambda pair: (not pair[0].startswith("eval"), pair[0]))[:6]
        lines.append(Text("   ".join(f"{name} {value}" for name, value in chosen), "dim"))
    return lines


def _versions(status: FineTuneJobStatus, now: datetime) -> list[RenderableType]:
    if not status.versions:
        return []
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    present = status.artifact.version if status.artifact else None
    for version in status.versions[:_VERSIONS]:
        mark = "●" if version.version == present else "○"
        metrics = "  ".join(f"{name} {value}" for name, value in version.metrics.items())
        gates = Text("promotable", "green") if version.promotable else Text("failed a gate", "red")
        age = words.since(version.chosen_at, now)
        table.add_row(mark, version.version, metrics, gates, Text(f"{age} ago" if age else "", "dim"))
    more = len(status.versions) - _VERSIONS
    return [table, *([Text(f"and {more} more: luthier versions", "dim")] if more > 0 else [])]


def _serving(deployment: Resource, now: datetime) -> list[RenderableType]:
    status = deployment.deployment_status
    parts: list[RenderableType] = _facts(
        [
            ("url", status.url or ""),
            ("replicas", f"{status.ready_replicas} of {status.replicas} answer" if status.replicas else ""),
            ("model", f"follows FineTuneJob {deployment.follows}" if deployment.follows else ""),
        ]
    )
    if status.revisions:
        parts.append(_revisions(status))
    if status.rollout:
        parts += rollout_lines(status.rollout, now)
    for rejected in status.rejected[:1]:
        when = words.since(rejected.at, now)
        parts.append(Text(f"rejected {rejected.version} {when} ago: {rejected.message}", "red"))
    return parts


def _revisions(status: ModelDeploymentStatus) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for revision in status.revisions:
        style = {"Running": "green", "Failed": "red", "Unhealthy": "red"}.get(revision.state, "yellow")
        share = Text.assemble(bar(revision.traffic_percent, 20, style), f" {revision.traffic_percent:>3} %")
        table.add_row(revision.version, share, Text(revision.state, style), Text(_figures(revision), "dim"))
    return table


def _figures(revision: RevisionStatus) -> str:
    said = [f"{revision.requests} requests"] if revision.requests is not None else []
    said += [f"{revision.error_rate} errors"] if revision.error_rate is not None else []
    said += [f"p99 {revision.p99_milliseconds} ms"] if revision.p99_milliseconds is not None else []
    said += [f"agreement {revision.agreement}"] if revision.agreement is not None else []
    return " · ".join([*said, *([revision.message] if revision.message else [])])


def rollout_lines(rollout: RolloutStatus, now: datetime) -> list[RenderableType]:
    """Return where a rollout is, and what it waits for."""
    step = f"step {rollout.step} of {rollout.steps}, " if rollout.steps else ""
    since = words.since(rollout.since, now)
    line = f"rollout: {rollout.stage.lower()}, {step}{rollout.weight} %" + (f", for {since}" if since else "")
    line += " · luthier promote goes on" if rollout.paused else ""
    return [Text(line, "bold"), *([Text(rollout.message)] if rollout.message else [])]


def _predicting(batch: Resource, now: datetime) -> list[RenderableType]:
    status = batch.batch_status
    parts = shard_lines(status) if status.phase != "Succeeded" else []
    errors = f", {status.errors} of them with an error in place of a prediction" if status.errors else ""
    started = f", started {words.since(status.run.started_at, now)} ago" if status.run and status.run.started_at else ""
    failure = status.last_failure
    return [
        *parts,
        *_facts(
            [
                ("run", f"{status.run.name}, {status.run.state.lower()}{started}" if status.run else ""),
                ("version", status.version or ""),
                ("rows", f"{status.rows}{errors}" if status.rows is not None else ""),
                ("output", status.output or f"a folder below {batch.spec['output']['uri']}"),
                ("attempts", f"{status.failed_attempts} failed" if status.failed_attempts else ""),
                ("failure", f"{failure.reason}: {failure.message}" if failure else ""),
            ]
        ),
    ]


def shard_lines(status: BatchPredictionStatus) -> list[RenderableType]:
    """Return how many shards of a batch prediction are stored, and, while it is under way, how fast that goes."""
    if not status.shards:
        return []
    about = [f"{status.percent} %", f"{status.shards.done} of {status.shards.total} shards"]
    if status.phase == "Predicting":
        about += [f"{status.eta} left"] if status.eta else []
        about += [f"{status.texts_per_second} rows/s"] if status.texts_per_second else []
    return [Text.assemble(bar(status.percent or 0), "  ", " · ".join(about))]


_BODIES = {FINETUNEJOB: _training, MODELDEPLOYMENT: _serving, BATCHPREDICTION: _predicting}


def _facts(rows: list[tuple[str, str]]) -> list[RenderableType]:
    said = [(name, value) for name, value in rows if value]
    if not said:
        return []
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    for name, value in said:
        table.add_row(name, Text(value))
    return [table]


def _conditions(resource: Resource, now: datetime) -> Table:
    table = Table("condition", "", "reason", "for", "message", box=None, pad_edge=False, header_style="dim")
    for condition in resource.status.conditions:
        since = words.since(condition.last_transition_time, now)
        table.add_row(condition.type, condition.status, condition.reason, since, Text(condition.message))
    return table


def _pods(pods: list[Raw], now: datetime) -> list[RenderableType]:
    if not pods:
        return []
    table = Table("pod", "phase", "restarts", "node", "age", box=None, pad_edge=False, header_style="dim")
    for pod in pods:
        status, spec, metadata = pod.get("status", {}), pod.get("spec", {}), pod["metadata"]
        restarts = sum(int(each.get("restartCount", 0)) for each in status.get("containerStatuses") or [])
        age = words.since(metadata.get("creationTimestamp"), now)
        table.add_row(metadata["name"], status.get("phase", ""), str(restarts), spec.get("nodeName", ""), age)
    return [table, Text()]


def _events(events: list[Raw], now: datetime) -> list[RenderableType]:
    if not events:
        return []
    table = Table("event", "reason", "ago", "message", box=None, pad_edge=False, header_style="dim")
    for event in events[-_EVENTS:]:
        message = event.get("message") or event.get("note") or ""
        style = "yellow" if event.get("type") == "Warning" else ""
        table.add_row(
            event.get("type", ""),
            Text(event.get("reason", ""), style),
            words.since(event_time(event), now),
            Text(message),
        )
    return [table]
