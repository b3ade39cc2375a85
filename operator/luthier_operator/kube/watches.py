"""What there is in the cluster and what becomes of it: a list, then a watch from there on, for as long as we run.

Nothing that the API server answers ends or blinds a watch. A request that fails is made again, at the pace that all
requests keep; a watch that was cut goes on where it was; one that has expired, or was told what is no event, is listed
anew. What is missing from a new list is gone, and told so.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from luthier_operator.kube.client import Cluster
from luthier_operator.kube.errors import ApiNotInstalled, ClusterError, Expired, Transient
from luthier_operator.model.views import Raw
from luthier_operator.ops import metrics

logger = logging.getLogger(__name__)

_BETWEEN_S = 1.0
_AFTER_A_REFUSAL_S = 30.0


@dataclass(frozen=True)
class Watched:
    """Objects that one watch is for."""

    group: str
    """Empty for the core group."""
    version: str | None
    """None for the one that the cluster prefers."""
    plural: str
    selector: str = ""
    namespace: str | None = None
    """None for all."""
    optional: bool = False
    """Whether the kind may be missing from the cluster."""

    def __str__(self) -> str:
        """Name them for people."""
        return f"{self.plural} in {self.namespace}" if self.namespace else self.plural


class Listener(Protocol):
    """Who is told."""

    def put(self, raw: Raw) -> None:
        """Take an object as it is now."""

    def drop(self, uid: str, version: int) -> None:
        """Forget an object that was gone at a version."""

    def listed(self, namespace: str | None, version: int, names: Collection[tuple[str, str]]) -> None:
        """Take note that at a version there were these objects, by (namespace, name), and no others."""


class Watch:
    """One list and its watch."""

    def __init__(self, cluster: Cluster, watched: Watched, listener: Listener, *, absent_s: float = 10.0) -> None:
        """Tell `listener`; look every `absent_s` for a kind that is not installed."""
        self.watched = watched
        self.path = ""
        """Of the list, once it is known."""
        self._cluster, self._listener, self._absent_s = cluster, listener, absent_s
        self._uids: set[str] = set()
        self._listed, self._settled = False, asyncio.Event()
        self._active_at = time.monotonic()
        self._listing_until: asyncio.Timeout | None = None

    @property
    def listed(self) -> bool:
        """Whether all objects have been told of at least once."""
        return self._listed

    @property
    def quiet_s(self) -> float:
        """For how long it has neither asked nor been told anything. A watch is told something every minute."""
        return time.monotonic() - self._active_at

    async def settled(self) -> None:
        """Return when all objects have been told of, or the kind is known to be missing and may be."""
        await self._settled.wait()

    def expire(self) -> None:
        """List again: the watch has missed something."""
        if self._listing_until and not self._listing_until.expired():
            self._listing_until.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            begun = time.monotonic()
            wait_s = await self._round()
            await asyncio.sleep(max(wait_s, begun + _BETWEEN_S - time.monotonic()))

    async def _round(self) -> float:
        """List and watch until that cannot go on; return after how many seconds to begin anew."""
        self._active_at = time.monotonic()
        try:
            version = await self._list()
            async with asyncio.timeout(None) as self._listing_until:
                await self._follow(version)
        except TimeoutError:
            logger.debug("listing %s again, as was asked", self.watched)
        except Transient as error:
            logger.warning("listing %s again: %s", self.watched, error)
        except ApiNotInstalled:
            return self._missing("the cluster does not know the kind")
        except ClusterError as error:
            return self._missing(str(error))
        finally:
            self._listing_until = None
        return 0.0

    def _missing(self, why: str) -> float:
        """Tell that nothing can be listed; forget what could be before; return when to look again."""
        if not self.watched.optional:
            logger.error("%s cannot be listed: %s", self.watched, why)
            return min(_AFTER_A_REFUSAL_S, self._absent_s)
        logger.debug("%s cannot be listed: %s", self.watched, why)
        self._forget(tuple(self._uids), sys.maxsize)
        self._settled.set()
        return self._absent_s

    async def _list(self) -> int:
        """Tell of all that there is; return the version of the list."""
        self.path = await self._path()
        seen: dict[str, tuple[str, str]] = {}
        async for page in self._cluster.pages(self.path, self.watched.selector):
            self._active_at, version = time.monotonic(), page.version
            for raw in page.items:
                metadata = raw["metadata"]
                seen[metadata["uid"]] = metadata["namespace"], metadata["name"]
                self._put(raw)
        self._forget(self._uids - seen.keys(), version)
        self._listener.listed(self.watched.namespace, version, set(seen.values()))
        self._listed = True
        self._settled.set()
        return version

    async def _follow(self, version: int) -> None:
        """Tell what happens from a version on."""
        while True:
            begun = time.monotonic()
            try:
                async with aclosing(self._cluster.watch(self.path, self.watched.selector, version)) as events:
                    async for kind, raw in events:
                        self._active_at = time.monotonic()
                        version = int(raw["metadata"]["resourceVersion"])
                        if kind == "DELETED":
                            self._forget([raw["metadata"]["uid"]], version)
                        elif kind != "BOOKMARK":
                            self._put(raw)
            except Expired:
                raise
            except Transient as error:
                logger.info("watching %s again: %s", self.watched, error)
            self._active_at = time.monotonic()
            await asyncio.sleep(begun + _BETWEEN_S - time.monotonic())

    def _put(self, raw: Raw) -> None:
        self._uids.add(raw["metadata"]["uid"])
        self._tell(self._listener.put, raw)

    def _forget(self, uids: Collection[str], version: int) -> None:
        for uid in uids:
            self._uids.discard(uid)
            self._tell(self._listener.drop, uid, version)

    def _tell(self, tell: Callable[..., None], *what: object) -> None:
        """Tell of one object. That it cannot be understood must not keep us from the others."""
        try:
            tell(*what)
        except Exception:
            metrics.ERRORS.labels("bug").inc()
            logger.exception("one of the %s cannot be understood", self.watched)

    async def _path(self) -> str:
        wanted = self.watched
        version = wanted.version and (f"{wanted.group}/{wanted.version}" if wanted.group else wanted.version)
        version = version or await self._cluster.preferred_version(wanted.group)
        root = f"/apis/{version}" if wanted.group else f"/api/{version}"
        return "/".join([root, *(["namespaces", wanted.namespace] if wanted.namespace else []), wanted.plural])
