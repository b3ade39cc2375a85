"""The server: the application that owns `/` for good. A replica is HTTP, queue and the stable revision in one process.

`app` is the builder that Ray Serve imports. Its args hold only what shapes the replica's process, because changed args
replace it. All that may change is the user_config, a `ServerConfig`, which Ray passes to `reconfigure` without a
restart: weights, limits, and the stable revision itself, which is loaded in the background.

A new revision first runs as an application of its own (`luthier_serving.revision`), so that one that crashes its
process never takes this one along.
"""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from starlette.applications import Starlette

from luthier_api.documents import (
    API_KEYS_DIR,
    SERVER_REPORT_PORT,
    ApiKeysState,
    ReferenceDocument,
    ReplicaStart,
    ServerConfig,
    ServerReport,
)
from luthier_api.keys import digest_of
from luthier_api.reasons import Reason
from luthier_serving.answers import ModelInfo
from luthier_serving.compute.loading import load_model
from luthier_serving.errors import LoadError, Unavailable
from luthier_serving.observe.observing import Observing
from luthier_serving.replica.access import ApiKeys
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.discovery import Discovery
from luthier_serving.replica.endpoint import Endpoint
from luthier_serving.replica.grpc_service import InferenceService
from luthier_serving.replica.handles import RevisionClient
from luthier_serving.replica.http import build_http
from luthier_serving.replica.local_model import LocalModel
from luthier_serving.replica.metrics import ServerMetrics
from luthier_serving.replica.predictor import Predictor, Target
from luthier_serving.replica.report import oom_kills, serve_report

DEPLOYMENT = "Server"
READY_TIMEOUT_S = 3.0
# The predictor limits requests, with 503 and Retry-After; Ray's own limit would put an unbounded queue before it.
UNLIMITED_REQUESTS = 1_000_000
PORT_ENV = "LUTHIER_REPORT_PORT"
API_KEYS_ENV = "LUTHIER_API_KEYS_DIR"

logger = logging.getLogger("ray.serve")


