"""The part of a FineTuneJob that decides its result: task, model, data, method and what is produced.

`TrainingSpec` is the base of `FineTuneJobSpec` and travels whole in the run document, so that the trainer and the
operator read one definition. Defaults are those of the usual Hugging Face text-classification practice. Its two large
parts lie in `dataset` and `hyperparameters`; whoever uses a spec finds all of it here.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import AnyDecimal, ApiModel, Fraction, Text, cel
from luthier_api.data_files import Column, DataFile, DataFormat
from luthier_api.dataset import Dataset, Label, Preprocessing, Quality, Split
from luthier_api.hyperparameters import (
    DEFAULT_GLOBAL_BATCH,
    EarlyStopping,
    Hyperparameters,
    Lora,
    Method,
    MethodType,
    MetricName,
    Precision,
)
from luthier_api.storage import NO_ACCESS_TO_A_CLAIM, Input, OutputUri, StorageAccess
from luthier_api.task_rules import NO_LABEL_COLUMNS, NO_LABELS, NO_PAIRS, NO_SEPARATOR, NO_TEXT_COLUMNS, TASK_RULES

__all__ = [
    "Checkpoint",
    "Column",
    "DataFormat",
    "DEFAULT_GLOBAL_BATCH",
    "DataFile",
    "Dataset",
    "EarlyStopping",
    "Evaluation",
    "ExportFormat",
    "Gate",
    "GateOperator",
    "Hyperparameters",
    "Label",
    "Lora",
    "MLflow",
    "Method",
    "MethodType",
    "MetricName",
    "Model",
    "Output",
    "Precision",
    "Preprocessing",
    "Quality",
    "Split",
    "TASK_RULES",
    "Task",
    "Tracking",
    "TrainingSpec",
]


class Task(StrEnum):
    """What the model learns to do."""

    TEXT_CLASSIFICATION = "text-classification"
    MULTI_LABEL = "multi-label"
    REGRESSION = "regression"
    TOKEN_CLASSIFICATION = "token-classification"


class ExportFormat(StrEnum):
    """What an artifact holds beside its tokenizer and configuration."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    ONNX_INT8 = "onnx-int8"


class GateOperator(StrEnum):
    """How a gate compares a metric with its threshold."""

    GTE = "GTE"
    GT = "GT"
    LTE = "LTE"
    LT = "LT"


class Model(Input):
    """The base model: a folder in hub format (config.json, model.safetensors, tokenizer.json)."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.revision) || self.uri.startsWith('hf://')",
                "revision applies to hf:// models only; for others, use a URI that names the version",
            ),
            (
                "!self.uri.startsWith('hf://')"
                " || !(has(self.endpoint) || has(self.region) || has(self.forcePathStyle))",
                "endpoint, region and forcePathStyle apply to s3:// models only",
            ),
            (
                "!self.uri.startsWith('hf://') || self.uri.matches('^hf://[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?/?$')",
                "write a Hugging Face Hub model as hf://owner/name",
            ),
            (
                "!self.uri.startsWith('pvc://') || !(has(self.secretRef) || has(self.endpoint) || has(self.region)"
                " || has(self.caBundle) || has(self.forcePathStyle))",
                NO_ACCESS_TO_A_CLAIM,
            ),
        )
    )

    revision: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="For hf:// models: a commit, tag or branch. It is resolved to a commit before training.",
    )


class Gate(ApiModel):
    """A condition that an evaluation metric must meet for the version to be promotable."""

    metric: MetricName = Field(description="Name of a metric of the final evaluation, such as eval_f1_macro.")
    operator: GateOperator = Field(default=GateOperator.GTE, description="GTE (at least), GT, LTE (at most) or LT.")
    threshold: AnyDecimal = Field(description="The value to compare the metric with.")

    def passes(self, value: float) -> bool:
        """Tell whether a measured value meets the gate; NaN never does."""
        limit = float(self.threshold)
        match self.operator:
            case GateOperator.GTE:
                return value >= limit
            case GateOperator.GT:
                return value > limit
            case GateOperator.LTE:
                return value <= limit
            case GateOperator.LT:
                return value < limit


class Evaluation(ApiModel):
    """Requirements on the result."""

    gates: Annotated[list[Gate], Field(max_length=16)] = Field(
        default=[],
        description="A version that fails a gate is published as not promotable, and is not rolled out.",
    )
    max_int8_loss: Fraction = Field(
        default=Decimal("0.01"),
        validate_default=True,
        description="How much worse onnx-int8 may score than the model, in the metric that selects the best weights. "
        "If it scores worse than that, the export is marked as failed and left out of the artifact.",
    )


class Checkpoint(ApiModel):
    """How a run survives the loss of its pod."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=500, description="Optimizer steps between checkpoints. On SIGTERM, one more is written."
    )
    keep: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2,
        description="Number of checkpoints to keep during the run. They are deleted once its version is published.",
    )
    resume: Literal["Auto", "Never"] = Field(
        default="Auto",
        description="Auto resumes from the newest valid checkpoint of the same run; Never starts from the beginning.",
    )


