"""Mends what the watch did not tell: objects that went while nobody watched, and watches that have gone deaf.

kopf lists anew where a watch cannot go on, but does not notice that an object is missing from the new list; its index
would name it for ever. So after each new list, and every few minutes, the names and versions of all objects are listed
and compared with the cache. An object that is not there any more is forgotten; where the cache has not reached what was
listed a while ago, the watch has lost events and is begun anew.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from luthier_operator import metrics
from luthier_operator.cache import Cache, Kind
from luthier_operator.cluster import ApiNotInstalled, Cluster, ClusterError, Transient
from luthier_operator.observed import Key

logger = logging.getLogger(__name__)

Versions = Mapping[tuple[str, str], int]
"""{(namespace, name): resourceVersion}"""


@dataclass(frozen=True)
class Watched:
    """Objects that one watch is for."""

    kind: Kind
    path: str
    selector: str


class Audit:
    """Compares the cache with the cluster."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        watched: Sequence[Watched],
        wake: Callable[[Key], None],
        expire: Callable[[str], None],
        *,
        interval_s: float,
        patience_s: float = 10.0,
    ) -> None:
        """`expire` begins the watch of a path anew; one that lags for `patience_s` is deaf."""
        self._cluster, self._cache, self._wake, self._expire = cluster, cache, wake, expire
        self._watched = {each.path: each for each in watched}
        self._interval_s, self._patience_s = interval_s, patience_s
        self._relisted: set[str] = set()
        self._due = asyncio.Event()

    def relisted(self, path: str) -> None:
        """Have the objects under a path compared soon: they were listed anew, so some may have gone unseen."""
        if path in self._watched:
            self._relisted.add(path)
            self._due.set()

    async def run(self) -> None:
        """Work until cancelled."""
        next_s = time.monotonic() + self._interval_s
        while True:
            await self._wait_until(next_s)
            paths, self._relisted = self._relisted, set()
            for path in paths:
                await self._attempt(path, self.forget_the_gone)
            if time.monotonic() >= next_s:
                for path in self._watched:
                    await self._attempt(path, self.compare)
                next_s = time.monotonic() + self._interval_s

    async def forget_the_gone(self, watched: Watched) -> Versions:
        """Forget what is not there any more, and have it acted on; return what there is."""
        version, listed = await self._cluster.list_versions(watched.path, watched.selector)
        namespace = _namespace(watched.path)
        for key, item in self._cache.known(watched.kind):
            if namespace in (None, key.namespace) and (key.namespace, item.name) not in listed:
                if item.version > version:
                    continue  # made after the list
                logger.warning("%s %s/%s went unseen", watched.kind, key.namespace, item.name)
                metrics.MISSED.labels("deleted").inc()
                self._cache.vanished(watched.kind, key, item)
                self._wake(key)
        return listed

    async def compare(self, watched: Watched) -> None:
        """Forget what is not there any more, and begin a watch anew that lags behind what there is."""
        listed = await self.forget_the_gone(watched)
        if not self._behind(watched, listed):
            return
        await asyncio.sleep(self._patience_s)
        behind = self._behind(watched, listed)
        # What has gone since then is not known either, and need not be.
        _, now = await self._cluster.list_versions(watched.path, watched.selector)
        missed = [name for name in behind if name in now]
        if missed:
            logger.warning("the watch of %s has missed %d objects, such as %s", watched.path, len(missed), missed[0])
            metrics.MISSED.labels("changed").inc(len(missed))
            self._expire(watched.path)

    def _behind(self, watched: Watched, listed: Versions) -> set[tuple[str, str]]:
        known = {(key.namespace, item.name): item.version for key, item in self._cache.known(watched.kind)}
        return {name for name, version in listed.items() if known.get(name, -1) < version}

    async def _attempt(self, path: str, step: Callable[[Watched], Awaitable[object]]) -> None:
        try:
            await step(self._watched[path])
        except ApiNotInstalled:
            logger.debug("%s is not installed", path)
        except Transient as error:
            logger.info("%s is compared later: %s", path, error)
            self.relisted(path)
        except ClusterError as error:
            logger.warning("%s cannot be compared: %s", path, error)
        except Exception:
            metrics.ERRORS.labels("bug").inc()
            logger.exception("comparing %s failed", path)

    async def _wait_until(self, at: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, at - time.monotonic())):
                await self._due.wait()
        except TimeoutError:
            return
        self._due.clear()


def _namespace(path: str) -> str | None:
    parts = path.split("/")
    return parts[parts.index("namespaces") + 1] if "namespaces" in parts else None
