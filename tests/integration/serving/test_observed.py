"""What is seen of a server on a real Ray: spans at a collector, the request log in a real S3, drift, and metrics."""

from __future__ import annotations

import gzip
import json
import shutil
import urllib.request
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from luthier_api.artifact_files import REFERENCE_FILE
from luthier_api.documents import (
    Access,
    DriftConfig,
    ObserveConfig,
    Profile,
    ReferenceDocument,
    RequestLogConfig,
    RevisionConfig,
    Route,
    ServerConfig,
    TracingConfig,
)
from luthier_artifacts import PublishedVersion, open_store
from support.serving.otlp import Collector, collector

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

REFERENCE = ReferenceDocument(
    label_names=["negative", "positive"],
    unknown_token_id=1,
    profile=Profile(texts=100, labels=[50, 50, 0], tokens=[0, 0, 0, 100, *[0] * 10], unknown=[100, *[0] * 7]),
)
REQUESTS = 40


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def with_reference(models: Any, tmp_path_factory: pytest.TempPathFactory) -> PublishedVersion:
    """The first model as the trainer publishes it, with its reference."""
    folder = tmp_path_factory.mktemp("referenced") / "artifact"
    shutil.copytree(models.folder, folder)
    (folder / REFERENCE_FILE).write_text(REFERENCE.to_json())
    published: PublishedVersion = models.publish("reviews", folder)
    return published


class Deployed:
    """A stable revision and a canary that each have half of the requests, on one Ray."""

    def __init__(self, ray: Any, models: Any, version: PublishedVersion) -> None:
        self.ray, self.first = ray, models.revision("seen-1", version)
        self.second: RevisionConfig = models.revision("seen-2", version)

    def deploy(self, observe: ObserveConfig | None) -> None:
        config = ServerConfig(
            model_name="reviews",
            stable=self.first,
            routes=[
                Route(revision="seen-1", version=self.first.version, weight=50),
                Route(revision="seen-2", version=self.second.version, weight=50, own_application=True),
            ],
            observe=observe,
        )
        self.ray.deploy(config, self.second)
        for name in ("server", "seen-2"):
            self.ray.wait_for(name, "RUNNING")
        self.ray.wait_until(lambda: (self.ray.report().drift is not None) == (observe is not None), 60)

    async def ask(self, session: aiohttp.ClientSession, text: str, request_id: str, **headers: str) -> None:
        given = {"X-Request-Id": request_id, **headers}
        async with session.post(f"{self.ray.url}/predict", json={"text": text}, headers=given) as reply:
            assert reply.status == 200, await reply.text()

    def remove(self) -> None:
        """Take all applications away, as KubeRay does when the cluster ends."""
        self.ray._dashboard_request("PUT", json.dumps({"applications": []}).encode())


def observe(received: Collector, uri: str, endpoint: str, **log: Any) -> ObserveConfig:
    settings = {"access": Access(endpoint=endpoint, credentials="log"), "share": 1.0, "flush_s": 3600.0}
    return ObserveConfig(
        namespace="team",
        drift=DriftConfig(window_s=3600),
        tracing=TracingConfig(endpoint=received.endpoint, share=1.0),
        request_log=RequestLogConfig(uri=uri, **(settings | log)),
    )


