"""Tries before training whether the base model's architecture can be exported, so that no training is lost to that.

Whether it can is a matter of the architecture and not of its weights or its depth: a model of the same configuration
with new weights and at most two layers is exported, which takes seconds. Works on the first process alone.
"""

import contextlib
import copy
import logging
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from luthier_api.artifact_files import ONNX_FILE
from luthier_api.training import ExportFormat, TrainingSpec
from luthier_trainer.export.exporter import export_onnx, held_out_collator
from luthier_trainer.formats.prepared import PreparedFolder
from luthier_trainer.runtime.errors import ExportFailed
from luthier_trainer.tasks.interface import TaskModule

log = logging.getLogger(__name__)

# A test exports each of these (test_architectures), so that their runs need not wait.
EXPORTABLE = frozenset(
    {
        "bert",
        "roberta",
        "xlm-roberta",
        "distilbert",
        "albert",
        "electra",
        "deberta",
        "deberta-v2",
        "modernbert",
        "mpnet",
    }
)
_LAYERS = 2


def try_export(
    model: PreTrainedModel, spec: TrainingSpec, task: TaskModule, prepared: PreparedFolder, *, threads: int
) -> None:
    """Export an untrained model of the same architecture, and throw it away.

    Args:
        model: whose configuration counts.
        spec: what is exported.
        task: of the model.
        prepared: real texts.
        threads: CPUs to use.

    Raises:
        ExportFailed: if the architecture cannot be exported.
    """
    wanted = {ExportFormat.ONNX, ExportFormat.ONNX_INT8} & set(spec.export)
    if not wanted or model.config.model_type in EXPORTABLE:
        return
    # What is random here must not change what is trained afterwards.
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        small = _small(model, task)
        collator = held_out_collator(small, task, prepared)
        try:
            outcome = export_onnx(small, Path(folder) / ONNX_FILE, collator, threads=threads)
        except ExportFailed as error:
            raise ExportFailed(f"{error} This was tried before training; nothing was trained.") from error
    log.info(
        "a model of type %s can be exported (largest difference %.1g)", model.config.model_type, outcome.difference
    )


def _small(model: PreTrainedModel, task: TaskModule) -> PreTrainedModel:
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # Where layers are counted otherwise, all are made.
    with contextlib.suppress(NotImplementedError, AttributeError):
        config.num_hidden_layers = _layers_to_try(config)
        if kinds := getattr(config, "layer_types", None):
            config.layer_types = kinds[: config.num_hidden_layers]
    made: PreTrainedModel = getattr(transformers, task.auto_class).from_config(config, dtype=torch.float32)
    made.eval()  # type: ignore[no-untyped-call]
    return made


def _layers_to_try(config: transformers.PreTrainedConfig) -> int:
    """Return as many layers as show each kind of layer."""
    kinds = list(getattr(config, "layer_types", None) or [""])
    seen = max(kinds.index(kind) for kind in set(kinds)) + 1
    return min(int(config.num_hidden_layers), max(_LAYERS, seen))