class ServerReplica(InferenceService):
    """One process that answers HTTP and computes the stable revision."""

    def __init__(self, *, api_keys: bool = False) -> None:
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._config = ServerConfig(model_name="none")
        self._clients: dict[str, RevisionClient] = {}
        self._metrics = ServerMetrics()
        self._counters = Counters()
        self._observing = Observing(self._metrics, self._replica, lambda: self._predictor.queues(), self._reference)
        self._predictor = Predictor(self._counters, self._metrics.observe_batch, self._observing.observer)
        self._local = LocalModel(load_model, self._replica, self._route, self._predictor.drain)
        self._endpoint = Endpoint(self._predictor, self._metrics)
        self._discovery = Discovery(self._predictor, self._ready)
        self._report_site: Any = None
        self._began = time.time()
        self._start: ReplicaStart | None = None
        self._keys = ApiKeys(Path(os.environ.get(API_KEYS_ENV, API_KEYS_DIR))) if api_keys else None
        self._http = build_http(self._predictor, self._metrics, self._ready, self._keys)

    def __serve_build_asgi_app__(self) -> Starlette:
        return self._http

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Apply a `ServerConfig` in its wire form; the first time, wait until its stable revision is loaded.

        Unknown fields are ignored with a warning: an operator that is upgraded first must not bring down a server whose
        image is older.

        Raises:
            LoadError: the first stable revision cannot be loaded.
        """
        known = {field.alias or name for name, field in ServerConfig.model_fields.items()}
        for name in sorted(set(user_config) - known):
            logger.warning("ignored the field %r of the configuration, which this server does not know", name)
        self._config = ServerConfig.model_validate({name: user_config[name] for name in user_config if name in known})
        self._http.configure(self._config)
        stable = self._config.stable
        elsewhere = {route.revision for route in self._config.routes if route.own_application}
        self._clients = {name: self._clients.get(name) or RevisionClient(name) for name in elsewhere}
        await self._observing.apply(self._config)
        adapters = self._config.adapters or ()
        self._local.want(stable, elsewhere=stable is not None and stable.name in elsewhere, adapters=adapters)
        self._route()
        if self._report_site is None:
            # Before the model is there, so that whoever asks is told why it is not.
            self._report_site = await serve_report(self._report, int(os.environ.get(PORT_ENV, SERVER_REPORT_PORT)))
            await self._local.wait()
            self._start = self._measured_start()

    async def check_health(self) -> None:
        """Have Ray Serve replace this replica if its model hangs.

        Raises:
            RuntimeError: it computes one batch for longer than anybody waits for an answer.
        """
        held = self._local.held
        if held and held.computing_s > self._config.request_timeout_s:
            raise RuntimeError(f"the model has been computing one batch for {held.computing_s:.0f} s")

    def _route(self) -> None:
        """Send requests to what is there now."""
        held = self._local.held
        stable = self._config.stable.name if self._config.stable else None
        targets = []
        for route in self._config.routes:
            if held and route.revision == held.revision:
                targets.append(Target(held.revision, route.weight, True, held.send, held.info))
            elif route.own_application:
                client = self._clients[route.revision]
                targets.append(Target(route.revision, route.weight, False, client.predict))
            elif held and route.revision == stable:
                # The revision before it answers until it is loaded.
                targets.append(Target(held.revision, route.weight, True, held.send, held.info))
        versions = {route.revision: route.version for route in self._config.routes}
        self._metrics.versions = versions | ({held.revision: held.info.version} if held else {})
        self._predictor.configure(self._config, targets)
        text = ", ".join(f"{each.revision}={each.weight}{'' if each.local else ' by handle'}" for each in targets)
        logger.info("routes: %s", text or "none")

    async def _ready(self, version: str | None = None, adapter: str | None = None) -> ModelInfo:
        """Return the model of the first revision that has weight and answers; if a version is named, of that one.

        Args:
            version: of the model.
            adapter: what this adapter makes of it is returned instead.

        Raises:
            Unavailable: there is none.
        """
        held = self._local.held
        for route in sorted(self._config.routes, key=lambda route: -route.weight):
            if route.weight == 0 or version not in (None, route.version):
                continue
            if held and (held.revision == route.revision or not route.own_application):
                return held.info if adapter is None else held.info_of(adapter)
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    return await self._clients[route.revision].describe(adapter)
            except (KeyError, Unavailable, TimeoutError):
                continue
        raise Unavailable("No model answers yet; try again later.")

    def _report(self) -> ServerReport:
        return ServerReport(
            replica=self._replica,
            ready=self._predictor.ready,
            config=digest_of(self._config.to_wire()),
            window=self._counters.window,
            models=self._local.states(),
            counts=self._counters.report(),
            pending=self._predictor.pending,
            adapters=self._local.held.adapters() if self._local.held else [],
            start=self._start,
            api_keys=self._api_keys(),
            drift=self._observing.report(),
            deaths={name: client.death for name, client in self._clients.items() if client.death},
            oom_kills=oom_kills(),
        )

    def _measured_start(self) -> ReplicaStart | None:
        times = self._local.held.times if self._local.held else None
        if times is None:
            return None
        return ReplicaStart(began=self._began, ready=time.time(), download_s=times.download_s, load_s=times.load_s)

    def _api_keys(self) -> ApiKeysState | None:
        if self._keys is None:
            return None
        self._keys.refresh()
        return self._keys.state

    async def _reference(self, revision: str) -> ReferenceDocument | None:
        """Return what the texts of a revision's training look like.

        Raises:
            KeyError, Unavailable: it is not there yet.
        """
        held = self._local.held
        if held and held.revision == revision:
            return held.reference
        return await self._clients[revision].reference()

    def __del__(self) -> None:
        # Ray calls it when a replica ends, after its last request.
        if observing := self.__dict__.get("_observing"):
            observing.close()


def app(args: Mapping[str, Any]) -> Application:
    """Build the server.

    Args:
        args: `{"gpusPerReplica": <number>}`, and `"apiKeys": true` if a request must carry an API key.

    Raises:
        LoadError: they are something else.
    """
    unknown = sorted(set(args) - {"gpusPerReplica", "apiKeys"})
    if unknown:
        text = f"The server takes gpusPerReplica and apiKeys but got {unknown}; the rest is its user_config."
        raise LoadError(Reason.CONFIG_ERROR, text)
    try:
        return serve.deployment(**deployment_options(int(args.get("gpusPerReplica", 0))))(
            serve.ingress()(ServerReplica)
        ).bind(**({"api_keys": True} if args.get("apiKeys") else {}))
    except (TypeError, ValueError, ValidationError) as error:
        raise LoadError(Reason.CONFIG_ERROR, f"The args of the server cannot be used: {error}") from None


def deployment_options(gpus: int) -> dict[str, Any]:
    """Return the Ray Serve options of the server's deployment, for this number of GPUs per replica."""
    return {
        "name": DEPLOYMENT,
        "max_ongoing_requests": UNLIMITED_REQUESTS,
        "max_replicas_per_node": 1,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": gpus},
        "graceful_shutdown_timeout_s": 20,
        "health_check_period_s": 5,
    }
