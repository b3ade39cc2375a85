"""The FineTuneJob: "a model trained with this spec exists"."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import (
    ApiModel,
    Count,
    Digest,
    DnsLabel,
    ImageReference,
    Message,
    Metrics,
    ObjectName,
    PositiveCount,
    Sha256,
    Text,
    Timestamp,
    cel,
)
from luthier_api.conditions import NOT_SEEN_YET, ResourceStatus
from luthier_api.pods import Placement, ResourceRequirements
from luthier_api.training import TASK_RULES, MethodType, Precision, TrainingSpec

RETRY_ANNOTATION = "luthier.dev/retry"
QLORA_NEEDS_GPU = "method QLoRA needs a GPU: set gpusPerNode to at least 1, or method.type to LoRA"
FP16_NEEDS_GPU = "precision fp16 needs a GPU: set gpusPerNode to at least 1, or precision to auto"


class FineTuneJobSpec(Placement, TrainingSpec):
    """What is to be trained, and on what."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.output) || self.output.uri.startsWith('s3://')",
                "output.uri must be s3://: files in a pod are gone with it",
            ),
            *TASK_RULES,
            ("self.method.type != 'QLoRA' || self.gpusPerNode > 0", QLORA_NEEDS_GPU),
            ("self.precision != 'fp16' || self.gpusPerNode > 0", FP16_NEEDS_GPU),
        )
    )

    image: ImageReference | None = Field(
        default=None, description="Trainer image. Unset: the one that came with the operator."
    )
    num_nodes: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="Training pods, which train one model together. The batch and the learning rate mean the same on "
        "any number of them.",
    )
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = Field(
        default=1, description="GPUs of each training pod (nvidia.com/gpu), with one process on each. 0 trains on CPU."
    )
    resources: ResourceRequirements = Field(
        default=ResourceRequirements(), description="CPU and memory of the training pod."
    )
    prepare_resources: ResourceRequirements = Field(
        default=ResourceRequirements(),
        description="CPU and memory of the prepare pod, which never has a GPU.",
    )
    queue_name: DnsLabel | None = Field(
        default=None,
        description="Kueue LocalQueue in the same namespace that the run's Jobs wait in. Unset: they start at once.",
    )
    concurrency_policy: Literal["Replace", "Forbid"] = Field(
        default="Replace",
        description="What an edited spec does to a running run: Replace stops it, Forbid lets a training finish.",
    )
    suspend: bool = Field(
        default=False,
        description="Stop the run and free its GPU; false goes on from its newest checkpoint.",
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3,
        description="Failures that are tried again, from the newest checkpoint. Errors that would only come again are "
        "not tried again; disruptions always are, and do not count.",
    )
    active_deadline_seconds: PositiveCount | None = Field(
        default=None, description="Longest time that the training Job may take."
    )
    progress_deadline_seconds: PositiveCount = Field(
        default=3600,
        description="Longest time that a training pod may go without finishing a step or coming to another stage. Then "
        "it is stopped, with time for a checkpoint, and started again, which counts towards backoffLimit.",
    )
    ttl_seconds_after_finished: Count | None = Field(
        default=86400, description="How long finished Jobs, and so their logs, are kept. The artifact stays."
    )
    version_history_limit: Annotated[int, Field(ge=1, le=40)] | None = Field(
        default=None,
        description="Versions of this resource that are kept in storage, those that answered a spec last. One that a "
        "ModelDeployment serves, that an alias names, or that is the last to have passed its gates is kept beyond it. "
        "Unset: all.",
    )
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="What becomes of the versions when the resource is deleted. Delete removes those that this "
        "resource made and that nothing serves and no alias names, before the resource goes.",
    )

    @model_validator(mode="after")
    def _gpu_where_it_is_needed(self) -> "FineTuneJobSpec":
        if self.gpus_per_node == 0 and self.method.type is MethodType.QLORA:
            raise ValueError(QLORA_NEEDS_GPU)
        if self.gpus_per_node == 0 and self.precision is Precision.FP16:
            raise ValueError(FP16_NEEDS_GPU)
        return self


class Progress(ApiModel):
    """How far a running training is. Only for display; nothing is decided on it."""

    stage: Text = Field(
        default="",
        description="What the pod is doing: Downloading, Training, Evaluating, Exporting or Uploading.",
    )
    percent: Annotated[int, Field(ge=0, le=100)] = Field(default=0, description="Share of the steps that is done.")
    step: Count = Field(default=0, description="Optimizer steps done.")
    total_steps: Count = Field(default=0, description="Optimizer steps in all.")
    epoch: Text = Field(default="0", description="Epochs done, with decimals.")
    eta_seconds: Count | None = Field(default=None, description="Time left at the present speed.")
    examples_per_second: Text | None = Field(default=None, description="Training examples per second.")
    tokens_per_second: Text | None = Field(
        default=None, description="Real training tokens per second, without padding."
    )
    gpu_memory_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Most memory that the GPU held at once.", json_schema_extra={"format": "int64"}
    )
    metrics: Metrics = Field(default={}, description="Latest loss, learning rate and evaluation metrics.")
    changed_at: Timestamp | None = Field(default=None, description="When the step or the stage last changed.")


