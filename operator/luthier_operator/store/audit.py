"""Compares the store with the cluster: what kopf's watches did not tell, this finds.

Names and versions of all objects are listed and compared with the store

- at the start, until the store holds all that there is: nothing is reconciled before;
- when kopf has listed a kind anew, and every few minutes. An object that is gone is forgotten, since kopf does not
  notice that one is missing from a new list. Where the store has not come to what was listed a while ago, the watch has
  missed something: the watches must begin anew.

A kind that was not installed is looked for now and then; when it is there, the watches must begin anew too.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from luthier_operator.kube import ApiNotInstalled, ClusterError, KubeClient, Transient
from luthier_operator.ops import metrics
from luthier_operator.store.informers import WATCHED, Informers, Watched
from luthier_operator.store.store import KINDS, Kind, Store, Stored

logger = logging.getLogger(__name__)

Name = tuple[str, str]
"""Namespace and name."""

_LOOK_S = 0.05
_AGAIN_S = 1.0
_LIST_AGAIN_S = 2.0
# kopf lists all kinds at the same time; one comparison is for all of them.
_RELISTED_S = 0.5


class BeginAnew(Exception):
    """The watches cannot go on as they are. The message says why."""


@dataclass(frozen=True)
class _List:
    kind: Kind
    watched: Watched
    path: str
    version: int
    versions: dict[Name, int]


class Audit:
    """Compares the store with the cluster."""

    def __init__(
        self,
        kube: KubeClient,
        store: Store,
        informers: Informers,
        namespaces: Sequence[str],
        *,
        interval_s: float,
        absent_s: float,
        patience_s: float = 10.0,
    ) -> None:
        """Compare every `interval_s`; look every `absent_s` for kinds that are not installed.

        A watch that lags behind what there is for `patience_s` has missed something.
        """
        self._kube, self._store, self._informers, self._namespaces = kube, store, informers, namespaces
        self._interval_s, self._absent_s, self._patience_s = interval_s, absent_s, patience_s
        self._unsettled: list[str] = [WATCHED[kind].plural for kind in KINDS]
        self._absent: set[Kind] = set()
        self._relisted: set[Kind] = set()

    @property
    def unsettled(self) -> str | None:
        """Which kind has not been listed since the start, or not installed though it must be; None if all is well."""
        return next(iter(self._unsettled), None)

    def relisted(self, kind: Kind) -> None:
        """Have a kind compared soon: kopf lists it anew, so some objects may be gone without a word."""
        self._relisted.add(kind)

    async def settle(self) -> None:
        """Return when the store holds all that there is in the cluster."""
        for kind in KINDS:
            while not await self._attempt(kind, self._settled):
                await asyncio.sleep(_AGAIN_S)
            if kind in self._absent and not WATCHED[kind].optional:
                await self._look_for({kind})
            self._unsettled.pop(0)
        self._relisted.clear()

    async def run(self) -> None:
        """Compare until cancelled.

        Raises:
            BeginAnew: if the watches have missed something, or a kind was installed.
        """
        compare_at, look_at = time.monotonic() + self._interval_s, time.monotonic() + self._absent_s
        while True:
            await asyncio.sleep(_RELISTED_S)
            relisted, self._relisted = self._relisted, set()
            for kind in relisted:
                if not await self._attempt(kind, self._forget_gone):
                    self._relisted.add(kind)
            if time.monotonic() >= look_at:
                await self._look_for(self._absent, once=True)
                look_at = time.monotonic() + self._absent_s
            if time.monotonic() >= compare_at:
                for kind in KINDS:
                    await self._attempt(kind, self._compare)
                compare_at = time.monotonic() + self._interval_s

    async def _settled(self, kind: Kind) -> None:
        for listed in await self._list(kind):
            most, moved_at = 0, time.monotonic()
            while True:
                begun = time.monotonic()
                known = self._store.count(kind)
                if known >= len(listed.versions) and not self._behind(listed):
                    break
                if most < known < len(listed.versions):
                    most, moved_at = known, begun  # the watch delivers, so there is nothing to ask
                # Among thousands, a look costs something.
                await asyncio.sleep(max(_LOOK_S, 4 * (time.monotonic() - begun)))
                if begun - moved_at > _LIST_AGAIN_S:  # what is missing may have gone since
                    listed, moved_at = await self._again(listed), time.monotonic()

    async def _forget_gone(self, kind: Kind) -> None:
        for listed in await self._list(kind):
            self._forget(listed)

    async def _compare(self, kind: Kind) -> None:
        lists = await self._list(kind)
        for listed in lists:
            self._forget(listed)
        if not any(self._behind(listed) for listed in lists):
            return
        await asyncio.sleep(self._patience_s)
        for listed in lists:
            missed = self._behind(listed)
            # What has gone since then is not known either, and need not be.
            there = (await self._again(listed)).versions if missed else {}
            if missed := [name for name in missed if name in there]:
                metrics.MISSED.labels("changed").inc(len(missed))
                raise BeginAnew(f"the watch of {listed.path} has missed {len(missed)} objects, such as {missed[0]}")

    def _forget(self, listed: _List) -> None:
        """Forget what was not there any more when the list was made."""
        for name, item in self._known(listed).items():
            if name not in listed.versions and item.version <= listed.version:
                logger.info("%s %s went unseen", listed.watched.plural, "/".join(name))
                metrics.MISSED.labels("deleted").inc()
                self._informers.vanished(listed.kind, item.uid, listed.version)

    def _behind(self, listed: _List) -> list[Name]:
        known = self._known(listed)
        return [name for name, there in listed.versions.items() if name not in known or known[name].version < there]

    def _known(self, listed: _List) -> dict[Name, Stored]:
        return {
            (item.namespace, item.name): item
            for item in self._store.all(listed.kind)
            if not self._namespaces or f"/namespaces/{item.namespace}/" in listed.path
        }

    async def _list(self, kind: Kind) -> list[_List]:
        """Return what there is of a kind, a list for each path.

        Raises:
            ApiNotInstalled: if the kind is not known.
        """
        watched = WATCHED[kind]
        version = watched.version or (await self._kube.preferred_version(watched.group)).rpartition("/")[2]
        lists = [_List(kind, watched, path, 0, {}) for path in watched.paths(version, self._namespaces)]
        return [await self._again(listed) for listed in lists]

    async def _again(self, listed: _List) -> _List:
        found = await self._kube.list_versions(listed.path, listed.watched.selector)
        return _List(listed.kind, listed.watched, listed.path, found.version, dict(found.versions))

    async def _look_for(self, kinds: set[Kind], *, once: bool = False) -> None:
        """Look for kinds that were not installed, for ever or once; raise BeginAnew when one is there."""
        while kinds:
            for kind in sorted(kinds):
                try:
                    await self._list(kind)
                except ApiNotInstalled:
                    continue
                except ClusterError as error:
                    logger.debug("%s cannot be looked for: %s", WATCHED[kind].plural, error)
                    continue
                raise BeginAnew(f"{WATCHED[kind].plural} have been installed")
            if once:
                return
            await asyncio.sleep(self._absent_s)

    async def _attempt(self, kind: Kind, step: Callable[[Kind], Awaitable[None]]) -> bool:
        """Take a step for a kind; return whether it could be taken."""
        try:
            await step(kind)
        except ApiNotInstalled:
            self._absent.add(kind)
        except Transient as error:
            logger.info("%s are compared later: %s", WATCHED[kind].plural, error)
            return False
        except ClusterError as error:
            logger.warning("%s cannot be compared: %s", WATCHED[kind].plural, error)
            return False
        return True
