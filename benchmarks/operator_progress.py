"""Measures what it costs to ask running training pods how far they are: the operator's CPU, its requests, its writes.

`python -m benchmarks.operator_progress` brings up a real API server and makes the resources; kwok plays the pods, and
this process answers for each of them at a loopback address of its own. Three stretches of the same length:

    every step   each answer shows another step, so each ends in a write of the status
    standstill   only speed and time left change: nothing is to be written
    some hang    as `standstill`, and a fifth of the pods never answer
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.operator_bench.contenders import US, Contender, log_folder
from benchmarks.operator_bench.load import PODS, Client, Watches
from benchmarks.operator_bench.plant import Plant, tally
from luthier_api.documents import TRAINER_PORT, ProgressDocument

PATH = Path(__file__).parent / "results" / "operator-progress.json"
INTERVAL_S = 10.0
_TIMEOUT_S = 900.0
Sample = dict[str, Any]


class Trainings:
    """The endpoints of many training pods, each at a loopback address of its own."""

    def __init__(self, count: int) -> None:
        """Nothing listens yet."""
        self.addresses = [f"127.70.{number // 250}.{number % 250 + 1}" for number in range(count)]
        self.requests: Counter[str] = Counter()
        self.moving = True
        self.hanging: frozenset[str] = frozenset()
        self._never = asyncio.Event()
        self._left = itertools.count(1000)

    async def start(self) -> None:
        """Listen."""
        application = web.Application()
        application.router.add_get("/progress", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0, access_log=None)
        await self._runner.setup()
        for address in self.addresses:
            await web.TCPSite(self._runner, address, TRAINER_PORT).start()

    async def stop(self) -> None:
        """Stop listening."""
        self._never.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.transport
        address = request.transport.get_extra_info("sockname")[0]
        self.requests[address] += 1
        if address in self.hanging:
            await self._never.wait()
        document = ProgressDocument(
            stage="Training",
            step=self.requests[address] if self.moving else 1_000_000,
            total_steps=2_000_000,
            epoch=0.5,
            eta_seconds=next(self._left),
            examples_per_second=123.4 + next(self._left) % 7,
            tokens_per_second=8123.4 + next(self._left) % 7,
            gpu_memory_bytes=5 * 2**30,
            checkpoint_step=25,
            metrics={"loss": 0.31, "learning_rate": 2e-5, "eval_loss": 0.4, "eval_accuracy": 0.9},
            updated_at="2026-01-01T00:00:00Z",
        )
        return web.Response(text=document.to_json(), content_type="application/json")


async def measure(pods: int, seconds: float) -> list[Sample]:
    """Return what each stretch took."""
    trainings = Trainings(pods)
    with Plant([US], "running") as plant:
        folder = log_folder(plant.control_plane.site.directory)
        us = Contender(US, plant.kubeconfig(US), folder, LUTHIER_PROGRESS_INTERVAL_S=str(INTERVAL_S))
        us.start()
        await trainings.start()
        try:
            await _bring_to_training(plant, trainings)
            samples = []
            for stretch in ("every step", "standstill", "some hang"):
                trainings.moving = stretch == "every step"
                trainings.hanging = frozenset(trainings.addresses[::5]) if stretch == "some hang" else frozenset()
                # The first answers of a stretch still bring the change to it.
                await asyncio.sleep(INTERVAL_S * 1.5)
                samples.append({"stretch": stretch, **await _stretch(plant, us, trainings, seconds)})
            return samples
        finally:
            us.stop()
            await trainings.stop()


async def _bring_to_training(plant: Plant, trainings: Trainings) -> None:
    """Make the resources; give every training pod its address, and return when each was asked twice."""
    free = iter(trainings.addresses)
    given: dict[str, str] = {}
    running: asyncio.Queue[str] = asyncio.Queue()

    def seen(kind: str, pod: dict[str, Any], now: float) -> None:
        name, train = pod["metadata"]["name"], pod["metadata"]["labels"]["app.kubernetes.io/component"] == "train"
        if train and pod["status"].get("phase") == "Running" and name not in given:
            given[name] = next(free)
            running.put_nowait(name)

    async with Client(plant) as client, Watches(client) as watches:
        watches.start(PODS, seen)
        await client.create_all([f"job-{number:05d}" for number in range(len(trainings.addresses))])

        async def give() -> None:
            while True:
                name = await running.get()
                ip = given[name]
                await client.patch_status(f"{PODS}/{name}/status", {"podIP": ip, "podIPs": [{"ip": ip}]})

        givers = [asyncio.create_task(give()) for _ in range(8)]
        try:
            await watches.until(
                lambda: sum(count >= 2 for count in trainings.requests.values()) == len(trainings.addresses),
                "every pod asked",
                _TIMEOUT_S,
                lambda: f"{len(given)} training, {len(trainings.requests)} asked",
            )
        finally:
            for giver in givers:
                giver.cancel()
            await asyncio.gather(*givers, return_exceptions=True)


async def _stretch(plant: Plant, us: Contender, trainings: Trainings, seconds: float) -> Sample:
    before, cpu_s, written = trainings.requests.copy(), us.cpu_s, len(plant.writes(US))
    reconciles, begun = us.metric("luthier_reconciles_total"), time.monotonic()
    await asyncio.sleep(seconds)
    took, used = time.monotonic() - begun, us.cpu_s - cpu_s
    asked = {address: trainings.requests[address] - before[address] for address in trainings.addresses}
    answering = sorted(count for address, count in asked.items() if address not in trainings.hanging)
    return {
        "seconds": round(took, 1),
        "pods": len(asked),
        "hanging": len(trainings.hanging),
        "cpu_s": round(used, 2),
        "cores": round(used / took, 4),
        "cpu_ms_per_request": round(1000 * used / sum(asked.values()), 3),
        "requests": sum(asked.values()),
        "requests_to_each_that_answers": {"least": answering[0], "most": answering[-1]},
        "requests_due_to_each": round(took / INTERVAL_S, 1),
        "reconciles": round(us.metric("luthier_reconciles_total") - reconciles),
        "writes": tally(plant.writes(US)[written:]),
        "rss_mib": us.rss_mib,
        "load_average": [round(each, 1) for each in os.getloadavg()],
    }


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60, help="length of each stretch")
    arguments = parser.parse_args()
    samples = asyncio.run(measure(arguments.pods, arguments.seconds))
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "interval_s": INTERVAL_S,
        "samples": samples,
    }
    PATH.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
