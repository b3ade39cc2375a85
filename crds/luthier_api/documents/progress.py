"""What a training pod, or a worker of a batch prediction, says of itself while it runs."""

from typing import Annotated, Literal

from pydantic import Field

from luthier_api.base import Count, Document, Text, Timestamp

TRAINER_PORT = 8080


Stage = Literal[
    "Starting", "Downloading", "Training", "Evaluating", "Exporting", "Uploading", "Predicting", "Done", "Waiting"
]


class ProgressDocument(Document):
    """What the pod answers at GET /progress. Steps of a batch prediction are shards, of all workers together."""

    stage: Stage = Field(description="What the pod is doing.")
    waiting_for: Text | None = Field(
        default=None, description="The run that trains the same, while the pod waits for its version."
    )
    step: Count = Field(default=0, description="Optimizer steps completed.")
    total_steps: Count = Field(default=0, description="Optimizer steps in total.")
    epoch: Annotated[float, Field(ge=0)] = Field(default=0.0, description="Epochs completed.")
    eta_seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Estimated time left at the current speed."
    )
    examples_per_second: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Training examples per second."
    )
    tokens_per_second: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Training tokens per second, not counting padding."
    )
    gpu_memory_bytes: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Peak GPU memory.")
    checkpoint_step: Count | None = Field(default=None, description="Step of the newest checkpoint in storage.")
    storage_failure: Text | None = Field(
        default=None, description="What cannot be stored, or read, at present and why; it is tried again."
    )
    resumed_from_step: Count | None = Field(
        default=None, description="Step of the checkpoint that this attempt resumed from."
    )
    metrics: Annotated[dict[Annotated[str, Field(max_length=128)], float], Field(max_length=64)] = Field(
        default={}, description="Latest values."
    )
    rows: Count | None = Field(default=None, description="Rows of a batch prediction's input, once they are counted.")
    updated_at: Timestamp = Field(description="When this was written.")
