"""What Prometheus sees of a real server that has answered requests: the dashboards are tried on this."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

import pytest

from luthier_api.documents import Route, ServerConfig
from support.scrapes import compare

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_a_server_at_work_exports_what_the_dashboards_were_tried_on(ray: Any, models: Any) -> None:
    revision = models.revision("rev-1", models.first)
    routes = [Route(revision="rev-1", version=models.first.version, weight=100, own_application=False)]
    ray.deploy(ServerConfig(model_name="reviews", stable=revision, routes=routes))
    ray.wait_for("server", "RUNNING")
    ray.wait_until(lambda: ray.served_version() == models.first.version, 30)
    for body in ({"text": "good"}, {"texts": ["good", "bad"]}, {"text": ""}):
        request = urllib.request.Request(f"{ray.url}/predict", json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=10).close()

    def scraped() -> str:
        with urllib.request.urlopen(ray.metrics_url, timeout=5) as reply:
            text: str = reply.read().decode()
        counted = "ray_luthier_batch_texts_bucket" in text and "ray_luthier_request_seconds_bucket" in text
        return text if counted and 'code="422"' in text else ""

    compare("serving", ray.wait_until(scraped, 60))
