"""The two resources for a file of labelled texts, and a sentence for each decision."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from luthier.kinds import FINETUNEJOB, MODELDEPLOYMENT, Raw, manifest_of
from luthier.manifests import dump, validate
from luthier.proposal.columns import Columns
from luthier.proposal.language import MULTILINGUAL, detect_language, model_for, name_of
from luthier.proposal.lengths import Lengths, measure
from luthier.proposal.table import Table
from luthier_api.training import Task

_IMBALANCE = 4.0
_FEW_ROWS = 200


@dataclass(frozen=True)
class Choices:
    """What no file says."""

    name: str
    data_uri: str
    output_uri: str
    model: str | None = None
    max_length: int | None = None
    gpus: int = 1
    secret: str | None = None
    endpoint: str | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Proposal:
    """What is proposed."""

    job: Raw
    deployment: Raw
    reasons: list[str]
    warnings: list[str]

    def to_yaml(self, source: str) -> str:
        """Return one file with both resources, and the reasons as its comments."""
        head = [f"# Made by `luthier init` from {source}. Every field: docs/reference/finetunejob.md", "#"]
        head += [f"# - {reason}" for reason in self.reasons]
        head += [f"# ! {warning}" for warning in self.warnings]
        return "\n".join(head) + "\n" + dump(self.job) + "---\n" + dump(self.deployment)


def propose(
    table: Table,
    columns: Columns,
    choices: Choices,
    tokenizer_of: Callable[[str], Any] = lambda uri: None,
) -> Proposal:
    """Return both resources.

    Raises:
        Invalid: if a choice does not pass the contract, such as a name with capitals.
    """
    texts = table.columns[columns.text]
    language = detect_language(texts)
    base = model_for(language)
    uri = choices.model or base.uri
    pairs = table.columns[columns.pair] if columns.pair else None
    lengths = measure(texts, pairs, tokenizer_of(uri), choices.max_length)
    spec: Raw = {
        "task": str(columns.task),
        "model": {"uri": uri},
        "dataset": _dataset(table, columns, choices, lengths.max_length),
        **({"labels": list(columns.labels)} if columns.labels else {}),
        **_hyperparameters(columns, choices),
        **_evaluation(columns, table.rows),
        "gpusPerNode": choices.gpus,
        "output": _output(choices),
    }
    job = manifest_of(FINETUNEJOB, choices.name, spec)
    deployment = manifest_of(MODELDEPLOYMENT, choices.name, {"model": {"fineTuneJobRef": {"name": choices.name}}})
    for kind, manifest in ((FINETUNEJOB, job), (MODELDEPLOYMENT, deployment)):
        validate(kind, manifest["spec"], f"{kind.name} {choices.name}")
    reasons = [*columns.reasons, *_length_reasons(lengths), _model_reason(language, uri, choices)]
    return Proposal(job, deployment, reasons, _warnings(table, columns))


def resource_name(file_name: str) -> str:
    """Return a name for a resource that trains on a file: lower-case letters, digits and '-', at most 40."""
    stem = re.sub(r"(\.(csv|tsv|jsonl|ndjson|parquet|gz))+$", "", file_name.lower())
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:40].strip("-")
    return name if name[:1].isalpha() else f"model-{name}".strip("-")[:40]


def _dataset(table: Table, columns: Columns, choices: Choices, max_length: int) -> Raw:
    train: Raw = {"uri": choices.data_uri, "textColumn": columns.text}
    if columns.pair:
        train["textPairColumn"] = columns.pair
    if columns.indicators:
        train["labelColumns"] = list(columns.indicators)
    else:
        train["labelColumn"] = columns.label
    if columns.separator:
        train["labelSeparator"] = columns.separator
    if table.encoding:
        train["format"] = {"encoding": table.encoding}
    quality: Raw = {}
    missing = _missing(table, columns)
    if missing > 0.05:
        quality["maxMissingFraction"] = f"{min(1.0, math.ceil(missing * 100) / 100):g}"
    return {
        "train": train,
        "split": {"fraction": "0.1"},
        "preprocessing": {"maxLength": max_length},
        **({"quality": quality} if quality else {}),
    }


def _hyperparameters(columns: Columns, choices: Choices) -> Raw:
    wanted: Raw = {}
    if choices.epochs:
        wanted["epochs"] = choices.epochs
    if columns.task is Task.TEXT_CLASSIFICATION and _imbalance(columns) > _IMBALANCE:
        wanted["classWeights"] = "balanced"
    return {"hyperparameters": wanted} if wanted else {}


def _evaluation(columns: Columns, rows: int) -> Raw:
    """Of classes, the one gate that every model must pass: better than always answering the commonest."""
    if columns.task is not Task.TEXT_CLASSIFICATION or not rows:
        return {}
    share = max(columns.counts.values()) / sum(columns.counts.values())
    return {"evaluation": {"gates": [{"metric": "eval_accuracy", "operator": "GT", "threshold": f"{share:.2f}"}]}}


def _output(choices: Choices) -> Raw:
    output: Raw = {"name": choices.name, "uri": choices.output_uri}
    if choices.endpoint:
        output["endpoint"] = choices.endpoint
    if choices.secret:
        output["secretRef"] = {"name": choices.secret}
    return output


def _length_reasons(lengths: Lengths) -> list[str]:
    return [
        f"maxLength {lengths.max_length}: half of the texts have up to {lengths.median} tokens, "
        f"95 % {lengths.p95}, 99 % {lengths.p99}; "
        f"{lengths.cut:.1%} are cut ({lengths.counted_by})"
    ]


def _model_reason(language: str | None, uri: str, choices: Choices) -> str:
    if choices.model:
        return f"model {uri}, as you said"
    shared = " (one model for a hundred languages)" if uri == MULTILINGUAL.uri else ""
    return f"model {uri}{shared}: the texts are in {name_of(language)}"


def _missing(table: Table, columns: Columns) -> float:
    wanted = [table.columns[name] for name in (columns.text, columns.label) if name]
    return sum(not all(row) for row in zip(*wanted, strict=True)) / table.rows


def _imbalance(columns: Columns) -> float:
    counts = columns.counts.values()
    return max(counts) / max(1, min(counts)) if counts else 1.0


def _warnings(table: Table, columns: Columns) -> list[str]:
    warnings = []
    if not table.whole:
        warnings.append(f"only the first {table.rows} rows were looked at; a label that comes later is missing here")
    if table.rows < _FEW_ROWS:
        warnings.append(f"{table.rows} rows are few: expect a metric that chance moves by several percent")
    if missing := _missing(table, columns):
        warnings.append(f"{missing:.1%} of the rows lack a text or a label and are dropped")
    rare = [label for label, count in columns.counts.items() if count < 2]
    if rare:
        warnings.append(f"labels with a single example, which training refuses: {', '.join(rare[:5])}")
    if columns.task is Task.TEXT_CLASSIFICATION and (ratio := _imbalance(columns)) > _IMBALANCE:
        warnings.append(f"the commonest label is {ratio:.0f} times as frequent as the rarest: classWeights is balanced")
    return warnings
