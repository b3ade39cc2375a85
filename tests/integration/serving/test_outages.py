"""What must not fail a request of the real server: a canary that hangs, storage that is away, other clients' lists."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.faulty_s3 import FaultyServer
from support.serving.artifact import hanging
from support.serving.local_ray import LocalRay, server_config
from support.serving.steady import Steady

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LIST = {"texts": ["the film was good", "the film was bad"] * 500}


def holds(ray: LocalRay, revision: str, routed: int = 1) -> bool:
    """Whether the replica computes a revision, and no application but so many is there."""
    models = [(model.revision, model.state) for model in ray.report().models]
    return models == [(revision, "Ready")] and len(ray.applications()) == routed


async def ask(session: aiohttp.ClientSession, ray: LocalRay, document: object) -> tuple[int, float]:
    """Return the status of an answer, and after how many seconds it came."""
    began = time.monotonic()
    async with session.post(f"{ray.url}/predict", json=document) as reply:
        await reply.read()
        return reply.status, time.monotonic() - began


async def test_a_canary_that_hangs_costs_no_answer_and_soon_no_time(ray: Any, models: Any, tmp_path: Path) -> None:
    hangs = models.revision("hangs", models.publish("reviews", hanging(models.folder, tmp_path / "hanging")))
    stable = models.revision("rev-1", models.first)
    half = server_config(stable, (hangs, 50), request_timeout_s=8, window="hangs/0")
    await asyncio.to_thread(ray.deploy, half, hangs)
    await asyncio.to_thread(ray.wait_for, "hangs", "RUNNING")
    await asyncio.to_thread(ray.wait_until, lambda: ray.report().window == "hangs/0", 60)
    async with aiohttp.ClientSession() as session:
        while ray.report().counts.get("hangs") is None:
            assert (await ask(session, ray, {"text": "good"}))[0] == 200
        at_once = await asyncio.gather(*(ask(session, ray, {"text": "bad"}) for _ in range(40)))
        later = [await ask(session, ray, {"text": "bad"}) for _ in range(40)]
    counts = (await asyncio.to_thread(ray.report)).counts
    [replica] = ray.applications()["hangs"]["deployments"]["Revision"]["replicas"]
    os.kill(replica["pid"], signal.SIGKILL)
    death = await asyncio.to_thread(ray.wait_until, lambda: ray.report().deaths.get("hangs"), 60)
    await asyncio.to_thread(ray.deploy, server_config(stable))
    await asyncio.to_thread(ray.wait_until, lambda: holds(ray, "rev-1"), 60)
    assert {status for status, _ in (*at_once, *later)} == {200}
    assert "died" in death, "in the words of Ray, which the operator is told"
    slowest_s = max(took_s for _, took_s in at_once)
    print(f"    slowest while it hangs {slowest_s:.1f} s, then {max(took_s for _, took_s in later):.2f} s")
    assert 1.9 < slowest_s < 6, "a quarter of the time: until then the canary might still have answered"
    assert max(took_s for _, took_s in later) < 1.5
    assert counts["hangs"].errors >= 40 and counts["rev-1"].errors == 0


async def test_a_replica_that_is_killed_while_storage_is_away_starts_from_the_pods_cache(
    ray: Any, models: Any, faulty_server: FaultyServer
) -> None:
    access = models.access.model_copy(update={"endpoint": faulty_server.endpoint})
    away = models.revision("away", models.first, access=access)
    await asyncio.to_thread(ray.deploy, server_config(away))
    await asyncio.to_thread(ray.wait_until, lambda: holds(ray, "away"), 60)
    [before] = ray.applications()["server"]["deployments"]["Server"]["replicas"]
    faulty_server.close()  # nothing listens there any more
    async with Steady(ray.url, per_second=10) as steady:
        os.kill(before["pid"], signal.SIGKILL)
        await asyncio.to_thread(ray.wait_until, lambda: served_by_another(ray, before["pid"]), 90)
        while len(steady.seconds) < 50:
            await asyncio.sleep(0.1)
    print(f"    {steady}; slowest {max(steady.seconds):.1f} s")
    assert steady.failures == []


def served_by_another(ray: LocalRay, pid: int) -> bool:
    """Whether another process than this holds the model and answers."""
    running = [each.get("pid") for each in ray.applications()["server"]["deployments"]["Server"]["replicas"]]
    return running not in ([pid], [], [None]) and ray.served_version() is not None and holds(ray, "away")


async def test_single_texts_beside_three_clients_with_lists_of_a_thousand_wait_for_a_batch_or_two(
    ray: Any, models: Any
) -> None:
    await asyncio.to_thread(ray.deploy, server_config(models.revision("rev-1", models.first)))
    await asyncio.to_thread(ray.wait_until, lambda: holds(ray, "rev-1"), 60)
    statuses: list[int] = []
    stop = asyncio.Event()

    async def bulk(session: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            statuses.append((await ask(session, ray, LIST))[0])

    async with aiohttp.ClientSession() as session:
        alone = [(await ask(session, ray, {"text": "bad"}))[1] for _ in range(40)]
        clients = [asyncio.create_task(bulk(session)) for _ in range(3)]
        while not statuses:
            await asyncio.sleep(0.01)
        singles = [await ask(session, ray, {"text": "bad"}) for _ in range(80)]
        stop.set()
        await asyncio.gather(*clients)
    beside_s, alone_s = statistics.median(took_s for _, took_s in singles), statistics.median(alone)
    print(f"    p50 alone {alone_s * 1000:.0f} ms, beside {len(statuses)} lists {beside_s * 1000:.0f} ms")
    assert set(statuses) == {200} and {status for status, _ in singles} == {200}
    assert beside_s < 0.25, "one batch that runs and one of its own, of 50 ms each, on a machine with other work"
