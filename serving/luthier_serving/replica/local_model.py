"""The revision that a server replica computes in its own process: loaded in the background, replaced without a pause.

Two models are held at once only where nobody else computes the new one. If it has an application of its own, which
answers meanwhile, the old model goes first, so that a pod needs memory for two models and not for three.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from luthier_api.documents import AdapterConfig, AdapterState, ModelState, ReferenceDocument, RevisionConfig
from luthier_api.reasons import Reason
from luthier_serving.answers import Answer, ModelInfo, Text
from luthier_serving.compute.adapter_set import AdapterSet
from luthier_serving.compute.model import LoadTimes, Model
from luthier_serving.errors import LoadError, Unavailable

RETRY_S = 10.0
# A report with a longer one would be refused; libraries put pages into theirs.
MAX_MESSAGE = 1000
# What may mend itself, or be mended in the Secret that is mounted here, without another pod.
WAITS = frozenset({Reason.STORAGE_DENIED, Reason.STORAGE_UNAVAILABLE, Reason.BUCKET_NOT_FOUND, Reason.MODEL_NOT_FOUND})

logger = logging.getLogger("ray.serve")
Load = Callable[[RevisionConfig], Model]


class HeldModel:
    """One loaded model with its adapters, and the thread that computes it: one batch at a time, off the event loop."""

    def __init__(self, config: RevisionConfig, model: Model, replica: str):
        self.revision = config.name
        self.info: ModelInfo = model.info
        self.times: LoadTimes | None = model.times
        self._model: Model | None = model
        self._replica = replica
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._config = config
        self._adapters: AdapterSet | None = None
        self._began: float | None = None

    async def send(self, texts: list[Text], adapter: str | None = None) -> Answer:
        """Return one row per text, in order.

        Raises:
            Unavailable: the adapter is not there, or not yet.
        """
        assert self._model is not None
        model = self._model if adapter is None else self._adapted(adapter)
        self._began = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._compute, model, texts)
        finally:
            self._began = None

    def _compute(self, model: Model, texts: list[Text]) -> Answer:
        rows = model.predict(texts)
        return Answer(rows, model.info, self._replica, model.work)

    def want(self, adapters: Sequence[AdapterConfig]) -> None:
        """Hold these adapters from now on; they are loaded in the background."""
        if self._adapters is None and adapters and self._model is not None:
            self._adapters = AdapterSet(self._model, self._config, self._pool)
        if self._adapters is not None:
            self._adapters.want(adapters)

    async def settled(self) -> None:
        """Wait until each adapter is held, or has failed once."""
        if self._adapters is not None:
            await self._adapters.settled()

    def adapters(self) -> list[AdapterState]:
        """Return how it stands with the adapters."""
        return self._adapters.states() if self._adapters is not None else []

    def info_of(self, adapter: str) -> ModelInfo:
        """Return the model that an adapter makes.

        Raises:
            Unavailable: the adapter is not there, or not yet.
        """
        return self._adapted(adapter).info

    def _adapted(self, name: str) -> Model:
        if self._adapters is None:
            raise Unavailable(f"The adapter {name} is not loaded yet; try again later.")
        return self._adapters.model(name)

    @property
    def reference(self) -> ReferenceDocument | None:
        """What the texts of its training look like."""
        return self._model.reference if self._model else None

    @property
    def computing_s(self) -> float:
        """For how long the present batch has been computed."""
        return time.monotonic() - self._began if self._began is not None else 0.0

    async def close(self) -> None:
        """Free the model once the batch that is being computed is done."""
        if self._adapters is not None:
            self._adapters.close()
            self._adapters = None
        await asyncio.to_thread(self._pool.shutdown)
        self._model = None
        gc.collect()


class LocalModel:
    """Holds the revision that is wanted, or the one before it until that is there.

    Args:
        load: returns the model of a revision; blocks.
        replica: name of this replica, for answers.
        on_change: called after the model that is held has changed.
        drain: waits until a revision that is held no more has answered everybody.
    """

    def __init__(
        self, load: Load, replica: str, on_change: Callable[[], None], drain: Callable[[str], Awaitable[None]]
    ):
        self._load, self._replica, self._on_change, self._drain = load, replica, on_change, drain
        self._started = False
        self._wanted: RevisionConfig | None = None
        self._adapters: Sequence[AdapterConfig] = ()
        self._loading: asyncio.Task[None] | None = None
        self._failure: LoadError | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.held: HeldModel | None = None

    def want(self, config: RevisionConfig | None, *, elsewhere: bool, adapters: Sequence[AdapterConfig] = ()) -> None:
        """Hold this revision from now on, and these adapters over it.

        Args:
            config: the revision.
            elsewhere: whether an application of its own answers until it is loaded, so that the old one may go first.
            adapters: loaded before the revision takes over; one that fails holds it up once.
        """
        self._adapters = adapters
        if self.held:
            self.held.want(adapters)
        if config == self._wanted:
            return
        self._wanted, self._failure = config, None
        if self._loading:
            self._loading.cancel()
            self._loading = None
        if config is None or (self.held and self.held.revision == config.name):
            return
        self._loading = asyncio.create_task(self._replace(config, first_free=elsewhere))

    async def wait(self) -> None:
        """Wait until the wanted revision is there.

        Raises:
            LoadError: it cannot be loaded.
        """
        if self._loading:
            with suppress(LoadError):
                await self._loading
        if self._failure:
            raise self._failure

    def states(self) -> list[ModelState]:
        """Return what is held and what is being loaded."""
        states = [ModelState(revision=self.held.revision, state="Ready")] if self.held else []
        if self._wanted and not (self.held and self.held.revision == self._wanted.name):
            failed = self._failure
            state = ModelState(
                revision=self._wanted.name,
                state="Failed" if failed else "Loading",
                message=str(failed)[:MAX_MESSAGE] if failed else "",
            )
            states.append(state)
        return states

    async def _replace(self, config: RevisionConfig, *, first_free: bool) -> None:
        if first_free and self.held:
            old, self.held = self.held, None
            self._on_change()
            await asyncio.shield(self._release(old))
        while True:
            try:
                model = await asyncio.to_thread(self._load, config)
                break
            except Exception as raised:
                error = raised if isinstance(raised, LoadError) else _unexpected(raised)
                self._failure = error
                if not self._started and error.reason not in WAITS:
                    return  # Ray starts another replica, and says why.
                logger.warning("revision %s cannot be loaded now: %s", config.name, error)
            await asyncio.sleep(RETRY_S)
        if self._wanted != config:
            return
        self._failure, self._started = None, True
        held = HeldModel(config, model, self._replica)
        try:
            held.want(self._adapters)
            await held.settled()
        except asyncio.CancelledError:
            self._release(held)
            raise
        held.want(self._adapters)
        before, self.held = self.held, held
        logger.info("holds revision %s: %s (%s, %s)", config.name, config.version, model.info.weights, config.digest)
        self._on_change()
        if before:
            self._release(before)

    def _release(self, old: HeldModel) -> "asyncio.Task[None]":
        """Free a model that no new request goes to, once it has answered those that it has."""

        async def release() -> None:
            await self._drain(old.revision)
            await old.close()

        task = asyncio.create_task(release())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


def _unexpected(error: Exception) -> LoadError:
    """Return what nobody foresaw, such as a full disk, as something that is told and tried again."""
    logger.error("loading a revision failed", exc_info=error)
    return LoadError(Reason.CRASHED, f"The model cannot be loaded: {type(error).__name__}: {error}")
