"""doctor and support: what is missing, and what to give to somebody who helps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from luthier.cluster import Cluster
from luthier.commands.options import Context, Kubeconfig, Name, Namespace, Output, cluster_of
from luthier.doctor import Level, Row, cluster_rows, namespace_rows, storage_rows
from luthier.errors import ExitCode, LuthierError
from luthier.kinds import BATCHPREDICTION, FINETUNEJOB, Resource
from luthier.overview import overview
from luthier.screens import words
from luthier.screens.console import Format, say, show, show_json
from luthier.storage import Place, config_of, place_of
from luthier.support_bundle import write_bundle

_STYLES = {Level.OK: "green", Level.INFO: "dim", Level.WARN: "yellow", Level.FAIL: "red"}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(doctor)
    app.command()(support)


def doctor(
    output_uri: Annotated[str | None, typer.Option(help="Prove this place too, such as s3://models/registry/.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Its endpoint, if it is not AWS.")] = None,
    storage: Annotated[bool, typer.Option(help="Prove storage, with your own keys.")] = True,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say what is missing, each with its fix: cluster, operator, rights, GPUs, KubeRay, Secrets, storage.

    Ends with 1 if anything fails. Writes nothing but the object .probe in the buckets that it proves.
    """
    cluster = cluster_of(namespace, context, kubeconfig)
    extra = [Place(output_uri, "luthier-doctor", config_of({"endpoint": endpoint}))] if output_uri else []
    rows = list(_rows(cluster, extra, storage=storage))
    if output is Format.JSON:
        show_json([vars(row) for row in rows])
    else:
        show(_table(rows))
    failed = sum(row.level is Level.FAIL for row in rows)
    if failed:
        if output is Format.TEXT:
            say(f"\n{failed} of {len(rows)} fail.")
        raise typer.Exit(int(ExitCode.FAILED))


def _rows(cluster: Cluster, extra: list[Place], *, storage: bool) -> Iterator[Row]:
    yield from cluster_rows(cluster)
    yield from namespace_rows(cluster)
    if storage:
        found = _resources(cluster)
        jobs = [place_of(each) for each in found if each.kind is FINETUNEJOB]
        yield from storage_rows([*jobs, *extra], [e.spec["output"] for e in found if e.kind is BATCHPREDICTION])


def _resources(cluster: Cluster) -> list[Resource]:
    try:
        return cluster.every()
    except LuthierError:  # a row of its own says so
        return []


def _table(rows: list[Row]) -> Table:
    table = Table("", "", "", box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        said = Text(row.message)
        if row.fix:
            said.append(f"\n→ {row.fix}", "cyan")
        table.add_row(Text(row.level, _STYLES[row.level]), Text(row.check, "bold"), said)
    return table


def support(
    name: Name,
    write: Annotated[Path | None, typer.Option("--write", "-w", help="Default: luthier-support-NAME.zip.")] = None,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Write a zip for somebody who helps: resources, Events and logs, without Secrets and long quotations."""
    cluster = cluster_of(namespace, context, kubeconfig)
    found = overview(cluster, name, details=True)
    path = write or Path(f"luthier-support-{name}.zip")
    names = write_bundle(cluster, found, _rows(cluster, [], storage=False), path, words.now_utc())
    if output is Format.JSON:
        show_json({"path": str(path), "files": names})
    else:
        say(f"{path}: {len(names)} files. Look through it before you give it away.")
