"""What the server reads: the trainer's document in the artifact, and the operator's in the RayService."""

from typing import Annotated, Literal

from pydantic import Field

from luthier_api.base import Count, Digest, Document, Engine, Text
from luthier_api.documents.drift import DriftReport
from luthier_api.documents.run import Access
from luthier_api.training import Label, Task

SERVE_PORT = 8000
GRPC_PORT = 9000
# Where each server replica says how it is, beside the requests: for the operator, on the pod's own address.
SERVER_REPORT_PORT = 8001
SERVER_REPORT_PATH = "/report"
# Where each key of the Secret of API keys is a file, in the pod of a replica.
API_KEYS_DIR = "/etc/luthier/api-keys"
# Where the ConfigMap of the public keys is mounted that versions must be signed with.
TRUSTED_KEYS_DIR = "/etc/luthier/trusted-keys"
# multi-label: a label is assigned from this probability on.
MULTI_LABEL_THRESHOLD = 0.5
# Where texts shorter than the longest of their batch are filled up; none: only texts of one length share a batch.
Padding = Literal["right", "left", "none"]


class ServingDocument(Document):
    """What the server must know of an artifact beside its weights and tokenizer.json; its file is luthier.json."""

    task: Task = Field(description="What the model does.")
    labels: Annotated[list[Label], Field(min_length=1, max_length=1000)] = Field(
        description="Labels in the order of the model's outputs; for regression the name of the number."
    )
    pairs: bool = Field(default=False, description="Whether the model reads two texts.")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=MULTI_LABEL_THRESHOLD, description="multi-label: a label is assigned from this probability on."
    )
    max_length: Annotated[int, Field(ge=4, le=8192)] = Field(
        description="Tokens of each text at most, special tokens included."
    )
    lowercase: bool = Field(description="Lower the case of every text before tokenization.")
    strip_whitespace: bool = Field(description="Collapse white space before tokenization.")
    pad_token_id: Annotated[int, Field(ge=0)] = Field(description="Token that pads a batch.")
    # Absent for most models, so that servers of earlier releases read their documents.
    other_padding: Literal["left", "none"] | None = Field(
        default=None, description="Where a batch is padded if not on the right; none: texts of one length only."
    )

    @property
    def padding(self) -> Padding:
        """Where a batch is padded."""
        return self.other_padding or "right"


class RevisionConfig(Document):
    """One model version, and how it is computed: in the server's own process, or as an application of its own."""

    name: Text = Field(description="Name of the application.")
    model_uri: Text = Field(description="Folder of the version: <uri>/<name>/versions/<version>.")
    version: Text = Field(description="Version of the artifact.")
    digest: Digest = Field(description="Digest that the manifest must have.")
    access: Access = Field(default=Access(), description="Storage of model_uri.")
    engine: Engine = Field(default="auto", description="onnxruntime, torch or auto.")
    gpus_per_replica: Count = Field(default=0, description="GPUs of each replica.")
    max_batch_tokens: Annotated[int, Field(ge=1)] = Field(
        default=4096, description="Tokens of one batch, padding included."
    )
    max_ongoing_requests: Annotated[int, Field(ge=1)] = Field(
        default=64, description="Batches that may wait at one replica."
    )
    # Absent unless asked for, so that the names of everybody else's revisions stay as they are.
    trusted_keys: Text | None = Field(
        default=None,
        description="File with the public keys, one of which must have signed the version, and adapters over it; null: "
        "signatures are not looked at.",
    )


class AdapterConfig(Document):
    """A LoRA version that is computed over the base model of a revision."""

    name: Text = Field(description="Name by which requests choose it.")
    uri: Text = Field(description="Folder of the version.")
    version: Text = Field(description="Version of the artifact.")
    digest: Digest = Field(description="Digest that the manifest must have.")


class Route(Document):
    """A share of the traffic."""

    revision: Text = Field(description="Name of the revision.")
    version: Text = Field(description="Version that it serves, for the answer's header.")
    weight: Annotated[int, Field(ge=0, le=100)] = Field(description="Share of the requests in percent.")
    own_application: bool = Field(
        default=False,
        description="Whether a Ray Serve application of the revision's name computes it, which is called by handle.",
    )


