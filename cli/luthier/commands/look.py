"""status, watch and logs: what there is, what happens, and what the pods say."""

from __future__ import annotations

from typing import Annotated

import typer

from luthier import waiting
from luthier.cluster import Cluster
from luthier.commands.options import (
    Context,
    KindOption,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    cluster_of,
    complete_name,
    kind_of,
)
from luthier.errors import NotFound
from luthier.kinds import FINETUNEJOB, Kind, Raw
from luthier.overview import Overview, overview, pods_of
from luthier.screens import words
from luthier.screens.console import Format, console, say, show, show_json
from luthier.screens.live import follow
from luthier.screens.status_page import status_page
from luthier.screens.tables import resources_table

_STAGES = ("train", "prepare", "worker", "head", "predict")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(status)
    app.command()(watch)
    app.command()(logs)


def status(
    name: Annotated[
        str | None, typer.Argument(help="Default: all of the namespace.", autocompletion=complete_name)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Conditions, pods and Events too.")] = False,
    kind: KindOption = None,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show one page on a name: training, versions, serving, rollout, predictions of files; and what it waits for."""
    cluster = cluster_of(namespace, context, kubeconfig)
    if name is None:
        _all(cluster, output)
        return
    found = overview(cluster, name, details=verbose, only=kind_of(kind))
    if output is Format.JSON:
        show_json(found.to_json())
    else:
        show(status_page(found, words.now_utc(), verbose=verbose))


def _all(cluster: Cluster, output: Format) -> None:
    resources = cluster.every()
    if output is Format.JSON:
        show_json([resource.raw for resource in resources])
    elif resources:
        show(resources_table(resources, words.now_utc()))
    else:
        say(f"Namespace {cluster.namespace} has no resource of Luthier; `luthier init DATA.csv` makes some.")


def watch(
    name: Name,
    until_settled: Annotated[
        bool, typer.Option("--until-settled", help="End when nothing more happens by itself.")
    ] = False,
    kind: KindOption = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Follow a name until Ctrl-C: the page of `status`, drawn again each second."""
    cluster = cluster_of(namespace, context, kubeconfig)
    only = kind_of(kind)
    overview(cluster, name, only=only)  # a wrong name is an error of its own
    until = waiting.all_settled if until_settled else _never
    follow(waiting.looks(lambda: overview(cluster, name, only=only), until), console())


def _never(_: Overview) -> bool:
    return False


def logs(
    name: Name,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    stage: Annotated[
        str | None, typer.Option(help="prepare, train, worker, head, predict; default: the latest.")
    ] = None,
    tail: Annotated[int | None, typer.Option(help="Only the last lines.", min=0)] = None,
    kind: KindOption = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the log of the latest pod: of training if there is one, else of prepare; of the server; of predictions."""
    cluster = cluster_of(namespace, context, kubeconfig)
    pod = _latest_pod(cluster, name, kind_of(kind), stage)
    container = str(pod["spec"]["containers"][0]["name"])
    say(f"# pod {pod['metadata']['name']}, container {container}", stderr=True)
    for line in cluster.log(pod["metadata"]["name"], container, follow=follow_it, tail=tail):
        typer.echo(line)


def _latest_pod(cluster: Cluster, name: str, only: Kind | None, stage: str | None) -> Raw:
    found = overview(cluster, name, only=only)
    pods = [pod for resource in found.resources for pod in pods_of(cluster, resource)]
    wanted = [pod for pod in pods if stage is None or _stage_of(pod) == stage]
    if not wanted:
        hint = "its version has the log of its training: `luthier report --file console.log`"
        gone = f"; {hint}" if found.job and found.job.job_status.versions else ""
        of_stage = f" of {stage}" if stage else ""
        raise NotFound(
            f"{name} has no pod{of_stage} at present: it has not started, or was deleted with its Job{gone}."
        )
    order = {known: place for place, known in enumerate(_STAGES)}
    if found.job and only is not FINETUNEJOB and stage is None:
        # While a model is trained that is what happens; afterwards its server is.
        wanted.sort(key=lambda pod: (pod["status"].get("phase") != "Running", order.get(_stage_of(pod), 9)))
    else:
        wanted.sort(key=lambda pod: order.get(_stage_of(pod), 9))
    return wanted[0]


def _stage_of(pod: Raw) -> str:
    return str((pod["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))
