"""A run's checkpoints in storage: which one to resume from, and how new ones are uploaded while training continues.

    training writes a folder -> `offer` takes it -> a thread uploads it, its manifest last -> older ones go

Owns that life cycle, not what a checkpoint holds (see `fitting`). A checkpoint that cannot be uploaded does not
fail the run: the upload is retried until a newer one takes its place. Needs no torch.
"""

import contextlib
import logging
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from luthier_api.training import Checkpoint
from luthier_artifacts import IntegrityError, ObjectNotFound, Registry, StorageError
from luthier_trainer.runtime.progress import Progress

RETRY_AFTER_S = 15.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Waiting:
    step: int
    folder: Path


class Checkpoints:
    """The checkpoints of one run key, which no other run reads.

    Args:
        registry: where they are kept.
        run_key: whose they are.
        settings: of the spec.
        folder: where they wait, on the file system that the training writes to.
        resumed: where the one that is resumed is downloaded to.
        progress: shows the newest one in storage, and why a newer one is not there.
        retry_after_s: how long to wait after an upload that failed.
    """

    def __init__(
        self,
        registry: Registry,
        run_key: str,
        settings: Checkpoint,
        folder: Path,
        resumed: Path,
        progress: Progress,
        *,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        self.settings = settings
        self._registry = registry
        self._run_key = run_key
        self._folder = folder
        self._resumed = resumed
        self._progress = progress
        self._retry_after_s = retry_after_s
        self._changed = threading.Condition()
        self._waiting: _Waiting | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def newest(self) -> int | None:
        """Download the newest checkpoint that verifies, and return its step; None to start from the beginning.

        A damaged one is deleted, so that its place can be written again, and the one before is taken.

        Raises:
            StorageError: if storage refuses or does not answer. Starting over would then lose what is there.
        """
        with contextlib.suppress(FileNotFoundError):
            # Left by an earlier attempt in this workspace; a resumed run may have written to it.
            shutil.rmtree(self._resumed)
        if self.settings.resume == "Never":
            self._registry.prune_checkpoints(self._run_key, keep=0)
            return None
        for step in reversed(self._registry.checkpoints(self._run_key)):
            try:
                self.fetch(step)
                return step
            except IntegrityError as error:
                log.warning("the checkpoint of step %d is damaged; trying the one before it: %s", step, error)
                self._registry.delete_checkpoint(self._run_key, step)
            except ObjectNotFound:
                log.warning("the checkpoint of step %d no longer exists; trying the one before it", step)
        return None

    def fetch(self, step: int) -> Path:
        """Return a local folder with a checkpoint, verified.

        Raises:
            IntegrityError, ObjectNotFound: if it is damaged or gone.
        """
        folder = self._resumed / str(step)
        self._registry.get_checkpoint(self._run_key, step, folder)
        return folder

    def offer(self, step: int, folder: Path) -> None:
        """Upload a folder in the background, which is taken away from the caller at once.

        If another one still waits, it is given up for this one.
        """
        waiting = self._take(step, folder)
        with self._changed:
            given_up, self._waiting = self._waiting, waiting
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        if given_up:
            log.warning(
                "the checkpoint of step %d is not uploaded, because that of step %d is newer", given_up.step, step
            )
            shutil.rmtree(given_up.folder)

    def put(self, step: int, folder: Path) -> None:
        """Upload a folder now.

        Raises:
            StorageError: if that is not possible.
        """
        self._upload(self._take(step, folder))

    def close(self) -> None:
        """Finish what is being uploaded or waits; nothing is tried again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()

    def delete_all(self) -> None:
        """Delete the run's checkpoints, which are not needed once its version is published."""
        with self._changed:
            self._waiting = None
        self.close()
        self._prune(keep=0)

    def _take(self, step: int, folder: Path) -> _Waiting:
        taken = self._folder / str(step)
        taken.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(taken)
        return _Waiting(step, folder.rename(taken))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                now, self._waiting = self._waiting, None
            if now is None:
                return
            try:
                self._upload(now)
            # OSError: the disk under the folder, or a socket that botocore does not know about.
            except (StorageError, OSError) as error:
                log.warning("the checkpoint of step %d could not be uploaded: %s", now.step, error)
                self._progress.record_storage_failure(f"Checkpoints cannot be stored: {error}")
                self._try_again(now)

    def _try_again(self, failed: _Waiting) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, self._retry_after_s)
            if self._waiting is None and not self._closed:
                self._waiting = failed

    def _upload(self, waiting: _Waiting) -> None:
        self._registry.put_checkpoint(self._run_key, waiting.step, waiting.folder)
        self._progress.record_checkpoint(waiting.step)
        log.info("stored the checkpoint of step %d", waiting.step)
        shutil.rmtree(waiting.folder)
        self._prune(self.settings.keep)

    def _prune(self, keep: int) -> None:
        try:
            self._registry.prune_checkpoints(self._run_key, keep)
        except StorageError as error:
            log.warning("old checkpoints could not be deleted: %s", error)
