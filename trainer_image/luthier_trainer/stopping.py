"""When a request to stop takes effect: at once, or while training at the end of a step.

Owns the SIGTERM handler. What is done in the time that is left is `fitting`'s business. A second SIGTERM always stops
at once: whoever sends it wants no checkpoint any more. Needs no torch.
"""

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

from luthier_trainer.errors import StopRequested

log = logging.getLogger(__name__)


class Stop:
    """A request to stop, and who heeds it.

    Attributes:
        requested: somebody asked while `deferred`; whoever deferred it must act on it soon.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

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
        if self.requested:
            raise StopRequested

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self._deferred or self.requested:
            raise StopRequested
        self.requested = True
        log.info("asked to stop: a checkpoint is written after this step")