class CheckpointStatus(ApiModel):
    """Where the current run would go on after the loss of its pod. Only for display; the trainer looks by itself."""

    step: Count = Field(description="Optimizer step of the newest checkpoint that the pod told of.")
    uri: Text = Field(description="Where its files lie.")
    resumed_from: Count | None = Field(
        default=None, description="Step that the pod began at; unset when it began at the beginning."
    )


class ArtifactStatus(ApiModel):
    """A published version."""

    version: Text = Field(description="Version in the registry.")
    uri: Text = Field(description="Where its files lie.")
    digest: Digest = Field(description="sha256 over the list of its files and their sha256.")
    size_bytes: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Size of all files.", json_schema_extra={"format": "int64"}
    )
    metrics: Metrics = Field(default={}, description="Metrics of the final evaluation.")
    promotable: bool = Field(default=True, description="Whether every gate passed.")
    message: Message | None = Field(default=None, description="Which gate failed, if one did.")


class VersionStatus(ArtifactStatus):
    """A version that a spec of this resource produced or found, most recently chosen first."""

    spec_hash: Sha256 = Field(description="Hash of the spec that this version answers.")
    run_key: Sha256 = Field(description="Hash of everything that decided the result.")
    chosen_at: Timestamp = Field(description="When a spec was last answered with this version.")
    removing: bool | None = Field(
        default=None,
        description="Set once versionHistoryLimit has it removed: it answers no spec any more, also if that fails.",
    )
    kept: Text | None = Field(
        default=None, description="Why it is still in storage although versionHistoryLimit does not ask for it."
    )


class RunStatus(ApiModel):
    """The run that is going on, or that last ended without a version."""

    name: ObjectName = Field(description="Name that the run's Jobs begin with.")
    spec_hash: Sha256 = Field(description="Hash of the spec that it runs.")
    stage: Literal["Prepare", "Train", "Succeeded", "Failed"] = Field(description="Where the run is.")
    run_key: Sha256 | None = Field(
        default=None, description="Hash of everything that decides the result, once prepared."
    )
    data_key: Sha256 | None = Field(default=None, description="Hash of the prepared data, once prepared.")
    started_at: Timestamp | None = Field(default=None, description="When the run began.")
    finished_at: Timestamp | None = Field(default=None, description="When it ended.")
    given_up: Text | None = Field(
        default=None, description="uid of the last training Job that was stopped to start over from the checkpoint."
    )
    earlier_failures: Count = Field(default=0, description="Failures of the Jobs that were given up.")


class Attempts(ApiModel):
    """How often a pod of the current run ended early."""

    failed: Count = Field(default=0, description="Failures that count towards backoffLimit.")
    preempted: Count = Field(default=0, description="Disruptions, which do not count.")


class Usage(ApiModel):
    """What the resource's runs have used."""

    gpu_seconds: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Seconds that GPUs were held, summed over the GPUs of all training pods that have ended.",
        json_schema_extra={"format": "int64"},
    )
    counted_until: Timestamp | None = Field(
        default=None, description="When the last of those pods ended, so that none is counted twice."
    )


class LastFailure(ApiModel):
    """The last failure of a pod."""

    reason: Text = Field(description="One word for programs.")
    message: Message = Field(description="What happened and what to do.")
    exit_code: int | None = Field(default=None, description="Exit code of the container, if it started.")
    pod: Text | None = Field(default=None, description="Name of the pod.")
    at: Timestamp | None = Field(default=None, description="When the pod ended.")


class FineTuneJobStatus(ResourceStatus):
    """What the operator has seen."""

    current_run: RunStatus | None = Field(default=None, description="The run that is going on or that failed.")
    progress: Progress | None = Field(default=None, description="How far training is.")
    checkpoint: CheckpointStatus | None = Field(
        default=None, description="The newest checkpoint of the current run; a run that published its version has none."
    )
    artifact: ArtifactStatus | None = Field(
        default=None,
        description="The version that this spec, or until it has one the spec before it, produced.",
    )
    versions: Annotated[list[VersionStatus], Field(max_length=50)] = Field(
        default=[],
        description="Versions that specs of this resource produced, so that a reverted edit is answered at once.",
    )
    attempts: Attempts | None = Field(default=None, description="How often pods of the current run ended early.")
    last_failure: LastFailure | None = Field(default=None, description="The last failure of a pod of the current run.")
    usage: Usage | None = Field(default=None, description="What the resource's runs have used.")


class FineTuneJob(ApiModel):
    """A model fine-tuned with this spec exists as a versioned, verified artifact."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "size(self.metadata.name) <= 52",
                "metadata.name must be at most 52 characters, so that its Jobs can be named after it",
            )
        )
    )

    spec: FineTuneJobSpec = Field(description="What is to be trained.")
    status: FineTuneJobStatus | None = Field(
        default=None, description="What the operator has seen.", json_schema_extra={"default": NOT_SEEN_YET}
    )
