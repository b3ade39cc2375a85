"""init, run, apply and pin: manifests, from a CSV to the cluster."""

from __future__ import annotations

import difflib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from luthier import local_run, waiting
from luthier.cluster import Cluster
from luthier.commands.options import Context, DryRun, Kubeconfig, Namespace, Output, Timeout, cluster_of
from luthier.errors import Invalid, Stalled
from luthier.kinds import FINETUNEJOB, MODELDEPLOYMENT, Resource
from luthier.manifests import Manifest, Pin, pinned, read_manifests, read_text
from luthier.overview import Overview
from luthier.proposal import Choices, find_columns, propose, read_table
from luthier.proposal.build import resource_name
from luthier.proposal.lengths import tokenizer_of
from luthier.screens.console import Format, console, say, show_json
from luthier.screens.live import follow, line_of
from luthier.storage import config_of, manifest_at
from luthier_api.training import Task

FileArgument = Annotated[Path, typer.Argument(help="A YAML file; - reads standard input.")]


class TaskName(StrEnum):
    """What --task takes."""

    TEXT_CLASSIFICATION = "text-classification"
    MULTI_LABEL = "multi-label"
    REGRESSION = "regression"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (init, run, apply, pin):
        app.command()(command)


def init(
    data: Annotated[Path, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file of labelled texts.")],
    bucket: Annotated[str | None, typer.Option(help="Bucket for data and versions.")] = None,
    data_uri: Annotated[str | None, typer.Option(help="Where the file lies, or will. Default: in the bucket.")] = None,
    output_uri: Annotated[str | None, typer.Option(help="Where versions go. Default: s3://BUCKET/models/.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="For `luthier run`: the file as it is, versions in ./models.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of model and resources. Default: of the file.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
    task: Annotated[TaskName | None, typer.Option(help="What is learned.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model, such as hf://owner/name. Default: by language.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens to keep of each text.", min=4, max=8192)] = None,
    gpus: Annotated[int, typer.Option(help="GPUs to train on; 0 trains on the CPU.", min=0, max=16)] = 1,
    secret: Annotated[str | None, typer.Option(help="Secret with the S3 keys.")] = "s3-credentials",
    endpoint: Annotated[str | None, typer.Option(help="Endpoint of an S3 server other than AWS.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs.", min=1)] = None,
    write: Annotated[
        Path | None, typer.Option("--write", "-w", help="Write the manifest there, not to standard output.")
    ] = None,
    output: Output = Format.TEXT,
) -> None:
    """Propose the manifest for a file of labelled texts: columns, task, labels, maxLength, and a model by language."""
    table = read_table(data)
    columns = find_columns(table, text, label, Task(task) if task else None)
    named = name or resource_name(data.name)
    choices = Choices(
        name=named,
        data_uri=data_uri or _data_uri(data, named, bucket, local),
        output_uri=output_uri or _output_uri(bucket, local),
        model=model,
        max_length=max_length,
        gpus=gpus,
        secret=None if local else secret,
        endpoint=endpoint,
        epochs=epochs,
    )
    proposal = propose(table, columns, choices, tokenizer_of)
    if output is Format.JSON:
        both = {"fineTuneJob": proposal.job, "modelDeployment": proposal.deployment}
        show_json({**both, "reasons": proposal.reasons, "warnings": proposal.warnings})
        return
    manifest = proposal.to_yaml(data.name)
    if write is None:
        typer.echo(manifest, nl=False)
        return
    write.write_text(manifest, encoding="utf-8")
    for line in (
        *proposal.reasons,
        *(f"warning: {warning}" for warning in proposal.warnings),
        "",
        *_next(write, data, choices),
    ):
        say(line)


def _data_uri(data: Path, name: str, bucket: str | None, local: bool) -> str:
    if local:
        return data.resolve().as_uri()
    return f"s3://{_wanted(bucket)}/data/{name}/{data.name}"


def _output_uri(bucket: str | None, local: bool) -> str:
    return Path("models").resolve().as_uri() if local else f"s3://{_wanted(bucket)}/models/"


def _wanted(bucket: str | None) -> str:
    if bucket is None:
        raise Invalid(
            "No file says where data and versions go: give --bucket, or --data-uri and --output-uri, or --local."
        )
    return bucket.removeprefix("s3://").strip("/")


def _next(write: Path, data: Path, choices: Choices) -> list[str]:
    if choices.data_uri.startswith("file://"):
        return [f"Next: luthier run {write}"]
    steps = [f"Next: aws s3 cp {data} {choices.data_uri}"]
    if choices.secret:
        keys = "--from-literal=AWS_ACCESS_KEY_ID=... --from-literal=AWS_SECRET_ACCESS_KEY=..."
        steps.append(f"      kubectl create secret generic {choices.secret} {keys}")
    return [*steps, f"      luthier apply {write} --wait"]


def run(
    file: FileArgument,
    output_uri: Annotated[str | None, typer.Option(help="Publish there instead of output.uri.")] = None,
    name: Annotated[str | None, typer.Option(help="Which FineTuneJob, if the file has several.")] = None,
) -> None:
    """Train a manifest on this machine, without a cluster. Ends with the trainer's exit code."""
    jobs = [each for each in read_manifests(file) if each.kind is FINETUNEJOB and name in (None, each.name)]
    if len(jobs) != 1:
        raise Invalid(f"{file} holds {len(jobs)} FineTuneJobs{f' {name}' if name else ''}; choose one with --name.")
    raise typer.Exit(local_run.run(jobs[0].raw["spec"], output_uri))


def apply(
    file: FileArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it is ready; fail if it is stalled.")] = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Create or change the resources of a file; with --wait, until they are ready."""
    manifests = read_manifests(file)
    named = {each.namespace for each in manifests if each.namespace}
    if len(named) > 1 or (namespace and named - {namespace}):
        raise Invalid(f"The file names the namespaces {', '.join(sorted(named))}: apply one at a time, with -n.")
    cluster = cluster_of(namespace or next(iter(named), None), context, kubeconfig)
    applied = [cluster.apply(each.kind, each.raw, dry_run=dry_run) for each in manifests]
    if output is Format.TEXT:
        for resource in applied:
            say(f"{resource.title} in {cluster.namespace}: {'would be accepted' if dry_run else 'applied'}")
    if wait and not dry_run:
        applied = _wait(cluster, manifests, output, timeout)
    if output is Format.JSON:
        show_json([resource.raw for resource in applied])
    waiting.check_ready(*(applied if wait else []))


def _wait(cluster: Cluster, manifests: list[Manifest], output: Format, timeout_s: float | None) -> list[Resource]:
    """Follow what was applied, until each is ready or one is stalled."""

    def look() -> Overview:
        found = [cluster.read(each.kind, each.name) for each in manifests]
        return Overview(manifests[0].name, cluster.namespace, found)

    def over(found: Overview) -> bool:
        try:
            waiting.check_ready(*found.resources)
        except Stalled:
            return True
        return found.settled

    looks = waiting.looks(look, over, timeout_s=timeout_s)
    last = follow(looks, console(stderr=output is Format.JSON))
    assert last is not None
    if output is Format.TEXT and not console().is_terminal:
        for resource in last.resources:
            say(f"{resource.title}: {line_of(resource)}")
    return last.resources


def pin(
    file: Annotated[Path, typer.Argument(help="The manifest to edit.")],
    version: Annotated[str | None, typer.Option(help="The version to serve.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Take what this ModelDeployment of a cluster serves: staging's, say.")
    ] = None,
    uri: Annotated[str | None, typer.Option(help="Folder of the version, where the manifest has model.uri.")] = None,
    digest: Annotated[str | None, typer.Option(help="Its digest; default: read from its manifest.json.")] = None,
    name: Annotated[str | None, typer.Option(help="Which ModelDeployment, if the file has several.")] = None,
    dry_run: DryRun = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Edit the version that a manifest serves, and nothing else of the file: the commit that promotes a version."""
    wanted = _pin(version, source, uri, digest, lambda: cluster_of(namespace, context, kubeconfig))
    before = read_text(file)
    after = pinned(before, wanted, file, name)
    shown = difflib.unified_diff(before.splitlines(), after.splitlines(), str(file), str(file), n=1, lineterm="")
    if before == after:
        say(f"{file} serves {wanted.version} already.")
        return
    for line in shown:
        say(line)
    if not dry_run:
        file.write_bytes(after.encode())


def _pin(version: str | None, source: str | None, uri: str | None, digest: str | None, connect: object) -> Pin:
    if source is not None:
        assert callable(connect)
        deployment: Resource = connect().read(MODELDEPLOYMENT, source)
        serving = [each for each in deployment.deployment_status.revisions if each.traffic_percent == 100]
        if not serving:
            raise Invalid(
                f"{deployment.title} has no version with all requests at present; wait for its rollout to end."
            )
        return Pin(serving[0].version, serving[0].uri, serving[0].digest)
    if uri is not None:
        found = uri.rstrip("/")
        return Pin(found.rpartition("/")[2], found, digest or manifest_at(found, config_of({})).digest)
    if version is None:
        raise Invalid("Say which version: --version, --from or --uri.")
    return Pin(version)
