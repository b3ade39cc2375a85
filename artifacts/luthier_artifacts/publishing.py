"""Publishing a version: how exactly one version of a run becomes visible, whoever races and whatever is killed.

Objects of one run:

    versions/<version>/.reservation    makes <version> this writer's alone; version ids have whole seconds
    versions/<version>/<file>...
    runs/<run key>.json                the pointer: the only version of this run that may come to exist
    versions/<version>/manifest.json   written once and never replaced; the version exists when it does

Steps of a writer W, each one atomic request:

1. Reserve an id v: create `.reservation` if absent; while it is taken, try the next second.
2. Upload the files below versions/v. Nobody else writes there.
3. Claim: make the pointer name v. It is created if absent. If it names another version w:
   - w exists: W has lost. It deletes its files (not its reservation, so that v stays used up) and returns w.
   - w does not exist: its writer died, was sealed, or is between steps 3 and 4. After `claim_grace_s` W *seals* w, by
     creating an *empty* manifest.json if absent, and then moves the pointer from w to v by compare-and-swap.
     If sealing is refused then w has just been decided; look again.
4. Create versions/v/manifest.json if absent. If it is refused, somebody sealed v: start again with a new id.

Why at most one version of a run is ever visible: a manifest for v is written only after the pointer named v, and the
pointer leaves v only after the manifest key of v is occupied for good, by the manifest (then v is the answer) or by a
seal (then v can never exist). So for two visible versions the pointer would have had to leave the first while its key
was free. Why nothing is lost: a version is visible from its manifest's creation on until `delete_version` seals it.
Why a kill does no harm: before step 4 nothing is visible, and the next writer passes over the claim; after step 4 the
pointer names the version already. Every refused write is followed by a read, so an answer that got lost on the way,
and a request that the client library sent twice, are told from a race.

Files that a killed writer leaves are deleted by `Registry.sweep_abandoned`, once they are old.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from luthier_api.artifact_files import VERSION_PATTERN
from luthier_api.base import Document
from luthier_artifacts.errors import ObjectNotFound, PreconditionFailed
from luthier_artifacts.manifest import RESERVATION_NAME, FileEntry, Manifest, Metadata, tree_digest
from luthier_artifacts.store import ObjectStore, Progress
from luthier_artifacts.trees import file_keys, manifest_key, read_slot, upload_tree

log = logging.getLogger(__name__)

# Each round costs an upload, and is only needed when another writer took over between two adjacent requests.
PUBLISH_ATTEMPTS = 10
# Each refused write means that another writer's succeeded, so this bounds a server that refuses them all.
CLAIM_ATTEMPTS = 1000
CLAIM_POLL_S = 0.1

Version = Annotated[str, Field(pattern=VERSION_PATTERN)]


class Pointer(Document):
    """The document runs/<run key>.json, and the reservation of a version."""

    version: Version
    run_key: str
    writer: str
    claimed_at: str


@dataclass(frozen=True)
class Claim:
    """The pointer of a run as it was read; `pointer` is None when what lies there is damaged."""

    pointer: Pointer | None
    etag: str


@dataclass(frozen=True)
class Draft:
    """One writer's attempt: a reserved version and the manifest that it would publish."""

    manifest: Manifest
    place: str
    pointer: Pointer


