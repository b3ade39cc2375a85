"""One file arriving in parts, in any order, so that a download that was killed goes on where it stopped.

    <path>         the file at its full size, with holes where parts are missing
    <path>.parts   the numbers of the parts that have arrived, one to a line

Owns ranges, retries of a broken stream, and the journal. It promises nothing about the bytes: whoever reads the file
checks its sha256 first, which also finds a journal that says too much after a power cut.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from luthier_artifacts.errors import IntegrityError, StorageUnavailable
from luthier_artifacts.store import ObjectStore

PART_BYTES = 16 * 1024 * 1024
# A part whose stream breaks is asked for again; the adapter's own retries end when the headers have arrived.
PART_ATTEMPTS = 4


@dataclass(frozen=True)
class PartialFile:
    """A file of `size` bytes that is being downloaded from `key`; with `etag`, from that object only."""

    path: Path
    store: ObjectStore
    key: str
    size: int
    etag: str | None = None

    @property
    def journal(self) -> Path:
        """The list of parts that have arrived."""
        return self.path.with_name(f"{self.path.name}.parts")

    def arrived(self) -> frozenset[int]:
        """Numbers of the parts that an earlier attempt got."""
        if not self.path.exists() or not self.journal.exists():
            return frozenset()
        # The last line may be cut short by a kill: it then lacks its newline.
        lines = self.journal.read_text().split("\n")[:-1]
        return frozenset(int(line) for line in lines if line.isdigit())

    def fetch(self, pool: ThreadPoolExecutor) -> None:
        """Get the parts that are missing.

        Raises:
            IntegrityError: if the object is not `size` bytes long.
            PreconditionFailed: if it is no longer the one with `etag`.
            StorageUnavailable: if a part did not arrive; what did is kept.
        """
        arrived = self.arrived()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        count = -(-self.size // PART_BYTES)
        if count == 0:
            self._check_size(self.store.stat(self.key).size)
        with self.path.open("r+b" if arrived else "wb") as file, self.journal.open("a" if arrived else "w") as journal:
            file.truncate(self.size)
            missing = [number for number in range(count) if number not in arrived]
            futures = [pool.submit(self._fetch_part, number, file.fileno()) for number in missing]
            try:
                for future in futures:
                    journal.write(f"{future.result()}\n")
                    journal.flush()
            finally:
                # No part may still be written to this file descriptor when its number is given to another file.
                for future in futures:
                    future.cancel()
                wait(futures)

    def discard(self) -> None:
        """Forget what has arrived."""
        self.path.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    @retry(
        retry=retry_if_exception_type(StorageUnavailable),
        stop=stop_after_attempt(PART_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.4, max=2),
        reraise=True,
    )
    def _fetch_part(self, number: int, descriptor: int) -> int:
        start = number * PART_BYTES
        length = min(PART_BYTES, self.size - start)
        written = 0
        with self.store.read_range(self.key, start, length, etag=self.etag) as body:
            self._check_size(body.total_size)
            for data in body.chunks:
                os.pwrite(descriptor, data[: length - written], start + written)
                written += min(len(data), length - written)
        if written != length:
            raise StorageUnavailable(f"{self.store.uri}/{self.key} ended early; try again.")
        return number

    def _check_size(self, found: int) -> None:
        if found != self.size:
            raise IntegrityError(
                f"{self.store.uri}/{self.key} has {found} bytes instead of {self.size}; "
                "it was cut short or replaced, so upload it again."
            )