def read_log(uri: str, config: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the keys and the lines of a log, as anybody reads it from S3."""
    store = open_store(uri, config)
    keys = [each.key for each in store.list()]
    return keys, [json.loads(line) for key in keys for line in gzip.decompress(store.read(key)[0]).splitlines()]


async def test_requests_are_seen_from_the_caller_to_the_canary_and_read_back(
    ray: Any, models: Any, s3: Any, received: Collector, with_reference: PublishedVersion
) -> None:
    uri, deployed = s3.fresh_uri(), Deployed(ray, models, with_reference)
    deployed.deploy(None)
    deployed.deploy(observe(received, uri, models.access.endpoint))  # live: no replica is replaced
    caller = "0af7651916cd43dd8448eb211c80319c"
    async with aiohttp.ClientSession() as session:
        for number in range(REQUESTS):
            await deployed.ask(session, "the film was good", f"id-{number}")
        await deployed.ask(session, "bad", "traced", traceparent=f"00-{caller}-b7ad6b7169203331-01")

    # Spans: each request's, of both revisions, with what the canary did in its own process.
    predicts = received.wait_for("predict", REQUESTS + 1)
    batches = received.wait_for("batch", REQUESTS + 1)
    assert {span.attributes["luthier.revision"] for span in predicts} == {"seen-1", "seen-2"}
    replicas = {span.attributes["luthier.revision"]: span.attributes["luthier.replica"] for span in batches}
    assert replicas["seen-1"] != replicas["seen-2"]
    by_id = {span.id: span for span in received.spans}
    for name in ("tokenize", "compute"):
        parents = [by_id[span.parent] for span in received.wait_for(name, REQUESTS + 1)]
        assert {span.name for span in parents} == {"batch"}
        assert {span.attributes["luthier.revision"] for span in parents} == {"seen-1", "seen-2"}
    [mine] = [span for span in predicts if span.trace == caller]
    assert mine.parent == "b7ad6b7169203331" and mine.attributes["luthier.request_id"] == "traced"
    assert mine.resource["service.name"] == "team/reviews"

    # Drift: of each revision by its own reference, which the canary's process was asked for.
    def counted() -> Any:
        found = ray.report().drift or {}
        texts = sum(each.recent.texts for each in found.values())
        return found if set(found) == {"seen-1", "seen-2"} and texts == REQUESTS + 1 else None

    found = ray.wait_until(counted, 30)
    assert all(each.reference == REFERENCE for each in found.values())
    assert sum(each.recent.unknown[0] for each in found.values()) == REQUESTS + 1

    # Metrics: where Ray's are.
    def scraped() -> str:
        with urllib.request.urlopen(ray.metrics_url, timeout=5) as reply:
            text: str = reply.read().decode()
        return text if "ray_luthier_drift_psi" in text else ""

    text = ray.wait_until(scraped, 60)
    for name in ("stage_seconds_bucket", "batch_tokens_bucket", "queue_texts", "queue_oldest_seconds", "drift_texts"):
        assert f"ray_luthier_{name}" in text, name
    for stage in ("queue", "tokenize", "compute", "total"):
        assert f'stage="{stage}"' in text
    assert f'version="{with_reference.version}"' in text

    # The log: nothing yet, all of it when the replica ends.
    assert read_log(uri, models.storage) == ([], [])
    deployed.remove()
    keys, lines = ray.wait_until(lambda: found if (found := read_log(uri, models.storage))[0] else None, 60)
    assert all(key.startswith("team/reviews/") and key.endswith(".jsonl.gz") for key in keys)
    assert {line["requestId"] for line in lines} == {f"id-{number}" for number in range(REQUESTS)} | {"traced"}
    assert {line["revision"] for line in lines} == {"seen-1", "seen-2"}
    assert all(line["prediction"] in ("negative", "positive") and 0.5 <= line["confidence"] <= 1 for line in lines)
    assert all(line["tokens"] > 2 and line["latencyMs"] > 0 and "text" not in line for line in lines)


async def test_a_log_that_storage_refuses_fails_no_request(
    ray: Any, models: Any, s3: Any, received: Collector, with_reference: PublishedVersion
) -> None:
    uri, deployed = s3.fresh_uri(), Deployed(ray, models, with_reference)
    may_only_read = Access(endpoint=models.access.endpoint, credentials="output")
    deployed.deploy(observe(received, uri, models.access.endpoint, access=may_only_read, flush_s=0.1))
    async with aiohttp.ClientSession() as session:
        for number in range(REQUESTS):
            await deployed.ask(session, "the film was good", f"id-{number}")
    deployed.remove()
    assert read_log(uri, models.storage) == ([], [])
