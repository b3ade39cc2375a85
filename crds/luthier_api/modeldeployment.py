"""The ModelDeployment: "this artifact answers HTTP"."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import (
    ApiModel,
    Count,
    Digest,
    DnsLabel,
    Engine,
    Fraction,
    ImageReference,
    ObjectName,
    Ratio,
    Seconds,
    Text,
    Timestamp,
    cel,
)
from luthier_api.conditions import NOT_SEEN_YET, ResourceStatus
from luthier_api.exposure import Auth, Expose, HttpOptions
from luthier_api.finetunejob import LastFailure
from luthier_api.observe import Observe
from luthier_api.pods import Placement, PodMetadata, ResourceRequirements
from luthier_api.storage import ConfigMapKey, OutputUri, StorageAccess

WISHES = ("promote", "pause", "abort", "skip")
"""Annotations luthier.dev/<wish> that steer a rollout once. The value names the generation that is meant: "7", or "7#2"
to ask for the same a second time."""


class FineTuneJobRef(ApiModel):
    """A FineTuneJob in the same namespace."""

    name: ObjectName = Field(description="Name of the FineTuneJob.")
    version: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="Pins one of its versions. Unset: follow the version of its current spec, if promotable.",
    )


class PublicKeyRef(ApiModel):
    """A ConfigMap key that holds the public keys of those who sign versions."""

    name: ObjectName = Field(description="Name of a ConfigMap in the same namespace.")
    key: ConfigMapKey = Field(
        default="public.pem",
        description="Key in that ConfigMap that holds one or more ECDSA public keys in PEM, on P-256, P-384 or P-521.",
    )


class Verify(ApiModel):
    """Who must have signed a version before it is loaded."""

    public_key_ref: PublicKeyRef = Field(
        description="Public keys, one of which must have signed the version. A change of the ConfigMap applies to "
        "versions that are loaded a minute later."
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
    verify: Verify | None = Field(
        default=None,
        description="Refuse a version that is not signed with one of these keys. Unset: signatures are not looked at.",
    )

    @property
    def mounts(self) -> bool:
        """Whether a pod mounts anything of the namespace's for it, which may not be there."""
        return super().mounts or self.verify is not None

    @model_validator(mode="after")
    def _exactly_one_source(self) -> "ServedModel":
        if (self.fine_tune_job_ref is None) == (self.uri is None):
            raise ValueError("give exactly one of fineTuneJobRef and uri")
        if (self.uri is None) != (self.digest is None):
            raise ValueError("give uri and digest together: the served files are verified against the digest")
        return self


class Adapter(ApiModel):
    """A version of method LoRA or QLoRA, of which only the updates and the head are loaded."""

    model_config = ConfigDict(json_schema_extra=cel(("self.uri.startsWith('s3://')", "uri must be an s3:// URI")))

    name: DnsLabel = Field(description="Name by which requests choose it: the model NAME:name.")
    uri: OutputUri = Field(description="Folder of the version: s3://bucket/prefix/<name>/versions/<version>.")
    digest: Digest = Field(description="Digest of that version, from its manifest.json.")


ADAPTERS_NEED_TORCH = (
    "adapters are computed by engine torch alone: set runtime.engine: torch, and in runtime.image an image with torch"
)
NO_REPLICAS = (
    "replicas must be at least 1: set suspend: true for none, or autoscaling.minReplicas: 0, with which the next "
    "request starts one"
)
_KEYED_BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

ONNX_ON_CPU = (
    "onnxruntime runs on the CPU and would hold a GPU without using it: remove gpusPerReplica, or use engine torch"
)


class RequestLimits(ApiModel):
    """What one request may contain, and how long its answer may take. Beyond it, a request is refused."""

    body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = Field(
        default=1024 * 1024, description="Maximum size of a request's body; a larger one gets 413."
    )
    texts: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="Maximum number of texts in one request; more get 413."
    )
    characters: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=100_000, description="Maximum number of characters of one text; a longer one gets 413."
    )
    seconds: Annotated[int, Field(ge=1, le=600)] = Field(
        default=60, description="How long an answer may take; a later one is a 504."
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
    limits: RequestLimits = Field(default=RequestLimits(), description="What one request may contain.")
    grpc: bool = Field(
        default=False,
        description="Whether the server also speaks gRPC (inference.GRPCInferenceService), on port 9000 of the Service "
        "<name>-grpc. A change of it builds a second Ray cluster.",
    )


class Autoscaling(ApiModel):
    """Number of replicas by load, decided by Ray Serve."""

    model_config = ConfigDict(
        json_schema_extra=cel(("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas"))
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1,
        description="Minimum number of replicas. With 0 the last one goes when there was no request for "
        "downscaleDelaySeconds, and the next request waits until one has started.",
    )
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(default=3, description="Maximum number of replicas.")
    target_ongoing_requests: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=8, description="Target number of requests in flight per replica."
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


Measure = Literal["maxErrorRate", "maxErrorRateIncrease", "maxP99Milliseconds", "maxP99Ratio", "minAgreement"]
HeaderName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]


