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
    Warnings,
    cel,
)
from luthier_api.conditions import NOT_SEEN_YET, ResourceStatus
from luthier_api.pods import Placement, PodMetadata, ResourceRequirements
from luthier_api.training import TASK_RULES, MethodType, Precision, TrainingSpec

RETRY_ANNOTATION = "luthier.dev/retry"
QLORA_NEEDS_GPU = "method QLoRA needs a GPU: set gpusPerNode to at least 1, or method.type to LoRA"
FP16_NEEDS_GPU = "precision fp16 needs a GPU: set gpusPerNode to at least 1, or precision to auto"


class FineTuneJobSpec(Placement, TrainingSpec):
    """What to train, and on which hardware."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.output) || self.output.uri.startsWith('s3://')",
                "output.uri must be an s3:// URI: files inside a pod are lost with the pod",
            ),
            *TASK_RULES,
            ("self.method.type != 'QLoRA' || self.gpusPerNode > 0", QLORA_NEEDS_GPU),
            ("self.precision != 'fp16' || self.gpusPerNode > 0", FP16_NEEDS_GPU),
        )
    )

    image: ImageReference | None = Field(
        default=None, description="Trainer image. Unset: the image that the operator was installed with."
    )
    num_nodes: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="Number of training pods, which train one model together. Batch size and learning rate mean the "
        "same for any number of pods.",
    )
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = Field(
        default=1,
        description="GPUs (nvidia.com/gpu) of each training pod, with one process per GPU. 0 trains on the CPU.",
    )
    resources: ResourceRequirements = Field(
        default=ResourceRequirements(), description="CPU and memory of the training pod."
    )
    prepare_resources: ResourceRequirements = Field(
        default=ResourceRequirements(),
        description="CPU and memory of the prepare pod, which never uses a GPU.",
    )
    pod_metadata: PodMetadata = Field(
        default=PodMetadata(),
        description="Labels and annotations for the pods, for instance to switch the injection of a sidecar off.",
    )
    queue_name: DnsLabel | None = Field(
        default=None,
        description="Kueue LocalQueue, in the same namespace, for the run's Jobs. Unset: they start immediately.",
    )
    concurrency_policy: Literal["Replace", "Forbid"] = Field(
        default="Replace",
        description="What happens to the current run when the spec is edited: Replace stops it, Forbid lets its "
        "training finish first.",
    )
    suspend: bool = Field(
        default=False,
        description="Stop the run and free its GPUs. When set to false again, it resumes from its newest checkpoint.",
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3,
        description="Number of failures to retry, each from the newest checkpoint. Errors that a retry cannot fix are "
        "not retried, nor is a crash that comes twice in a row at the same place. Disruptions are always retried and "
        "do not count.",
    )
    active_deadline_seconds: PositiveCount | None = Field(
        default=None, description="Maximum duration of the training Job."
    )
    progress_deadline_seconds: PositiveCount = Field(
        default=3600,
        description="How long a training pod may go without completing a step or reaching another stage. It is then "
        "stopped, with time to write a checkpoint, and restarted, which counts towards backoffLimit.",
    )
    ttl_seconds_after_finished: Count | None = Field(
        default=86400, description="How long finished Jobs and their logs are kept. The artifact is not affected."
    )
    version_history_limit: Annotated[int, Field(ge=1, le=40)] | None = Field(
        default=None,
        description="Number of versions of this resource to keep in storage: those most recently used by a spec. A "
        "version that a ModelDeployment serves, that an alias names, or that is the latest to pass its gates "
        "is kept in addition. Unset: all are kept.",
    )
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="What happens to the versions when the resource is deleted. With Delete, the versions that this "
        "resource created are deleted first, except those that are served or that an alias names.",
    )

    @property
    def mounts(self) -> bool:
        """Whether a pod mounts anything of the namespace's for its storage, which may not be there."""
        return any(part.mounts for part in (self.output, self.model, self.dataset))

    @model_validator(mode="after")
    def _gpu_where_it_is_needed(self) -> "FineTuneJobSpec":
        if self.gpus_per_node == 0 and self.method.type is MethodType.QLORA:
            raise ValueError(QLORA_NEEDS_GPU)
        if self.gpus_per_node == 0 and self.precision is Precision.FP16:
            raise ValueError(FP16_NEEDS_GPU)
        return self


class Progress(ApiModel):
    """Progress of the current training. If step and stage stop changing, progressDeadlineSeconds restarts it."""

    stage: Text = Field(
        default="",
        description="What the pod is doing: Downloading, Training, Evaluating, Exporting or Uploading.",
    )
    percent: Annotated[int, Field(ge=0, le=100)] = Field(default=0, description="Percentage of the steps completed.")
    step: Count = Field(default=0, description="Optimizer steps completed.")
    total_steps: Count = Field(default=0, description="Optimizer steps in total.")
    epoch: Text = Field(default="0", description="Epochs completed, with decimals.")
    eta: Text | None = Field(default=None, description="Estimated time left at the current speed, such as 4m10s.")
    eta_seconds: Count | None = Field(default=None, description="The same in seconds.")
    examples_per_second: Text | None = Field(default=None, description="Training examples per second.")
    tokens_per_second: Text | None = Field(
        default=None, description="Training tokens per second, not counting padding."
    )
    gpu_memory_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Peak GPU memory.", json_schema_extra={"format": "int64"}
    )
    metrics: Metrics = Field(default={}, description="Latest loss, learning rate and evaluation metrics.")
    changed_at: Timestamp | None = Field(default=None, description="When the step or the stage last changed.")


