"""Writes README.md: the model card by which a hub shows the model and people judge whether to use it.

The front matter is huggingface_hub's own, so that the artifact's folder can be pushed to a hub as it is; it names what
is known and leaves out what is not (the licence, the language). The text lies in templates/card.md.j2.
Format: https://huggingface.co/docs/hub/model-cards
"""

import math
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from luthier_api.artifact_files import CARD_FILE
from luthier_api.documents import RunDocument
from luthier_api.storage import HUB_DATASET
from luthier_api.training import MethodType
from luthier_trainer.data.dataset import last_part
from luthier_trainer.formats.prepared import PreparedFolder
from luthier_trainer.publish.findings import Findings
from luthier_trainer.publish.report import number
from luthier_trainer.publish.report_sections import baseline_name, gates, headline, metric_title
from luthier_trainer.spec.flatten_spec import flatten_spec
from luthier_trainer.tasks.evaluation import Evaluation
from luthier_trainer.tasks.registry import task_of

LABELS_SHOWN = 50
_HUB = "hf://"
# The hub's names of the metrics that it knows: https://huggingface.co/metrics
_HUB_METRICS = {
    "accuracy": "accuracy",
    "f1_macro": "f1",
    "f1_weighted": "f1",
    "f1_micro": "f1",
    "f1_entities": "f1",
    "precision_macro": "precision",
    "precision_entities": "precision",
    "recall_macro": "recall",
    "recall_entities": "recall",
    "mcc": "matthews_correlation",
    "roc_auc": "roc_auc",
    "mse": "mse",
    "mae": "mae",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}


def write_card(folder: Path, run: RunDocument, prepared: PreparedFolder, findings: Findings) -> None:
    """Write the card of one version into its folder."""
    spec = run.spec
    templates = Environment(
        loader=PackageLoader("luthier_trainer.publish"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"number": number, "cell": cell, "metric": metric_title}
    text = templates.get_template("card.md.j2").render(
        run=run,
        spec=spec,
        data=prepared.data,
        quality=prepared.quality,
        findings=findings,
        headline=headline(spec, findings),
        gates=gates(spec, findings.metrics),
        baseline=baseline_name(spec.task),
        auto_class=task_of(spec.task).auto_class,
        pipeline=task_of(spec.task).pipeline_tag,
        labels_shown=LABELS_SHOWN,
        settings={
            name.removeprefix("hyperparameters."): value
            for name, value in flatten_spec(spec).items()
            if name.startswith(("hyperparameters.", "method."))
        },
    )
    front_matter = card_data(run, findings).to_yaml()
    ModelCard(f"---\n{front_matter}\n---\n\n{text}", ignore_metadata_errors=False).save(folder / CARD_FILE)


def card_data(run: RunDocument, findings: Findings) -> ModelCardData:
    """Return the front matter."""
    spec = run.spec
    results = _results(run, "evaluation", findings.evaluation)
    if findings.test:
        results += _results(run, "test", findings.test)
    return ModelCardData(
        # The front matter can only name models of a hub; the text names any other base model.
        base_model=spec.model.uri.removeprefix(_HUB).split("@")[0] if spec.model.uri.startswith(_HUB) else None,
        base_model_relation="finetune" if spec.model.uri.startswith(_HUB) else None,
        datasets=_hub_datasets(run) or None,
        library_name="transformers",
        pipeline_tag=task_of(spec.task).pipeline_tag,
        tags=sorted({"luthier", spec.task.value, *(["lora"] if spec.method.type in _LOW_RANK else [])}),
        metrics=sorted({result.metric_type for result in results}),
        model_name=spec.output.name,
        eval_results=results or None,
    )


_LOW_RANK = (MethodType.LORA, MethodType.QLORA)


def _hub_datasets(run: RunDocument) -> list[str]:
    uris = [file.uri for file in run.spec.dataset.files() if file.uri.startswith(HUB_DATASET)]
    return sorted({"/".join(uri.removeprefix(HUB_DATASET).split("/")[:2]) for uri in uris})


def _results(run: RunDocument, split: str, evaluation: Evaluation) -> list[EvalResult]:
    dataset = last_part(run.spec.dataset.train.uri)
    return [
        EvalResult(
            task_type=task_of(run.spec.task).pipeline_tag,
            dataset_type=dataset.split(".")[0].rstrip("/") or "dataset",
            dataset_name=dataset.rstrip("/"),
            dataset_split=split,
            metric_type=_HUB_METRICS[name],
            metric_name=metric_title(name),
            metric_value=round(value, 6),
        )
        for name, value in evaluation.metrics.items()
        if name in _HUB_METRICS and math.isfinite(value)
    ]


def cell(text: object) -> str:
    """Return text of the data as Markdown that shows it and does nothing else, also within a table."""
    kept = " ".join(str(text).split())
    for mark in "\\`*_{}[]()#|~":
        kept = kept.replace(mark, f"\\{mark}")
    return kept.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
