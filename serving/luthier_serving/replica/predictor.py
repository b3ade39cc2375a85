"""From the texts of a request to their answer: admission, choice of a revision, time limit, copies for a mirror.

Holds a `ServerConfig`, which may be replaced at any moment: revisions that remain keep their queues, and requests in
flight are not disturbed. Knows nothing of HTTP or Ray.

A request that another revision than the stable one fails, or keeps waiting, is answered by the stable one: the failure
is counted against the revision, and the client never meets it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from luthier_api.documents import ServerConfig
from luthier_serving.answers import Answer, ModelInfo, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.observe.observer import Observer, Watch
from luthier_serving.observe.tracing import CURRENT
from luthier_serving.replica.agreement import compare
from luthier_serving.replica.batching import BatchLimits
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.request_context import current
from luthier_serving.replica.revision_queue import RevisionQueue, SendBatch
from luthier_serving.replica.traffic_split import TrafficSplit
from luthier_serving.replica.validation import RequestLimits

# A batch in this process takes about so long, so that a request waits no longer for the one before it.
TARGET_S = 0.05
# Lists together may hold this share of the places; the rest is for single texts.
SHARE_OF_LISTS = 0.75
# A mirror is the first to give way: no copies while more than this share of the places is taken.
SHARE_OF_MIRROR = 0.25
# A canary may have this share of a request's time and of the places; the rest is enough for the stable revision.
SHARE_OF_CANARY = 0.5
# A canary that has requests and sends nothing back for this share of a request's time hangs.
SHARE_OF_SILENCE = 0.25

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Target:
    """Where requests may go.

    Attributes:
        revision: name of the revision.
        weight: share of the requests in percent.
        local: whether this process computes it.
        send: sends a batch to it.
        model: that it has loaded, where this process knows it.
    """

    revision: str
    weight: int
    local: bool
    send: SendBatch
    model: ModelInfo | None = None


class ServedModel(NamedTuple):
    """What a request may name.

    Attributes:
        name: of the model.
        versions: those that have a share of the requests.
        info: the stable model, None while this process has none.
        adapters: {name: version} of what may be asked for as NAME:adapter.
    """

    name: str
    versions: tuple[str, ...] = ()
    info: ModelInfo | None = None
    adapters: Mapping[str, str] = {}

    def versions_of(self, adapter: str | None) -> tuple[str, ...]:
        """Return the versions in service of an adapter, or of the model itself."""
        return self.versions if adapter is None else (self.adapters[adapter],)

    @property
    def names(self) -> list[str]:
        """Every name under which a model may be asked for."""
        return [self.name, *(f"{self.name}:{adapter}" for adapter in self.adapters)]


class Predictor:
    """Answers texts with the revisions that have a weight.

    Args:
        counters: record what became of the requests to each revision.
        on_batch: called with the revision and the number of texts of each batch.
        observer: is told of requests and batches; the default observes nothing.
    """

    def __init__(self, counters: Counters, on_batch: Callable[[str, int], None], observer: Observer | None = None):
        self._counters = counters
        self._observer = observer or Observer()
        self._on_batch = on_batch
        self._queues: dict[tuple[str, bool], RevisionQueue] = {}
        self._targets: dict[str, Target] = {}
        self._retired: dict[str, RevisionQueue] = {}
        self._pending = self._pending_of_lists = self._pending_of_canary = 0
        self._copies: set[asyncio.Task[None]] = set()
        self.configure(ServerConfig(model_name="none"), [])

    def configure(self, config: ServerConfig, targets: Sequence[Target]) -> None:
        """Replace the configuration: weights and limits apply at once. The first local target is the stable one."""
        self.config = config
        self.limits = RequestLimits(config.max_body_bytes, config.max_texts, config.max_text_characters)
        self.max_pending = math.ceil(config.max_queued_requests / config.replicas)
        self._counters.begin(config.window)
        self._fallback = next((target for target in targets if target.local), None)
        known, self._queues = self._queues, {}
        for target in targets:
            place = (target.revision, target.local)
            limits = self._batch_limits(target)
            queue = known.pop(place, None) or self._open_queue(target, limits)
            queue.set_limits(limits)
            self._queues[place] = queue
        self._retired |= {revision: queue for (revision, local), queue in known.items() if local}
        self._targets = {target.revision: target for target in targets}
        versions = tuple(dict.fromkeys(route.version for route in config.routes if route.weight))
        info = self._fallback.model if self._fallback else None
        adapters = {each.name: each.version for each in config.adapters or ()}
        self.served = ServedModel(config.model_name, versions, info, adapters)
        self._split = TrafficSplit({target.revision: target.weight for target in targets})
        mirror = config.mirror
        self._mirror = mirror if mirror and mirror.revision in self._targets else None
        self._mirrored = TrafficSplit({"copy": mirror.percent, "": 100 - mirror.percent} if mirror else {})

    @property
    def pending(self) -> int:
        """Places that are taken: requests accepted and not yet answered; a list takes one for each batch it fills."""
        return self._pending

    @property
    def _busy(self) -> bool:
        """Whether copies and logs give way."""
        return self._pending > SHARE_OF_MIRROR * self.max_pending

    def queues(self) -> dict[str, tuple[int, float]]:
        """Return of each revision how many texts wait, and for how many seconds the oldest has."""
        return {revision: queue.state() for (revision, _), queue in self._queues.items()}

    @property
    def ready(self) -> bool:
        """Whether some revision has a weight and is there."""
        return any(target.weight > 0 for target in self._targets.values())

    async def predict(
        self,
        texts: Sequence[Text],
        headers: Mapping[str, str] | None = None,
        version: str | None = None,
        adapter: str | None = None,
    ) -> tuple[str, Answer]:
        """Return the name of the revision that answered, and its answer to these texts.

        Args:
            texts: of one request.
            headers: of the request, which may choose the revision.
            version: that is to answer, None for any.
            adapter: that is asked for, None for the model itself.

        Raises:
            Overloaded: too many requests are queued.
            Unavailable: no revision has a weight, or the chosen one does not answer.
            RequestError: 504, the answer took too long; 422, the request names a revision that is not there.
        """
        watch = self._observer.begin(texts, headers or {}, adapter)
        try:
            revision, answer = await self._admitted(texts, headers, version, watch)
        except BaseException as error:
            self._observer.failed(watch, error, busy=self._busy)
            raise
        self._observer.answered(watch, revision, answer, busy=self._busy)
        return revision, answer

    async def _admitted(
        self, texts: Sequence[Text], headers: Mapping[str, str] | None, version: str | None, watch: Watch
    ) -> tuple[str, Answer]:
        places, adapter = math.ceil(len(texts) / self.config.max_batch_texts), watch.adapter
        self._admit(places)
        # The version of an adapter is its own, and every revision has it.
        target = self._choose_version(version) if version and not adapter else self._choose(headers or {})
        watch.revision = target.revision
        self._pending += places
        self._pending_of_lists += places if places > 1 else 0
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                return await self._answer(target, texts, places, adapter)
        except TimeoutError:
            raise RequestError(
                f"The model did not answer within {self.config.request_timeout_s} s; try again later.", status=504
            ) from None
        finally:
            self._pending -= places
            self._pending_of_lists -= places if places > 1 else 0

    async def drain(self, revision: str) -> None:
        """Wait until a revision that this process computes, and that is no target any more, has answered everybody."""
        if queue := self._retired.pop(revision, None):
            await queue.drained()

    def _admit(self, places: int) -> None:
        if self._pending >= self.max_pending:
            raise Overloaded(f"{self._pending} requests are already queued; try again in a second.")
        held = self._pending_of_lists
        if places > 1 and held and held + places > SHARE_OF_LISTS * self.max_pending:
            raise Overloaded("Lists of texts fill their share of the queue; try again in a second.")

    def _choose(self, headers: Mapping[str, str]) -> Target:
        config = self.config
        if config.header_routing and (wanted := headers.get("x-luthier-revision")):
            if wanted not in self._targets:
                raise RequestError(f"There is no revision {wanted[:60]!r} here.", status=422)
            return self._targets[wanted]
        key = headers.get(config.sticky_header.lower()) if config.sticky_header else None
        name = self._split.of_key(key) if key else self._split.next()
        if name is None:
            raise Unavailable("No model is served yet; try again later.")
        return self._targets[name]

    def _choose_version(self, version: str) -> Target:
        for route in self.config.routes:
            if route.version == version and route.weight and route.revision in self._targets:
                return self._targets[route.revision]
        raise Unavailable(f"Version {version} is not loaded yet; try again later.")

    async def _answer(
        self, target: Target, texts: Sequence[Text], places: int, adapter: str | None
    ) -> tuple[str, Answer]:
        stable = self._fallback
        if stable is None or stable is target:
            answer = await self._ask(target, texts, adapter)
            if stable is not None:
                self._copy(texts, answer, adapter)
            return target.revision, answer
        found = await self._ask_canary(target, texts, places, adapter)
        if found is not None:
            return target.revision, found
        return stable.revision, await self._ask(stable, texts, adapter)

    async def _ask_canary(
        self, target: Target, texts: Sequence[Text], places: int, adapter: str | None
    ) -> Answer | None:
        """Return a canary's answer, or None if the stable revision is to answer instead.

        That is so if the canary fails or is too slow, and, with no word against it, if it has its share of the places.
        """
        if self._pending_of_canary and self._pending_of_canary + places > SHARE_OF_CANARY * self.max_pending:
            return None
        limit_s = SHARE_OF_CANARY * self.config.request_timeout_s
        self._pending_of_canary += places
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._ask(target, texts, adapter, limit_s)
        except (RequestError, TimeoutError) as error:
            why = str(error) or f"no answer within {limit_s:g} s"
            asked = current() or "a request"
            logger.warning("revision %s failed %s (%s); the stable one answers it", target.revision, asked, why)
            self._observer.fell_back(target.revision)
            return None
        finally:
            self._pending_of_canary -= places
        if _failed(answer):
            self._observer.fell_back(target.revision)
            return None
        return answer

    async def _ask(
        self, target: Target, texts: Sequence[Text], adapter: str | None, limit_s: float | None = None
    ) -> Answer:
        """Ask one revision, and count what becomes of it; a canary is waited for until `limit_s`."""
        started, failed = time.perf_counter(), True
        try:
            answer = await self._queues[target.revision, target.local].predict(texts, adapter)
            failed = _failed(answer)
            return answer
        except asyncio.CancelledError:
            # A client that left says nothing about the revision; one that was kept waiting too long does.
            # The time limit began a moment before this revision was asked.
            limit_s = limit_s or self.config.request_timeout_s
            failed = time.perf_counter() - started >= 0.9 * limit_s
            raise
        finally:
            self._counters.observe(target.revision, time.perf_counter() - started, failed=failed)

    def _copy(self, texts: Sequence[Text], answer: Answer, adapter: str | None) -> None:
        """Have the mirror's revision compute the texts too, if it is its turn and there is room."""
        mirror = self._mirror
        if mirror is None or self._mirrored.next() != "copy":
            return
        if len(self._copies) >= mirror.max_pending or self._busy:
            self._counters.drop(mirror.revision)
            return
        task = asyncio.create_task(self._compare(self._targets[mirror.revision], list(texts), answer, adapter))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def _compare(self, target: Target, texts: list[Text], answer: Answer, adapter: str | None) -> None:
        CURRENT.set(None)  # a copy is no part of the request's trace, which may have ended
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                other = await self._ask(target, texts, adapter)
        except (RequestError, TimeoutError) as error:
            logger.warning("revision %s failed a copy of a request: %s", target.revision, error)
            return
        self._counters.compare(target.revision, compare(texts, answer, other))

    def _batch_limits(self, target: Target) -> BatchLimits:
        wait_s = self.config.max_batch_wait_ms / 1000
        if target.local:
            return BatchLimits(self.config.max_batch_texts, wait_s, TARGET_S)
        # Where no other revision could answer, whoever waits goes on to wait.
        silence_s = SHARE_OF_SILENCE * self.config.request_timeout_s if self._fallback else None
        return BatchLimits(self.config.max_batch_texts, wait_s, silence_s=silence_s)

    def _open_queue(self, target: Target, limits: BatchLimits) -> RevisionQueue:
        return RevisionQueue(
            target.send,
            limits,
            lambda texts: self._on_batch(target.revision, texts),
            lambda batch: self._observer.returned(target.revision, batch),
        )


def _failed(answer: Answer) -> bool:
    """Whether the revision could not compute some text, through no fault of the client."""
    return any(row.error is not None and not row.invalid_input for row in answer.rows)
