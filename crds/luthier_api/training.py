"""The part of a FineTuneJob that decides its result: task, model, data, method and what is produced.

`TrainingSpec` is the base of `FineTuneJobSpec` and travels whole in the run document, so that the trainer and the
operator read one definition. Defaults are those of the usual Hugging Face text-classification practice; where a field
has the name of a `transformers.TrainingArguments` field in camelCase it means the same.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import (
    AnyDecimal,
    ApiModel,
    Fraction,
    NonNegative,
    OpenFraction,
    Positive,
    PositiveCount,
    PositiveRate,
    Text,
    cel,
    decimal_type,
)
from luthier_api.storage import Input, OutputUri, StorageAccess

DEFAULT_GLOBAL_BATCH = 32

Column = Annotated[str, Field(min_length=1, max_length=256)]
Label = Annotated[str, Field(min_length=1, max_length=256)]
MetricName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$")]


class Task(StrEnum):
    """What the model learns to do."""

    TEXT_CLASSIFICATION = "text-classification"
    MULTI_LABEL = "multi-label"
    REGRESSION = "regression"
    TOKEN_CLASSIFICATION = "token-classification"


class MethodType(StrEnum):
    """Which weights are trained."""

    FULL = "Full"
    LORA = "LoRA"
    QLORA = "QLoRA"
    FROZEN = "Frozen"


class Precision(StrEnum):
    """Numeric precision of training."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


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
                "revision is for hf:// models only; name the files by their URI",
            ),
            (
                "!self.uri.startsWith('hf://')"
                " || !(has(self.endpoint) || has(self.region) || has(self.caBundle) || has(self.forcePathStyle))",
                "endpoint, region, caBundle and forcePathStyle are for s3:// models only",
            ),
        )
    )

    revision: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="For hf:// the commit, tag or branch; it is resolved to a commit before training.",
    )


class DataFile(ApiModel):
    """One labelled file, or several of one form."""

    uri: Annotated[
        str,
        Field(max_length=1024, pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^/\s][^\s]*|file:///[^\s]*)$"),
    ] = Field(
        description="s3://bucket/key or file:///path of a .csv, .tsv, .jsonl or .parquet file; .gz is unpacked. With a "
        "trailing / all such files below it, with * in the last part all that match, in the order of their names."
    )
    text_column: Column = Field(
        default="text",
        description="Name of the column that holds the text; for token-classification the words, as a list or "
        "separated by white space.",
    )
    text_pair_column: Column | None = Field(
        default=None, description="Name of the column that holds a second text, for tasks on pairs of texts."
    )
    label_column: Column = Field(
        default="label",
        description="Name of the column that holds the label; for multi-label and token-classification several, as a "
        "list or separated by labelSeparator; for regression a number.",
    )
    label_separator: Annotated[str, Field(min_length=1, max_length=8)] | None = Field(
        default=None,
        description="Separates the labels of one cell. Default: a comma for multi-label, white space for "
        "token-classification.",
    )


