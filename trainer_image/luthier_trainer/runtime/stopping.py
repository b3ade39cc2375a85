"""When a request to stop takes effect: at once, or while training at the end of a step.

Owns the SIGTERM handler. What is done in the remaining time is up to `checkpointing.fit`; when that time is up, the
process ends itself here, because a killed process cannot report that it was asked to stop. A second SIGTERM always
stops at once, without a checkpoint. Needs no torch.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from luthier_trainer.runtime.errors import StopRequested

# The part of the grace period that is reserved for reporting; a tenth of a very short one.
_LAST_WORD_S = 5.0

log = logging.getLogger(__name__)


class Stop:
    """A request to stop, and when it takes effect.

    Args:
        grace_s: seconds from a request until the process is killed; None if it is never killed.
        overdue: called from another thread shortly before that, if a deferred request was not acted on.

    Attributes:
        requested: a request arrived while `deferred`; the code that deferred it must act on it soon.
    """

    def __init__(self, grace_s: float | None = None, overdue: Callable[[], object] = lambda: None) -> None:
        self.requested = False
        self._deferred = False
        self._grace_s, self._overdue = grace_s, overdue
        self._deadline: threading.Timer | None = None

    @contextlib.contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Handle SIGTERM; only the main thread can."""
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only set `requested` within this context; a request that was not acted on takes effect at its end.

        Raises:
            StopRequested: at the end, or anywhere within on a second request.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
            if self._deadline:
                self._deadline.cancel()
        if self.requested:
            raise StopRequested

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self._deferred or self.requested:
            raise StopRequested
        self.requested = True
        if self._grace_s is not None:
            self._deadline = threading.Timer(self._grace_s - min(_LAST_WORD_S, self._grace_s / 10), self._overdue)
            self._deadline.daemon = True
            self._deadline.start()
        log.info("asked to stop: a checkpoint is written after this step")
