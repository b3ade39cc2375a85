"""How a FineTuneJob's model is trained: the method, and every number of the optimization.

Where a field has the name of a `transformers.TrainingArguments` field in camelCase it means the same.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import ApiModel, BelowOne, Fraction, NonNegative, Positive, PositiveRate, cel

DEFAULT_GLOBAL_BATCH = 32

MetricName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$")]


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
        description="Names of the linear layers to adapt. Unset: the attention and feed-forward layers of the "
        "architecture.",
    )


class Method(ApiModel):
    """Which weights are trained."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.lora) || self.type in ['LoRA', 'QLoRA']", "lora applies to type LoRA and QLoRA only"),
        )
    )

    type: MethodType = Field(
        default=MethodType.FULL,
        description="Full: all weights. LoRA: low-rank updates and the head. QLoRA: LoRA over a base model quantized "
        "to 4 bits, on a GPU. Frozen: the head only (linear probe).",
    )
    lora: Lora | None = Field(default=None, description="Settings of LoRA and QLoRA.")

    @model_validator(mode="after")
    def _lora_where_it_is_used(self) -> "Method":
        if self.lora and self.type not in (MethodType.LORA, MethodType.QLORA):
            raise ValueError("lora applies to type LoRA and QLoRA only")
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
                "batchSize must be a number from 1 to 65536, or auto",
            ),
            (
                "!has(self.globalBatchSize) || self.batchSize == 'auto'",
                "globalBatchSize requires batchSize auto; otherwise the global batch is batchSize x "
                "gradientAccumulationSteps",
            ),
            (
                "self.batchSize != 'auto' || self.gradientAccumulationSteps == 1",
                "batchSize auto accumulates as needed; set globalBatchSize instead of gradientAccumulationSteps",
            ),
        )
    )

    epochs: Annotated[int, Field(ge=1, le=1000)] = Field(default=3, description="Passes over the training examples.")
    learning_rate: PositiveRate = Field(
        default=Decimal("2e-5"), validate_default=True, description="Peak learning rate."
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = Field(
        default=16,
        description="Training examples per forward pass, over all devices; auto uses the largest number that fits in "
        "memory. An optimizer step uses batchSize x gradientAccumulationSteps examples, on any number of "
        "devices.",
    )
    global_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Examples per optimizer step if batchSize is auto. Default 32."
    )
    eval_batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=64, description="Maximum number of evaluation examples per forward pass and device."
    )
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=1, description="Number of batches whose gradients are accumulated into one optimizer step."
    )
    padding: Literal["auto", "max-length"] = Field(
        default="auto",
        description="auto computes no padding; max-length pads every text to maxLength, as many tutorials do.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations instead of storing them: less memory, more time."
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced weights each label by the inverse of its frequency among the training examples.",
    )
    label_smoothing: Fraction = Field(
        default=Decimal("0"),
        validate_default=True,
        description="Share of the target probability that is spread over all labels.",
    )
    weight_decay: Fraction = Field(
        default=Decimal("0.01"),
        validate_default=True,
        description="Decay of weights other than biases and layer norms.",
    )
    adam_beta1: BelowOne = Field(
        default=Decimal("0.9"), validate_default=True, description="AdamW's decay of the mean of the gradient."
    )
    adam_beta2: BelowOne = Field(
        default=Decimal("0.999"), validate_default=True, description="AdamW's decay of the mean of its square."
    )
    adam_epsilon: PositiveRate = Field(default=Decimal("1e-8"), validate_default=True, description="AdamW's epsilon.")
    max_grad_norm: Positive = Field(
        default=Decimal("1.0"), validate_default=True, description="Gradients are clipped to this norm."
    )
    scheduler: Literal["linear", "cosine", "polynomial", "constant"] = Field(
        default="linear", description="How the learning rate decays after warmup."
    )
    warmup_steps: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None, description="Optimizer steps of linear warmup."
    )
    warmup_ratio: Fraction | None = Field(
        default=None, description="Warmup as a share of all steps. Default 0.06 if neither is given."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=42, description="Seed for initialization, data order and dropout."
    )
    eval_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="Optimizer steps between evaluations. Unset: one evaluation per epoch."
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="Stop early. Unset: train for all epochs.")
    metric_for_best_model: MetricName | None = Field(
        default=None,
        description="Metric that selects the best weights: eval_loss or any metric of the task's evaluation. Default: "
        "eval_f1_macro; for regression, eval_mse.",
    )
    greater_is_better: bool | None = Field(
        default=None,
        description="Whether a higher value of that metric is better. Default: false for a loss or an error, otherwise "
        "true.",
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> "Hyperparameters":
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give either warmupSteps or warmupRatio, not both")
        return self

    @model_validator(mode="after")
    def _one_global_batch(self) -> "Hyperparameters":
        if self.batch_size != "auto" and self.global_batch_size is not None:
            raise ValueError(
                "globalBatchSize requires batchSize auto; otherwise the global batch is batchSize x "
                "gradientAccumulationSteps"
            )
        if self.batch_size == "auto" and self.gradient_accumulation_steps != 1:
            raise ValueError(
                "batchSize auto accumulates as needed; set globalBatchSize instead of gradientAccumulationSteps"
            )
        return self

    def examples_per_step(self) -> int:
        """Return the global batch: examples whose gradients make one optimizer step, over all devices."""
        if self.batch_size == "auto":
            return self.global_batch_size or DEFAULT_GLOBAL_BATCH
        return self.batch_size * self.gradient_accumulation_steps
