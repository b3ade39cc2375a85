"""Whose turn it is to train, where several runs would train the same at the same moment: `luthier_artifacts.claims`.

    prepare   waits for a run that trains the same and says so; then, or if there is none, announces its own training
    train     holds the claim. If another run holds it, this one ends as AlreadyTraining, so that no GPU waits: the
              operator begins again with prepare, which does wait. Without Kubernetes nobody would, so train waits

The claim is given back however the process ends, but for a kill: then it lapses. Needs no torch.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from luthier_api.documents import Resolved, RunDocument
from luthier_artifacts import LAPSE_S, Claim, Holder, PublishedVersion, Registry, StorageUnavailable
from luthier_trainer.runtime.errors import AlreadyTraining, InvalidSpec
from luthier_trainer.runtime.progress import Progress

LAPSE_VARIABLE = "LUTHIER_CLAIM_LAPSE_S"
_POLL_S = 5.0
# Who waits for another run needs no storage meanwhile; so long an outage is for the user to know.
_OUTAGE_S = 600.0

log = logging.getLogger(__name__)


class Turn:
    """This process's turn to produce the version of a run key.

    Args:
        registry: where the version will be.
        run_key: which run.
        claim: the claim on it; None to take no part, as where nothing is trained after this process.
        progress: shows whom it waits for.
        trains: whether this process trains, after which the claim serves nobody.
        waits: whether to wait for another run, rather than to end as AlreadyTraining.
    """

    def __init__(
        self,
        registry: Registry,
        run_key: str,
        claim: Claim | None,
        progress: Progress,
        *,
        trains: bool = False,
        waits: bool = True,
    ) -> None:
        self._registry, self._run_key, self._claim, self._progress = registry, run_key, claim, progress
        self._trains, self._waits = trains, waits
        self._found: PublishedVersion | None = None

    @property
    def lost(self) -> bool:
        """Whether another run has begun to train the same since `wait` returned."""
        return self._claim is not None and self._claim.lost_to is not None

    def wait(self) -> PublishedVersion | None:
        """Return the run's version as soon as there is one, or None when it is this process's turn to make it.

        Raises:
            AlreadyTraining: if another run trains the same, and this one must not wait.
            StorageError: if storage refuses, or does not answer for minutes.
        """
        waits_for, answered = None, time.monotonic()
        while True:
            try:
                if found := self._registry.find_run(self._run_key):
                    break
                other = self._claim.take() if self._claim else None
                answered = time.monotonic()
            except StorageUnavailable:
                if waits_for is None or time.monotonic() - answered > _OUTAGE_S:
                    raise
                other = waits_for
            if other is None:
                if self._claim:
                    self._claim.keep_alive()
                # Whoever had the claim may have published just before.
                found = self._registry.find_run(self._run_key)
                break
            if not self._waits:
                raise AlreadyTraining(_sentence(other.about))
            if waits_for is None or other.about != waits_for.about:
                log.info("waiting for %s, which trains the same", other.about)
                self._progress.wait_for(other.about)
            waits_for = other
            time.sleep(min(_POLL_S, self._claim.beat_s if self._claim else _POLL_S))
        self._found = found
        return found

    def check(self) -> None:
        """Raise AlreadyTraining if another run has taken the claim, as while this process hung."""
        if self._claim and (other := self._claim.lost_to):
            raise AlreadyTraining(_sentence(other.about))

    def end(self) -> None:
        """Leave the claim to *train* of this run, or remove it once there is a version."""
        if self._claim and (self._trains or self._found):
            self._claim.delete()
        elif self._claim:
            self._claim.stop()

    def give_back(self) -> None:
        """Let another run take its turn, because this one has failed or is stopped."""
        if self._claim:
            self._claim.release()


@contextmanager
def turn_to_prepare(run: RunDocument, registry: Registry, resolved: Resolved, progress: Progress) -> Iterator[Turn]:
    """Take a turn before the training, which this process only announces.

    Without Kubernetes it takes no part: nobody says that *train* will follow.
    """
    claim = _claim(run, registry, resolved, trains=False) if run.origin else None
    with _taken(Turn(registry, resolved.run_key, claim, progress)) as turn:
        yield turn


@contextmanager
def turn_to_train(
    run: RunDocument, registry: Registry, resolved: Resolved, progress: Progress, *, takes_part: bool = True
) -> Iterator[Turn]:
    """Take the turn of the process that trains; of several that train together, the first takes part for all."""
    claim = _claim(run, registry, resolved, trains=True) if takes_part else None
    with _taken(Turn(registry, resolved.run_key, claim, progress, trains=True, waits=run.origin is None)) as turn:
        yield turn


def _claim(run: RunDocument, registry: Registry, resolved: Resolved, *, trains: bool) -> Claim:
    """Return the claim on the weights: runs that differ in what they make of them train the same."""
    key = resolved.weights_key or resolved.run_key
    return registry.claim(key, _holder(run), trains=trains, lapse_s=_lapse_s())


@contextmanager
def _taken(turn: Turn) -> Iterator[Turn]:
    try:
        yield turn
    except BaseException:
        turn.give_back()
        raise
    turn.end()


def _holder(run: RunDocument) -> Holder:
    """Return who claims: the resource, whose pods never train at the same time, or this process.

    The processes that torchrun starts again have the same parent.
    """
    if run.origin:
        about = f"run {run.origin.run} of FineTuneJob {run.origin.namespace}/{run.origin.name}"
        return Holder(run.origin.uid, about)
    host, process = socket.gethostname(), os.getppid() if "RANK" in os.environ else os.getpid()
    return Holder(f"{host}/{process}", f"process {process} on {host}")


def _lapse_s(environment: Mapping[str, str] = os.environ) -> float:
    """Return after how many seconds without a sign of life another run's claim has lapsed.

    Raises:
        InvalidSpec: if the environment says something else than a positive number.
    """
    text = environment.get(LAPSE_VARIABLE, str(LAPSE_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86400:
        raise InvalidSpec(f"{LAPSE_VARIABLE} is {text!r}; set a number of seconds, such as 120.")
    return seconds


def _sentence(about: str) -> str:
    return f"The same is being trained by {about}; this run waits for it in prepare, without a GPU."
