"""versions, diff, lineage, report and sign: what was published, how it differs, where it came from, who vouches."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from luthier.cluster import Cluster
from luthier.commands.options import Context, Kubeconfig, Name, Namespace, Output, VersionArgument, cluster_of
from luthier.comparison import compare
from luthier.errors import NotFound
from luthier.kinds import BATCHPREDICTION, Resource
from luthier.screens import words
from luthier.screens.console import Format, say, show, show_json
from luthier.screens.tables import VersionRow, diff_page, lineage_tree, versions_table
from luthier.storage import config_of, fetch, list_all, manifest_at, read_json, sign_at, split_version_uri, told
from luthier.version_names import Versions
from luthier_api.artifact_files import METRICS_FILE, REPORT_FILE
from luthier_artifacts import Manifest, StorageConfig

PASSWORD_VARIABLE = "LUTHIER_SIGNING_PASSWORD"
NameOrUri = Annotated[str, typer.Argument(help="Name of a FineTuneJob, or s3://.../versions/VERSION.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("versions")(list_versions)
    app.command()(diff)
    app.command()(lineage)
    app.command()(report)
    app.command()(sign)


def list_versions(
    name: Name,
    everything: Annotated[
        bool, typer.Option("--all", help="Ask storage too: aliases, and versions of earlier resources.")
    ] = False,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the versions of a FineTuneJob: metrics, gates, and who uses them."""
    versions = Versions(cluster_of(namespace, context, kubeconfig), name)
    rows = _stored_rows(versions) if everything else _status_rows(versions)
    if output is Format.JSON:
        show_json([row.to_json() for row in rows])
    elif rows:
        show(versions_table(rows, words.now_utc()))
    else:
        say(f"{versions.job.title} has published no version yet.")


def _status_rows(versions: Versions) -> list[VersionRow]:
    status, used = versions.job.job_status, _used(versions.followers())
    present = status.artifact.version if status.artifact else None
    return [
        VersionRow(
            version=each.version,
            uri=each.uri,
            digest=each.digest,
            metrics=dict(each.metrics),
            promotable=each.promotable,
            chosen_at=each.chosen_at,
            present=each.version == present,
            served_by=tuple(used.get(each.version, [])),
            size_bytes=each.size_bytes,
            notes=tuple(note for note in (each.kept, "being removed" if each.removing else None) if note),
        )
        for each in status.versions
    ]


def _stored_rows(versions: Versions) -> list[VersionRow]:
    known = {row.version: row for row in _status_rows(versions)}
    place, used = versions.place, _used(versions.followers())
    with told():
        aliases = place.registry.list_aliases()
    rows = []
    for manifest in list_all(place):
        mine = known.get(manifest.version)
        rows.append(
            VersionRow(
                version=manifest.version,
                uri=versions.uri(manifest.version),
                digest=manifest.digest,
                metrics=dict(manifest.metrics),
                promotable=manifest.promotable,
                chosen_at=manifest.created_at,
                present=bool(mine and mine.present),
                served_by=tuple(used.get(manifest.version, [])),
                aliases=tuple(alias.alias for alias in aliases if alias.version == manifest.version),
                size_bytes=manifest.size_bytes,
                notes=() if mine else ("not of this resource",),
            )
        )
    return rows


def _used(followers: list[Resource]) -> dict[str, list[str]]:
    """Return {version: what serves it, with its share of the requests, and the predictions under way}."""
    used: dict[str, list[str]] = {}
    for each in followers:
        if each.kind is BATCHPREDICTION:
            batch = each.batch_status
            if batch.version and batch.run and batch.run.state == "Running":
                used.setdefault(batch.version, []).append(each.title)
            continue
        for revision in each.deployment_status.revisions:
            used.setdefault(revision.version, []).append(f"{each.name} {revision.traffic_percent} %")
    return used


def diff(
    name: Name,
    before: VersionArgument = "previous",
    after: VersionArgument = "current",
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Compare two versions: spec, data, environment, metrics, and the F1 of each label."""
    versions = Versions(cluster_of(namespace, context, kubeconfig), name)
    config = versions.place.config
    uris = [versions.uri(versions.resolve(given)) for given in (before, after)]
    old, new = (manifest_at(uri, config) for uri in uris)
    comparison = compare(old, new, *(read_json(uri, config, METRICS_FILE) for uri in uris))
    if output is Format.JSON:
        show_json(comparison.to_json())
    else:
        show(diff_page(comparison))


def lineage(
    name: NameOrUri,
    version: VersionArgument = None,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show where a version came from: base model, data, run, image, environment, metrics."""
    manifest, uri = _manifest(name, version, namespace, context, kubeconfig)
    if output is Format.JSON:
        show_json(manifest.model_dump(mode="json", by_alias=True))
    else:
        show(lineage_tree(manifest, uri))


def _manifest(
    name: str, version: str | None, namespace: str | None, context: str | None, kubeconfig: Path | None
) -> tuple[Manifest, str]:
    uri, config, _ = _place(name, version, namespace, context, kubeconfig)
    return manifest_at(uri, config), uri


def _place(
    name: str, version: str | None, namespace: str | None, context: str | None, kubeconfig: Path | None
) -> tuple[str, StorageConfig, str | None]:
    """Return where a version is, how that is reached, and its digest if a FineTuneJob's status has it."""
    if split_version_uri(name):  # no cluster is needed for it
        return name, config_of({}), None
    versions, resolved = _version(cluster_of(namespace, context, kubeconfig), name, version)
    return versions.uri(resolved), versions.place.config, versions.digest(resolved)


def _version(cluster: Cluster, name: str, version: str | None) -> tuple[Versions, str]:
    versions = Versions(cluster, name)
    return versions, versions.resolve(version)


def report(
    name: Name,
    version: VersionArgument = None,
    save: Annotated[Path | None, typer.Option(help="Write it there instead of opening it.")] = None,
    file: Annotated[str, typer.Option(help="Another file of the version, such as console.log.")] = REPORT_FILE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Download a version's report with your own S3 keys, verify it, and open it."""
    versions, resolved = _version(cluster_of(namespace, context, kubeconfig), name, version)
    folder = Path(tempfile.mkdtemp(prefix=f"luthier-{resolved}-"))
    found = fetch(versions.uri(resolved), versions.place.config, file, folder)
    if save is not None:
        target = save / found.name if save.is_dir() else save
        target.write_bytes(found.read_bytes())
        say(str(target))
        return
    say(str(found))
    if found.suffix == ".html":
        typer.launch(found.as_uri())


def sign(
    name: NameOrUri,
    key: Annotated[
        Path, typer.Option(help=f"Private key in PEM (ECDSA); ${PASSWORD_VARIABLE} is its password, if it has one.")
    ],
    version: VersionArgument = None,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Sign a version with your key and your own S3 keys, for what has model.verify."""
    private_key, password = _read(key), os.environ.get(PASSWORD_VARIABLE)
    place, config, digest = _place(name, version, namespace, context, kubeconfig)
    uri = place.rstrip("/")
    manifest = sign_at(uri, config, private_key, password.encode() if password else None, digest)
    if output is Format.JSON:
        show_json({"version": manifest.version, "uri": uri, "digest": manifest.digest})
    else:
        say(f"Signed {uri} ({manifest.digest}).")


def _read(key: Path) -> bytes:
    try:
        return key.read_bytes()
    except OSError as error:
        raise NotFound(f"The key {key} cannot be read: {error.strerror}.") from None
