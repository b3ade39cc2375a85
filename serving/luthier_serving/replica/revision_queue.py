"""The queue of one revision: requests wait here, leave in batches, and each gets the rows of its own texts.

Drives the policy of `batching` with the event loop's clock. A client that disconnects cancels only its own chunks: the
rest of their batches goes on. If nothing comes back for `silence_s`, everybody who waits is told at once, and who comes
later too, until a sign of life. Knows nothing of Ray: it is given a coroutine that sends a batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from luthier_serving.answers import Answer, Text
from luthier_serving.errors import Unavailable
from luthier_serving.observe.observer import SentBatch
from luthier_serving.observe.tracing import CURRENT, RequestTrace
from luthier_serving.replica.batching import BatchLimits, BatchQueue


class SendBatch(Protocol):
    """Sends a batch to a revision, and returns its answer."""

    def __call__(self, texts: list[Text], adapter: str | None = None, /) -> Awaitable[Answer]:
        """Send texts, all for the same adapter, or for none."""


# A list is cut into parts of so many texts, which take turns with other requests.
CHUNK_TEXTS = 8


@dataclass(frozen=True)
class _PendingChunk:
    texts: Sequence[Text]
    future: "asyncio.Future[Answer]"
    since: float
    trace: RequestTrace | None
    group: str | None = None

    @property
    def size(self) -> int:
        return len(self.texts)

    @property
    def cancelled(self) -> bool:
        return self.future.done()


class RevisionQueue:
    """Collects requests into batches for one revision.

    Args:
        send: sends a batch and returns its answer.
        limits: size and waiting time of batches.
        on_batch: called with the number of texts of each batch that leaves.
        on_returned: called with each batch that has come back, before its requests go on.
    """

    def __init__(
        self,
        send: SendBatch,
        limits: BatchLimits,
        on_batch: Callable[[int], None],
        on_returned: Callable[[SentBatch], None] = lambda batch: None,
    ):
        self._send = send
        self._on_batch, self._on_returned = on_batch, on_returned
        self._queue: BatchQueue[_PendingChunk] = BatchQueue(limits)
        self._batches: dict[asyncio.Task[None], list[_PendingChunk]] = {}
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        self._silence: asyncio.TimerHandle | None = None
        self._hangs = False

    def set_limits(self, limits: BatchLimits) -> None:
        """Use other limits from now on."""
        self._queue.limits = limits

    async def predict(self, texts: Sequence[Text], adapter: str | None = None) -> Answer:
        """Return the answer to these texts.

        Raises:
            Unavailable: the revision hangs.
            Exception: what `send` raised for a batch that held some of them.
        """
        if self._hangs and self._queue.limits.silence_s is not None:
            raise self._hanging()
        loop = asyncio.get_running_loop()
        step = min(CHUNK_TEXTS, self._queue.limits.texts)
        parts = [texts] if len(texts) <= step else [texts[at : at + step] for at in range(0, len(texts), step)]
        now, trace = loop.time(), CURRENT.get()
        chunks = [_PendingChunk(part, loop.create_future(), now, trace, adapter) for part in parts]
        for after, chunk in enumerate(chunks):
            self._queue.add(chunk, now, after)
        # In the next iteration of the event loop, so that requests that arrived together share a batch at no delay.
        self._schedule(loop, now)
        if len(chunks) == 1:
            return await chunks[0].future
        answers = await asyncio.gather(*(chunk.future for chunk in chunks))
        return Answer([row for answer in answers for row in answer.rows], answers[0].model, answers[0].replica)

    def state(self) -> tuple[int, float]:
        """Return how many texts wait, and for how many seconds the oldest has."""
        return self._queue.texts, self._queue.oldest_s(asyncio.get_running_loop().time())

    async def drained(self) -> None:
        """Wait until nothing waits here, and every batch has come back."""
        while self._queue.waiting or self._batches:
            if self._batches:
                await asyncio.wait(self._batches)
            else:
                await asyncio.sleep(0)

    def _schedule(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_soon(self._send_due) if at <= loop.time() else loop.call_at(at, self._send_due)

    def _send_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while batch := self._queue.take(loop.time()):
            task = loop.create_task(self._send_batch(batch))
            self._batches[task] = batch
            task.add_done_callback(self._batches.pop)
        if self._silence is None:
            self._listen(loop)
        due = self._queue.next_due()
        if due is not None:
            self._schedule(loop, due)

    async def _send_batch(self, batch: list[_PendingChunk]) -> None:
        loop = asyncio.get_running_loop()
        texts = [text for chunk in batch for text in chunk.texts]
        replica, started = None, loop.time()
        answer: Answer | None = None
        try:
            self._on_batch(len(texts))
            adapter = batch[0].group
            answer = await (self._send(texts) if adapter is None else self._send(texts, adapter))
            replica = answer.replica
        except Exception as error:
            for chunk in batch:
                if not chunk.future.done():
                    chunk.future.set_exception(error)
        else:
            _distribute(answer, batch)
        finally:
            now = loop.time()
            self._queue.returned(replica, now, texts=len(texts), took_s=now - started)
            self._hangs = False
            self._listen(loop)
            self._schedule(loop, now)
            parts = [(chunk.since, chunk.trace) for chunk in batch]
            self._on_returned(SentBatch(parts, started, len(texts), answer))

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to wait for the next batch that comes back, if one is under way."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        silence_s = self._queue.limits.silence_s
        if silence_s is not None and self._queue.in_flight:
            self._silence = loop.call_later(silence_s, self._give_up)

    def _give_up(self) -> None:
        """Tell everybody that the revision hangs; a batch that comes back after all ends that."""
        self._silence, self._hangs = None, True
        error = self._hanging()
        for batch in [self._queue.chunks, *self._batches.values()]:
            for chunk in batch:
                if not chunk.future.done():
                    chunk.future.set_exception(error)

    def _hanging(self) -> Unavailable:
        return Unavailable(f"The revision has sent nothing back for {self._queue.limits.silence_s} s.")


def _distribute(answer: Answer, batch: list[_PendingChunk]) -> None:
    """Give each chunk its own rows; rows of a chunk that was cancelled meanwhile are skipped."""
    start = 0
    for chunk in batch:
        rows = answer.rows[start : start + chunk.size]
        start += chunk.size
        if not chunk.future.done():
            chunk.future.set_result(Answer(rows, answer.model, answer.replica))
