"""The BatchPrediction: "each row of these files has a prediction in that folder"."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import (
    ApiModel,
    Count,
    Digest,
    DnsLabel,
    Engine,
    ImageReference,
    ObjectName,
    PositiveCount,
    Text,
    Timestamp,
    cel,
)
from luthier_api.conditions import NOT_SEEN_YET, ResourceStatus
from luthier_api.data_files import TEXT_COLUMN_OR_COLUMNS, Column, Columns, DataFormat
from luthier_api.finetunejob import LastFailure
from luthier_api.keys import digest_of
from luthier_api.modeldeployment import ONNX_ON_CPU, ServedModel
from luthier_api.pods import Placement, PodMetadata, ResourceRequirements
from luthier_api.storage import DataUri, OutputUri, StorageAccess

S3_ONLY = "must be an s3:// URI: files inside a pod are lost with the pod"
OUTPUT_IN_INPUT = "output.uri lies below input.uri, so the next run would read the predictions: write them elsewhere"
PredictionFormat = Literal["JSONL", "Parquet"]
# Below output.uri; each run writes there first, so that its storage is proven.
RUNS_FOLDER = "_runs"
# What a user may change without another run.
_LIFECYCLE = {"suspend", "ttlSecondsAfterFinished"}


class BatchInput(StorageAccess):
    """The texts."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.uri.startsWith('s3://')", S3_ONLY),
            ("!has(self.textColumns) || self.textColumn == 'text'", TEXT_COLUMN_OR_COLUMNS),
        )
    )

    uri: DataUri = Field(
        description="s3://bucket/key of a .csv, .tsv, .jsonl or .parquet file, optionally with .gz. A trailing / reads "
        "all such files below the folder; * in the last part reads all that match, in the order of their names."
    )
    text_column: Column = Field(default="text", description="Column that holds the text.")
    text_columns: Columns | None = Field(
        default=None,
        description="Instead of textColumn: columns whose texts are joined by a space, in this order. Empty ones are "
        "left out.",
    )
    text_pair_column: Column | None = Field(
        default=None, description="Column that holds the second text, for a model that reads pairs."
    )
    id_column: Column | None = Field(
        default=None, description="Column whose value stands as id beside each prediction."
    )
    format: DataFormat = Field(default=DataFormat(), description="How the text of the files is read.")

    @model_validator(mode="after")
    def _columns_are_said_once(self) -> "BatchInput":
        if self.text_columns and self.text_column != "text":
            raise ValueError(TEXT_COLUMN_OR_COLUMNS)
        return self


class BatchOutput(StorageAccess):
    """Where the predictions go. Model and input that name no access of their own are reached like this."""

    model_config = ConfigDict(json_schema_extra=cel(("self.uri.startsWith('s3://')", S3_ONLY)))

    uri: OutputUri = Field(
        description="s3://bucket/folder/. Each run writes into a folder of its own below it, which status.output names."
    )
    format: PredictionFormat = Field(
        default="JSONL", description="JSONL: a JSON object for each row, gzipped. Parquet: compressed by zstd."
    )
    include_text: bool = Field(
        default=False, description="Repeat the text beside each prediction, as input_text and input_text_pair."
    )


class BatchRuntime(Placement):
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
        default=ResourceRequirements(), description="CPU and memory of each worker's pod."
    )
    gpus_per_replica: Annotated[int, Field(ge=0, le=1)] = Field(
        default=0, description="GPUs (nvidia.com/gpu) of each worker."
    )
    max_batch_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        default=4096, description="Maximum number of tokens in one batch, padding included."
    )


