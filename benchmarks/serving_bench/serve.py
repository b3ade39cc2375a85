"""Ray Serve applications on a real Ray of their own, configured over the dashboard as KubeRay does it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

from benchmarks.serving_bench import usage
from luthier_dev.waiting import wait_until
from support.serving.local_ray import LocalRay

_TIMEOUT_S = 180.0


@contextmanager
def ray_serve(name: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    """Start Ray, move it to the server's core, put a Serve config, and give its URL; end Ray at the end.

    On one core that others use too, Ray's own start takes longer than it allows. Replicas and HAProxy come after it.

    Args:
        name: of the side.
        config: a Serve config; where it listens is set here.
        environment: additions to the environment of every process.
    """
    ray = LocalRay(extra_env={**environment, **usage.mark(name)})
    try:
        with usage.on_cores(usage.SERVER_CORE, usage.LOAD_CORE):
            ray.launch()
        ray.wait_started()
        usage.pin(usage.SERVER_CORE)
        http = {**config.get("http_options", {}), "host": "127.0.0.1", "port": ray.http_port}
        wait_until(lambda: _put(ray, {**config, "http_options": http}), f"{name}'s dashboard", _TIMEOUT_S)
        for application in config["applications"]:
            found = ray.wait_for(application["name"], "RUNNING", "DEPLOY_FAILED", timeout_s=_TIMEOUT_S)
            if found["status"] != "RUNNING":
                raise SystemExit(f"{name}: {application['name']} does not start: {found['message']}")
        yield ray.url
    finally:
        ray.stop()


def _put(ray: LocalRay, config: Mapping[str, Any]) -> str | None:
    """Return why the dashboard, which has just started, did not take the config."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {ray.token}"}
    request = urllib.request.Request(ray.dashboard_url, json.dumps(config).encode(), headers, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return None
    except (OSError, HTTPException) as error:
        return str(error)
