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
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application

from luthier_api.documents import ReferenceDocument, RevisionConfig
from luthier_api.reasons import Reason
from luthier_serving.answers import Answer, ModelInfo, Row, Text, Work
from luthier_serving.compute.loading import load_model
from luthier_serving.errors import LoadError

DEPLOYMENT = "Revision"
# So that enough texts of common length are computed together to fill the token budget of a GPU.
TOKENS_OF_A_COMMON_TEXT = 32
# A model that computes one batch for longer hangs; nobody waits for an answer any more.
LONGEST_BATCH_S = 60.0

logger = logging.getLogger("ray.serve")


class RevisionReplica:
    """One process that holds the model. It computes one batch at a time, off the event loop."""

    async def __init__(self, document: str):  # type: ignore[misc]  # Ray Serve awaits it
        self._config = RevisionConfig.from_json(document)
        # Downloading and loading take minutes for a large model; the replica answers Ray meanwhile.
        self._model = await asyncio.to_thread(load_model, self._config)
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._calls: asyncio.Queue[tuple[list[Text], asyncio.Future[tuple[list[Row], Work | None]]]] = asyncio.Queue()
        self._began: float | None = None
        # Merging calls fills a GPU; on a CPU a larger batch is no faster, and would delay the first call in it.
        self._merge_texts = self._config.max_batch_tokens // TOKENS_OF_A_COMMON_TEXT if self._model.merges_calls else 1
        self._worker = asyncio.create_task(self._work())
        logger.info(
            "revision %s serves %s (%s, %s)",
            *(self._config.name, self._config.version, self._model.info.weights, self._config.digest),
        )

    async def predict(self, texts: list[Text]) -> Answer:
        """Return one row per text, in order."""
        future: asyncio.Future[tuple[list[Row], Work | None]] = asyncio.get_running_loop().create_future()
        self._calls.put_nowait((texts, future))
        rows, work = await future
        return Answer(rows, self._model.info, self._replica, work)

    async def describe(self) -> ModelInfo:
        """Return the model that is served; an answer means that the replica is ready."""
        return self._model.info

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
        loop = asyncio.get_running_loop()
        while True:
            calls = [await self._calls.get()]
            while not self._calls.empty() and sum(len(texts) for texts, _ in calls) < self._merge_texts:
                calls.append(self._calls.get_nowait())
            calls = [(texts, future) for texts, future in calls if not future.done()]
            merged = [text for texts, _ in calls for text in texts]
            self._began = time.monotonic()
            try:
                rows = await loop.run_in_executor(self._pool, self._model.predict, merged)
            except Exception as error:
                for _, future in calls:
                    if not future.done():
                        future.set_exception(error)
                continue
            finally:
                self._began = None
            start = 0
            for texts, future in calls:
                if not future.done():
                    future.set_result((rows[start : start + len(texts)], self._model.work))
                start += len(texts)


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
