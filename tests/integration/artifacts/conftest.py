"""Stores that misbehave on purpose, in front of real ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from luthier_artifacts.store import Body, ObjectInfo, ObjectStore, Progress


class Killed(BaseException):
    """The process is gone; nothing after this may reach the store, no clean-up either."""


class Interposed(ObjectStore):
    """Passes every request on, one at a time, with a call before and after it: hook(when, operation, key)."""

    def __init__(self, inner: ObjectStore, hook: Callable[[str, str, str], None]) -> None:
        self.inner = inner
        self.hook = hook
        self.at_once = inner.concurrency

    @property
    def uri(self) -> str:
        return self.inner.uri

    @property
    def concurrency(self) -> int:
        return self.at_once

    def _call(self, operation: str, key: str, call: Callable[[], object]) -> object:
        self.hook("before", operation, key)
        try:
            return call()
        finally:
            self.hook("after", operation, key)

    def stat(self, key: str) -> ObjectInfo:
        return self._call("stat", key, lambda: self.inner.stat(key))  # type: ignore[return-value]

    def read(self, key: str) -> tuple[bytes, str]:
        return self._call("read", key, lambda: self.inner.read(key))  # type: ignore[return-value]

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> Body:
        return self._call("range", key, lambda: self.inner.read_range(key, start, length, etag=etag))  # type: ignore[return-value]

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        return self._call(  # type: ignore[return-value]
            "write", key, lambda: self.inner.write(key, data, if_absent=if_absent, if_match=if_match)
        )

    def upload(self, files: Mapping[str, Path], progress: Progress | None = None) -> None:
        for key, path in files.items():
            self._call("write", key, lambda key=key, path=path: self.inner.upload({key: path}, progress))

    def delete(self, keys: Collection[str]) -> None:
        for key in keys:
            self._call("write", key, lambda key=key: self.inner.delete([key]))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self._call("list", prefix, lambda: list(self.inner.list(prefix))))  # type: ignore[call-overload]


class MortalStore(Interposed):
    """Kills its process at one write, before it takes effect or after; writes of the probe do not count."""

    def __init__(self, inner: ObjectStore, at_write: int, when: str) -> None:
        super().__init__(inner, self._maybe_die)
        self.writes = 0
        self.dead = False
        self._at = at_write
        self._when = when

    def _maybe_die(self, when: str, operation: str, key: str) -> None:
        if self.dead:
            raise Killed
        if operation != "write" or key.endswith(".probe"):
            return
        self.writes += when == "before"
        if when == self._when and self.writes == self._at:
            self.dead = True
            raise Killed


@pytest.fixture
def faults() -> SimpleNamespace:
    """The classes above; tests cannot import from a conftest."""
    return SimpleNamespace(Killed=Killed, Interposed=Interposed, MortalStore=MortalStore)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small folder like a model's."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    return folder