class Mirror(Document):
    """Requests that a second revision computes too, whose answer nobody waits for: it is compared and counted."""

    revision: Text = Field(description="Name of the revision that gets the copies.")
    percent: Annotated[int, Field(ge=1, le=100)] = Field(description="Share of the requests that are copied.")
    max_pending: Annotated[int, Field(ge=1)] = Field(
        default=64, description="Copies under way at the same time in one server replica; further ones are dropped."
    )


class RequestLogConfig(Document):
    """Some of the requests, as lines of JSON in storage."""

    uri: Text = Field(description="Folder of the objects; namespace, name and date follow.")
    access: Access = Field(default=Access(), description="Storage of uri.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(description="Share of the requests that are logged.")
    texts: bool = Field(default=False, description="Whether the texts are logged too.")
    flush_s: Annotated[float, Field(gt=0)] = Field(default=60, description="How long lines wait at most.")


class TracingConfig(Document):
    """Spans, sent by OTLP over HTTP."""

    endpoint: Text = Field(description="URL of the collector; without a path, /v1/traces.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="Share of the requests without a traceparent that are traced."
    )


class DriftConfig(Document):
    """What texts and answers look like, counted for the operator, which compares."""

    window_s: Annotated[float, Field(gt=0)] = Field(description="How far back they count.")


class ObserveConfig(Document):
    """What is seen of the requests beside metrics."""

    namespace: Text = Field(description="Namespace of the ModelDeployment.")
    drift: DriftConfig | None = Field(default=None, description="Count what drift is judged by.")
    request_log: RequestLogConfig | None = Field(default=None, description="Log requests.")
    tracing: TracingConfig | None = Field(default=None, description="Send spans.")


class ServerConfig(Document):
    """The user_config of the server: everything that may change while it owns `/`."""

    model_name: Text = Field(description="Name of the ModelDeployment, and of the model in the inference protocols.")
    stable: RevisionConfig | None = Field(
        default=None,
        description="The revision that each replica computes in its own process. A new one is loaded in the "
        "background; until then requests go to its own application or, without one, to the revision before it.",
    )
    routes: Annotated[list[Route], Field(max_length=16)] = Field(default=[], description="Weights; empty answers 503.")
    # Absent where there are none, so that nothing changes for who has none.
    adapters: Annotated[list[AdapterConfig], Field(max_length=64)] | None = Field(
        default=None, description="Adapters over the base model of each revision, from the storage of `stable`."
    )
    window: Text = Field(
        default="", description="Name of the window over which requests are counted; a new name begins at zero."
    )
    mirror: Mirror | None = Field(default=None, description="Copies of requests; null makes none.")
    sticky_header: Text | None = Field(
        default=None, description="Header whose value decides the revision, so that one user meets one of them."
    )
    header_routing: bool = Field(
        default=False, description="Whether the header X-Luthier-Revision may name the revision that answers."
    )
    replicas: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Replicas at the fewest; each queues its share of max_queued_requests."
    )
    max_batch_texts: Annotated[int, Field(ge=1)] = Field(default=32, description="Texts that one batch holds at most.")
    max_batch_wait_ms: Annotated[int, Field(ge=0)] = Field(
        default=5, description="How long a request may wait for others while an application of its own is busy."
    )
    max_queued_requests: Annotated[int, Field(ge=1)] = Field(
        default=256, description="Requests accepted and not yet answered; a list counts once for each batch it fills."
    )
    request_timeout_s: Annotated[int, Field(ge=1)] = Field(default=60, description="How long an answer may take.")
    max_body_bytes: Annotated[int, Field(ge=1)] = Field(default=1024 * 1024, description="Size of a request's body.")
    max_texts: Annotated[int, Field(ge=1)] = Field(default=1000, description="Texts in one request.")
    max_text_characters: Annotated[int, Field(ge=1)] = Field(default=100_000, description="Characters of one text.")
    allowed_origins: Annotated[list[Text], Field(max_length=64)] | None = Field(
        default=None, description="Origins of web pages that may call the server; null: none but its own."
    )
    path_prefix: Text | None = Field(
        default=None, description="Path below which the server answers too, as the way in from outside sends it."
    )
    # Absent unless asked for, so that the configuration of everybody else stays as it is.
    observe: ObserveConfig | None = Field(default=None, description="What is seen of the requests; null is nothing.")