class Split(ApiModel):
    """How examples for evaluation are set aside from the training file."""

    fraction: OpenFraction = Field(
        default=Decimal("0.1"),
        validate_default=True,
        description="Share of the examples that is held out for evaluation.",
    )
    test_fraction: Fraction = Field(
        default=Decimal("0"),
        validate_default=True,
        description="Share that is held out for a last test, which chooses nothing.",
    )
    stratify: bool = Field(default=True, description="Keep the share of each label equal in both parts.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(default=42, description="Seed of the split.")


class Preprocessing(ApiModel):
    """What is done to the texts before tokenization."""

    lowercase: bool = Field(
        default=False, description="Lower the case of every text. Uncased tokenizers do it by themselves."
    )
    strip_whitespace: bool = Field(
        default=True, description="Remove white space around the text and collapse runs inside it."
    )
    drop_duplicates: bool = Field(default=True, description="Keep one of several rows with the same text and label.")
    drop_missing: bool = Field(
        default=True, description="Leave out rows without text or label; false makes them an error."
    )
    max_length: Annotated[int, Field(ge=4, le=8192)] = Field(default=128, description="Tokens kept of each text.")


class Quality(ApiModel):
    """Limits that the data must keep. They are checked before a GPU is asked for."""

    max_missing_fraction: Fraction = Field(
        default=Decimal("0.05"),
        validate_default=True,
        description="Largest share of rows without text or label.",
    )
    max_duplicate_fraction: Fraction = Field(
        default=Decimal("1"), validate_default=True, description="Largest share of rows that repeat another."
    )
    min_examples_per_label: PositiveCount = Field(default=2, description="Fewest examples that each label must have.")
    max_leakage_fraction: Fraction = Field(
        default=Decimal("1"),
        validate_default=True,
        description="Largest share of evaluation and test texts that are also in a training file of their own. Such "
        "texts are left out of training in any case.",
    )
    max_conflicting_fraction: Fraction = Field(
        default=Decimal("1"), validate_default=True, description="Largest share of texts that have more than one label."
    )
    max_cut_fraction: Fraction = Field(
        default=Decimal("1"), validate_default=True, description="Largest share of texts that are cut at maxLength."
    )
    max_imbalance_ratio: decimal_type(ge="1", example="20") | None = Field(  # type: ignore[valid-type]
        default=None, description="Largest ratio of the most frequent label's examples to the rarest label's."
    )


class Dataset(StorageAccess):
    """The labelled examples."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!(has(self.eval) && has(self.split))",
                "give either eval (a file of its own) or split (a share of train), not both",
            ),
            (
                "(!has(self.eval) || has(self.eval.textPairColumn) == has(self.train.textPairColumn))"
                " && (!has(self.test) || has(self.test.textPairColumn) == has(self.train.textPairColumn))",
                "give textPairColumn for all files of the dataset or for none",
            ),
            (
                "!has(self.test) || !has(self.split) || self.split.testFraction.matches('^0([.]0*)?$')",
                "give either test (a file of its own) or split.testFraction (a share of train), not both",
            ),
        )
    )

    train: DataFile = Field(description="The file to learn from.")
    eval: DataFile | None = Field(
        default=None, description="The file to evaluate on. Without it a share of train is held out."
    )
    test: DataFile | None = Field(
        default=None, description="The file for a last test, on which no choice is made. Optional."
    )
    split: Split | None = Field(default=None, description="How to hold out examples when there is no eval file.")
    label_map: (
        Annotated[dict[Annotated[str, Field(max_length=256)], Label], Field(min_length=1, max_length=1000)] | None
    ) = Field(
        default=None,
        description='What the file calls a label: the label ({"0": "negative", "1": "positive"}). A label that is not '
        "in the map is kept. Without a map, integers count spec.labels where those hold none of them.",
    )
    preprocessing: Preprocessing = Field(default=Preprocessing(), description="Cleaning and tokenization.")
    quality: Quality = Field(default=Quality(), description="Limits that the data must keep.")

    @model_validator(mode="after")
    def _one_source_of_evaluation(self) -> "Dataset":
        if self.eval and self.split:
            raise ValueError("give either eval (a file of its own) or split (a share of train), not both")
        if self.test and self.split and self.split.test_fraction:
            raise ValueError("give either test (a file of its own) or split.testFraction (a share of train), not both")
        return self

    @model_validator(mode="after")
    def _pairs_in_all_files_or_in_none(self) -> "Dataset":
        if len({file.text_pair_column is None for file in self.files()}) > 1:
            raise ValueError("give textPairColumn for all files of the dataset or for none")
        return self

    def files(self) -> list[DataFile]:
        """Return the labelled files that there are."""
        return [file for file in (self.train, self.eval, self.test) if file]

    def effective_split(self) -> Split | None:
        """Return the split to make: none with an eval file, otherwise the one given or the default."""
        return None if self.eval else self.split or Split()


class Lora(ApiModel):
    """Low-rank adaptation (Hu et al., 2021, arXiv:2106.09685)."""

    r: Annotated[int, Field(ge=1, le=1024)] = Field(default=16, description="Rank of the update of each matrix.")
    alpha: Annotated[int, Field(ge=1, le=4096)] = Field(default=32, description="The update is scaled by alpha / r.")
    dropout: Fraction = Field(default=Decimal("0.05"), validate_default=True, description="Dropout before the update.")
    target_modules: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.]+$")]],
            Field(min_length=1, max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = Field(
        default=None,
        description="Names of the linear layers that are adapted. Unset: attention and feed-forward layers of the "
        "architecture.",
    )


class Method(ApiModel):
    """Which weights are trained."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.lora) || self.type in ['LoRA', 'QLoRA']", "lora is for type LoRA or QLoRA only"),
        )
    )

    type: MethodType = Field(
        default=MethodType.FULL,
        description="Full: all weights. LoRA: low-rank updates and the head. QLoRA: the same over a base model in 4 "
        "bits, on a GPU. Frozen: the head alone (linear probe).",
    )
    lora: Lora | None = Field(default=None, description="Settings of LoRA and QLoRA.")

    @model_validator(mode="after")
    def _lora_where_it_is_used(self) -> "Method":
        if self.lora and self.type not in (MethodType.LORA, MethodType.QLORA):
            raise ValueError("lora is for type LoRA or QLoRA only")
        return self


