"""Adapters that come and go, and a server that sleeps, on a real Ray under requests."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest

from luthier_api.documents import AdapterConfig, RevisionConfig, Route, ServerConfig
from support.serving.adapted import make_adapted
from support.serving.local_ray import LocalRay

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LABELS = {"colours": ("red", "green", "blue"), "topics": ("films", "books")}


@pytest.fixture(scope="module")
def adapters(models: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterConfig]:
    """Versions of LoRA over the first model, in the registry."""
    found, folder = {}, tmp_path_factory.mktemp("adapted")
    for seed, (name, labels) in enumerate(LABELS.items(), start=99):
        version = models.publish(name, make_adapted(models.folder, folder / name, *labels, seed=seed))
        digest = version.manifest.digest
        found[name] = AdapterConfig(name=name, uri=version.uri, version=version.version, digest=digest)
    return found


def server_config(stable: RevisionConfig, *adapters: AdapterConfig) -> ServerConfig:
    routes = [Route(revision=stable.name, version=stable.version, weight=100)]
    return ServerConfig(model_name="reviews", stable=stable, routes=routes, adapters=list(adapters) or None)


class Asking:
    """Sends a text to models again and again, while its block lasts."""

    def __init__(self, url: str, *models: str) -> None:
        self.url, self.models = url, models
        self.answers: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []

    async def __aenter__(self) -> Asking:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90))
        self._tasks = [asyncio.create_task(self._ask(model)) for model in self.models]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def post(self, model: str) -> tuple[int, Any]:
        async with self._session.post(f"{self.url}/predict", json={"text": "good film", "model": model}) as reply:
            return reply.status, await reply.json()

    async def _ask(self, model: str) -> None:
        labels = LABELS.get(model.partition(":")[2], ("negative", "positive"))
        while True:
            status, document = await self.post(model)
            self.answers[model, status] += 1
            if status != 200 or document["prediction"] not in labels:
                self.wrong.append(f"{model}: {status} {document}")
            await asyncio.sleep(0.01)

    async def until(self, condition: Any) -> None:
        await asyncio.to_thread(LocalRay.wait_until, condition, 120)


async def test_an_adapter_is_added_and_removed_under_requests_and_none_fails(
    ray: Any, models: Any, adapters: dict[str, AdapterConfig]
) -> None:
    colours, topics = adapters["colours"], adapters["topics"]
    stable = models.revision("rev-torch", models.first, engine="torch")
    ray.deploy(server_config(stable, colours))

    def ready(*names: str) -> bool:
        report = ray.report()
        adapters = [(each.name, each.state) for each in report.adapters] == [(name, "Ready") for name in names]
        return adapters and [model.revision for model in report.models] == [stable.name]

    await asyncio.to_thread(ray.wait_until, lambda: ready("colours"), 60)
    async with Asking(ray.url, "reviews", "reviews:colours") as asking:
        await asking.until(lambda: asking.answers["reviews:colours", 200] > 20)
        assert (await asking.post("reviews:topics"))[0] == 404
        ray.deploy(server_config(stable, colours, topics))
        await asking.until(lambda: ready("colours", "topics"))
        status, document = await asking.post("reviews:topics")
        assert status == 200 and document["version"] == topics.version
        ray.deploy(server_config(stable, colours))
        await asking.until(lambda: ready("colours"))
        status, document = await asking.post("reviews:topics")
        assert (status, document["error"]) == (
            404,
            "There is no model 'reviews:topics' here; this server has 'reviews' and 'reviews:colours'.",
        )
    assert asking.wrong == []
    print(dict(asking.answers))


@pytest.mark.slow
async def test_requests_to_a_server_without_a_replica_are_held_until_one_has_started(ray: Any, models: Any) -> None:
    stable = models.revision("rev-zero", models.first)
    scaling = {"min_replicas": 0, "max_replicas": 2, "target_ongoing_requests": 8, "downscale_delay_s": 1}
    ray.deploy(server_config(stable), autoscaling_config=scaling, max_queued_requests=8)
    ray.wait_for("server", "RUNNING")

    def replicas() -> int:
        return len(ray.applications()["server"]["deployments"]["Server"]["replicas"])

    async with Asking(ray.url, *["reviews"] * 4) as asking:
        await asking.until(lambda: asking.answers["reviews", 200] > 20)
    assert asking.wrong == []
    await asking.until(lambda: replicas() == 0)
    began = time.monotonic()
    async with Asking(ray.url, *["reviews"] * 4) as asking:
        await asking.until(lambda: asking.answers["reviews", 200] > 0)
        print(f"the first answer after {time.monotonic() - began:.1f} s")
        await asking.until(lambda: asking.answers["reviews", 200] > 20)
    assert asking.wrong == []
