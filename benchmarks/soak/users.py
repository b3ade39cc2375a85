"""Users who create, edit, suspend, resume, revert and delete at random."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from support.operator.operator_process import finetunejob

from .world import FTJ, World

_MERGE = "application/merge-patch+json"


class Users:
    """Act on up to `most` resources, `rate` times a second."""

    def __init__(self, world: World, chance: random.Random, *, most: int, rate: float) -> None:
        self._world, self._chance, self._most, self._rate = world, chance, most, rate
        self._path = FTJ.format(world.namespace)
        self.did: Counter[str] = Counter()

    async def act(self) -> None:
        """Act until cancelled."""
        while True:
            await asyncio.sleep(self._chance.expovariate(self._rate))
            if len(self._world.finetunejobs) < self._most and self._chance.random() < 0.8:
                await self._create()
            else:
                (action,) = self._chance.choices(
                    [self._edit, self._suspend, self._resume, self._retry, self._delete], [5, 2, 3, 1, 1]
                )
                await action(self._chance.choice(list(self._world.finetunejobs)))

    async def resume_all(self) -> None:
        """Resume every second suspended resource, so that the end has both."""
        names = [name for name, raw in self._world.finetunejobs.items() if raw["spec"].get("suspend")]
        for name in names[::2]:
            await self._resume(name)

    async def _create(self) -> None:
        name = f"r-{self._chance.randrange(10**9):09d}"
        policy = self._chance.choice(["Replace", "Forbid"])
        backoff = self._chance.choice([0, 2, 6])
        # Jobs go after a while, so that there are not ever more of them and memory can be flat.
        manifest = finetunejob(concurrencyPolicy=policy, backoffLimit=backoff, ttlSecondsAfterFinished=60)
        await self._did("create", "POST", "", {**manifest, "metadata": {"name": name}})

    async def _edit(self, name: str) -> None:
        # Of a few values, so that some edits are reverts.
        epochs = self._chance.choice([1, 2, 3, 4])
        await self._did("edit", "PATCH", f"/{name}", {"spec": {"hyperparameters": {"epochs": epochs}}})

    async def _suspend(self, name: str) -> None:
        await self._did("suspend", "PATCH", f"/{name}", {"spec": {"suspend": True}})

    async def _resume(self, name: str) -> None:
        await self._did("resume", "PATCH", f"/{name}", {"spec": {"suspend": False}})

    async def _retry(self, name: str) -> None:
        value = str(self._chance.randrange(3))
        await self._did("retry", "PATCH", f"/{name}", {"metadata": {"annotations": {"luthier.dev/retry": value}}})

    async def _delete(self, name: str) -> None:
        await self._did("delete", "DELETE", f"/{name}", {})

    async def _did(self, what: str, method: str, path: str, body: object) -> None:
        kind = _MERGE if method == "PATCH" else "application/json"
        status, answer = await self._world.api.request(method, self._path + path, body, kind)
        if status not in (200, 201, 202, 404, 409):
            raise RuntimeError(f"{what} was refused: {answer}")
        self.did[what] += 1
