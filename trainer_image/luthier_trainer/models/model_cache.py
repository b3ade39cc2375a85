"""Base models on a volume that pods of several runs and nodes share, where the operator mounts one.

    <cache>/models/<digest>/...    a whole model, under the digest over its files
    <cache>/sources/<identity>     the digest of what lay at a place: a commit of a hub, or objects with these etags
    <cache>/arriving/<random>/     on its way

There are no locks, which not every shared file system has. Each writer fills a folder of its own and renames it, so
that others find a whole model or none, and of two writers of the same model either may win. What is taken from here is
hashed where it is used, and what is damaged is removed and downloaded again. The cache saves time and no more: a run
goes on without, whatever fails about it. Nothing is evicted.
"""

import errno
import logging
import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from luthier_api.artifact_files import is_model_file
from luthier_api.documents import MODEL_CACHE_VARIABLE
from luthier_artifacts import StorageError
from luthier_trainer.models.base_model import digest_of_model

log = logging.getLogger(__name__)

# What is older was left by a pod that was killed.
ABANDONED_S = 86400.0
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class ModelCache:
    """The cache in one folder."""

    folder: Path

    @classmethod
    def of_environment(cls) -> Self | None:
        """Return the cache that this pod was given, if it was."""
        folder = os.environ.get(MODEL_CACHE_VARIABLE)
        return cls(Path(folder)) if folder else None

    def get(self, identity: str, into: Path) -> str | None:
        """Fill a folder with the model of this identity, and return its digest; None if it is not here as it was."""
        if into.exists() and any(into.iterdir()):
            return None
        arriving = into.with_name(f".{into.name}.{uuid.uuid4().hex}")
        try:
            digest = (self.folder / "sources" / identity).read_text()
            _copy(self._model(digest), arriving)
            if _is_model(arriving, digest):
                arriving.replace(into)
                log.info("the base model is taken from the cache of models")
                return digest
            log.warning("the base model in the cache of models is damaged, and is downloaded again")
            self._remove(self._model(digest))
        except FileNotFoundError:
            return None
        # Whatever lies there instead of a model.
        except (OSError, ValueError) as error:
            log.warning("the cache of models cannot be read: %s", error)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
        return None

    def put(self, identity: str, digest: str, folder: Path) -> None:
        """Keep a model for others; if that cannot be, say so and no more."""
        arriving = self.folder / "arriving" / uuid.uuid4().hex
        try:
            self._tidy()
            if not self._model(digest).exists():
                _copy(folder, arriving)
                _place(arriving, self._model(digest))
            source = self.folder / "sources" / identity
            source.parent.mkdir(exist_ok=True)
            unfinished = source.with_name(f"{identity}.{uuid.uuid4().hex}")
            unfinished.write_text(digest)
            unfinished.replace(source)
        except OSError as error:
            log.warning("the base model is not kept in the cache of models: %s", error)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)

    def _model(self, digest: str) -> Path:
        found = _DIGEST.fullmatch(digest)
        if not found:
            raise ValueError(f"{digest[:80]!r} is no digest")
        return self.folder / "models" / found[1]

    def _remove(self, model: Path) -> None:
        """Take a model away in one step, so that nobody finds half of it."""
        gone = self.folder / "arriving" / uuid.uuid4().hex
        gone.parent.mkdir(exist_ok=True)
        model.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove what pods that were killed have left."""
        for left in (self.folder / "arriving").glob("*"):
            # Another pod may remove it at the same time.
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a model."""
    names = [path.name for path in source.iterdir() if is_model_file(path.name)]
    target.mkdir(parents=True)
    for name in names:
        shutil.copyfile(source / name, target / name)


def _is_model(folder: Path, digest: str) -> bool:
    try:
        return digest_of_model(folder) == digest
    except StorageError:  # there is nothing, or what no model has
        return False


def _place(arriving: Path, model: Path) -> None:
    model.parent.mkdir(exist_ok=True)
    try:
        arriving.rename(model)
    except OSError as error:
        # Another writer of the same model was first.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
