"""Claims: of runs that would train the same at the same moment, one trains and the others wait for it.

    claims/<key>.json   who works on a key; written only conditionally, and anew with each heartbeat

A claim is *announced* by who prepares a training and *held* by who trains. It may be taken when it is absent, released
or damaged, when it is the same holder's (the next pod of a run), when it is only announced and the taker trains, or
when it has lapsed: no heartbeat has changed it for `lapse_s`. Each waiter counts that time on its own monotonic clock,
and only while it looks, so neither clocks that differ nor an outage of storage lets a live claim lapse.

A claim is a courtesy and no lock. Whoever lost it while it hung learns that from its next heartbeat, which is refused,
because the claim is another document by then; and should two train nevertheless, `publishing` still makes one version.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from luthier_api.base import Document, Text
from luthier_artifacts.errors import ObjectNotFound, PreconditionFailed, StorageError
from luthier_artifacts.store import ObjectStore

log = logging.getLogger(__name__)

LAPSE_S = 120.0
# A claim outlives this many heartbeats that fail in a row.
BEATS_TO_LAPSE = 6
# Each refused write means that another's succeeded, so this bounds a server that refuses them all.
TAKE_ATTEMPTS = 100
RELEASE_ATTEMPTS = 3
# How long a release waits for a heartbeat under way; one that arrives later is refused.
JOIN_S = 5.0


class ClaimDocument(Document):
    """The document claims/<key>.json."""

    key: str
    holder: Text
    about: Text
    writer: str
    beat: int
    held: bool
    released: bool = False


@dataclass(frozen=True)
class Holder:
    """Who claims: `identity` stays the same over all attempts of a run, and `about` names the run for people."""

    identity: str
    about: str


@dataclass(frozen=True)
class _Found:
    """A claim as it was read; `document` is None when what lies there is damaged."""

    document: ClaimDocument | None
    etag: str


class _Silence:
    """For how long a claim has been seen unchanged. Time in which nobody looked does not count."""

    def __init__(self, longest_gap_s: float, clock: Callable[[], float]) -> None:
        self._longest_gap_s, self._clock = longest_gap_s, clock
        self._etag: str | None = None
        self._seconds = self._looked = 0.0

    def of(self, etag: str) -> float:
        """Return for how many seconds this very claim has been seen."""
        now = self._clock()
        if etag != self._etag:
            self._etag, self._seconds = etag, 0.0
        else:
            self._seconds += min(now - self._looked, self._longest_gap_s)
        self._looked = now
        return self._seconds


class Claim:
    """One process's side of the claim on a key.

    Args:
        store: Where it lies.
        place: Its key in the store, for `claims/<key>.json`.
        key: What is claimed.
        holder: Who this process works for.
        trains: Hold the claim rather than announce it.
        lapse_s: After how long without a heartbeat another's claim has lapsed.
        clock: Monotonic seconds.

    Attributes:
        lost_to: whose the claim is after another has taken it from this process.
    """

    def __init__(
        self,
        store: ObjectStore,
        place: str,
        key: str,
        holder: Holder,
        *,
        trains: bool,
        lapse_s: float = LAPSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lost_to: ClaimDocument | None = None
        self.beat_s = lapse_s / BEATS_TO_LAPSE
        self._store, self._place, self._key, self._holder = store, place, key, holder
        self._trains, self._lapse_s = trains, lapse_s
        self._silence = _Silence(2 * self.beat_s, clock)
        self._writer, self._beats = secrets.token_hex(8), 0
        self._etag: str | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> ClaimDocument | None:
        """Take the claim, or return whose it is. Ask again every `beat_s` or more often: that is how it lapses.

        Raises:
            StorageError: if storage refuses or does not answer.
        """
        for _ in range(TAKE_ATTEMPTS):
            found = self._read()
            if found and found.document and not self._gives_way(found.document, found.etag):
                return found.document
            try:
                self._write(found.etag if found else None)
                self.lost_to = None
                return None
            except PreconditionFailed:
                continue
        raise PreconditionFailed(f"{self._uri} is written by others again and again; try again later.")

    def beat(self) -> None:
        """Show that this process lives; `lost_to` tells when the claim is another's by now.

        A claim that is gone, or that somebody only announced in the meantime, is taken again.
        """
        try:
            self._write(self._etag)
        except PreconditionFailed:
            found = self._read()
            document = found.document if found else None
            if document and document.writer != self._writer and document.holder == self._holder.identity:
                # A newer process of the same run, which takes over from this one.
                self.lost_to = document
            else:
                self.lost_to = self.take()

    def keep_alive(self) -> None:
        """Send heartbeats from a thread, until `stop` or until the claim is lost."""
        self.stop()
        self._ended.clear()
        self._thread = threading.Thread(target=self._work, name="claim", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more heartbeats; the claim stays until it lapses."""
        self._ended.set()
        if self._thread:
            self._thread.join(JOIN_S)

    def release(self) -> None:
        """Let another take the claim at once, if it is still this process's; storage trouble is only logged."""
        self.stop()
        try:
            for _ in range(RELEASE_ATTEMPTS):
                found = self._own()
                if found is None:
                    return
                with suppress(PreconditionFailed):  # by a heartbeat that was under way
                    self._write(found.etag, released=True)
                    return
        except StorageError as error:
            log.warning("the claim could not be released, and lapses in %.0f s: %s", self._lapse_s, error)

    def delete(self) -> None:
        """Delete the claim, if it is still this process's, because what it was for exists; trouble is only logged."""
        self.stop()
        try:
            if self._own():
                self._store.delete([self._place])
        except StorageError as error:
            log.warning("the claim could not be deleted: %s", error)

    def _own(self) -> _Found | None:
        found = self._read()
        return found if found and found.document and found.document.writer == self._writer else None

    def _gives_way(self, document: ClaimDocument, etag: str) -> bool:
        silent_s = self._silence.of(etag)
        if document.released or document.holder == self._holder.identity:
            return True
        return (self._trains and not document.held) or silent_s >= self._lapse_s

    def _work(self) -> None:
        while self.lost_to is None and not self._ended.wait(self.beat_s):
            try:
                self.beat()
            # OSError: a socket that botocore does not know about.
            except (StorageError, OSError) as error:
                log.warning("a heartbeat could not be stored: %s", error)

    def _read(self) -> _Found | None:
        try:
            data, etag = self._store.read(self._place)
        except ObjectNotFound:
            return None
        try:
            document = ClaimDocument.from_json(data)
        except ValidationError:
            log.warning("%s is damaged and is replaced", self._uri)
            return _Found(None, etag)
        return _Found(document, etag)

    def _write(self, replacing: str | None, *, released: bool = False) -> None:
        self._beats += 1
        document = ClaimDocument(
            key=self._key,
            holder=self._holder.identity,
            about=self._holder.about,
            writer=self._writer,
            beat=self._beats,
            held=self._trains,
            released=released,
        )
        self._etag = self._store.write(
            self._place, document.to_json().encode(), if_absent=replacing is None, if_match=replacing
        )

    @property
    def _uri(self) -> str:
        return f"{self._store.uri}/{self._place}"
