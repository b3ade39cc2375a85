"""The adapter of a LoRA or QLoRA run as a folder: written beside the merged model, checked, and merged again.

    adapter_config.json, adapter_model.safetensors    as peft writes and reads them
    luthier-adapter.json                              which base model the updates were learned for, and of what task

Updates mean nothing on other weights than those they were learned beside, so the base model's digest travels with them
and another base is refused. However a base model was held while training, merging always begins from its own weights in
fp32 on a CPU: what is published, and what `merge` makes of adapter and base anywhere else, are the same to the bit.
"""

import copy
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from luthier_api.artifact_files import (
    ADAPTER_DOCUMENT_FILE,
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS_FILE,
    TOKENIZER_FILES,
)
from luthier_api.documents import SERVING_DOCUMENT_FILE, AdapterDocument, Resolved, RunDocument
from luthier_api.training import Label
from luthier_trainer.models.base_model import check_base_model, digest_of_model
from luthier_trainer.models.load import load_model
from luthier_trainer.models.methods import Trainable, release, with_adapters
from luthier_trainer.runtime.errors import InvalidModel
from luthier_trainer.tasks.registry import task_of

log = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]


def adapter_document(run: RunDocument, resolved: Resolved, labels: list[Label]) -> AdapterDocument:
    """Return what an adapter of a run is for."""
    return AdapterDocument(
        base_model_uri=run.spec.model.uri,
        base_model_revision=resolved.model_revision,
        base_model_digest=resolved.model_digest,
        task=run.spec.task,
        labels=labels,
    )


def finish(
    model: Trainable, load: Callable[[], PreTrainedModel], about: AdapterDocument, folder: Path | None
) -> PreTrainedModel:
    """Return a plain model of what was trained; with updates also write them as an adapter.

    Args:
        model: as `methods.adapt` made it, trained.
        load: loads the base model again, in fp32.
        about: what an adapter is for.
        folder: where an adapter is written; None for ranks that write nothing.
    """
    if not isinstance(model, PeftModel):
        return release(model)
    if folder:
        save_adapter(model, folder, about)
    return merged(load(), *adapter_of(model))


def save_adapter(model: PeftModel, folder: Path, about: AdapterDocument) -> None:
    """Write the updates and the head of a trained model."""
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = adapter_of(model)
    config.base_model_name_or_path, config.revision = about.base_model_uri, about.base_model_revision
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(weights, folder / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / ADAPTER_DOCUMENT_FILE).write_text(about.to_json(indent=2) + "\n")


def adapter_of(model: PeftModel) -> tuple[LoraConfig, Weights]:
    """Return the settings, and the weights that were trained, on the CPU."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in get_peft_model_state_dict(model).items()}
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    return copy.deepcopy(config), weights


def merged(fresh: PreTrainedModel, config: LoraConfig, weights: Weights) -> PreTrainedModel:
    """Add the updates to the weights of a model just loaded, and replace its head.

    Raises:
        InvalidModel: if weights are missing, or are not of this model.
    """
    model = with_adapters(fresh.cpu(), config)
    expected = get_peft_model_state_dict(model)
    strange = sorted(set(expected) ^ set(weights)) or sorted(
        name for name, weight in weights.items() if weight.shape != expected[name].shape
    )
    if strange:
        raise InvalidModel(
            f"The adapter does not fit its base model, the first weight that differs being {strange[0]}."
        )
    set_peft_model_state_dict(model, weights)
    plain: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    return release(plain)


def merge_folders(artifact: Path, base: Path, out: Path) -> None:
    """Make a plain model of an artifact's adapter and a copy of its base model.

    Args:
        artifact: holds `adapter/`; of its other files only those of tokenizer and serving are used, if they are there.
        base: the base model's folder.
        out: written; must not exist or be empty.

    Raises:
        InvalidModel: if the folder has no adapter, or it is damaged, or was learned for another base model.
    """
    if out.exists() and any(out.iterdir()):
        raise InvalidModel(f"{out} is not empty; name a folder that does not exist yet.")
    about = _read_document(artifact / ADAPTER_FOLDER)
    if (digest := digest_of_model(base)) != about.base_model_digest:
        raise InvalidModel(
            f"{base} is not the base model of this adapter: its files' digest is {digest}, and the adapter was trained "
            f"on {about.base_model_uri} with {about.base_model_digest}."
        )
    checked = check_base_model(base, str(base), auto_class=task_of(about.task).auto_class, max_length=1)
    fresh = load_model(checked, str(base), task_of(about.task), about.labels)
    config, weights = _read_adapter(artifact / ADAPTER_FOLDER)
    merged(fresh, config, weights).save_pretrained(out)
    for name in (*TOKENIZER_FILES, SERVING_DOCUMENT_FILE):
        if found := next((folder / name for folder in (artifact, base) if (folder / name).exists()), None):
            shutil.copyfile(found, out / name)
    log.info("merged %s into %s", artifact / ADAPTER_FOLDER, out)


def _read_document(folder: Path) -> AdapterDocument:
    path = folder / ADAPTER_DOCUMENT_FILE
    try:
        return AdapterDocument.from_json(path.read_bytes())
    except OSError as error:
        raise InvalidModel(
            f"{path} cannot be read ({error.strerror}); give the artifact of a run with method LoRA or QLoRA."
        ) from error
    except ValidationError as error:
        raise InvalidModel(f"{path} does not say what the adapter is for; download the artifact again.") from error


def _read_adapter(folder: Path) -> tuple[LoraConfig, Weights]:
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / ADAPTER_WEIGHTS_FILE)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError, json.JSONDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidModel(
            f"The adapter in {folder} cannot be read ({reason}); download the artifact again."
        ) from error
    if not isinstance(config, LoraConfig):
        raise InvalidModel(f"The adapter in {folder} is of type {config.peft_type}, not LoRA.")
    config.inference_mode = False
    return config, weights