class BatchPredictionSpec(ApiModel):
    """What to predict, and on which hardware."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!self.input.uri.endsWith('/') || !self.output.uri.startsWith(self.input.uri)", OUTPUT_IN_INPUT)
        )
    )

    model: ServedModel = Field(
        description="The artifact to predict with. Of a FineTuneJob, the version is chosen when the run begins."
    )
    input: BatchInput = Field(description="The texts.")
    output: BatchOutput = Field(description="Where the predictions go.")
    parallelism: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Number of workers, each a pod. They share the shards equally."
    )
    shard_rows: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=10_000,
        description="Rows of a shard, which is computed and stored as one part. A worker that is lost loses at most "
        "the shard that it was at.",
    )
    runtime: BatchRuntime = Field(default=BatchRuntime(), description="How the model runs.")
    pod_metadata: PodMetadata = Field(
        default=PodMetadata(),
        description="Labels and annotations for the pods, for instance to switch the injection of a sidecar off.",
    )
    queue_name: DnsLabel | None = Field(
        default=None, description="Kueue LocalQueue, in the same namespace, for the Job. Unset: it starts immediately."
    )
    suspend: bool = Field(
        default=False,
        description="Stop the workers and free their resources. When set to false again, the shards that are missing "
        "are computed.",
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3,
        description="Number of failures of workers to retry. Errors that a retry cannot fix are not retried. "
        "Disruptions are always retried and do not count.",
    )
    active_deadline_seconds: PositiveCount | None = Field(default=None, description="Maximum duration of the Job.")
    ttl_seconds_after_finished: Count | None = Field(
        default=86400,
        description="How long the finished Job and its logs are kept. The predictions are not affected.",
    )

    @model_validator(mode="after")
    def _output_is_not_input(self) -> "BatchPredictionSpec":
        if self.input.uri.endswith("/") and self.output.uri.startswith(self.input.uri):
            raise ValueError(OUTPUT_IN_INPUT)
        return self

    @property
    def mounts(self) -> bool:
        """Whether a pod mounts anything of the namespace's for its storage, which may not be there."""
        return any(part.mounts for part in (self.model, self.input, self.output))

    def run_hash(self, retry: str) -> str:
        """Return the hash that names a run: all that its pods are made from, and the user's retry annotation.

        What is as its default is left out: a release that adds a field then starts no run anew.
        """
        said: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        return digest_of({"spec": {k: v for k, v in said.items() if k not in _LIFECYCLE}, "retry": retry})


class BatchRun(ApiModel):
    """The run of the present spec."""

    name: ObjectName = Field(description="Prefix of the name of its Job.")
    state: Literal["Running", "Succeeded", "Failed"] = Field(description="State of the run.")
    started_at: Timestamp | None = Field(default=None, description="When it started.")
    finished_at: Timestamp | None = Field(default=None, description="When it ended.")


class Shards(ApiModel):
    """How many parts there are to be, and how many are in storage."""

    done: Count = Field(default=0, description="Shards whose part is in storage.")
    total: Count = Field(default=0, description="Shards in all.")


class BatchPredictionStatus(ResourceStatus):
    """What the operator has observed."""

    run: BatchRun | None = Field(default=None, description="The run of the present spec.")
    version: Text | None = Field(default=None, description="Version that predicts.")
    digest: Digest | None = Field(default=None, description="Its digest.")
    model_uri: Text | None = Field(default=None, description="Location of its files.")
    output: Text | None = Field(
        default=None, description="Folder of the predictions; _manifest.json in it lists the parts."
    )
    rows: Count | None = Field(default=None, description="Rows of the input, each of which gets one prediction.")
    errors: Count | None = Field(default=None, description="Rows that have an error in place of a prediction.")
    shards: Shards | None = Field(default=None, description="Shards done, and in all.")
    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Percentage of the shards done."
    )
    texts_per_second: Text | None = Field(default=None, description="Rows per second, of all workers together.")
    eta: Text | None = Field(default=None, description="Estimated time left at the current speed, such as 4m10s.")
    eta_seconds: Count | None = Field(default=None, description="The same in seconds.")
    reused: bool | None = Field(default=None, description="Set if an earlier run had computed all this.")
    failed_attempts: Count = Field(default=0, description="Failures of workers that count towards backoffLimit.")
    last_failure: LastFailure | None = Field(default=None, description="The last failure of a worker of this run.")


class BatchPrediction(ApiModel):
    """Each row of the input has one prediction in the output."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "size(self.metadata.name) <= 52",
                "metadata.name must be at most 52 characters, so that its Job can be named after it",
            )
        )
    )

    spec: BatchPredictionSpec = Field(description="What to predict.")
    status: BatchPredictionStatus | None = Field(
        default=None, description="What the operator has observed.", json_schema_extra={"default": NOT_SEEN_YET}
    )
