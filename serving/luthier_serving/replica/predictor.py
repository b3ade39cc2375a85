"""From the texts of a request to their answer: admission, choice of a revision, chunks, time limit.

Holds a `FrontConfig`, which may be replaced at any moment: revisions that remain keep their queues, and requests in
flight are not disturbed. Knows nothing of HTTP or Ray.
"""

import asyncio
from collections.abc import Callable, Sequence

from luthier_api.documents import FrontConfig
from luthier_serving.answers import Answer, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.replica.batching import BatchLimits
from luthier_serving.replica.revision_queue import RevisionQueue, SendBatch
from luthier_serving.replica.traffic_split import WeightedRoundRobin
from luthier_serving.replica.validation import RequestLimits


class Predictor:
    """Answers texts with the revisions that have a weight.

    Args:
        connect: returns the coroutine that sends batches to the revision of a name.
        on_batch: called with the revision and the number of texts of each batch.
    """

    def __init__(self, connect: Callable[[str], SendBatch], on_batch: Callable[[str, int], None]):
        self._connect = connect
        self._on_batch = on_batch
        self._queues: dict[str, RevisionQueue] = {}
        self._pending = 0
        self.configure(FrontConfig(model_name="none"))

    def configure(self, config: FrontConfig) -> None:
        """Replace the configuration: weights and limits apply at once."""
        self.config = config
        self.limits = RequestLimits(config.max_body_bytes, config.max_texts, config.max_text_characters)
        batch_limits = BatchLimits(config.max_batch_texts, config.max_batch_wait_ms / 1000)
        self._queues = {
            route.revision: self._queues.get(route.revision) or self._open_queue(route.revision, batch_limits)
            for route in config.routes
        }
        for queue in self._queues.values():
            queue.set_limits(batch_limits)
        self._split = WeightedRoundRobin({route.revision: route.weight for route in config.routes})

    @property
    def pending(self) -> int:
        """Chunks accepted and not yet answered."""
        return self._pending

    async def predict(self, texts: Sequence[Text]) -> tuple[str, Answer]:
        """Return the name of the revision that answered, and its answer to these texts.

        Raises:
            Overloaded: too many requests are queued.
            Unavailable: no revision has a weight, or the chosen one does not answer.
            RequestError: 504, the answer took too long.
        """
        if self._pending >= self.config.max_queued_requests:
            raise Overloaded(f"{self._pending} requests are already queued; try again in a second.")
        revision = self._split.next()
        if revision is None:
            raise Unavailable("No model is served yet; try again later.")
        size = self.config.max_batch_texts
        chunks = [texts[start : start + size] for start in range(0, len(texts), size)]
        self._pending += len(chunks)
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                return revision, await _predict_chunks(self._queues[revision], chunks)
        except TimeoutError:
            raise RequestError(
                f"The model did not answer within {self.config.request_timeout_s} s; try again later.", status=504
            ) from None
        finally:
            self._pending -= len(chunks)

    def _open_queue(self, revision: str, limits: BatchLimits) -> RevisionQueue:
        return RevisionQueue(self._connect(revision), limits, lambda texts: self._on_batch(revision, texts))


async def _predict_chunks(queue: RevisionQueue, chunks: list[Sequence[Text]]) -> Answer:
    if len(chunks) == 1:
        return await queue.predict(chunks[0])
    answers = await asyncio.gather(*(queue.predict(chunk) for chunk in chunks))
    first = answers[0]
    return Answer([row for answer in answers for row in answer.rows], first.model, first.replica)
