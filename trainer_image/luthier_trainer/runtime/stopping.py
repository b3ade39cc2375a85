"""When a request to stop takes effect: at once, or while training at the end of a step.

Owns the SIGTERM handler. What is done in the time that is left is `fitting`'s business; when that time is up it is cut
off here, because a process that is killed cannot say that it was asked to stop. A second SIGTERM always stops at once:
whoever sends it wants no checkpoint any more. Needs no torch.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from luthier_trainer.runtime.errors import StopRequested

# Left of the grace period for saying what happened; of a very short one a tenth.
_LAST_WORD_S = 5.0

log = logging.getLogger(__name__)


class Stop:
    """A request to stop, and who heeds it.

    Args:
        grace_s: seconds from a request until the process is killed; None when nobody will.
        overdue: called from another thread shortly before that, if a deferred request was not acted on.

    Attributes:
        requested: somebody asked while `deferred`; whoever deferred it must act on it soon.
    """

    def __init__(self, grace_s: float | None = None, overdue: Callable[[], object] = lambda: None) -> None:
        self.requested = False
        self._deferred = False
        self._grace_s, self._overdue = grace_s, overdue
        self._deadline: threading.Timer | None = None

    @contextlib.contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Listen to SIGTERM; only the main thread can."""
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only set `requested` until left; a request that nobody acted on takes effect then.

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
