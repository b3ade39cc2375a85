"""The node: every pod runs after a while and ends after another, mostly well."""

from __future__ import annotations

import asyncio
import random

from luthier_api.exitcodes import ExitCode
from support.operator.operator_process import prepared, published

from .world import COMPONENT, PODS, RUN, Raw, World

# How a pod ends, and how often.
_ENDS = {0: 0.9, int(ExitCode.CRASHED): 0.06, int(ExitCode.PREEMPTED): 0.02, int(ExitCode.LOSS_NOT_FINITE): 0.02}
_MERGE = "application/merge-patch+json"


def version_of(run: str) -> str:
    """Return the version that a run of this name publishes."""
    return f"v-{run[-10:]}"


class Node:
    """Plays each pod once."""

    def __init__(self, world: World, chance: random.Random, *, slowest_s: float) -> None:
        self._world, self._chance, self._slowest_s = world, chance, slowest_s
        self._played: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.pods_ended = 0

    def see(self, pod: Raw) -> None:
        """Play a pod that is new."""
        uid = pod["metadata"]["uid"]
        if uid in self._played or pod["status"].get("phase") != "Pending":
            return
        self._played.add(uid)
        task = asyncio.create_task(self._play(pod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, pod: Raw) -> None:
        labels = pod["metadata"]["labels"]
        await asyncio.sleep(self._chance.uniform(0.1, 1.0))
        await self._say(pod, "Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
        longest = self._slowest_s if labels[COMPONENT] == "train" else 1.0
        await asyncio.sleep(self._chance.uniform(0.2, longest))
        (code,) = self._chance.choices(list(_ENDS), list(_ENDS.values()))
        run = labels[RUN]
        result = prepared(run) if labels[COMPONENT] == "prepare" else published(run, version_of(run))
        times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
        terminated = {"exitCode": code, "message": "" if code else result, "reason": "Completed", **times}
        await self._say(pod, "Failed" if code else "Succeeded", {"terminated": terminated})
        self.pods_ended += 1

    async def _say(self, pod: Raw, phase: str, state: Raw) -> None:
        container = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        path = PODS.format(self._world.namespace) + f"/{pod['metadata']['name']}/status"
        uid = {"uid": pod["metadata"]["uid"]}
        body = {"metadata": uid, "status": {"phase": phase, "containerStatuses": [container]}}
        status, answer = await self._world.api.request("PATCH", path, body, _MERGE)
        if status not in (200, 404, 409):  # gone meanwhile, or another of the name
            raise RuntimeError(f"the status of a pod was refused: {answer}")
