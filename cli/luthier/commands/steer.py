"""promote, pause, abort, skip, retry, suspend, resume, rollback: one patch each, shown and asked about before."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from luthier import steering
from luthier.cluster import Cluster
from luthier.commands.options import (
    Context,
    DryRun,
    KindOption,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Yes,
    carry_out,
    cluster_of,
    kind_of,
    the_one,
)
from luthier.kinds import FINETUNEJOB, MODELDEPLOYMENT, Resource
from luthier.screens.console import Format, say, show_json

_PANEL = "Steering"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (promote, pause, abort, skip, retry, suspend, resume, rollback):
        app.command(rich_help_panel=_PANEL)(command)


def promote(
    name: Name,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """End the present step of a rollout, whatever its time or figures."""
    _steer(cluster_of(namespace, context, kubeconfig), name, "promote", output, yes=yes, dry_run=dry_run)


def pause(
    name: Name,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stay in the present step of a rollout until promote."""
    _steer(cluster_of(namespace, context, kubeconfig), name, "pause", output, yes=yes, dry_run=dry_run)


def abort(
    name: Name,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Roll the present rollout back now."""
    _steer(cluster_of(namespace, context, kubeconfig), name, "abort", output, yes=yes, dry_run=dry_run)


def skip(
    name: Name,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Give the new version all requests now, without further steps."""
    _steer(cluster_of(namespace, context, kubeconfig), name, "skip", output, yes=yes, dry_run=dry_run)


def retry(
    name: Name,
    kind: KindOption = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Try a failed run, or a rejected revision, again with the same spec."""
    cluster = cluster_of(namespace, context, kubeconfig)
    resource = the_one(cluster, name, kind_of(kind))
    carry_out(cluster, resource, steering.retry(resource, int(time.time())), output, yes=yes, dry_run=dry_run)


def suspend(
    name: Name,
    kind: KindOption = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop a run and free its GPUs, or remove a server; `resume` goes on. Edits the spec: with GitOps, edit Git."""
    cluster = cluster_of(namespace, context, kubeconfig)
    resource = the_one(cluster, name, kind_of(kind))
    carry_out(cluster, resource, steering.suspend(resource, True), output, yes=yes, dry_run=dry_run)


def resume(
    name: Name,
    kind: KindOption = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Go on with what `suspend` stopped: training from its newest checkpoint, predictions with the shards missing."""
    cluster = cluster_of(namespace, context, kubeconfig)
    resource = the_one(cluster, name, kind_of(kind))
    carry_out(cluster, resource, steering.suspend(resource, False), output, yes=yes, dry_run=dry_run)


def rollback(
    name: Name,
    to_version: Annotated[
        str | None, typer.Option("--to-version", help="Default: the version that had all requests before.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Patch the resource. Without it, the edit is only shown.")
    ] = False,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Return to the version before, and stay with it: shows the edit for Git; with --yes, patches the resource."""
    cluster = cluster_of(namespace, context, kubeconfig)
    deployment = cluster.read(MODELDEPLOYMENT, name)
    version = to_version or steering.previous_version(deployment)
    job = cluster.find(FINETUNEJOB, deployment.follows) if deployment.follows else None
    change = steering.pin(deployment, job, version)
    if yes or dry_run:
        carry_out(cluster, deployment, change, output, yes=True, dry_run=dry_run)
    elif output is Format.JSON:
        show_json(change.patch)
    else:
        _show_edit(deployment, version, change)


def _show_edit(deployment: Resource, version: str, change: steering.Change) -> None:
    for line in (
        f"{deployment.title} serves {deployment.deployment_status.current_version or 'nothing yet'}. In its manifest:",
        "",
        "  spec:",
        "    model:",
        "      fineTuneJobRef:",
        f"        name: {deployment.follows}",
        f"        version: {version}",
        "",
        f"`luthier pin FILE --version {version}` makes this edit; remove `version` to follow the FineTuneJob again.",
        f"Without Git: `luthier rollback {deployment.name} --yes`, or",
        f"  {change.kubectl}",
    ):
        say(line)


def _steer(cluster: Cluster, name: str, wish: steering.Wish, output: Format, *, yes: bool, dry_run: bool) -> None:
    deployment = cluster.read(MODELDEPLOYMENT, name)
    carry_out(cluster, deployment, steering.steer(deployment, wish), output, yes=yes, dry_run=dry_run)
