"""The application that owns `/` for good: HTTP on one side, revisions by handle on the other.

`app` is the builder that Ray Serve imports. It takes no args, because changed args would replace the replica. All that
may change is the user_config, a `FrontConfig`, which Ray passes to `reconfigure` without a restart. It runs on the head
node, which the autoscaler never removes, and requests no CPU there.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.applications import Starlette

from luthier_api.documents import FrontConfig
from luthier_api.reasons import Reason
from luthier_serving.answers import ModelInfo
from luthier_serving.errors import LoadError, Unavailable
from luthier_serving.replica.handles import RevisionClient
from luthier_serving.replica.http import build_http
from luthier_serving.replica.metrics import FrontMetrics
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.revision_queue import SendBatch

DEPLOYMENT = "Front"
READY_TIMEOUT_S = 3.0
# The predictor limits requests, with 503 and Retry-After; Ray's own limit would put an unbounded queue before it.
UNLIMITED_REQUESTS = 1_000_000

logger = logging.getLogger("ray.serve")


class FrontReplica:
    """One process that answers HTTP."""

    def __init__(self) -> None:
        self._clients: dict[str, RevisionClient] = {}
        self._metrics = FrontMetrics()
        self._predictor = Predictor(self._connect, self._metrics.observe_batch)

    def __serve_build_asgi_app__(self) -> Starlette:
        return build_http(self._predictor, self._metrics, self._ready)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Apply a `FrontConfig` in its wire form.

        Unknown fields are ignored with a warning: an operator that is upgraded first must not bring down a server whose
        image is older.
        """
        known = {field.alias or name for name, field in FrontConfig.model_fields.items()}
        for name in sorted(set(user_config) - known):
            logger.warning("ignored the field %r of the configuration, which this server does not know", name)
        config = FrontConfig.model_validate({name: user_config[name] for name in user_config if name in known})
        self._predictor.configure(config)
        live = {route.revision for route in config.routes}
        self._clients = {name: client for name, client in self._clients.items() if name in live}
        logger.info("routes: %s", ", ".join(f"{route.revision}={route.weight}" for route in config.routes) or "none")

    def _connect(self, revision: str) -> SendBatch:
        return self._clients.setdefault(revision, RevisionClient(revision)).predict

    async def _ready(self) -> ModelInfo:
        """Return the model of the first revision that has weight and answers.

        Raises:
            Unavailable: there is none.
        """
        for route in self._predictor.config.routes:
            if route.weight == 0:
                continue
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    return await self._clients[route.revision].describe()
            except (Unavailable, TimeoutError):
                continue
        raise Unavailable("No model answers yet; try again later.")


def app(args: Mapping[str, Any]) -> Application:
    """Build the front.

    Args:
        args: must be empty.

    Raises:
        LoadError: they are not.
    """
    if args:
        raise LoadError(Reason.CONFIG_ERROR, f"The front takes no args but got {sorted(args)}; use its user_config.")
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=1,
        max_ongoing_requests=UNLIMITED_REQUESTS,
        max_surge_percent=100,
        ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
        health_check_period_s=5,
    )
    return deployment(serve.ingress()(FrontReplica)).bind()
