"""Options that many commands share, under kubectl's names, and what is made of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier.cluster import Cluster, connect
from luthier.errors import Declined, Invalid, LuthierError
from luthier.kinds import KINDS, Kind, Resource
from luthier.overview import nothing_of
from luthier.screens.console import Format, say, show_json
from luthier.steering import Change


def complete_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of resources that begin so, for the shell; none if the cluster cannot be asked."""
    chosen: dict[str, Any] = {name: ctx.params.get(name) for name in ("namespace", "context", "kubeconfig")}
    try:
        cluster = connect(**chosen)
        names = {resource.name for resource in cluster.every()}
    except LuthierError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


Name = Annotated[
    str, typer.Argument(help="Name of a resource, or of several that belong together.", autocompletion=complete_name)
]
_PANEL = "Cluster"
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; default: the context's own.", rich_help_panel=_PANEL),
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.", rich_help_panel=_PANEL)]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="Default: $KUBECONFIG, or ~/.kube/config.", rich_help_panel=_PANEL)
]
Output = Annotated[Format, typer.Option("--output", "-o", help="text, or json for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds to wait at most; default: for ever.", min=0)]
VersionArgument = Annotated[
    str | None, typer.Argument(help="A version, its beginning, an alias, or `current` or `previous`.")
]


class KindName(StrEnum):
    """What --kind takes: the names that kubectl takes."""

    FTJ = "ftj"
    MDEP = "mdep"
    BP = "bp"
    FINETUNEJOB = "finetunejob"
    MODELDEPLOYMENT = "modeldeployment"
    BATCHPREDICTION = "batchprediction"


KindOption = Annotated[
    KindName | None, typer.Option("--kind", help="ftj, mdep or bp, where several have this name.", case_sensitive=False)
]


def kind_of(name: KindName | None) -> Kind | None:
    """Return the kind that --kind names."""
    return next((kind for kind in KINDS if name in (kind.short, kind.name.lower())), None)


def cluster_of(namespace: str | None, context: str | None, kubeconfig: Path | None) -> Cluster:
    """Return the cluster that the options name."""
    return connect(namespace, context, kubeconfig)


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless --yes was given.

    Raises:
        Declined: if the answer is no, or nobody is there to answer.
    """
    if yes:
        return
    try:
        agreed = typer.confirm(question)
    except typer.Abort:
        say("")
        raise Declined("Nothing was changed: there was no answer; --yes does not ask.") from None
    if not agreed:
        raise Declined("Nothing was changed.")


def carry_out(
    cluster: Cluster, resource: Resource, change: Change, output: Format, *, yes: bool, dry_run: bool
) -> None:
    """Make a change of a resource, or show it; -o json prints the resource as it is, or would be, after it."""
    if not dry_run:
        confirm(change.question, yes=yes)
    changed = cluster.patch(resource, change.patch, dry_run=dry_run)
    if output is Format.JSON:
        show_json(changed.raw)
    elif dry_run:
        say(f"Nothing was written. The API server would accept:\n  {change.kubectl}")
    else:
        say(f"{resource.title}: done. `luthier watch {resource.name}` shows what happens.")


def the_one(cluster: Cluster, name: str, kind: Kind | None) -> Resource:
    """Return the resource of a name, of whichever kind.

    Raises:
        NotFound: if there is none.
        Invalid: if several kinds have one, and --kind was not given.
    """
    if kind is not None:
        return cluster.read(kind, name)
    found = [resource for each in KINDS if (resource := cluster.find(each, name))]
    if len(found) > 1:
        kinds = " and ".join(f"a {each.kind.name}" for each in found)
        raise Invalid(
            f"There is {kinds} {name}: choose one with {' or '.join(f'--kind {each.kind.short}' for each in found)}."
        )
    if not found:
        raise nothing_of(cluster, name)
    return found[0]
