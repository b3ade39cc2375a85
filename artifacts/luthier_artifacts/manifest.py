"""The manifest: what a version, a checkpoint or prepared data consists of, and where it came from.

Owns the document and the digests over it. It knows nothing of storage: `trees` and `registry` decide where manifests
lie and when they are written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from luthier_api.base import Digest, Document, Sha256
from luthier_artifacts.errors import IntegrityError, InvalidUri
from luthier_artifacts.uri import safe_path

MANIFEST_NAME = "manifest.json"
RESERVATION_NAME = ".reservation"
SIGNATURE_NAME = "model.sig"

Finite = Annotated[float, Field(allow_inf_nan=False)]


def _relative(path: str) -> str:
    try:
        safe_path(path)
    except InvalidUri as error:
        raise ValueError(str(error)) from None
    return path


class FileEntry(Document):
    """One file: where it lies under the folder, how long it is, and what it must hash to."""

    path: Annotated[str, AfterValidator(_relative)] = Field(description="Relative path.")
    size: Annotated[int, Field(ge=0)] = Field(description="Bytes.")
    sha256: Sha256 = Field(description="Hash of the bytes.")


class Lineage(Document):
    """Where a version came from: enough to make it again."""

    base_model_uri: str | None = Field(default=None, description="As the spec names it.")
    base_model_revision: str | None = Field(default=None, description="Commit that it stood for.")
    base_model_digest: str | None = Field(default=None, description="Digest over its files.")
    dataset_uri: str | None = Field(default=None, description="As the spec names it.")
    dataset_digest: str | None = Field(default=None, description="Digest over its files.")
    dataset_quality: dict[str, Any] = Field(default={}, description="The quality report.")
    run_document: dict[str, Any] = Field(default={}, description="All that the trainer was told.")
    image: str | None = Field(default=None, description="Trainer image, with its digest.")
    code_version: str | None = Field(default=None, description="Version of the trainer.")
    environment: dict[str, str] = Field(default={}, description="Versions of libraries, drivers and devices.")
    seed: int | None = Field(default=None, description="Seed of every random generator.")


class Metadata(Document):
    """What the trainer says about a version."""

    task: str | None = Field(default=None, description="What the model does, such as text-classification.")
    labels: list[str] = Field(default=[], description="Names of the classes, in the order of the model's outputs.")
    exports: list[str] = Field(default=[], description="Formats that the version holds.")
    metrics: dict[str, Finite] = Field(default={}, description="Metrics of the final evaluation.")
    promotable: bool = Field(default=True, description="Whether every gate passed.")
    gate_messages: list[str] = Field(default=[], description="One sentence for each gate that did not.")
    lineage: Lineage = Field(default=Lineage(), description="Where the version came from.")


class Manifest(Metadata):
    """A whole, immutable set of files. Its existence is what makes the set exist."""

    schema_version: Literal[1] = 1
    name: str = Field(description="Name of the model, or what kind of tree this is.")
    version: str = Field(description="Version, or the tree's place.")
    run_key: str | None = Field(default=None, description="The run that produced it.")
    created_at: str = Field(description="RFC 3339, UTC.")
    writer: str = Field(description="Random; tells this manifest from one that another process wrote.")
    folder: str = Field(default="", description="Subfolder of the manifest's own folder that holds the files.")
    files: list[FileEntry] = Field(description="Every file, in order of the paths.")
    digest: Digest = Field(description="sha256 over the list of files.")

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if self.folder:
            _relative(self.folder)
        elif reserved := reserved_name(self.files):
            raise ValueError(f"the file name {reserved!r} is the registry's own")
        check_file_list(self.files)
        if self.digest != tree_digest(self.files):
            raise ValueError("the digest is not that of the list of files")
        return self

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.size for entry in self.files)

    def file(self, path: str) -> FileEntry | None:
        """Return the entry of one file, or None."""
        return next((entry for entry in self.files if entry.path == path), None)


def tree_digest(files: Iterable[FileEntry]) -> str:
    """Return "sha256:<hex>" over the sorted list of [path, size, sha256], as canonical JSON."""
    rows = sorted([entry.path, entry.size, entry.sha256] for entry in files)
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def reserved_name(files: Iterable[FileEntry]) -> str | None:
    """Return the first name that would collide with the registry's own objects beside the files, or None."""
    own = (MANIFEST_NAME, RESERVATION_NAME, SIGNATURE_NAME)
    return next((entry.path for entry in files if entry.path in own), None)


def check_file_list(files: list[FileEntry]) -> None:
    """Check that the files can lie in one folder.

    Raises:
        ValueError: if a path comes twice, or is a file and a folder at once, or the list is not sorted.
    """
    paths = [entry.path for entry in files]
    if paths != sorted(set(paths)):
        raise ValueError("the list of files is not sorted or names a file twice")
    known = set(paths)
    for path in paths:
        parts = path.split("/")
        if any("/".join(parts[:depth]) in known for depth in range(1, len(parts))):
            raise ValueError(f"{path!r} lies below another file")


def parse_manifest(data: bytes, place: str) -> Manifest:
    """Parse a manifest that may be damaged or hostile.

    Raises:
        IntegrityError: if it is not a manifest of this schema version, or not consistent in itself.
    """
    try:
        return Manifest.from_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise IntegrityError(f"{place} is not a valid manifest: {where}: {first['msg']}.") from None
