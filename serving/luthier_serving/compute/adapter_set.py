"""The adapters of one loaded model: loaded, replaced and freed in the background, while it answers.

What fails is tried again and holds nobody else up. An adapter that is no longer wanted is freed after a while, since
requests for it may still be queued.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from luthier_api.documents import AdapterConfig, AdapterState, RevisionConfig
from luthier_api.reasons import Reason
from luthier_serving.compute.adapters import OnComputeThread, load_adapter
from luthier_serving.compute.engines import AdaptableEngine
from luthier_serving.compute.model import Model
from luthier_serving.errors import LoadError, Unavailable

RETRY_S = 10.0
# As long as a request may wait.
FREE_AFTER_S = 60.0
# A report holds those of all adapters.
MAX_MESSAGE = 300

logger = logging.getLogger("ray.serve")
Load = Callable[[Model, RevisionConfig, AdapterConfig, str, OnComputeThread], Model]


@dataclass(frozen=True)
class _Held:
    config: AdapterConfig
    attached_as: str
    model: Model


class AdapterSet:
    """The adapters of one model.

    Args:
        base: the model.
        revision: where it came from.
        pool: the one thread that computes it.
        load: returns the model that an adapter makes of it; blocks.
    """

    def __init__(self, base: Model, revision: RevisionConfig, pool: ThreadPoolExecutor, load: Load = load_adapter):
        self._base, self._revision, self._pool, self._load = base, revision, pool, load
        self._wanted: dict[str, AdapterConfig] = {}
        self._held: dict[str, _Held] = {}
        self._failures: dict[str, LoadError] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()

    def want(self, adapters: Sequence[AdapterConfig]) -> None:
        """Hold these adapters from now on."""
        self._wanted = {each.name: each for each in adapters}
        self._failures = {name: error for name, error in self._failures.items() if name in self._wanted}
        for name in self._wanted:
            if not self._is_held(name) and name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._bring(name))
        for name, held in self._held.items():
            if self._is_held(name) and (timer := self._timers.pop(held.attached_as, None)):
                timer.cancel()
            if name not in self._wanted:
                self._free_later(held)

    async def settled(self) -> list[LoadError]:
        """Wait until each adapter is held or has failed once; return the failures."""
        while any(not self._is_held(name) and name not in self._failures for name in self._wanted):
            self._changed.clear()
            await self._changed.wait()
        return list(self._failures.values())

    def model(self, name: str) -> Model:
        """Return the model that an adapter makes.

        Raises:
            Unavailable: it is not there, or not yet.
        """
        held = self._held.get(name)
        if held:
            return held.model
        failure = self._failures.get(name)
        if failure:
            raise Unavailable(f"The adapter {name} cannot be loaded: {failure.sentence}")
        raise Unavailable(f"The adapter {name} is being loaded; try again later.")

    def states(self) -> list[AdapterState]:
        """Return how it stands with each adapter that is wanted."""
        states = []
        for name, config in self._wanted.items():
            failure = self._failures.get(name)
            state = AdapterState(name=name, digest=config.digest, state="Ready" if self._is_held(name) else "Loading")
            if failure:
                message = str(failure)[:MAX_MESSAGE]
                state = AdapterState(name=name, digest=config.digest, state="Failed", message=message)
            states.append(state)
        return states

    def close(self) -> None:
        """Load and free nothing more; the model goes, and what is attached to it."""
        for task in self._tasks.values():
            task.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._held.clear()

    def _is_held(self, name: str) -> bool:
        held = self._held.get(name)
        return held is not None and held.config == self._wanted.get(name)

    async def _bring(self, name: str) -> None:
        """Load what is wanted by a name, until it is held or nothing is wanted by it."""
        try:
            while (config := self._wanted.get(name)) and not self._is_held(name):
                attached_as = f"{name}-{next(self._numbers)}"
                try:
                    model = await asyncio.to_thread(
                        self._load, self._base, self._revision, config, attached_as, self._compute
                    )
                except Exception as raised:
                    self._failed(config, raised)
                    await asyncio.sleep(RETRY_S)
                    continue
                before = self._held.get(name)
                self._held[name] = _Held(config, attached_as, model)
                self._failures.pop(name, None)
                logger.info("holds adapter %s: %s (%s)", name, config.version, config.digest)
                if before:
                    self._free_later(before)
                if self._wanted.get(name) is None:
                    self._free_later(self._held[name])
                self._changed.set()
        finally:
            self._tasks.pop(name, None)

    def _failed(self, config: AdapterConfig, raised: Exception) -> None:
        error = raised
        if not isinstance(error, LoadError):
            logger.error("loading the adapter %s failed", config.name, exc_info=raised)
            error = LoadError(Reason.CRASHED, f"It cannot be loaded: {type(raised).__name__}: {raised}")
        if self._wanted.get(config.name) == config:
            self._failures[config.name] = error
        logger.warning("the adapter %s cannot be loaded now: %s", config.name, error)
        self._changed.set()

    def _compute(self, function: Callable[[], Model]) -> Model:
        return self._pool.submit(function).result()

    def _free_later(self, held: _Held) -> None:
        if held.attached_as not in self._timers:
            timer = asyncio.get_running_loop().call_later(FREE_AFTER_S, self._free, held)
            self._timers[held.attached_as] = timer

    def _free(self, held: _Held) -> None:
        del self._timers[held.attached_as]
        if self._held.get(held.config.name) is held:
            del self._held[held.config.name]
        assert isinstance(self._base.engine, AdaptableEngine)
        self._pool.submit(self._base.engine.detach, held.attached_as)
