"""Notices what a watch does not tell: a watch that has gone deaf, or lost an event, is told to list anew.

Every few minutes the names and versions of all objects are listed and compared with the cache. Nothing is mended here:
where the cache has not come to what was listed a while ago, a new list brings it there.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from luthier_operator.kube import ApiNotInstalled, Cluster, ClusterError, Transient, Watch
from luthier_operator.ops import metrics
from luthier_operator.store.store import Cache, Kind

logger = logging.getLogger(__name__)

Versions = Mapping[tuple[str, str], int]
"""{(namespace, name): resourceVersion}"""


class Audit:
    """Compares the cache with the cluster."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        watches: Sequence[tuple[Kind, Watch]],
        *,
        interval_s: float,
        patience_s: float = 10.0,
    ) -> None:
        """A watch that lags behind what there is for `patience_s` is deaf."""
        self._cluster, self._cache, self._watches = cluster, cache, watches
        self._interval_s, self._patience_s = interval_s, patience_s

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            for kind, watch in self._watches:
                await self._attempt(kind, watch)

    async def compare(self, kind: Kind, watch: Watch) -> None:
        """Have a watch list anew that has not told what was there, or gone, a while ago."""
        version, listed = await self._list(watch)
        if not self._missed(kind, watch, version, listed):
            return
        await asyncio.sleep(self._patience_s)
        missed = self._missed(kind, watch, version, listed)
        # What has gone since then is not known either, and need not be.
        _, now = await self._list(watch)
        missed = {name: change for name, change in missed.items() if change == "deleted" or name in now}
        if missed:
            logger.warning("the watch of %s has missed %d objects, as %s", watch.watched, len(missed), min(missed))
            for change in missed.values():
                metrics.MISSED.labels(change).inc()
            watch.expire()

    async def _list(self, watch: Watch) -> tuple[int, Versions]:
        return await self._cluster.list_versions(watch.path, watch.watched.selector)

    def _missed(self, kind: Kind, watch: Watch, version: int, listed: Versions) -> dict[tuple[str, str], str]:
        """Return {(namespace, name): what the cache does not know of it}."""
        namespace = watch.watched.namespace
        known = {
            (key.namespace, item.name): item.version
            for key, item in self._cache.known(kind)
            if namespace in (None, key.namespace)
        }
        changed = {name: "changed" for name, there in listed.items() if known.get(name, -1) < there}
        return changed | {name: "deleted" for name, ours in known.items() if name not in listed and ours <= version}

    async def _attempt(self, kind: Kind, watch: Watch) -> None:
        if not watch.listed:
            return
        try:
            await self.compare(kind, watch)
        except ApiNotInstalled:
            logger.debug("%s is not installed", watch.watched)
        except Transient as error:
            logger.info("%s is compared later: %s", watch.watched, error)
        except ClusterError as error:
            logger.warning("%s cannot be compared: %s", watch.watched, error)
        except Exception:
            metrics.ERRORS.labels("bug").inc()
            logger.exception("comparing %s failed", watch.watched)
