"""How a place that a run reads or writes, and the Secret that opens it, are named in a resource."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from luthier_api.base import ApiModel, DnsLabel, ObjectName, cel

CLAIM_SCHEME = "pvc://"
# In a pod, below which each PersistentVolumeClaim that the run reads from lies under its own name.
CLAIMS_DIR = "/mnt/claims"
# Spaces, commas and letters of any script may be in a path; a space at its end is a slip.
_PATH = r"[^/\s]([^\r\n]*\S)?"
_BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_CLAIM = r"pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/"
_FILE = rf"file:///({_PATH})?"
OUTPUT_URI = rf"^({_BUCKET}(/{_PATH}|/)?|{_FILE})$"
INPUT_URI = rf"^({_BUCKET}/{_PATH}|hf://[^\s]+|{_CLAIM}({_PATH})?|{_FILE})$"
HUB_DATASET = "hf://datasets/"
_HUB_DATASET = r"hf://datasets/[\w.-]+/[\w.-]+"
# No user:password@, which would stand in the resource for all to read, and no fragment.
_WEB = r"https://[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?(:[0-9]{1,5})?/[^\s#]+"
DATA_URI = rf"^({_BUCKET}/{_PATH}|{_HUB_DATASET}(/({_PATH})?)?|{_WEB}|{_CLAIM}{_PATH}|{_FILE})$"
_PLAIN_PATH = (
    "!self.matches('/[.]{1,2}(/|$)|[^:/]//')",
    "the path must not contain '//', and no part of it may be '.' or '..'",
)
_ENDING = "[.](csv|tsv|jsonl|ndjson|parquet)([.]gz)?"
# Of a web address, what stands before the query names the file.
_KNOWN_FORMAT = (
    f"self.startsWith('https://') ? self.matches('(?i)^[^?]*{_ENDING}([?].*)?$') : "
    f"self.matches('(?i)(^hf://datasets/[^/]+/[^/]+|/|[*][^/]*|{_ENDING})$')",
    "must name a .csv, .tsv, .jsonl or .parquet file, optionally with .gz, or, but for https://, a folder with a "
    "trailing /",
)
NO_PLAIN_HTTP = (
    "http:// is not read, because anybody on the way could change the data: write https:// and give its sha256, or "
    "copy the file to s3://"
)
_STAR_AT_THE_END = ("!self.matches('[*][^/]*/')", "* is allowed in the last part of the path only")
NO_ACCESS_TO_A_CLAIM = (
    "pvc:// needs no storage access: remove secretRef, endpoint, region, caBundle and forcePathStyle, or use s3://"
)

_WHERE_A_MODEL_LIES = (
    "must be s3://bucket/folder, hf://owner/name, pvc://claim/folder or file:///folder; a model of the hub has an "
    "owner: hf://google-bert/bert-base-uncased"
)
_WHERE_DATA_LIES = (
    "must be s3://bucket/key, hf://datasets/owner/name, https://host/path (without a user and #), pvc://claim/path or "
    "file:///path; copy a file from elsewhere there first"
)
_WHERE_VERSIONS_LIE = "must be s3://bucket/prefix/ or file:///folder"
# Models that go without their owner in tutorials.
_HUB_OWNERS = {
    **dict.fromkeys(("bert-base-uncased", "bert-base-cased", "bert-large-uncased", "bert-large-cased"), "google-bert"),
    **dict.fromkeys(("bert-base-multilingual-cased", "bert-base-chinese", "bert-base-german-cased"), "google-bert"),
    **dict.fromkeys(("distilbert-base-uncased", "distilbert-base-cased", "distilroberta-base"), "distilbert"),
    **dict.fromkeys(("roberta-base", "roberta-large", "xlm-roberta-base", "xlm-roberta-large"), "FacebookAI"),
    **dict.fromkeys(("albert-base-v2", "albert-large-v2"), "albert"),
    **dict.fromkeys(("xlnet-base-cased", "xlnet-large-cased"), "xlnet"),
    **dict.fromkeys(("gpt2", "gpt2-medium"), "openai-community"),
    **dict.fromkeys(("t5-small", "t5-base"), "google-t5"),
}
# And data sets.
_HUB_DATASET_OWNERS = {
    **dict.fromkeys(("imdb", "sst2", "snli"), "stanfordnlp"),
    **dict.fromkeys(("glue", "multi_nli"), "nyu-mll"),
    **{"emotion": "dair-ai", "conll2003": "eriktks", "tweet_eval": "cardiffnlp", "ag_news": "fancyzhx"},
    "rotten_tomatoes": "cornell-movie-review-data",
}
_HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?")
_HUB_DATASET_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/datasets/([\w.-]+/[\w.-]+)(?:/viewer.*|/tree/main|/)?"
)
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")


def proposed_uri(value: str) -> str | None:
    """Return what was probably meant by a name that is no URI of a model; None if nobody can tell."""
    if value in _HUB_OWNERS:
        return f"hf://{_HUB_OWNERS[value]}/{value}"
    if page := _HUB_PAGE.fullmatch(value):
        return f"hf://{page[1]}"
    if local := _local_uri(value):
        return local
    return f"hf://{value}" if _HUB_NAME.fullmatch(value) else None


def proposed_data_uri(value: str) -> str | None:
    """Return what was probably meant by a name that is no URI of data; None if nobody can tell."""
    if page := _HUB_DATASET_PAGE.fullmatch(value):
        return f"{HUB_DATASET}{page[1]}"
    if local := _local_uri(value):
        return local
    name = value.removeprefix("hf://").removeprefix("datasets/")
    if name in _HUB_DATASET_OWNERS:
        return f"{HUB_DATASET}{_HUB_DATASET_OWNERS[name]}/{name}"
    return f"{HUB_DATASET}{name}" if _HUB_NAME.fullmatch(name) and not is_file(name) else None


def is_file(name: str) -> bool:
    """Tell by its ending whether a name is that of a file of data."""
    return re.search(f"(?i){_ENDING}$", name) is not None


def _local_uri(value: str) -> str | None:
    if value.startswith("/"):
        return PurePosixPath(value).as_uri()
    if value.startswith("file:/") and not value.startswith("file://"):
        return f"file:///{value.removeprefix('file:/')}"
    return None


def _of_form(pattern: str, message: str, propose: Callable[[str], str | None] = lambda value: None) -> Any:
    """Return the check of a URI that says what is accepted, where a pattern would only show itself."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) and not _HUB_DATASET_PAGE.fullmatch(value):
            return value
        proposal = propose(value)
        raise ValueError(f"{value!r} is not understood; write {proposal}" if proposal else f"{value!r} {message}")

    return AfterValidator(check)