# A replica may say anything.
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class ModelState(Document):
    """A revision in the process of a server replica."""

    revision: Text = Field(description="Name of the revision.")
    state: Literal["Loading", "Ready", "Failed"] = Field(description="What it is doing.")
    message: Text = Field(default="", description="Why it cannot be loaded; it is tried again.")


class AdapterState(Document):
    """An adapter in the process of a server replica."""

    name: Text = Field(description="Its name.")
    digest: Digest = Field(description="Its digest.")
    state: Literal["Loading", "Ready", "Failed"] = Field(description="What it is doing.")
    message: Text = Field(default="", description="Why it cannot be loaded; it is tried again.")


class ReplicaStart(Document):
    """How a server replica started: times of its node's clock, in seconds of the Unix epoch, and durations."""

    began: Seconds = Field(description="When its code began, after Ray and the imports.")
    ready: Seconds = Field(description="When it held its first model.")
    download_s: Seconds = Field(description="How long the download and its verification took.")
    load_s: Seconds = Field(description="How long the engine took to load it.")


class ApiKeysState(Document):
    """The API keys that a server replica has read."""

    count: Count = Field(description="Keys with which somebody is admitted.")
    message: Text = Field(default="", description="Why nobody is.")


# Buckets of one eighth of an octave: a quantile is read to within 9 percent.
LATENCY_BUCKETS_PER_OCTAVE = 8
# 2^-12.5 ms to 2^25 ms, which is nine hours.
LatencyBucket = Annotated[int, Field(ge=-100, le=200)]


class RevisionCounts(Document):
    """What became of the requests to one revision since the window began."""

    requests: Count = Field(default=0, description="Requests that were answered or failed.")
    errors: Count = Field(
        default=0, description="Those that the revision failed: not what a client did wrong, and no full queue."
    )
    latency: Annotated[dict[LatencyBucket, Count], Field(max_length=301)] = Field(
        default={},
        description="Requests by the time that they took: key k holds those of 2^((k-1)/8) to 2^(k/8) milliseconds.",
    )
    compared: Count = Field(default=0, description="Copies that both revisions have computed.")
    agreement: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] = Field(
        default=0.0, description="Sum over the copies of how far the answers agree, each 0 to 1."
    )
    confidence_shift: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] = Field(
        default=0.0, description="Sum over the copies of the difference in confidence."
    )
    flips: Annotated[dict[Text, Count], Field(max_length=100)] = Field(
        default={}, description="'from -> to': how often the predicted label changed."
    )
    dropped: Count = Field(default=0, description="Copies that were not made, since too many were under way.")


class ServerReport(Document):
    """What a server replica says of itself over HTTP, at SERVER_REPORT_PATH."""

    replica: Text = Field(description="Unique name of the replica.")
    ready: bool = Field(description="Whether it answers requests now.")
    config: Text = Field(default="", description="Digest of the ServerConfig that it has applied.")
    window: Text = Field(default="", description="Window of `counts`.")
    models: Annotated[list[ModelState], Field(max_length=4)] = Field(default=[], description="Revisions that it holds.")
    counts: Annotated[dict[Text, RevisionCounts], Field(max_length=16)] = Field(
        default={}, description="Counts by revision."
    )
    pending: Count = Field(default=0, description="Requests accepted and not yet answered.")
    adapters: Annotated[list[AdapterState], Field(max_length=64)] = Field(
        default=[], description="Adapters that it holds, or is to hold."
    )
    start: ReplicaStart | None = Field(default=None, description="How it started; null until it has.")
    api_keys: ApiKeysState | None = Field(default=None, description="Its API keys; null if it asks for none.")
    drift: Annotated[dict[Text, DriftReport], Field(max_length=4)] | None = Field(
        default=None, description="By revision, what texts and answers look like; null if that is not counted."
    )
    deaths: Annotated[dict[Text, Text], Field(max_length=16)] = Field(
        default={}, description="Why a replica of a revision's own application died last, in the words of Ray."
    )
    oom_kills: Count = Field(
        default=0, description="Processes of its container that the kernel has killed for memory since that started."
    )
