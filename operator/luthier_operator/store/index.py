"""What the watch has told, by the resource that it is for."""

from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


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

    def drop(self, uid: str) -> tuple[K, V] | None:
        """Forget an object; return what it was for and its value, if it was known."""
        if uid not in self._keys:
            return None
        key = self._keys.pop(uid)
        values = self._values[key]
        value = values.pop(uid)
        if not values:
            del self._values[key]
        return key, value

    @property
    def objects(self) -> int:
        """How many objects there are, of all keys together."""
        return len(self._keys)

    def key_of(self, uid: str) -> K | None:
        """Return what an object is for."""
        return self._keys.get(uid)

    def __getitem__(self, key: K) -> Collection[V]:
        return self._values[key].values()

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
