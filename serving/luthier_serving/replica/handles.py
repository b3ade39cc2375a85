"""The one place that calls another Ray Serve application: a server replica's connection to a canary.

Maps the errors of such a call, once: if a replica dies, its batch is sent again, since a prediction may safely be
computed twice; anything else becomes a `RequestError` with a sentence.
"""

import asyncio
import logging
from typing import Any

from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from luthier_api.documents import ReferenceDocument
from luthier_serving.answers import Answer, ModelInfo, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable

ATTEMPTS = 3

logger = logging.getLogger("ray.serve")


class RevisionClient:
    """Calls one revision. The handle is looked up on first use, because the revision may start later."""

    def __init__(self, revision: str):
        self._revision = revision
        self._handle: DeploymentHandle[Any] | None = None

    async def predict(self, texts: list[Text]) -> Answer:
        """Return the revision's answer to a batch.

        Raises:
            RequestError: the call failed; the text says why.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                handle = await self._connect()
                answer: Answer = await handle.predict.remote(texts)
                return answer
            except (RayActorError, ReplicaUnavailableError) as error:
                self._handle = None
                logger.warning("a replica of %s died (%s), attempt %d", self._revision, type(error).__name__, attempt)
            except BackPressureError:
                raise Overloaded("Too many requests are queued for the model; try again in a second.") from None
            except (DeploymentUnavailableError, RequestCancelledError, RayServeException) as error:
                self._handle = None
                raise Unavailable(f"Revision {self._revision} of the model does not answer: {error}.") from error
            except RayError as error:
                raise RequestError("The model failed on this request; the server's log says why.") from error
        raise Unavailable(f"The replicas of revision {self._revision} keep failing; try again later.")

    async def describe(self) -> ModelInfo:
        """Return the model that the revision serves.

        Raises:
            Unavailable: it does not answer.
        """
        model: ModelInfo = await self._ask("describe")
        return model

    async def reference(self) -> ReferenceDocument | None:
        """Return what the texts of the revision's training look like, if its artifact says so.

        Raises:
            Unavailable: it does not answer.
        """
        reference: ReferenceDocument | None = await self._ask("reference")
        return reference

    async def _ask(self, method: str) -> Any:
        try:
            handle = await self._connect()
            return await getattr(handle, method).remote()
        except (RayError, RayServeException) as error:
            self._handle = None
            raise Unavailable(f"Revision {self._revision} of the model does not answer.") from error

    async def _connect(self) -> DeploymentHandle[Any]:
        if self._handle is None:
            # Calls the controller, and blocks.
            self._handle = await asyncio.to_thread(serve.get_app_handle, self._revision)
        return self._handle