class MLflow(ApiModel):
    """An MLflow tracking server."""

    uri: Annotated[str, Field(max_length=1024, pattern=r"^https?://[^\s]+$")] = Field(
        description="URL of the tracking server."
    )
    experiment: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        default="luthier", description="Name of the experiment."
    )


class Tracking(ApiModel):
    """Where else the run is reported. A tracking failure never fails the run."""

    tensorboard: bool = Field(default=True, description="Put TensorBoard event files into the artifact.")
    mlflow: MLflow | None = Field(
        default=None, description="Send parameters, metrics and the artifact's address to an MLflow server."
    )


class Output(StorageAccess):
    """Where versions are published. model and dataset use the same storage access unless they name their own."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = Field(
        description="Name of the model: versions lie under <uri>/<name>/versions/."
    )
    uri: OutputUri = Field(description="s3://bucket/prefix/ under which models are published.")

    def checkpoint_uri(self, run_key: str, step: int) -> str:
        """Return the folder of a run's checkpoint."""
        return f"{self.uri.rstrip('/')}/{self.name}/checkpoints/{run_key}/{step}"


_SEVERAL_LABELS = (Task.MULTI_LABEL, Task.TOKEN_CLASSIFICATION)


class TrainingSpec(ApiModel):
    """What decides the result of a run."""

    task: Task = Field(default=Task.TEXT_CLASSIFICATION, description="What the model learns to do.")
    model: Model = Field(description="The base model.")
    dataset: Dataset = Field(description="The labelled examples.")
    labels: (
        Annotated[
            list[Label],
            Field(min_length=2, max_length=1000, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = Field(
        default=None,
        description="Labels, in the order of the model's outputs. Unset: the labels found in the data, sorted.",
    )
    method: Method = Field(default=Method(), description="Which weights are trained.")
    precision: Precision = Field(
        default=Precision.AUTO,
        description="fp32, fp16 or bf16; auto uses bf16 or fp16 if the GPU supports it, otherwise fp32.",
    )
    hyperparameters: Hyperparameters = Field(default=Hyperparameters(), description="How the model is trained.")
    training_arguments: Annotated[
        dict[Annotated[str, Field(max_length=128)], Text],
        Field(
            max_length=64,
            json_schema_extra=cel(
                (
                    "self.all(name, name.matches('^[a-z][a-z0-9_]*$'))",
                    "use the field names of transformers.TrainingArguments, such as optim or lr_scheduler_kwargs",
                )
            ),
        ),
    ] = Field(
        default={},
        description="Further fields of transformers.TrainingArguments, under their Python names, with values as text "
        '({"optim": "adafactor"}). Unknown names, and names that another field of the spec sets, are '
        "rejected.",
    )
    evaluation: Evaluation = Field(default=Evaluation(), description="Requirements on the result.")
    checkpoint: Checkpoint = Field(default=Checkpoint(), description="How a run survives the loss of its pod.")
    tracking: Tracking = Field(default=Tracking(), description="Where else the run is reported.")
    export: Annotated[list[ExportFormat], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = (
        Field(
            default=[ExportFormat.SAFETENSORS, ExportFormat.ONNX],
            description="Formats in the artifact. safetensors is always written. CPU serving loads onnx-int8 if the "
            "artifact has it, otherwise onnx.",
        )
    )
    output: Output = Field(description="Where versions are published.")

    @model_validator(mode="after")
    def _labels_fit(self) -> "TrainingSpec":
        if self.labels and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels contains a label twice")
        return self

    @model_validator(mode="after")
    def _fits_the_task(self) -> "TrainingSpec":
        labelled = self.hyperparameters.class_weights != "none" or self.hyperparameters.label_smoothing
        if self.task is Task.REGRESSION and (self.labels or self.dataset.label_map or labelled):
            raise ValueError(NO_LABELS)
        if self.task is Task.TOKEN_CLASSIFICATION and self.dataset.train.text_pair_column:
            raise ValueError(NO_PAIRS)
        if self.task not in _SEVERAL_LABELS and any(file.label_separator for file in self.dataset.files()):
            raise ValueError(NO_SEPARATOR)
        if self.task is not Task.MULTI_LABEL and self.dataset.train.label_columns:
            raise ValueError(NO_LABEL_COLUMNS)
        if self.task is Task.TOKEN_CLASSIFICATION and any(file.text_columns for file in self.dataset.files()):
            raise ValueError(NO_TEXT_COLUMNS)
        return self
