"""Parses spec.trainingArguments: further fields of transformers.TrainingArguments, each value as text.

A field that the spec has a name for, or that Luthier decides, is refused, so that nothing is said twice; an unknown
name is refused with the closest known ones. Needs no torch, so *prepare* finds the mistake before a GPU is asked for.
"""

import difflib
import json
from typing import Any

from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.spec.transformers_source import training_argument_types, transformers_version

# TrainingArguments' name -> the field of the spec that says it.
SPEC_FIELDS = {
    "num_train_epochs": "hyperparameters.epochs",
    "learning_rate": "hyperparameters.learningRate",
    "per_device_train_batch_size": "hyperparameters.batchSize",
    "per_device_eval_batch_size": "hyperparameters.evalBatchSize",
    "gradient_accumulation_steps": "hyperparameters.gradientAccumulationSteps",
    "auto_find_batch_size": "hyperparameters.batchSize (auto)",
    "gradient_checkpointing": "hyperparameters.gradientCheckpointing",
    "activation_checkpointing": "hyperparameters.gradientCheckpointing",
    "label_smoothing_factor": "hyperparameters.labelSmoothing",
    "weight_decay": "hyperparameters.weightDecay",
    "adam_beta1": "hyperparameters.adamBeta1",
    "adam_beta2": "hyperparameters.adamBeta2",
    "adam_epsilon": "hyperparameters.adamEpsilon",
    "max_grad_norm": "hyperparameters.maxGradNorm",
    "lr_scheduler_type": "hyperparameters.scheduler",
    "warmup_steps": "hyperparameters.warmupSteps",
    "warmup_ratio": "hyperparameters.warmupRatio",
    "seed": "hyperparameters.seed",
    "data_seed": "hyperparameters.seed",
    "eval_steps": "hyperparameters.evalSteps",
    "eval_strategy": "hyperparameters.evalSteps",
    "metric_for_best_model": "hyperparameters.metricForBestModel",
    "greater_is_better": "hyperparameters.greaterIsBetter",
    "bf16": "precision",
    "fp16": "precision",
    "bf16_full_eval": "precision",
    "fp16_full_eval": "precision",
}

# What has no meaning for an engine that computes no padding and whose batch is a whole step -> what it does instead.
MEANINGLESS = {
    "group_by_length": "texts are not padded, so their order is random; hyperparameters.padding says how it is done",
    "train_sampling_strategy": "texts are not padded, so their order is random; hyperparameters.padding says how it is "
    "done",
    "dataloader_drop_last": "the last batch of an epoch is trained on like every other, weighted by its examples",
    "split_batches": "hyperparameters.batchSize is over all devices",
    "average_tokens_across_devices": "every example weighs the same on every device",
    "include_num_input_tokens_seen": "tokens per second are in the progress document",
    "include_tokens_per_second": "tokens per second are in the progress document",
    "eval_accumulation_steps": "logits of evaluations are small; lower hyperparameters.evalBatchSize",
    "eval_use_gather_object": "all devices share every evaluation",
    "dataloader_persistent_workers": "workers are started once an epoch",
    "dataloader_in_order": "batches are in the order of the seed",
    "activation_checkpointing_kwargs": "hyperparameters.gradientCheckpointing says whether",
    "gradient_checkpointing_kwargs": "hyperparameters.gradientCheckpointing says whether",
    "torch_empty_cache_steps": "the cache is emptied when memory runs out",
    "use_cache": "encoders have none",
}

# What the trainer decides: where files go, what is logged and kept, and which device is used.
# fmt: off
OWNED = frozenset({
    "output_dir", "report_to", "run_name", "project", "push_to_hub", "save_strategy", "save_steps",
    "save_total_limit", "save_only_model", "save_on_each_node", "load_best_model_at_end", "do_train", "do_eval",
    "do_predict", "resume_from_checkpoint", "local_rank", "use_cpu", "disable_tqdm", "remove_unused_columns",
    "label_names", "length_column_name", "logging_strategy", "logging_nan_inf_filter", "log_level",
    "log_level_replica", "log_on_each_node", "eval_do_concat_batches", "batch_eval_metrics", "prediction_loss_only",
    "include_for_metrics", "enable_jit_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint",
    "deepspeed", "fsdp", "fsdp_config", "parallelism_config", "accelerator_config", "eval_on_start",
})
# fmt: on
_OWNED_PREFIXES = ("hub_", "trackio_", "ddp_")
_WORDS = {"true": True, "false": False}


def parse_training_arguments(given: dict[str, str]) -> dict[str, Any]:
    """Return the values with the types that TrainingArguments has for them.

    Raises:
        InvalidSpec: for a name that is unknown, covered by a field of the spec or not to be set, and for a value that
            is not of the field's type.
    """
    return {name: _parse(name, text) for name, text in given.items()}


def _parse(name: str, text: str) -> Any:
    fields = training_argument_types()
    if name in SPEC_FIELDS:
        raise InvalidSpec(f"trainingArguments.{name} is set by spec.{SPEC_FIELDS[name]}; set it there.")
    if name in MEANINGLESS:
        raise InvalidSpec(f"trainingArguments.{name} has no effect here: {MEANINGLESS[name]}. Leave it out.")
    if name in OWNED or name.startswith(_OWNED_PREFIXES):
        raise InvalidSpec(f"trainingArguments.{name} is decided by the trainer and cannot be set; leave it out.")
    if name not in fields:
        refused = OWNED | set(MEANINGLESS) | {each for each in fields if each.startswith(_OWNED_PREFIXES)}
        close = difflib.get_close_matches(name, sorted((set(fields) - refused) | set(SPEC_FIELDS)), n=3)
        hint = f"; did you mean {' or '.join(SPEC_FIELDS.get(each, each) for each in close)}?" if close else "."
        release = transformers_version()
        raise InvalidSpec(
            f"trainingArguments.{name} is not a field of TrainingArguments in transformers {release}{hint}"
        )
    return _convert(name, text.strip(), fields[name])


def _convert(name: str, text: str, types: frozenset[str]) -> Any:
    """Try the field's types from the strictest to the loosest."""
    if "None" in types and text.lower() in ("none", "null"):
        return None
    if "bool" in types and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for word, parse in (("int", int), ("float", float)):
        if word in types:
            try:
                return parse(text)
            except ValueError:
                continue
    if types & {"dict", "list"} and text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidSpec(f"trainingArguments.{name} is not JSON: {error.msg}.") from None
    # What is neither a plain type nor None is an enum of words, such as the optimizer's name.
    if types - {"None", "bool", "int", "float", "dict", "list", "Any"}:
        return text
    expected = " or ".join(sorted(types - {"None", "Any", "Optional", "Union"}))
    raise InvalidSpec(f"trainingArguments.{name} is {text!r} and must be of type {expected}.")
