"""The application of a canary: computes batches for the server's replicas, which call it by handle; it has no route.

`app` is the builder that Ray Serve imports; its args are a `RevisionConfig`. A replica downloads and verifies the
artifact before it is ready, so that Ray sends it nothing earlier; if that fails, the application's status message says
why. At most one replica of a revision runs on a node: the next revision starts beside it, in the same pod. How many
replicas there are is not part of the args, which would replace them when changed: it is in `deployments` of the Serve
config, which Ray applies in place.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pydantic import ValidationError
from ray import serve
from ray.serve import Application

from luthier_api.documents import AdapterConfig, ReferenceDocument, RevisionConfig
from luthier_api.reasons import Reason
from luthier_serving.answers import Answer, ModelInfo, Row, Text, Work
from luthier_serving.compute.adapter_set import AdapterSet
from luthier_serving.compute.loading import load_model
from luthier_serving.compute.model import Model
from luthier_serving.errors import LoadError, Unavailable

DEPLOYMENT = "Revision"
# So that enough texts of common length are computed together to fill the token budget of a GPU.
TOKENS_OF_A_COMMON_TEXT = 32
# A model that computes one batch for longer hangs; nobody waits for an answer any more.
LONGEST_BATCH_S = 60.0

logger = logging.getLogger("ray.serve")


class _Call(NamedTuple):
    """Texts to compute, by the model of the revision or that of an adapter."""

    texts: list[Text]
    model: Model
    future: "asyncio.Future[tuple[list[Row], Work | None]]"


class RevisionReplica:
    """One process that holds the model. It computes one batch at a time, off the event loop."""

    async def __init__(self, document: str):  # type: ignore[misc]  # Ray Serve awaits it
        self._config = RevisionConfig.from_json(document)
        # Downloading and loading take minutes for a large model; the replica answers Ray meanwhile.
        self._model = await asyncio.to_thread(load_model, self._config)
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._calls: asyncio.Queue[_Call] = asyncio.Queue()
        self._adapters: AdapterSet | None = None
        self._began: float | None = None
        # Merging calls fills a GPU; on a CPU a larger batch is no faster, and would delay the first call in it.
        self._merge_texts = self._config.max_batch_tokens // TOKENS_OF_A_COMMON_TEXT if self._model.merges_calls else 1
        self._worker = asyncio.create_task(self._work())
        logger.info(
            "revision %s serves %s (%s, %s)",
            *(self._config.name, self._config.version, self._model.info.weights, self._config.digest),
        )

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Hold these adapters from now on: `{"adapters": [AdapterConfig, ...]}`.

        Raises:
            LoadError: the first time, one of them cannot be loaded: a version without its adapters is no replacement.
        """
        adapters = [AdapterConfig.model_validate(each) for each in user_config.get("adapters", ())]
        first = self._adapters is None
        self._adapters = self._adapters or AdapterSet(self._model, self._config, self._pool)
        self._adapters.want(adapters)
        if first and (failures := await self._adapters.settled()):
            raise failures[0]

    async def predict(self, texts: list[Text], adapter: str | None = None) -> Answer:
        """Return one row per text, in order.

        Raises:
            Unavailable: the adapter is not there.
        """
        model = self._model if adapter is None else self._adapted(adapter)
        future: asyncio.Future[tuple[list[Row], Work | None]] = asyncio.get_running_loop().create_future()
        self._calls.put_nowait(_Call(texts, model, future))
        rows, work = await future
        return Answer(rows, model.info, self._replica, work)

    def _adapted(self, adapter: str) -> Model:
        if self._adapters is None:
            raise Unavailable(f"The adapter {adapter} is not loaded yet; try again later.")
        return self._adapters.model(adapter)

    async def describe(self, adapter: str | None = None) -> ModelInfo:
        """Return the model that is served, or what an adapter makes of it; an answer means that the replica is ready.

        Raises:
            Unavailable: the adapter is not there.
        """
        return self._model.info if adapter is None else self._adapted(adapter).info

    async def reference(self) -> ReferenceDocument | None:
        """Return what the texts of the model's training look like."""
        return self._model.reference

    async def check_health(self) -> None:
        """Have Ray Serve replace this replica if it no longer computes.

        Raises:
            RuntimeError: the task that computes has ended, or its model hangs.
        """
        if self._worker.done():
            raise RuntimeError("the task that computes batches has ended")
        if self._began is not None and time.monotonic() - self._began > LONGEST_BATCH_S:
            raise RuntimeError(f"the model has been computing one batch for {time.monotonic() - self._began:.0f} s")

    async def _work(self) -> None:
        while True:
            calls = [await self._calls.get()]
            while not self._calls.empty() and sum(len(call.texts) for call in calls) < self._merge_texts:
                calls.append(self._calls.get_nowait())
            calls = [call for call in calls if not call.future.done()]
            # Each model for itself: that of the revision, and those of its adapters.
            for model in dict.fromkeys(call.model for call in calls):
                await self._compute(model, [call for call in calls if call.model is model])

    async def _compute(self, model: Model, calls: list[_Call]) -> None:
        merged = [text for call in calls for text in call.texts]
        self._began = time.monotonic()
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._pool, model.predict, merged)
        except Exception as error:
            for call in calls:
                if not call.future.done():
                    call.future.set_exception(error)
            return
        finally:
            self._began = None
        start = 0
        for call in calls:
            if not call.future.done():
                call.future.set_result((rows[start : start + len(call.texts)], model.work))
            start += len(call.texts)


def app(args: Mapping[str, Any]) -> Application:
    """Build the application of a revision.

    Args:
        args: a `RevisionConfig` in its wire form.

    Raises:
        LoadError: the args are not one.
    """
    try:
        config = RevisionConfig.model_validate(dict(args), extra="forbid")
    except ValidationError as error:
        raise LoadError(
            Reason.CONFIG_ERROR, f"The args of this application are not a RevisionConfig: {error}"
        ) from None
    return serve.deployment(**deployment_options(config))(RevisionReplica).bind(config.to_json())


def deployment_options(config: RevisionConfig) -> dict[str, Any]:
    """Return the Ray Serve options of a revision's deployment."""
    return {
        "name": DEPLOYMENT,
        "max_ongoing_requests": config.max_ongoing_requests,
        "max_replicas_per_node": 1,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": config.gpus_per_replica},
        "graceful_shutdown_timeout_s": 20,
        "health_check_period_s": 5,
    }