class CheckpointStatus(ApiModel):
    """Where the current run would resume if its pod were lost. For display: the trainer looks in storage itself."""

    step: Count = Field(description="Optimizer step of the newest checkpoint that the pod reported.")
    uri: Text = Field(description="Location of its files.")
    resumed_from: Count | None = Field(
        default=None, description="Step that the pod resumed from. Unset if it started from the beginning."
    )


class ArtifactStatus(ApiModel):
    """A published version."""

    version: Text = Field(description="Version in the registry.")
    uri: Text = Field(description="Location of its files.")
    digest: Digest = Field(description="sha256 over the list of its files and their sha256.")
    size_bytes: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Size of all files.", json_schema_extra={"format": "int64"}
    )
    metrics: Metrics = Field(default={}, description="Metrics of the final evaluation.")
    promotable: bool = Field(default=True, description="Whether every gate passed.")
    message: Message | None = Field(default=None, description="Which gate failed, if one did.")


class VersionStatus(ArtifactStatus):
    """A version that a spec of this resource produced or reused, most recently used first."""

    metrics: Metrics = Field(
        default={}, description="The metric to compare versions by. All are in artifact, and in the version's files."
    )
    spec_hash: Sha256 = Field(description="Hash of the spec that produced or reused this version.")
    run_key: Sha256 = Field(description="Hash of everything that determined the result.")
    chosen_at: Timestamp = Field(description="When a spec last produced or reused this version.")
    removing: bool | None = Field(
        default=None,
        description="Set once versionHistoryLimit removes this version. No spec reuses it from then on, even if the "
        "removal fails.",
    )
    kept: Text | None = Field(
        default=None, description="Why it is still in storage although it exceeds versionHistoryLimit."
    )


class RunStatus(ApiModel):
    """The current run, or the last one that ended without a version."""

    name: ObjectName = Field(description="Prefix of the names of the run's Jobs.")
    spec_hash: Sha256 = Field(description="Hash of the run's spec.")
    stage: Literal["Prepare", "Train", "Succeeded", "Failed"] = Field(description="Stage of the run.")
    run_key: Sha256 | None = Field(
        default=None, description="Hash of everything that determines the result, once prepared."
    )
    data_key: Sha256 | None = Field(default=None, description="Hash of the prepared data, once prepared.")
    started_at: Timestamp | None = Field(default=None, description="When the run started.")
    finished_at: Timestamp | None = Field(default=None, description="When the run ended.")
    given_up: Text | None = Field(
        default=None,
        description="uid of the last Job that was stopped so that its stage starts again.",
    )
    earlier_failures: Count = Field(default=0, description="Failures of the Jobs that were stopped for a restart.")
    crashed_at: Text | None = Field(
        default=None,
        description="Where the last of those failures crashed. A second crash at the same place ends the run.",
    )


class Attempts(ApiModel):
    """How often a pod of the current run ended early."""

    failed: Count = Field(default=0, description="Failures that count towards backoffLimit.")
    preempted: Count = Field(default=0, description="Disruptions, which do not count.")


class Usage(ApiModel):
    """Resources used by all runs of this resource."""

    gpu_seconds: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="GPU time in seconds, summed over the GPUs of all training pods that have ended.",
        json_schema_extra={"format": "int64"},
    )
    counted_until: Timestamp | None = Field(
        default=None, description="When the last counted pod ended, so that no pod is counted twice."
    )


class LastFailure(ApiModel):
    """The last failure of a pod."""

    reason: Text = Field(description="One CamelCase word, for programs.")
    message: Message = Field(description="What happened and what to do.")
    exit_code: int | None = Field(default=None, description="Exit code of the container, if it started.")
    pod: Text | None = Field(default=None, description="Name of the pod.")
    at: Timestamp | None = Field(default=None, description="When the pod ended.")


class FineTuneJobStatus(ResourceStatus):
    """What the operator has observed."""

    current_run: RunStatus | None = Field(default=None, description="The current run, or the one that failed.")
    progress: Progress | None = Field(default=None, description="Progress of training.")
    checkpoint: CheckpointStatus | None = Field(
        default=None,
        description="The newest checkpoint of the current run. Unset once the run has published its version.",
    )
    artifact: ArtifactStatus | None = Field(
        default=None,
        description="The version of this spec. Until it exists, the version of the previous spec.",
    )
    versions: Annotated[list[VersionStatus], Field(max_length=50)] = Field(
        default=[],
        description="Versions that specs of this resource produced or reused. A reverted edit finds its version here, "
        "without a new run.",
    )
    attempts: Attempts | None = Field(default=None, description="How often pods of the current run ended early.")
    last_failure: LastFailure | None = Field(default=None, description="The last failure of a pod of the current run.")
    warnings: Warnings = Field(
        default=[],
        description="What prepare found odd for the current run without refusing it: in the data, or settings that "
        "cannot take effect.",
    )
    usage: Usage | None = Field(default=None, description="Resources used by all runs of this resource.")


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

    spec: FineTuneJobSpec = Field(description="What to train.")
    status: FineTuneJobStatus | None = Field(
        default=None, description="What the operator has observed.", json_schema_extra={"default": NOT_SEEN_YET}
    )