class RolloutStep(ApiModel):
    """A share of the requests for the new revision, and what has to happen before the next step."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!(has(self.pause) && has(self.pauseSeconds))", "give pauseSeconds or pause: Manual, not both")
        )
    )

    traffic_percent: Annotated[int, Field(ge=0, le=100)] = Field(
        description="Percentage of the requests that the new revision answers; 0 with a mirror is a dark launch."
    )
    pause_seconds: Annotated[int, Field(ge=0, le=7 * 86400)] | None = Field(
        default=None, description="How long the step lasts at least. Default 0, or as long as the analysis needs."
    )
    pause: Literal["Manual"] | None = Field(
        default=None, description="Manual: wait for the annotation luthier.dev/promote."
    )


class RolloutMirror(ApiModel):
    """Copies of requests that the new revision computes too. Nobody waits for them; their answers are compared."""

    percent: Annotated[int, Field(ge=1, le=100)] = Field(description="Percentage of the requests that are copied.")
    max_pending: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=64, description="Copies under way at the same time in one replica; further ones are dropped."
    )


class Sticky(ApiModel):
    """Which requests stay with one revision during a rollout."""

    header: HeaderName = Field(description="Header whose value decides, for instance X-User.")


class Analysis(ApiModel):
    """What the new revision must keep to. Counted by the server replicas, from the beginning of each step."""

    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=10, description="How often the figures are judged."
    )
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=50, description="With fewer requests to the new revision in a step, nothing is concluded."
    )
    failure_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0, description="How many judgements in a step may fail before the rollout is rolled back."
    )
    max_error_rate: Fraction | None = Field(
        default=None,
        description="Share of requests that the new revision may fail. What a client did wrong is no failure.",
    )
    max_error_rate_increase: Fraction | None = Field(
        default=None, description="How much higher its error rate may be than that of the revision in service."
    )
    max_p99_milliseconds: Annotated[int, Field(ge=1, le=600_000)] | None = Field(
        default=None, description="99th percentile of its latency at most."
    )
    max_p99_ratio: Ratio | None = Field(
        default=None, description="The same, as a multiple of that of the revision in service in the same step."
    )
    min_agreement: Fraction | None = Field(
        default=None, description="Share of the copied requests on which both revisions must agree. Needs a mirror."
    )
    dry_run: Annotated[list[Measure], Field(max_length=5)] = Field(
        default=[], description="Measures that are only reported."
    )
    on_inconclusive: Literal["Hold", "Promote", "RollBack"] = Field(
        default="Hold", description="What to do with a step for which there are too few requests to judge."
    )
    inconclusive_after_seconds: Annotated[int, Field(ge=1, le=7 * 86400)] = Field(
        default=600, description="How long to wait for enough requests before that is done."
    )


class Rollout(ApiModel):
    """How a new version takes over: it starts beside the old one, is checked, and gets its traffic."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.analysis) || !has(self.analysis.minAgreement) || has(self.mirror)",
                "analysis.minAgreement compares copied requests: set mirror.percent too",
            ),
            (
                "!has(self.steps) || self.strategy == 'Canary' || size(self.steps) == 0",
                "steps are for strategy Canary",
            ),
        )
    )

    strategy: Literal["Canary", "BlueGreen", "InPlace"] = Field(
        default="Canary",
        description="Canary: the new version starts beside the old one and gets its share step by step. BlueGreen: a "
        "second Ray cluster is built for it, then all requests move. InPlace: each replica loads it, then switches.",
    )
    steps: Annotated[list[RolloutStep], Field(max_length=20)] = Field(
        default=[], description="Shares of the requests, in order. After the last one, the new version gets them all."
    )
    mirror: RolloutMirror | None = Field(default=None, description="Copies of requests for the new revision.")
    sticky: Sticky | None = Field(default=None, description="Keep each user with one revision.")
    header_routing: bool = Field(
        default=False, description="Let the header X-Luthier-Revision name the revision that answers, for testers."
    )
    analysis: Analysis | None = Field(default=None, description="What the new revision must keep to.")
    progress_deadline_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=600,
        description="How long a new revision may take to start before the rollout is reported as stalled.",
    )
    auto_rollback: bool = Field(
        default=True, description="Whether a revision that fails its analysis is removed, or only held where it is."
    )
    rollback_window: Annotated[int, Field(ge=0, le=10)] = Field(
        default=3, description="One of so many revisions that were last in service returns without steps."
    )


