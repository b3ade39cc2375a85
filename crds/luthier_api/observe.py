"""What may be seen of a ModelDeployment beside its metrics: drift, a log of requests, traces; each off by default."""

from decimal import Decimal
from typing import Annotated

from pydantic import ConfigDict, Field

from luthier_api.base import ApiModel, IndexLimit, SamplePercent, cel
from luthier_api.storage import OutputUri, StorageAccess


class RequestLog(StorageAccess):
    """Some of the requests, as lines of JSON in storage. Access that is not set here is that of the served version."""

    model_config = ConfigDict(json_schema_extra=cel(("self.uri.startsWith('s3://')", "uri must be an s3:// URI")))

    uri: OutputUri = Field(
        description="s3://bucket/prefix. Objects are <uri>/<namespace>/<name>/<date>/<replica>-<number>.jsonl.gz."
    )
    sample_percent: SamplePercent = Field(
        default=Decimal("10"), validate_default=True, description="Percentage of the requests that are logged."
    )
    texts: bool = Field(
        default=False, description="Log the texts too, and what spans of them were found. They may be personal data."
    )
    flush_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=60, description="How long lines may wait in a replica, which a crash would lose."
    )


class Tracing(ApiModel):
    """Spans of the server, sent by OTLP over HTTP."""

    endpoint: Annotated[str, Field(max_length=1024, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")] = Field(
        description="URL of a collector, such as http://otel-collector.observability:4318. Without a path, /v1/traces."
    )
    sample_percent: SamplePercent = Field(
        default=Decimal("1"),
        validate_default=True,
        description="Percentage of the requests that are traced, among those without a traceparent header; one that "
        "comes with it is traced if the header says so.",
    )


class Drift(ApiModel):
    """Compares what is asked and answered with the evaluation split of the version's training."""

    limit: IndexLimit = Field(
        default=Decimal("0.25"),
        validate_default=True,
        description="Population stability index above which the condition Drifting is true.",
    )
    min_requests: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=500,
        description="With fewer in the window, nothing is concluded. Each text of a list counts as a request.",
    )
    window_seconds: Annotated[int, Field(ge=10, le=7 * 86400)] = Field(
        default=3600, description="How far back requests count."
    )


class Observe(ApiModel):
    """What is seen of the requests. What is not set costs nothing."""

    drift: Drift | None = Field(default=None, description="Compare texts and answers with those of the training.")
    request_log: RequestLog | None = Field(default=None, description="Write a sample of the requests to storage.")
    tracing: Tracing | None = Field(default=None, description="Send spans of the requests to a collector.")
