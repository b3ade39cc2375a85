"""How a place that a run reads or writes, and the Secret that opens it, are named in a resource."""

from typing import Annotated

from pydantic import Field

from luthier_api.base import ApiModel, DnsLabel, ObjectName, cel

S3_URI = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\s][^\s]*|/)?$"
CLAIM_SCHEME = "pvc://"
# In a pod, below which each PersistentVolumeClaim that the run reads from lies under its own name.
CLAIMS_DIR = "/mnt/claims"
_S3_OBJECT = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^/\s][^\s]*"
_CLAIM = r"pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/"
_FILE = r"file:///[^\s]*"
INPUT_URI = rf"^({_S3_OBJECT}|hf://[^\s]+|{_CLAIM}[^\s]*|{_FILE})$"
DATA_URI = rf"^({_S3_OBJECT}|{_CLAIM}[^/\s][^\s]*|{_FILE})$"
_PLAIN_PATH = (
    "!self.matches('/[.]{1,2}(/|$)|[^:/]//')",
    "the path must not contain '//', and no part of it may be '.' or '..'",
)
_KNOWN_FORMAT = (
    "self.matches('(?i)(/|[*][^/]*|[.](csv|tsv|jsonl|ndjson|parquet)([.]gz)?)$')",
    "must name a .csv, .tsv, .jsonl or .parquet file, optionally with .gz, or a folder with a trailing /",
)
_STAR_AT_THE_END = ("!self.matches('[*][^/]*/')", "* is allowed in the last part of the path only")
NO_ACCESS_TO_A_CLAIM = (
    "pvc:// needs no storage access: remove secretRef, endpoint, region, caBundle and forcePathStyle, or use s3://"
)

InputUri = Annotated[str, Field(max_length=1024, pattern=INPUT_URI, json_schema_extra=cel(_PLAIN_PATH))]
DataUri = Annotated[
    str,
    Field(max_length=1024, pattern=DATA_URI, json_schema_extra=cel(_PLAIN_PATH, _KNOWN_FORMAT, _STAR_AT_THE_END)),
]
OutputUri = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=S3_URI.replace("^s3", "^(s3").rstrip("$") + "|file:///[^\\s]*)$",
        json_schema_extra=cel(_PLAIN_PATH),
    ),
]


def claim_of(uri: str) -> str | None:
    """Return the PersistentVolumeClaim that pvc://claim/path names, or None for another kind of URI."""
    if not uri.startswith(CLAIM_SCHEME):
        return None
    return uri.removeprefix(CLAIM_SCHEME).partition("/")[0]


class SecretRef(ApiModel):
    """A Secret in the resource's own namespace."""

    name: ObjectName = Field(
        description="Name of a Secret in the same namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "and optionally AWS_SESSION_TOKEN; for hf:// inputs the key HF_TOKEN."
    )


class CaBundle(ApiModel):
    """A ConfigMap key that holds the certificate authorities of a private S3 endpoint."""

    name: ObjectName = Field(description="Name of a ConfigMap in the same namespace.")
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$")] = Field(
        default="ca.crt", description="Key in that ConfigMap that holds PEM certificates."
    )


class StorageAccess(ApiModel):
    """How to reach a storage endpoint. Unset fields come from `output`, and in `output` from the cloud's defaults."""

    secret_ref: SecretRef | None = Field(
        default=None,
        description="Credentials. Unset: the pod's own identity (workload identity, instance profile).",
    )
    endpoint: Annotated[str, Field(max_length=1024, pattern=r"^https?://[^\s/]+/?$")] | None = Field(
        default=None,
        description="URL of an S3-compatible endpoint, such as https://minio.example.com. Unset: AWS.",
    )
    region: DnsLabel | None = Field(default=None, description="Region name; us-east-1 if unset.")
    ca_bundle: CaBundle | None = Field(default=None, description="Certificate authorities for a private endpoint.")
    force_path_style: bool | None = Field(
        default=None,
        description="Put the bucket in the path instead of the host name. Default: true with an endpoint.",
    )

    def is_unset(self) -> bool:
        """Tell whether nothing is said here, so that the output's access applies."""
        return all(getattr(self, name) is None for name in StorageAccess.model_fields)


class Input(StorageAccess):
    """Something that a run reads."""

    uri: InputUri = Field(
        description="s3://bucket/key, hf://owner/name, pvc://claim/path (a PersistentVolumeClaim in the same "
        "namespace, mounted read-only) or file:///path inside the trainer image."
    )
