"""Ray's half of the server, imported without the warnings of Ray itself."""

import warnings
from typing import Any

from pydantic import PydanticDeprecatedSince20
from starlette.types import ASGIApp

with warnings.catch_warnings():
    # Ray 2.60 declares its own models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)
    from ray import exceptions as ray_exceptions
    from ray.serve import exceptions as serve_exceptions
    from ray.serve import grpc_util, schema
    from ray.serve._private import grpc_util as grpc_server
    from ray.serve._private import haproxy_templates, http_util
    from ray.serve.config import gRPCOptions

    from luthier_serving.replica import app as server
    from luthier_serving.replica import handles, local_model, metrics
    from luthier_serving.revision import application as revision


def rays_middlewares(app: ASGIApp, around: list[Any]) -> ASGIApp:
    """Return an application with what Ray puts around it, and what it is asked to put around that."""
    wrapped: ASGIApp = http_util._apply_middlewares(app, around)
    return wrapped


__all__ = [
    "gRPCOptions",
    "grpc_server",
    "grpc_util",
    "schema",
    "handles",
    "haproxy_templates",
    "local_model",
    "metrics",
    "ray_exceptions",
    "rays_middlewares",
    "revision",
    "serve_exceptions",
    "server",
]
