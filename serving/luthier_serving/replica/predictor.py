"""From a request's texts to its answer: admission, choice of a revision, pieces, time limit.

Holds what a `FrontConfig` says and can take on another at any moment: lanes of revisions that stay are kept, requests
on their way are not disturbed. Knows nothing of HTTP or Ray.
"""

import asyncio
from collections.abc import Callable, Sequence

from luthier_api.documents import FrontConfig
from luthier_serving.answers import Answer, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.replica.batching import BatchLimits
from luthier_serving.replica.revision_queue import Lane, Send
from luthier_serving.replica.traffic_split import WeightedTurns
from luthier_serving.replica.validation import Limits


class Predictor:
    """Answers texts by the revisions that have a weight.

    Args:
        connect: returns the coroutine that sends batches to the revision of a name.
        on_batch: called with the revision and the number of texts of each batch.
    """

    def __init__(self, connect: Callable[[str], Send], on_batch: Callable[[str, int], None]):
        self._connect = connect
        self._on_batch = on_batch
        self._lanes: dict[str, Lane] = {}
        self._turns = WeightedTurns({})
        self._pending = 0
        self.configure(FrontConfig(model_name="none"))

    def configure(self, config: FrontConfig) -> None:
        """Take on a configuration: weights and limits, at once."""
        self.config = config
        self.limits = Limits(config.max_body_bytes, config.max_texts, config.max_text_characters)
        batch_limits = BatchLimits(config.max_batch_texts, config.max_batch_wait_ms / 1000)
        self._lanes = {
            route.revision: self._lanes.get(route.revision) or self._open_lane(route.revision, batch_limits)
            for route in config.routes
        }
        for lane in self._lanes.values():
            lane.set_limits(batch_limits)
        self._turns = WeightedTurns({route.revision: route.weight for route in config.routes})

    @property
    def pending(self) -> int:
        """Pieces accepted and not yet answered."""
        return self._pending

    async def predict(self, texts: Sequence[Text]) -> tuple[str, Answer]:
        """Return the name of the revision that answered, and its answer to these texts.

        Raises:
            Overloaded: too many requests wait.
            Unavailable: no revision has a weight, or the one chosen does not answer.
            RequestError: 504, the answer took too long.
        """
        if self._pending >= self.config.max_queued_requests:
            raise Overloaded(f"{self._pending} requests wait already; try again in a second.")
        revision = self._turns.next()
        if revision is None:
            raise Unavailable("No model is served yet; try again later.")
        size = self.config.max_batch_texts
        pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
        self._pending += len(pieces)
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                return revision, await self._ask(self._lanes[revision], pieces)
        except TimeoutError:
            raise RequestError(
                f"The model gave no answer within {self.config.request_timeout_s} s; try again later.", status=504
            ) from None
        finally:
            self._pending -= len(pieces)

    async def _ask(self, lane: Lane, pieces: list[Sequence[Text]]) -> Answer:
        if len(pieces) == 1:
            return await lane.ask(pieces[0])
        answers = await asyncio.gather(*(lane.ask(piece) for piece in pieces))
        first = answers[0]
        return Answer([row for answer in answers for row in answer.rows], first.about, first.replica)

    def _open_lane(self, revision: str, limits: BatchLimits) -> Lane:
        return Lane(self._connect(revision), limits, lambda texts: self._on_batch(revision, texts))
