"""How many replicas Ray Serve keeps, and what becomes of requests while it keeps none.

With `minReplicas: 0` a server sleeps: no replica, no worker's pod, only the head. Requests then reach the proxy on the
head, which holds them until a replica has started; of more than `maxQueuedRequests` it turns the rest away. A server
is kept awake, with one replica at least, until its revision has answered, and while anything about it changes: so a
version that does not load is found when it comes, and not by the first request of the morning.
"""

import json
from typing import Any

from luthier_api.modeldeployment import ModelDeploymentSpec

HELD_RETRY_S = 5
METRICS_INTERVAL_S = 1


def may_sleep(spec: ModelDeploymentSpec) -> bool:
    """Return whether the server may have no replica."""
    return spec.autoscaling is not None and spec.autoscaling.min_replicas == 0


def scale(spec: ModelDeploymentSpec, *, awake: bool) -> dict[str, Any]:
    """Return the options that scale a deployment; in `args` a change of them would replace the replicas.

    Not `initial_replicas`: Ray Serve goes back to that many whenever the user_config changes, whatever the load.
    """
    if spec.autoscaling is None:
        return {"num_replicas": spec.replicas or 1}
    scaling = spec.autoscaling
    return {
        "autoscaling_config": {
            "min_replicas": max(scaling.min_replicas, int(awake)),
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_ongoing_requests,
            "upscale_delay_s": scaling.upscale_delay_seconds,
            "downscale_delay_s": scaling.downscale_delay_seconds,
            # Ray Serve hears of the first request only so often: by default every 10 s.
            **({"metrics_interval_s": METRICS_INTERVAL_S} if may_sleep(spec) else {}),
        }
    }


def hold(spec: ModelDeploymentSpec) -> dict[str, Any]:
    """Return the options that bound what the proxy holds while there is no replica.

    A replica admits by its own limits, and never has requests wait for Ray Serve's.
    """
    if not may_sleep(spec):
        return {}
    return {
        "max_queued_requests": spec.runtime.max_queued_requests,
        "backpressure_config": {"status_code": 503, "retry_after_s": HELD_RETRY_S},
    }


def is_awake(serve_config: str, server: str) -> bool:
    """Return whether a serveConfigV2 keeps at least one replica of this application."""
    for entry in json.loads(serve_config)["applications"] if serve_config else []:
        if entry["name"] == server:
            scaling = entry["deployments"][0].get("autoscaling_config")
            return scaling is None or int(scaling["min_replicas"]) > 0
    return True