def _no_plain_http(value: object) -> object:
    if isinstance(value, str) and value.startswith("http://") and not _HUB_DATASET_PAGE.fullmatch(value):
        raise ValueError(NO_PLAIN_HTTP)
    return value


def _rule(pattern: str, message: str) -> tuple[str, str]:
    return (f"self.matches(r'{pattern}')", message)


InputUri = Annotated[
    str,
    Field(max_length=1024, json_schema_extra=cel(_rule(INPUT_URI, _WHERE_A_MODEL_LIES), _PLAIN_PATH)),
    _of_form(INPUT_URI, _WHERE_A_MODEL_LIES, proposed_uri),
]
DataUri = Annotated[
    str,
    Field(
        max_length=1024,
        json_schema_extra=cel(
            (f"self.startsWith('http://') || self.matches(r'{DATA_URI}')", _WHERE_DATA_LIES),
            ("!self.startsWith('http://')", NO_PLAIN_HTTP),
            _PLAIN_PATH,
            _KNOWN_FORMAT,
            _STAR_AT_THE_END,
        ),
    ),
    BeforeValidator(_no_plain_http),
    _of_form(DATA_URI, _WHERE_DATA_LIES, proposed_data_uri),
]
OutputUri = Annotated[
    str,
    Field(max_length=1024, json_schema_extra=cel(_rule(OUTPUT_URI, _WHERE_VERSIONS_LIE), _PLAIN_PATH)),
    _of_form(OUTPUT_URI, _WHERE_VERSIONS_LIE),
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


ConfigMapKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$")]


class CaBundle(ApiModel):
    """A ConfigMap key that holds the certificate authorities of a private S3 endpoint."""

    name: ObjectName = Field(description="Name of a ConfigMap in the same namespace.")
    key: ConfigMapKey = Field(default="ca.crt", description="Key in that ConfigMap that holds PEM certificates.")


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

    @property
    def mounts(self) -> bool:
        """Whether a pod mounts anything of the namespace's for it, which may not be there."""
        return self.secret_ref is not None or self.ca_bundle is not None

    def is_unset(self) -> bool:
        """Tell whether nothing is said here, so that the output's access applies."""
        return all(getattr(self, name) is None for name in StorageAccess.model_fields)


class Input(StorageAccess):
    """Something that a run reads."""

    uri: InputUri = Field(
        description="s3://bucket/key, hf://owner/name, pvc://claim/path (a PersistentVolumeClaim in the same "
        "namespace, mounted read-only) or file:///path inside the trainer image."
    )
