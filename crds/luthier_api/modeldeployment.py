"""The ModelDeployment: "this artifact answers HTTP"."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import (
    ApiModel,
    Count,
    Digest,
    Engine,
    ImageReference,
    ObjectName,
    Seconds,
    Text,
    Timestamp,
    cel,
)
from luthier_api.conditions import NOT_SEEN_YET, ResourceStatus
from luthier_api.finetunejob import LastFailure
from luthier_api.pods import Placement, PodMetadata, ResourceRequirements
from luthier_api.storage import OutputUri, StorageAccess


class FineTuneJobRef(ApiModel):
    """A FineTuneJob in the same namespace."""

    name: ObjectName = Field(description="Name of the FineTuneJob.")
    version: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="Pins one of its versions. Unset: follow the version of its current spec, if promotable.",
    )


class ServedModel(StorageAccess):
    """The artifact to serve."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.fineTuneJobRef) != has(self.uri)", "give exactly one of fineTuneJobRef and uri"),
            ("!has(self.uri) || self.uri.startsWith('s3://')", "uri must be an s3:// URI"),
            (
                "has(self.uri) == has(self.digest)",
                "give uri and digest together: the served files are verified against the digest",
            ),
        )
    )

    fine_tune_job_ref: FineTuneJobRef | None = Field(
        default=None, description="Serve the versions of this FineTuneJob, from its output's storage."
    )
    uri: OutputUri | None = Field(
        default=None, description="Folder of a version: s3://bucket/prefix/<name>/versions/<version>."
    )
    digest: Digest | None = Field(default=None, description="Digest of that version, from its manifest.json.")

    @model_validator(mode="after")
    def _exactly_one_source(self) -> "ServedModel":
        if (self.fine_tune_job_ref is None) == (self.uri is None):
            raise ValueError("give exactly one of fineTuneJobRef and uri")
        if (self.uri is None) != (self.digest is None):
            raise ValueError("give uri and digest together: the served files are verified against the digest")
        return self


ONNX_ON_CPU = (
    "onnxruntime runs on the CPU and would hold a GPU without using it: remove gpusPerReplica, or use engine torch"
)


class Runtime(Placement):
    """How the model runs."""

    model_config = ConfigDict(
        json_schema_extra=cel(("self.engine != 'onnxruntime' || self.gpusPerReplica == 0", ONNX_ON_CPU))
    )

    engine: Engine = Field(
        default="auto",
        description="onnxruntime (CPU), torch (GPU), or auto: torch with GPUs, otherwise onnxruntime.",
    )
    image: ImageReference | None = Field(
        default=None, description="Server image. Unset: the image that the operator was installed with."
    )
    resources: ResourceRequirements = Field(
        default=ResourceRequirements(), description="CPU and memory of each replica's pod."
    )
    gpus_per_replica: Annotated[int, Field(ge=0, le=1)] = Field(
        default=0, description="GPUs (nvidia.com/gpu) of each replica."
    )
    max_batch_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        default=4096, description="Maximum number of tokens in one batch, padding included."
    )
    max_batch_wait_ms: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=5,
        description="How long a request may wait for others to share its batch. An idle replica never waits.",
    )
    max_queued_requests: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=256, description="Maximum number of waiting requests. Further ones get 503 with Retry-After."
    )


class Autoscaling(ApiModel):
    """Number of replicas by load, decided by Ray Serve."""

    model_config = ConfigDict(
        json_schema_extra=cel(("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas"))
    )

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="Minimum number of replicas.")
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(default=3, description="Maximum number of replicas.")
    target_ongoing_requests: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=8, description="Target number of batches in flight per replica."
    )
    upscale_delay_seconds: Seconds = Field(
        default=10, description="How long high load must last before replicas are added."
    )
    downscale_delay_seconds: Seconds = Field(
        default=300, description="How long low load must last before replicas are removed."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError("minReplicas must not exceed maxReplicas")
        return self


class Rollout(ApiModel):
    """How a new version takes over: it starts beside the old one, is checked, and gets its traffic."""

    progress_deadline_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=600,
        description="How long a new revision may take to start before the rollout is reported as stalled.",
    )


class ModelDeploymentSpec(ApiModel):
    """What to serve, and how."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!(has(self.replicas) && has(self.autoscaling))",
                "give either replicas (fixed) or autoscaling, not both",
            )
        )
    )

    model: ServedModel = Field(description="The artifact to serve.")
    runtime: Runtime = Field(default=Runtime(), description="How the model runs.")
    replicas: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Fixed number of replicas. Default 1, without autoscaling."
    )
    autoscaling: Autoscaling | None = Field(default=None, description="Number of replicas by load.")
    rollout: Rollout = Field(default=Rollout(), description="How a new version takes over.")
    pod_metadata: PodMetadata = Field(
        default=PodMetadata(),
        description="Labels and annotations for the pods, for instance to switch the injection of a sidecar off.",
    )
    suspend: bool = Field(
        default=False,
        description="Remove the server and free its resources. When set to false again, it is started anew.",
    )

    @model_validator(mode="after")
    def _one_size(self) -> "ModelDeploymentSpec":
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("give either replicas (fixed) or autoscaling, not both")
        return self


class RevisionStatus(ApiModel):
    """One model version on the server."""

    name: Text = Field(description="Name of the Ray Serve application.")
    version: Text = Field(description="Version of the artifact.")
    uri: Text = Field(description="Location of the artifact.")
    digest: Digest = Field(description="Digest of the artifact.")
    traffic_percent: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0, description="Percentage of the requests that it answers."
    )
    state: Literal["Starting", "Running", "Unhealthy", "Failed", "Draining"] = Field(
        description="State of the revision."
    )
    since: Timestamp = Field(description="When it was added.")
    message: Text | None = Field(default=None, description="Why it is not running.")


class ModelDeploymentStatus(ResourceStatus):
    """What the operator has observed."""

    url: Text | None = Field(default=None, description="URL for requests from inside the cluster.")
    replicas: Count = Field(default=0, description="Number of replicas of the revision in service.")
    ready_replicas: Count = Field(default=0, description="Number of those replicas that answer requests.")
    selector: Text | None = Field(default=None, description="Label selector of the pods.")
    current_revision: Text | None = Field(default=None, description="Revision that answers requests.")
    current_version: Text | None = Field(default=None, description="Version of the artifact that answers requests.")
    update_revision: Text | None = Field(default=None, description="Revision that is being rolled out.")
    revisions: Annotated[list[RevisionStatus], Field(max_length=16)] = Field(
        default=[], description="Versions on the server."
    )
    last_failure: LastFailure | None = Field(default=None, description="Why the last rollout failed.")


class ModelDeployment(ApiModel):
    """An artifact answers HTTP."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name must be at most 40 characters, lower-case letters, digits and '-', and begin with a "
                "letter, so that its RayService can be named after it",
            )
        )
    )

    spec: ModelDeploymentSpec = Field(description="What to serve, and how.")
    status: ModelDeploymentStatus | None = Field(
        default=None, description="What the operator has observed.", json_schema_extra={"default": NOT_SEEN_YET}
    )