class EarlyStopping(ApiModel):
    """Stop when the metric no longer improves."""

    patience: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=3, description="Evaluations without improvement before training stops."
    )
    threshold: NonNegative = Field(
        default=Decimal("0"), validate_default=True, description="Least change that counts as an improvement."
    )


class Hyperparameters(ApiModel):
    """How the model is trained. AdamW with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!(has(self.warmupSteps) && has(self.warmupRatio))",
                "give either warmupSteps or warmupRatio, not both",
            ),
            (
                "type(self.batchSize) == string ? self.batchSize == 'auto'"
                " : self.batchSize >= 1 && self.batchSize <= 65536",
                "batchSize is a number from 1 to 65536, or auto",
            ),
            (
                "!has(self.globalBatchSize) || self.batchSize == 'auto'",
                "globalBatchSize is for batchSize auto; otherwise it is batchSize x gradientAccumulationSteps",
            ),
            (
                "self.batchSize != 'auto' || self.gradientAccumulationSteps == 1",
                "batchSize auto accumulates as needed; say globalBatchSize instead of gradientAccumulationSteps",
            ),
        )
    )

    epochs: Annotated[int, Field(ge=1, le=1000)] = Field(default=3, description="Passes over the training examples.")
    learning_rate: PositiveRate = Field(
        default=Decimal("2e-5"), validate_default=True, description="Peak learning rate."
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = Field(
        default=16,
        description="Training examples that are computed at once, over all devices; auto is the most that fits. "
        "An optimizer step sees batchSize x gradientAccumulationSteps examples, on any number of devices.",
    )
    global_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Examples of an optimizer step with batchSize auto. Default 32."
    )
    eval_batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=64, description="Evaluation examples per device that are computed at once, at most."
    )
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=1, description="Batches whose gradients are summed into one optimizer step."
    )
    padding: Literal["auto", "max-length"] = Field(
        default="auto",
        description="auto computes no padding; max-length fills every text up to maxLength, as tutorials do.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again instead of keeping them: less memory, more time."
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced weighs each label by the inverse of its share of the training examples.",
    )
    label_smoothing: Fraction = Field(
        default=Decimal("0"), validate_default=True, description="Share of the target that is spread over all labels."
    )
    weight_decay: Fraction = Field(
        default=Decimal("0.01"),
        validate_default=True,
        description="Decay of weights other than biases and layer norms.",
    )
    adam_beta1: Fraction = Field(
        default=Decimal("0.9"), validate_default=True, description="AdamW's decay of the mean of the gradient."
    )
    adam_beta2: Fraction = Field(
        default=Decimal("0.999"), validate_default=True, description="AdamW's decay of the mean of its square."
    )
    adam_epsilon: PositiveRate = Field(default=Decimal("1e-8"), validate_default=True, description="AdamW's epsilon.")
    max_grad_norm: Positive = Field(
        default=Decimal("1.0"), validate_default=True, description="Gradients are clipped to this norm."
    )
    scheduler: Literal["linear", "cosine", "polynomial", "constant"] = Field(
        default="linear", description="How the learning rate falls after warmup."
    )
    warmup_steps: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None, description="Optimizer steps of linear warmup."
    )
    warmup_ratio: Fraction | None = Field(
        default=None, description="Warmup as a share of all steps. Default 0.06 when neither is given."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=42, description="Seed of initialization, order and dropout."
    )
    eval_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="Optimizer steps between evaluations. Unset: once an epoch."
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="Stop early; unset trains all epochs.")
    metric_for_best_model: MetricName | None = Field(
        default=None,
        description="Picks the best weights: eval_loss or any metric of the task's evaluation. Default eval_f1_macro, "
        "and eval_mse for regression.",
    )
    greater_is_better: bool | None = Field(
        default=None, description="Direction of that metric. Default: false for a loss or an error, else true."
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> "Hyperparameters":
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give either warmupSteps or warmupRatio, not both")
        return self

    @model_validator(mode="after")
    def _one_global_batch(self) -> "Hyperparameters":
        if self.batch_size != "auto" and self.global_batch_size is not None:
            raise ValueError("globalBatchSize is for batchSize auto; else it is batchSize x gradientAccumulationSteps")
        if self.batch_size == "auto" and self.gradient_accumulation_steps != 1:
            raise ValueError("batchSize auto accumulates as needed; say globalBatchSize")
        return self

    def examples_per_step(self) -> int:
        """Return the global batch: examples whose gradients make one optimizer step, over all devices."""
        if self.batch_size == "auto":
            return self.global_batch_size or DEFAULT_GLOBAL_BATCH
        return self.batch_size * self.gradient_accumulation_steps


class Gate(ApiModel):
    """A condition that an evaluation metric must meet for the version to be promotable."""

    metric: MetricName = Field(description="Name of a metric of the final evaluation, such as eval_f1_macro.")
    operator: GateOperator = Field(default=GateOperator.GTE, description="GTE (at least), GT, LTE (at most) or LT.")
    threshold: AnyDecimal = Field(description="The value to compare with.")

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
    """What is asked of the result."""

    gates: Annotated[list[Gate], Field(max_length=16)] = Field(
        default=[],
        description="A version that misses one is published as not promotable, and is not served by itself.",
    )
    max_int8_loss: Fraction = Field(
        default=Decimal("0.01"),
        validate_default=True,
        description="How much worse onnx-int8 may be than the model, in the metric that picks the best weights. Beyond "
        "it the export is marked failed and is not shipped.",
    )


class Checkpoint(ApiModel):
    """How a run survives the loss of its pod."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=500, description="Optimizer steps between checkpoints. SIGTERM makes one more."
    )
    keep: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2, description="Checkpoints that are kept while the run goes on. None is left after it."
    )
    resume: Literal["Auto", "Never"] = Field(
        default="Auto", description="Auto goes on from the newest valid checkpoint of the same run; Never starts anew."
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
    """Where else the run is told. None of it can make a run fail."""

    tensorboard: bool = Field(default=True, description="Put TensorBoard event files into the artifact.")
    mlflow: MLflow | None = Field(
        default=None, description="Send parameters, metrics and the artifact's address to an MLflow server."
    )


NO_LABELS = "regression has no labels: leave out labels, labelMap, classWeights and labelSmoothing"
NO_PAIRS = "token-classification has no second text: leave out textPairColumn"
NO_SEPARATOR = "labelSeparator is for multi-label and token-classification only"

# What a task has no use for is refused rather than ignored. `TrainingSpec` says the same to those without a cluster.
TASK_RULES: tuple[tuple[str, str], ...] = (
    (
        "self.task != 'regression' || (!has(self.labels) && !has(self.dataset.labelMap)"
        " && self.hyperparameters.classWeights == 'none'"
        " && self.hyperparameters.labelSmoothing.matches('^0([.]0*)?$'))",
        NO_LABELS,
    ),
    ("self.task != 'token-classification' || !has(self.dataset.train.textPairColumn)", NO_PAIRS),
    (
        "self.task in ['multi-label', 'token-classification'] || !(has(self.dataset.train.labelSeparator)"
        " || (has(self.dataset.eval) && has(self.dataset.eval.labelSeparator))"
        " || (has(self.dataset.test) && has(self.dataset.test.labelSeparator)))",
        NO_SEPARATOR,
    ),
)


class Output(StorageAccess):
    """Where versions are published. Its access is also that of model and dataset where they name none of their own."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = Field(
        description="Name of the model: versions lie under <uri>/<name>/versions/."
    )
    uri: OutputUri = Field(description="s3://bucket/prefix/ that models are published under.")

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
        description="Labels in the order of the model's outputs. Unset: learned from the data, sorted.",
    )
    method: Method = Field(default=Method(), description="Which weights are trained.")
    precision: Precision = Field(
        default=Precision.AUTO,
        description="fp32, fp16 or bf16; auto takes bf16 or fp16 where the GPU has it, else fp32.",
    )
    hyperparameters: Hyperparameters = Field(default=Hyperparameters(), description="How the model is trained.")
    training_arguments: Annotated[dict[Annotated[str, Field(max_length=128)], Text], Field(max_length=64)] = Field(
        default={},
        description="Further fields of transformers.TrainingArguments, by their own names, each value as text ("
        '{"optim": "adafactor"}). An unknown name, or one that a field above says, is refused.',
    )
    evaluation: Evaluation = Field(default=Evaluation(), description="What is asked of the result.")
    checkpoint: Checkpoint = Field(default=Checkpoint(), description="How a run survives the loss of its pod.")
    tracking: Tracking = Field(default=Tracking(), description="Where else the run is told.")
    export: Annotated[list[ExportFormat], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = (
        Field(
            default=[ExportFormat.SAFETENSORS, ExportFormat.ONNX],
            description="Formats in the artifact. safetensors is always written; onnx is what CPU serving loads, and "
            "onnx-int8 before it where it is there.",
        )
    )
    output: Output = Field(description="Where versions are published.")

    @model_validator(mode="after")
    def _labels_fit(self) -> "TrainingSpec":
        if self.labels and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels names a label twice")
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
        return self
