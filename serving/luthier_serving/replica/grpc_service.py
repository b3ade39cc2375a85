"""The methods of `inference.GRPCInferenceService`, which the replica inherits.

HAProxy, or Ray Serve's own proxy, brings each call to a replica, and Ray Serve calls the method of its name there.
Inference goes the way of every protocol; the other methods answer what `discovery` knows.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from luthier_serving.errors import RequestError
from luthier_serving.replica.access import ApiKeys
from luthier_serving.replica.discovery import Discovery
from luthier_serving.replica.endpoint import Endpoint
from luthier_serving.replica.protocols import open_inference_pb2 as messages
from luthier_serving.replica.protocols.v2_grpc import CallContext, GrpcInference, MessageT, fail

logger = logging.getLogger("ray.serve")


class InferenceService:
    """What a class that has an endpoint answers over gRPC."""

    _endpoint: Endpoint
    _discovery: Discovery
    _keys: ApiKeys | None = None
    """Who may ask; None lets everybody. Whether the server lives and is ready is told without a key, as over HTTP."""

    async def ServerLive(self, request: Any, grpc_context: CallContext) -> Any:
        """Answer that the process lives."""
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, grpc_context: CallContext) -> Any:
        """Answer whether a model answers."""

        async def ready() -> Any:
            return messages.ServerReadyResponse(ready=await self._discovery.is_ready())

        return await _answer(ready, messages.ServerReadyResponse, grpc_context)

    async def ModelReady(self, request: Any, grpc_context: CallContext) -> Any:
        """Answer whether this model, or this version of it, answers."""

        async def ready() -> Any:
            is_ready = await self._discovery.is_ready(request.name, request.version or None)
            return messages.ModelReadyResponse(ready=is_ready)

        return await self._admitted(ready, messages.ModelReadyResponse, grpc_context)

    async def ServerMetadata(self, request: Any, grpc_context: CallContext) -> Any:
        """Answer which server this is."""

        async def described() -> Any:
            return messages.ServerMetadataResponse(**self._discovery.server())

        return await self._admitted(described, messages.ServerMetadataResponse, grpc_context)

    async def ModelMetadata(self, request: Any, grpc_context: CallContext) -> Any:
        """Answer which inputs and outputs a model has."""

        async def described() -> Any:
            document = await self._discovery.describe(request.name, request.version or None)
            return messages.ModelMetadataResponse(**document)

        return await self._admitted(described, messages.ModelMetadataResponse, grpc_context)

    async def ModelInfer(self, request: Any, grpc_context: CallContext) -> Any:
        """Answer texts."""

        async def read() -> Any:
            return request

        async def infer() -> Any:
            return await self._endpoint.answer(GrpcInference(grpc_context), read, _headers(grpc_context))

        return await self._admitted(infer, messages.ModelInferResponse, grpc_context)

    async def _admitted(
        self, method: Callable[[], Awaitable[MessageT]], empty: Callable[[], MessageT], context: CallContext
    ) -> MessageT:
        """Return a method's message, if the call has an API key where one is asked for."""
        if self._keys is not None:
            sent = [value for name, value in context.invocation_metadata() if name == "authorization"]
            try:
                self._keys.admit([value.encode() for value in sent])
            except RequestError as error:
                return fail(error, empty, context)
        return await _answer(method, empty, context)


async def _answer(
    method: Callable[[], Awaitable[MessageT]], empty: Callable[[], MessageT], context: CallContext
) -> MessageT:
    """Return a method's message, or an empty one with status and sentence of the call."""
    try:
        return await method()
    except RequestError as error:
        return fail(error, empty, context)
    except Exception as error:
        logger.error("a call failed", exc_info=error)
        return fail(RequestError("The server failed on this request; its log says why."), empty, context)


def _headers(context: CallContext) -> Mapping[str, str]:
    """Return the metadata of a call as headers; gRPC sends names in lower case."""
    return {str(name): value for name, value in context.invocation_metadata() if isinstance(value, str)}
