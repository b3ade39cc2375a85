"""Registers `inference.GRPCInferenceService` with a gRPC server. Imports little: Ray's proxies do it too."""

from typing import Any

import grpc

from luthier_serving.replica.protocols import open_inference_pb2 as messages

SERVICE = "inference.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")


def add_inference_service(servicer: Any, server: Any) -> None:
    """Register the service.

    Args:
        servicer: has the methods; Ray Serve gives one of its own, which brings each call to a replica.
        server: a gRPC server.
    """
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=getattr(messages, f"{name}Request").FromString,
            response_serializer=getattr(messages, f"{name}Response").SerializeToString,
        )
        for name in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
