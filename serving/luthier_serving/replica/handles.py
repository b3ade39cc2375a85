"""The one place that calls another Ray Serve application: the front's way to a revision.

Maps what can go wrong there, once: when a replica dies the batch is sent again, since a prediction may be computed
twice; everything else becomes a `RequestError` with a sentence.
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

from luthier_serving.answers import About, Answer, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.replica.revision_queue import Send

ATTEMPTS = 3

logger = logging.getLogger("ray.serve")


class RevisionClient:
    """Sends batches to one revision. The handle is looked up on first use, because a revision may come later."""

    def __init__(self, revision: str):
        self._revision = revision
        self._handle: DeploymentHandle[Any] | None = None

    async def predict(self, texts: list[Text]) -> Answer:
        """Return the revision's answer to a batch.

        Raises:
            RequestError: it gave none; the text says why.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                handle = await self._connect()
                answer: Answer = await handle.predict.remote(texts)
                return answer
            except (RayActorError, ReplicaUnavailableError) as error:
                self._handle = None
                logger.warning(
                    "a replica of %s went away (%s), attempt %d", self._revision, type(error).__name__, attempt
                )
            except BackPressureError:
                raise Overloaded("Too many requests wait for the model; try again in a second.") from None
            except (DeploymentUnavailableError, RequestCancelledError, RayServeException) as error:
                self._handle = None
                raise Unavailable(f"The model's revision {self._revision} does not answer: {error}.") from error
            except RayError as error:
                raise RequestError("The model failed on this request; the server's log says why.") from error
        raise Unavailable(f"The replicas of revision {self._revision} keep failing; try again later.")

    async def about(self) -> About:
        """Return the model that the revision serves.

        Raises:
            Unavailable: it does not answer.
        """
        try:
            handle = await self._connect()
            about: About = await handle.describe.remote()
        except (RayError, RayServeException) as error:
            self._handle = None
            raise Unavailable(f"The model's revision {self._revision} does not answer.") from error
        return about

    async def _connect(self) -> DeploymentHandle[Any]:
        if self._handle is None:
            # Asks the controller and blocks.
            self._handle = await asyncio.to_thread(serve.get_app_handle, self._revision)
        return self._handle


def connect(revision: str) -> Send:
    """Return the coroutine that sends batches to a revision."""
    return RevisionClient(revision).predict