class _Patience:
    """Gives the writer of a claim some time to finish, so that an upload is not thrown away for a race."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._etag: str | None = None
        self._ends = 0.0

    def is_over(self, etag: str) -> bool:
        """Whether this same claim has had its time; waits a moment if not."""
        if etag != self._etag:
            self._etag, self._ends = etag, time.monotonic() + self._grace_s
        left = self._ends - time.monotonic()
        if left > 0:
            time.sleep(min(left, CLAIM_POLL_S))
        return left <= 0


@dataclass(frozen=True)
class Publisher:
    """The protocol above for one model's folder in a store."""

    store: ObjectStore
    name: str
    clock: Callable[[], datetime]
    claim_grace_s: float

    def publish(
        self, folder: Path, files: list[FileEntry], run_key: str, metadata: Metadata, progress: Progress | None
    ) -> tuple[Manifest, bool]:
        """Return the run's one manifest, and whether it is another writer's."""
        for _ in range(PUBLISH_ATTEMPTS):
            draft = self._reserve(files, run_key, metadata)
            upload_tree(self.store, draft.place, draft.manifest, folder, progress)
            winner = self._claim(draft) or self._commit(draft)
            if winner is None:
                log.warning("version %s was given up for another writer's; trying again", draft.manifest.version)
                self._withdraw(draft)
                continue
            if winner.writer != draft.manifest.writer:
                self._withdraw(draft)
                return winner, True
            return winner, False
        raise PreconditionFailed(f"The run {run_key} is published by others again and again; try again later.")

    def find(self, run_key: str) -> Manifest | None:
        """Return the manifest of the version that the run's pointer names, if that version exists and is this run's."""
        claim = self._read_claim(run_key)
        if claim is None or claim.pointer is None:
            return None
        manifest = read_slot(self.store, self.place(claim.pointer.version)).manifest
        return manifest if manifest and manifest.run_key == run_key else None

    def seal(self, version: str) -> bool:
        """Make sure that a version can never come to exist; return False if it is decided already."""
        try:
            self.store.write(manifest_key(self.place(version)), b"", if_absent=True)
        except PreconditionFailed:
            return False
        return True

    def place(self, version: str) -> str:
        """Key of a version's folder."""
        return f"{self.name}/versions/{version}"

    def _reserve(self, files: list[FileEntry], run_key: str, metadata: Metadata) -> Draft:
        writer, now = secrets.token_hex(8), self.clock()
        while True:
            version = f"{now:%Y%m%d-%H%M%S}-{run_key[:8]}"
            created_at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
            pointer = Pointer(version=version, run_key=run_key, writer=writer, claimed_at=created_at)
            key = f"{self.place(version)}/{RESERVATION_NAME}"
            if self._create(key, pointer):
                break
            now += timedelta(seconds=1)
        manifest = Manifest(
            name=self.name,
            version=version,
            run_key=run_key,
            created_at=created_at,
            writer=writer,
            files=files,
            digest=tree_digest(files),
            **dict(metadata),
        )
        return Draft(manifest, self.place(version), pointer)

    def _claim(self, draft: Draft) -> Manifest | None:
        """Step 3: return the winner's manifest if the run has one, or None once the pointer names our version."""
        key, data = self._pointer_key(draft.pointer.run_key), draft.pointer.to_json().encode()
        patience = _Patience(self.claim_grace_s)
        for _ in range(CLAIM_ATTEMPTS):
            claim = self._read_claim(draft.pointer.run_key)
            if claim and claim.pointer == draft.pointer:
                return None
            if claim and claim.pointer:
                slot = read_slot(self.store, self.place(claim.pointer.version))
                # A version of another run: the pointer is damaged, and is replaced like one that cannot be read.
                if slot.manifest and slot.manifest.run_key == draft.pointer.run_key:
                    return slot.manifest
                if slot.empty:
                    if patience.is_over(claim.etag):
                        self.seal(claim.pointer.version)
                    continue
            try:
                self.store.write(key, data, if_absent=claim is None, if_match=claim.etag if claim else None)
                return None
            except PreconditionFailed:
                continue
        raise PreconditionFailed(f"{self.store.uri}/{key} is written by others again and again; try again later.")

    def _commit(self, draft: Draft) -> Manifest | None:
        """Step 4: return our manifest once it exists, or None if our version was sealed."""
        try:
            self.store.write(manifest_key(draft.place), draft.manifest.to_json(indent=1).encode(), if_absent=True)
            return draft.manifest
        except PreconditionFailed:
            found = read_slot(self.store, draft.place).manifest
            return draft.manifest if found and found.writer == draft.manifest.writer else None

    def _withdraw(self, draft: Draft) -> None:
        """Delete the files of a version that cannot come to exist; only this writer ever wrote there."""
        self.store.delete(file_keys(draft.place, draft.manifest))

    def _create(self, key: str, pointer: Pointer) -> bool:
        """Create a document if absent, and return whether the one that is there is ours."""
        try:
            self.store.write(key, pointer.to_json().encode(), if_absent=True)
            return True
        except PreconditionFailed:
            claim = self._read_pointer(key)
            return claim is not None and claim.pointer == pointer

    def _pointer_key(self, run_key: str) -> str:
        return f"{self.name}/runs/{run_key}.json"

    def _read_claim(self, run_key: str) -> Claim | None:
        claim = self._read_pointer(self._pointer_key(run_key))
        if claim and claim.pointer and claim.pointer.run_key != run_key:
            return Claim(None, claim.etag)
        return claim

    def _read_pointer(self, key: str) -> Claim | None:
        try:
            data, etag = self.store.read(key)
        except ObjectNotFound:
            return None
        try:
            return Claim(Pointer.from_json(data), etag)
        except ValidationError:
            log.warning("%s/%s is damaged and is replaced by the next version of this run", self.store.uri, key)
            return Claim(None, etag)
