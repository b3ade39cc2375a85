"""The way to one revision: requests wait here together, leave as batches, and get their own rows back.

Drives the policy of `batching` with the event loop's clock. A client that goes away takes only its own piece along:
the batch it was in goes on. Knows nothing of Ray: it is given a coroutine that sends a batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from luthier_serving.answers import Answer, Text
from luthier_serving.replica.batching import BatchLimits, BatchQueue


@dataclass(frozen=True)
class _Piece:
    texts: Sequence[Text]
    future: "asyncio.Future[Answer]"

    @property
    def size(self) -> int:
        return len(self.texts)

    @property
    def abandoned(self) -> bool:
        return self.future.done()


Send = Callable[[list[Text]], Awaitable[Answer]]


class Lane:
    """Batches for one revision.

    Args:
        send: sends a batch and returns its answer.
        limits: size and waiting time of batches.
        on_batch: called with the number of texts of each batch that leaves.
    """

    def __init__(self, send: Send, limits: BatchLimits, on_batch: Callable[[int], None] = lambda texts: None):
        self._send = send
        self._on_batch = on_batch
        self._queue: BatchQueue[_Piece] = BatchQueue(limits)
        self._tasks: set[asyncio.Task[None]] = set()
        self._wakeup: asyncio.Handle | None = None
        self._wakeup_at = 0.0

    def set_limits(self, limits: BatchLimits) -> None:
        """Use other limits from now on."""
        self._queue.limits = limits

    @property
    def waiting(self) -> int:
        """Pieces that have not left."""
        return self._queue.waiting

    async def ask(self, texts: Sequence[Text]) -> Answer:
        """Return the answer to these texts, which travel in one batch.

        Raises:
            Exception: what `send` raised for their batch.
        """
        loop = asyncio.get_running_loop()
        piece = _Piece(texts, loop.create_future())
        self._queue.add(piece, loop.time())
        # In the next turn of the loop, so that requests that arrived together leave together; it costs no waiting.
        self._wake(loop, loop.time())
        return await piece.future

    def _wake(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._wakeup is not None:
            if self._wakeup_at <= at:
                return
            self._wakeup.cancel()
        self._wakeup_at = at
        self._wakeup = loop.call_soon(self._pump) if at <= loop.time() else loop.call_at(at, self._pump)

    def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        self._wakeup = None
        while batch := self._queue.take(loop.time()):
            task = loop.create_task(self._deliver(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        due = self._queue.next_due()
        if due is not None:
            self._wake(loop, due)

    async def _deliver(self, batch: list[_Piece]) -> None:
        texts = [text for piece in batch for text in piece.texts]
        replica = None
        try:
            self._on_batch(len(texts))
            answer = await self._send(texts)
            replica = answer.replica
        except Exception as error:
            for piece in batch:
                if not piece.future.done():
                    piece.future.set_exception(error)
        else:
            _hand_out(answer, batch)
        finally:
            loop = asyncio.get_running_loop()
            self._queue.returned(replica, loop.time())
            self._wake(loop, loop.time())


def _hand_out(answer: Answer, batch: list[_Piece]) -> None:
    start = 0
    for piece in batch:
        rows = answer.rows[start : start + piece.size]
        start += piece.size
        if not piece.future.done():
            piece.future.set_result(Answer(rows, answer.about, answer.replica))
