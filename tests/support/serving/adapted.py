"""Versions of method LoRA over one base model, as the trainer publishes them, with random updates."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from luthier_api.artifact_files import ADAPTER_FOLDER, SERVING_DOCUMENT_FILE, TOKENIZER_FILE
from luthier_api.documents import AdapterDocument
from luthier_api.training import Lora, Method, Task
from support.serving.artifact import serving_document


def make_adapted(base: Path, folder: Path, *labels: str, seed: int, rank: int = 4, scale: float = 0.3) -> Path:
    """A version over a base model's folder: the merged model, and the adapter beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers warn about their own insides while they are imported
        import torch
        from transformers import AutoModelForSequenceClassification, PreTrainedModel

        from luthier_trainer.models.adapters import finish
        from luthier_trainer.models.base_model import digest_of_model
        from luthier_trainer.models.methods import adapt

    def load() -> PreTrainedModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
                base, num_labels=len(labels), ignore_mismatched_sizes=True, local_files_only=True
            )
        return found

    torch.manual_seed(seed)
    adapted = adapt(load(), Method(type="LoRA", lora=Lora(r=rank)))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.normal_(0, scale)
    folder.mkdir(parents=True)
    about = AdapterDocument(
        base_model_uri="s3://models/base",
        base_model_digest=digest_of_model(base),
        task=Task.TEXT_CLASSIFICATION,
        labels=list(labels),
    )
    finish(adapted, load, about, folder / ADAPTER_FOLDER).save_pretrained(folder)
    shutil.copyfile(base / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    (folder / SERVING_DOCUMENT_FILE).write_text(serving_document(*labels))
    return folder
