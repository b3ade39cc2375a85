"""The one place that calls another Ray Serve application: a server replica's connection to a canary.

Maps the errors of such a call, once: if a replica dies, its batch is sent again, since a prediction may safely be
computed twice, and Ray is asked why it died; anything else becomes a `RequestError` with a sentence.
"""

import asyncio
import logging
import time
from typing import Any

from ray import serve
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
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
# Ray itself learns of a death a moment later than its caller; so often it is asked at most.
ASK_AFTER_S, ASK_AGAIN_S = 1.0, 10.0
ASK_TIMEOUT_S = 5
ASK_ATTEMPTS = 3
# As the operator names it.
DEPLOYMENT = "Revision"
LONGEST_DEATH = 1000

logger = logging.getLogger("ray.serve")


class RevisionClient:
    """Calls one revision. The handle is looked up on first use, because the revision may start later.

    Attributes:
        death: why one of its replicas died last, in the words of Ray; empty if none did, or Ray does not say.
    """

    def __init__(self, revision: str):
        self._revision = revision
        self._handle: DeploymentHandle[Any] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._ask_from = 0.0
        self.death = ""

    async def predict(self, texts: list[Text], adapter: str | None = None) -> Answer:
        """Return the revision's answer to a batch.

        Raises:
            RequestError: the call failed; the text says why.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                handle = await self._connect()
                # An image of an earlier release knows no adapters.
                arguments = (texts,) if adapter is None else (texts, adapter)
                answer: Answer = await handle.predict.remote(*arguments)
                return answer
            except (RayActorError, OutOfMemoryError, ReplicaUnavailableError) as error:
                self._handle = None
                self._ask_why()
                logger.warning("a replica of %s died (%s), attempt %d", self._revision, type(error).__name__, attempt)
            except BackPressureError:
                raise Overloaded("Too many requests are queued for the model; try again in a second.") from None
            except (DeploymentUnavailableError, RequestCancelledError, RayServeException) as error:
                self._handle = None
                raise Unavailable(f"Revision {self._revision} of the model does not answer: {error}.") from error
            except RayError as error:
                raise RequestError("The model failed on this request; the server's log says why.") from error
        raise Unavailable(f"The replicas of revision {self._revision} keep failing; try again later.")

    async def describe(self, adapter: str | None = None) -> ModelInfo:
        """Return the model that the revision serves, or what an adapter makes of it.

        Raises:
            Unavailable: it does not answer.
        """
        model: ModelInfo = await self._ask("describe", *([] if adapter is None else [adapter]))
        return model

    async def reference(self) -> ReferenceDocument | None:
        """Return what the texts of the revision's training look like, if its artifact says so.

        Raises:
            Unavailable: it does not answer.
        """
        reference: ReferenceDocument | None = await self._ask("reference")
        return reference

    async def _ask(self, method: str, *arguments: str) -> Any:
        try:
            handle = await self._connect()
            return await getattr(handle, method).remote(*arguments)
        except (RayError, RayServeException) as error:
            self._handle = None
            raise Unavailable(f"Revision {self._revision} of the model does not answer.") from error

    def _ask_why(self) -> None:
        if time.monotonic() >= self._ask_from:
            self._ask_from = time.monotonic() + ASK_AGAIN_S
            self._asking = asyncio.create_task(self._learn_why())

    async def _learn_why(self) -> None:
        for _ in range(ASK_ATTEMPTS):  # a busy Ray may not know it yet, or not answer in time
            await asyncio.sleep(ASK_AFTER_S)
            if death := await asyncio.to_thread(last_death, self._revision):
                self.death = death
                return

    async def _connect(self) -> DeploymentHandle[Any]:
        if self._handle is None:
            # Calls the controller, and blocks.
            self._handle = await asyncio.to_thread(serve.get_app_handle, self._revision)
        return self._handle


def last_death(revision: str) -> str:
    """Return why a replica of a revision died last, in the words of Ray; empty if it does not say. Blocks."""
    # Loads much of Ray, which is needed only then.
    from ray.util.state import list_actors

    of_revision: list[Any] = [("class_name", "=", f"ServeReplica:{revision}:{DEPLOYMENT}"), ("state", "=", "DEAD")]
    try:
        dead = list_actors(filters=of_revision, detail=True, timeout=ASK_TIMEOUT_S, raise_on_missing_output=False)
    except Exception as error:  # whatever it is, nothing depends on it
        logger.warning("Ray does not say why a replica of %s died: %s", revision, error)
        return ""
    contexts = [context for actor in dead for context in (actor.death_cause or {}).values()]
    messages = [context.get("error_message", "") for context in contexts if isinstance(context, dict)]
    # Of several, lack of memory is what the others follow from.
    messages.sort(key=lambda message: "low on memory" in message)
    return " ".join(messages[-1].split())[:LONGEST_DEATH] if messages else ""
