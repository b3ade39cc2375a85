"""Lists: of resources, of versions, of aliases, of predictions; where a version came from; two versions compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from luthier.comparison import Comparison, Difference, MetricChange
from luthier.kinds import Resource
from luthier.screens import words
from luthier.screens.status_page import phase_of, phase_style
from luthier_api.reasons import ConditionType
from luthier_artifacts import Alias, Manifest


def _table(*headers: str) -> Table:
    return Table(*headers, box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))


def resources_table(resources: Sequence[Resource], now: datetime) -> Table:
    """Return all resources of a namespace, each with its sentence."""
    table = _table("kind", "name", "state", "age", "")
    for resource in resources:
        ready = resource.condition(ConditionType.READY)
        age = words.since(resource.raw["metadata"].get("creationTimestamp"), now)
        state = Text(phase_of(resource), phase_style(resource))
        table.add_row(resource.kind.name, resource.name, state, age, Text(ready.message if ready else ""))
    return table


@dataclass(frozen=True)
class VersionRow:
    """One version, from a status or from storage."""

    version: str
    uri: str
    digest: str
    metrics: Mapping[str, Any]
    promotable: bool
    chosen_at: str
    present: bool = False
    served_by: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    size_bytes: int = 0
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return dict(vars(self))


def versions_table(rows: Iterable[VersionRow], now: datetime) -> Table:
    """Return versions, newest first, with what each is used for."""
    table = _table("", "version", "metrics", "", "size", "age", "used by")
    for row in rows:
        metrics = "  ".join(f"{name} {_number(value)}" for name, value in list(row.metrics.items())[:3])
        gates = Text("promotable", "green") if row.promotable else Text("failed a gate", "red")
        used = [*row.served_by, *(f"alias {alias}" for alias in row.aliases), *row.notes]
        size = words.size(row.size_bytes) if row.size_bytes else ""
        age = words.since(row.chosen_at, now)
        table.add_row("●" if row.present else "○", row.version, metrics, gates, size, age, Text(", ".join(used)))
    return table


def aliases_table(aliases: Iterable[Alias], now: datetime) -> Table:
    """Return the aliases of a model."""
    table = _table("alias", "version", "moved")
    for alias in aliases:
        since = words.since(alias.moved_at, now)
        table.add_row(alias.alias, alias.version, f"{since} ago" if since else "")
    return table


def predictions_table(predictions: Sequence[Mapping[str, Any]]) -> Table:
    """Return answers of the server, a line for each text."""
    table = _table("prediction", "confidence", "text")
    for answer in predictions:
        if "error" in answer:
            table.add_row(Text("failed", "red"), "", Text(str(answer["error"])))
            continue
        confidence = answer.get("confidence")
        text = str(answer.get("input_text", ""))
        shown = text if len(text) <= 70 else f"{text[:69]}…"
        figure = f"{confidence:.2f}" if isinstance(confidence, int | float) else ""
        table.add_row(Text(prediction_words(answer.get("prediction")), "bold"), figure, Text(shown, "dim"))
    return table


def prediction_words(prediction: Any) -> str:
    """Return a prediction of any task in a few words."""
    if isinstance(prediction, list):
        said = [f"{each['text']} ({each['label']})" if isinstance(each, Mapping) else str(each) for each in prediction]
        return ", ".join(said) or "none"
    return words.figure(prediction) if isinstance(prediction, float) else str(prediction)


def lineage_tree(manifest: Manifest, uri: str) -> RenderableType:
    """Return where a version came from."""
    lineage = manifest.lineage
    tree = Tree(Text.assemble((manifest.version, "bold"), ("  " + uri, "dim")), guide_style="dim")
    tree.add(f"made {manifest.created_at}, {len(manifest.files)} files, {words.size(manifest.size_bytes)}")
    tree.add(f"digest {manifest.digest}")
    model = tree.add(Text(f"base model  {lineage.base_model_uri or 'unknown'}"))
    _leaves(model, {"commit": lineage.base_model_revision, "digest": lineage.base_model_digest})
    data = tree.add(Text(f"dataset  {lineage.dataset_uri or 'unknown'}"))
    _leaves(data, {"digest": lineage.dataset_digest, **_short(lineage.dataset_quality)})
    origin = lineage.run_document.get("origin") or {}
    run = tree.add(Text(f"run  {origin.get('run', 'outside of a cluster')}"))
    resource = (
        f"{origin.get('namespace')}/{origin.get('name')}, generation {origin.get('generation')}" if origin else None
    )
    _leaves(run, {"FineTuneJob": resource, "run key": manifest.run_key, "image": lineage.image, "seed": lineage.seed})
    _leaves(run, {"trainer": lineage.code_version, **lineage.environment})
    metrics = tree.add("metrics" + ("" if manifest.promotable else " (failed a gate)"))
    _leaves(metrics, {name: words.figure(value) for name, value in manifest.metrics.items()})
    for message in manifest.gate_messages:
        metrics.add(Text(message, "red"))
    return tree


def diff_page(comparison: Comparison) -> RenderableType:
    """Return what differs between two versions; what is the same is left out."""
    parts: list[RenderableType] = [Text.assemble((comparison.before, "bold"), " → ", (comparison.after, "bold"))]
    parts += _section("spec", comparison.spec) or [Text("spec: the same", "dim")]
    parts += _section("data", comparison.data) or [Text("data: the same bytes", "dim")]
    parts += _section("environment", comparison.environment)
    parts += _figures("metrics", comparison.metrics)
    parts += _figures("F1 of each label", [change for change in comparison.labels if change.delta])
    return Group(*parts)


def _section(title: str, differences: Sequence[Difference]) -> list[RenderableType]:
    if not differences:
        return []
    table = _table(title, "", "")
    for each in differences:
        before, after = (_short_digest(value) if value is not None else "–" for value in (each.before, each.after))
        table.add_row(Text(each.name), Text(before, "red"), Text(after, "green"))
    return [Text(), table]


def _figures(title: str, changes: Sequence[MetricChange]) -> list[RenderableType]:
    if not changes:
        return []
    table = _table(title, "", "", "")
    for each in changes:
        style = {True: "green", False: "red", None: "dim"}[each.better]
        delta = f"{each.delta:+.4g}" if each.delta else "="
        table.add_row(Text(each.name), words.figure(each.before), words.figure(each.after), Text(delta, style))
    return [Text(), table]


def _leaves(tree: Tree, facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value not in (None, "", {}):
            tree.add(Text.assemble((f"{name}  ", "dim"), str(value)))


def _short(quality: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain figures of a quality report."""
    return {name: value for name, value in list(quality.items())[:8] if isinstance(value, int | float | str)}


def _short_digest(value: str) -> str:
    return f"{value[:19]}…" if value.startswith("sha256:") else value


def _number(value: Any) -> str:
    return words.figure(value) if isinstance(value, float) else str(value)