class RedisSecret(ApiModel):
    """A Secret of the namespace with the password of Redis."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        default="password", description="Its key that holds the password."
    )


class Redis(ApiModel):
    """A Redis in which Ray's head keeps its state."""

    address: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_/\[\]-]+$")] = Field(
        description="host:port, or redis://host:port, or rediss://host:port."
    )
    secret_ref: RedisSecret | None = Field(default=None, description="Secret with its password, if it asks for one.")


class HighAvailability(ApiModel):
    """What keeps requests answered when the pod of Ray's head is gone."""

    redis: Redis = Field(
        description="With it, replicas go on when the head's pod is lost, and the next head finds them. Without it, "
        "the whole Ray cluster begins anew."
    )


class ModelDeploymentSpec(ApiModel):
    """What to serve, and how."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!(has(self.replicas) && has(self.autoscaling))",
                "give either replicas (fixed) or autoscaling, not both",
            ),
            ("!has(self.replicas) || self.replicas >= 1", NO_REPLICAS),
            (
                "!has(self.adapters) || size(self.adapters) == 0 || self.runtime.engine == 'torch' || "
                "(self.runtime.engine == 'auto' && self.runtime.gpusPerReplica > 0)",
                ADAPTERS_NEED_TORCH,
            ),
        )
    )

    model: ServedModel = Field(description="The artifact to serve.")
    adapters: Annotated[list[Adapter], Field(max_length=64, json_schema_extra=_KEYED_BY_NAME)] = Field(
        default=[],
        description="LoRA versions that are computed over the same base model in the same replicas. They are added and "
        "removed without a restart, and read from the storage of `model`.",
    )
    runtime: Runtime = Field(default=Runtime(), description="How the model runs.")
    replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Fixed number of replicas, at least 1. Default 1, without autoscaling."
    )
    autoscaling: Autoscaling | None = Field(default=None, description="Number of replicas by load.")
    high_availability: HighAvailability | None = Field(
        default=None, description="Redis for Ray's head, so that its loss fails no request."
    )
    rollout: Rollout = Field(default=Rollout(), description="How a new version takes over.")
    expose: Expose | None = Field(default=None, description="A way in from outside the cluster. Unset: none.")
    auth: Auth | None = Field(default=None, description="Who may send requests. Unset: whoever reaches the server.")
    http: HttpOptions | None = Field(default=None, description="How the server speaks HTTP.")
    observe: Observe | None = Field(default=None, description="Drift, a log of requests, traces; each off by default.")
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
        if self.replicas == 0:
            raise ValueError(NO_REPLICAS)
        return self

    @model_validator(mode="after")
    def _adapters_on_torch(self) -> "ModelDeploymentSpec":
        runtime = self.runtime
        on_torch = runtime.engine == "torch" or (runtime.engine == "auto" and runtime.gpus_per_replica > 0)
        if self.adapters and not on_torch:
            raise ValueError(ADAPTERS_NEED_TORCH)
        if len({each.name for each in self.adapters}) != len(self.adapters):
            raise ValueError("two adapters have the same name")
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
    since: Timestamp = Field(description="Since when it is in this state.")
    message: Text | None = Field(default=None, description="Why it is not running.")
    requests: Count | None = Field(default=None, description="Requests to it in the present step.")
    error_rate: Text | None = Field(default=None, description="Share of them that it failed.")
    p99_milliseconds: Count | None = Field(
        default=None, description="99th percentile of its latency in the present step."
    )
    agreement: Text | None = Field(
        default=None, description="Share of copied requests on which it agrees with the revision in service."
    )


class RolloutStatus(ApiModel):
    """The rollout under way."""

    revision: Text = Field(description="Revision that is being rolled out.")
    stage: Literal["Starting", "Step", "Shifted", "Loading", "Dropping"] = Field(
        description="Starting: it has no requests yet. Step: it has its share. Shifted: it has them all. Loading: the "
        "server replicas load it. Dropping: it has lost its requests and is about to be removed."
    )
    step: Count = Field(default=0, description="Number of the step, from 1.")
    steps: Count = Field(default=0, description="Number of steps.")
    weight: Annotated[int, Field(ge=0, le=100)] = Field(default=0, description="Its share of the requests in percent.")
    since: Timestamp = Field(description="When this stage or step began.")
    paused: bool = Field(default=False, description="Whether it waits for luthier.dev/promote.")
    failures: Count = Field(default=0, description="Judgements of this step that failed.")
    judged: Timestamp | None = Field(default=None, description="When the figures were judged last.")
    message: Text | None = Field(default=None, description="What the step waits for.")


class RejectedRevision(ApiModel):
    """A revision that was rolled back. It is tried again when the spec, the version or luthier.dev/retry changes."""

    name: Text = Field(description="Name of the revision, which its spec and version decide.")
    version: Text = Field(description="Version of the artifact.")
    reason: Text = Field(description="Why, in one word.")
    message: Text = Field(description="Why, with the figure that broke the limit.")
    at: Timestamp = Field(description="When.")


class ServedRevision(ApiModel):
    """A revision that was in service."""

    name: Text = Field(description="Name of the revision.")
    version: Text = Field(description="Version of the artifact.")


class ColdStart(ApiModel):
    """How long the newest start of a replica took, in seconds; kept while `autoscaling.minReplicas` is 0."""

    at: Timestamp = Field(description="When the replica was ready.")
    seconds: Text = Field(description="From the making of its pod until it was ready.")
    pod_seconds: Text = Field(description="Of these, until its container ran: a node, the image, Ray's head.")
    ray_seconds: Text = Field(description="Until the replica's code began: Ray, Ray Serve, imports.")
    download_seconds: Text = Field(description="Until the version was there, verified.")
    load_seconds: Text = Field(description="Until the engine had loaded it.")


class AdapterStatus(ApiModel):
    """How it stands with an adapter."""

    name: Text = Field(description="Name of the adapter.")
    version: Text = Field(description="Version of the artifact.")
    state: Literal["Loading", "Ready", "Failed"] = Field(description="Whether the replicas have loaded it.")
    message: Text | None = Field(default=None, description="Why it cannot be loaded; it is tried again.")


class ModelDeploymentStatus(ResourceStatus):
    """What the operator has observed."""

    url: Text | None = Field(default=None, description="URL for requests from inside the cluster.")
    urls: Annotated[list[Text], Field(max_length=16)] = Field(
        default=[], description="URLs for requests from outside, once the way in is accepted."
    )
    replicas: Count = Field(default=0, description="Number of replicas of the revision in service.")
    ready_replicas: Count = Field(default=0, description="Number of those replicas that answer requests.")
    selector: Text | None = Field(default=None, description="Label selector of the pods.")
    current_revision: Text | None = Field(default=None, description="Revision that answers requests.")
    current_version: Text | None = Field(default=None, description="Version of the artifact that answers requests.")
    update_revision: Text | None = Field(default=None, description="Revision that is being rolled out.")
    revisions: Annotated[list[RevisionStatus], Field(max_length=16)] = Field(
        default=[], description="Versions on the server."
    )
    rollout: RolloutStatus | None = Field(default=None, description="The rollout under way.")
    adapters: Annotated[list[AdapterStatus], Field(max_length=64)] | None = Field(
        default=None, description="Adapters that the spec names."
    )
    cold_start: ColdStart | None = Field(
        default=None, description="The newest start of a replica, of a server that may have none."
    )
    rejected: Annotated[list[RejectedRevision], Field(max_length=8)] = Field(
        default=[], description="Revisions that were rolled back, newest first."
    )
    history: Annotated[list[ServedRevision], Field(max_length=11)] = Field(
        default=[], description="Revisions that have had all requests, newest first."
    )
    handled: Annotated[dict[str, Annotated[str, Field(max_length=64)]], Field(max_length=8)] = Field(
        default={}, description="Annotations promote, pause, abort and skip whose wish was carried out."
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
