"""One release works in a namespace: each that watches it asks for a Lease there first.

Two releases of Luthier that watch one namespace would delete each other's Jobs for ever. So the leader of a release
claims a namespace, by a Lease of one name that all releases know, before it writes anything for a resource there, and
renews it as long as it works. It is the release that holds it and not a pod: the next leader goes on with it. A release
that finds it held leaves the namespace alone, and takes it when it has not been renewed for as long as its holder
promised; no two clocks are compared.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from luthier_operator.kube.client import KubeClient
from luthier_operator.kube.errors import ClusterError, Gone, Unexpected
from luthier_operator.kube.fence import seconds

logger = logging.getLogger(__name__)
LEASE = "luthier-owner"
_API = "coordination.k8s.io/v1"
_DURATION_S = 90
_RENEW_S = 25.0
# How long it is taken for granted that another release still holds a namespace, which may have thousands of resources.
_OTHER_S = 5.0
LOOK_AGAIN_S = 30.0
"""When to look again at a namespace that another release owns."""


class NamespaceOwner:
    """The namespaces that this release works in."""

    def __init__(self, kube: KubeClient, release: str, clock: Callable[[], float] = seconds) -> None:
        """`release` is `namespace/name` of the release; without one, nothing is claimed."""
        self._kube, self._release, self._clock = kube, release, clock
        self._held: dict[str, float] = {}
        """{namespace: when it was last claimed}."""
        self._seen: dict[str, tuple[dict[str, Any], float]] = {}
        """{namespace: the Lease of another release, and since when it is unchanged}."""
        self._others: dict[str, tuple[str, float]] = {}
        """{namespace: the other release that holds it, and when that was found out}."""
        self._claims: dict[str, asyncio.Task[str | None]] = {}
        """{namespace: the claim that is under way}."""
        self._powerless = False

    async def other(self, namespace: str) -> str | None:
        """Return the release that owns a namespace if it is not this one, which else owns it from now on.

        Raises:
            Transient: if that cannot be found out now.
        """
        if not self._release or self._powerless:
            return None
        # Well before the others may take it; `run` renews it in time.
        if self._clock() - self._held.get(namespace, -_DURATION_S) < _DURATION_S / 2:
            return None
        holder, asked = self._others.get(namespace, ("", -_OTHER_S))
        if self._clock() - asked < _OTHER_S:
            return holder
        try:
            return await self._claimed(namespace)
        except Gone:
            return None  # the namespace is being deleted
        except Unexpected as error:
            self._powerless = True
            logger.warning("namespaces are not claimed, so no other release may watch them: %s", error)
            return None

    async def run(self) -> None:
        """Renew what is held until cancelled."""
        while True:
            await asyncio.sleep(_RENEW_S)
            for namespace in list(self._held):
                try:
                    await self._claimed(namespace)
                except Gone:
                    self._held.pop(namespace, None)
                except ClusterError as error:
                    logger.warning("the Lease %s/%s cannot be renewed: %s", namespace, LEASE, error)

    async def _claimed(self, namespace: str) -> str | None:
        """Return what a claim comes to, which is one for all that ask while it is under way."""
        task = self._claims.get(namespace)
        if task is None:
            task = self._claims[namespace] = asyncio.create_task(self._claim(namespace))
            task.add_done_callback(lambda done: self._claim_ended(namespace, done))
        return await asyncio.shield(task)  # whoever is cancelled leaves it to the others

    def _claim_ended(self, namespace: str, task: asyncio.Task[str | None]) -> None:
        del self._claims[namespace]
        if not task.cancelled():
            task.exception()  # known to whoever asked, unless all of them were cancelled

    async def _claim(self, namespace: str) -> str | None:
        sent = self._clock()
        found = await self._kube.get(_API, "Lease", namespace, LEASE)
        if found is None:
            manifest = {"apiVersion": _API, "kind": "Lease", "metadata": {"namespace": namespace, "name": LEASE}}
            if await self._kube.create({**manifest, "spec": self._spec()}) is None:
                return await self._claim(namespace)
        else:
            holder = str(found.get("spec", {}).get("holderIdentity") or "")
            if holder not in ("", self._release) and not self._abandoned(namespace, found["spec"]):
                if namespace in self._held or namespace not in self._seen:
                    logger.error("the release %s works in namespace %s; this one leaves it alone", holder, namespace)
                self._held.pop(namespace, None)
                self._seen.setdefault(namespace, (found["spec"], sent))
                self._others[namespace] = holder, sent
                return holder
            await self._kube.replace({**found, "spec": self._spec()})
        self._held[namespace] = sent
        self._seen.pop(namespace, None)
        self._others.pop(namespace, None)
        return None

    def _abandoned(self, namespace: str, spec: dict[str, Any]) -> bool:
        known = self._seen.get(namespace)
        if known is None or known[0] != spec:
            if known is not None:
                self._seen[namespace] = (spec, self._clock())
            return False
        return self._clock() - known[1] >= (spec.get("leaseDurationSeconds") or _DURATION_S)

    def _spec(self) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": self._release, "leaseDurationSeconds": _DURATION_S, "renewTime": now}
