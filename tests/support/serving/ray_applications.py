"""Ray's half of the server, imported without the warnings of Ray itself."""

import warnings

from pydantic import PydanticDeprecatedSince20

with warnings.catch_warnings():
    # Ray 2.60 declares its own models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)
    from ray import exceptions as ray_exceptions
    from ray.serve import exceptions as serve_exceptions
    from ray.serve import grpc_util, schema
    from ray.serve._private import grpc_util as grpc_server
    from ray.serve.config import gRPCOptions

    from luthier_serving.replica import app as server
    from luthier_serving.replica import handles, local_model, metrics
    from luthier_serving.revision import application as revision

__all__ = [
    "gRPCOptions",
    "grpc_server",
    "grpc_util",
    "schema",
    "handles",
    "local_model",
    "metrics",
    "ray_exceptions",
    "revision",
    "serve_exceptions",
    "server",
]
