"""What the watch has told, by the resource that it is for, and when all that was there at the start has been told.

kopf has indices of its own. While it fills them at its start, each object that is told wakes all that were told before:
quadratic in their number, and minutes of CPU for ten thousand resources.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_LOOK_S = 0.05
_QUIET_LOOKS = 6


class Index(Mapping[K, Collection[V]]):
    """{key: values of all objects that are for it}."""

    def __init__(self) -> None:
        """Start empty."""
        self._values: dict[K, dict[str, V]] = {}
        self._keys: dict[str, K] = {}

    def put(self, uid: str, key: K, value: V) -> None:
        """Take what is told of an object in place of what was told before, also if it was for another key."""
        if self._keys.get(uid, key) != key:
            self.drop(uid)
        self._keys[uid] = key
        self._values.setdefault(key, {})[uid] = value

    def drop(self, uid: str) -> None:
        """Forget an object."""
        if uid in self._keys:
            key = self._keys.pop(uid)
            values = self._values[key]
            del values[uid]
            if not values:
                del self._values[key]

    def __getitem__(self, key: K) -> Collection[V]:
        return self._values[key].values()

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Beginning:
    """Counts the objects that were there before the operator, and knows when no more of them come.

    kopf does not say when it has handed over the last object of a list. So this is the end when all lists are there and
    none came for a while in which the loop ran freely. One that is later than that does no harm: a plan is safe to make
    again, and nothing is taken for gone without asking the API server.
    """

    def __init__(self) -> None:
        """None was told yet."""
        self._told = 0

    def told(self) -> None:
        """Count one."""
        self._told += 1

    async def wait(self, listed: Callable[[], bool]) -> None:
        """Return when all have been told; `listed` tells whether all lists have come."""
        quiet, before = 0, -1
        while quiet < _QUIET_LOOKS:
            await asyncio.sleep(_LOOK_S)
            quiet = quiet + 1 if listed() and self._told == before else 0
            before = self._told
