"""Thousands of resources: making them, and watching what becomes of them.

The watch notes when things were first seen to be so; it never writes. Times are this process's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiohttp

from benchmarks.operator_bench.plant import NAMESPACE, Plant

Seen = Callable[[str, dict[str, Any], float], None]
RESOURCES = f"/apis/luthier.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


def finetunejob(name: str, **changes: Any) -> dict[str, Any]:
    """Return a FineTuneJob of about the size that a user writes."""
    return {
        "apiVersion": "luthier.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "task": "text-classification",
            "model": {"uri": "s3://models/base/bert-base-uncased"},
            "dataset": {
                "train": {"uri": "s3://data/reviews.csv", "textColumn": "text", "labelColumn": "label"},
                "split": {"fraction": "0.1", "seed": 42},
            },
            "labels": ["negative", "positive"],
            "hyperparameters": {"epochs": 3, "learningRate": "2e-5", "batchSize": 16},
            "evaluation": {"gates": [{"metric": "eval_f1_macro", "operator": "GTE", "threshold": "0.80"}]},
            "output": {"name": name, "uri": "s3://models/", "secretRef": {"name": "s3-credentials"}},
            "ttlSecondsAfterFinished": 86400,
            **changes,
        },
    }


async def each(names: Iterable[str], act: Callable[[str], Awaitable[None]], at_once: int = 16) -> None:
    """Act on each name, so many at a time."""
    remaining = iter(names)

    async def work() -> None:
        for name in remaining:
            await act(name)

    await asyncio.gather(*(work() for _ in range(at_once)))


class Client:
    """Requests to the API server as its administrator."""

    def __init__(self, plant: Plant) -> None:
        """Connect when the first request is made."""
        site = plant.control_plane.site
        self._ssl = ssl.create_default_context(cafile=str(site.pki / "ca.crt"))
        self._ssl.load_cert_chain(site.pki / "admin.crt", site.pki / "admin.key")
        self._server = site.server

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(ssl=self._ssl, limit=0)
        self._session = aiohttp.ClientSession(self._server, connector=connector, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def create(self, manifest: dict[str, Any], path: str = RESOURCES) -> None:
        """Make an object."""
        async with self._session.post(path, json=manifest) as response:
            if response.status != 201:
                raise RuntimeError(f"{response.status}: {await response.text()}")

    async def create_all(self, names: Iterable[str], at_once: int = 16, **changes: Any) -> None:
        """Make resources as fast as the API server takes them."""
        await each(names, lambda name: self.create(finetunejob(name, **changes)), at_once)

    async def patch_status(self, path: str, status: dict[str, Any]) -> None:
        """Change fields of an object's status, as whoever owns that would."""
        headers = {"Content-Type": "application/merge-patch+json"}
        async with self._session.patch(path, data=json.dumps({"status": status}), headers=headers) as response:
            response.raise_for_status()

    async def list(self, path: str) -> dict[str, Any]:
        """Return a list of objects."""
        async with self._session.get(path) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json(loads=json.loads)
            return answer

    async def watch(self, path: str, seen: Seen) -> None:
        """Call `seen` with every event from now on, until cancelled. The API server ends a watch now and then."""
        start = await self.list(f"{path}?limit=1")
        version = start["metadata"]["resourceVersion"]
        while True:
            version = await self._watch_once(path, version, seen)

    async def _watch_once(self, path: str, version: str, seen: Seen) -> str:
        timeout = aiohttp.ClientTimeout(total=None)
        query = {"watch": "true", "resourceVersion": version}
        async with self._session.get(path, params=query, timeout=timeout, read_bufsize=2**22) as response:
            response.raise_for_status()
            rest = b""
            async for chunk in response.content.iter_any():
                now = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch of {path} broke: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    seen(event["type"], event["object"], now)
        return version


class Watches:
    """Watches that run beside what is measured; their failure is the case's failure."""

    def __init__(self, client: Client) -> None:
        """None runs yet."""
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Watches:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, path: str, seen: Seen) -> None:
        """Watch from now on."""
        self._tasks.append(asyncio.create_task(self._client.watch(path, seen)))

    async def until(
        self, done: Callable[[], bool], what: str, timeout_s: float, told: Callable[[], object] = lambda: ""
    ) -> None:
        """Return when `done` says so."""
        deadline = time.monotonic() + timeout_s
        report = time.monotonic() + 15
        while not done():
            for task in self._tasks:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} took longer than {timeout_s:.0f} s: {told()}")
            if time.monotonic() > report:
                report += 15
                print(f"    … {what}: {told()}", flush=True)
            await asyncio.sleep(0.05)


async def paced(count: int, per_second: float, make: Callable[[int], Awaitable[None]]) -> None:
    """Call `make` at an even pace, and never wait for one before the next is due."""
    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / per_second - time.monotonic()))
            group.create_task(_run(make, number))


async def _run(make: Callable[[int], Awaitable[None]], number: int) -> None:
    await make(number)
