"""Leadership: of all the operators that watch, only the one that holds the Lease works.

Owns the Lease's record: when it may be taken, how it is kept and given back, and so until when the fence is open. What
a leader does with its time is not known here.

The rules are those of Kubernetes' own leader election (client-go, `tools/leaderelection`), and so is the object:
whoever sees the Lease unchanged for as long as its holder asked for may take it, by a write that fails if the Lease has
changed. No two clocks are compared: all measure on their own how long they have seen no change. The client library has
such an election too, but it goes by the time of day, waits for an answer for ever, gives nothing back at the end, and
stops a leader's work only when a task is next run.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from luthier_operator.kube import ClusterError, Conflict, Fence, Gone, KubeClient
from luthier_operator.kube.fence import seconds
from luthier_operator.model.defaults import LeaseTerms
from luthier_operator.ops import metrics

logger = logging.getLogger(__name__)
_API = "coordination.k8s.io/v1"


class Leadership:
    """The wish to lead, from the first look at the Lease to its return."""

    def __init__(
        self,
        cluster: KubeClient,
        fence: Fence,
        namespace: str,
        name: str,
        identity: str,
        terms: LeaseTerms,
        lost: Callable[[str], None],
        clock: Callable[[], float] = seconds,
    ) -> None:
        """Close the fence until the Lease is ours. `lost` is told why it is ours no more, and must not return."""
        self._cluster, self._fence, self._terms, self._lost, self._clock = cluster, fence, terms, lost, clock
        self._namespace, self._name, self._identity = namespace, name, identity
        self._seen: dict[str, Any] | None = None
        self._seen_at: float | None = None
        self._lease: dict[str, Any] = {}
        self._watchdog: asyncio.TimerHandle | None = None
        self._trouble: str | None = "the Lease has not been read yet"
        fence.until = -math.inf

    @property
    def trouble(self) -> str | None:
        """Why the Lease could not be read or written the last time, if it could not."""
        return self._trouble

    async def win(self) -> None:
        """Return as soon as the Lease is ours."""
        while not await self._attempt(self._take):
            await asyncio.sleep(self._terms.poll_s)
        logger.info("leading as %s, by the Lease %s", self._identity, self)

    async def keep(self) -> None:
        """Renew the Lease until cancelled."""
        while True:
            await asyncio.sleep(self._terms.renew_s)
            await self._attempt(self._renew)

    async def close(self) -> None:
        """Write nothing any more, and let somebody else lead at once."""
        held, self._fence.until = self._fence.open, -math.inf
        metrics.LEADER.set(0)
        if self._watchdog:
            self._watchdog.cancel()
        if held and await self._attempt(self._return):
            logger.info("gave the Lease %s back", self)
        await self._cluster.close()

    def __str__(self) -> str:
        """Name the Lease for people."""
        return f"{self._namespace}/{self._name}"

    async def _attempt(self, step: Callable[[], Any]) -> bool:
        """Do one thing with the Lease; return whether it was done. Why it was not is told once, not every time."""
        trouble = None
        try:
            return bool(await step())
        except Conflict:
            return False  # somebody was faster, or our own write came through without its answer: look again
        except ClusterError as error:
            trouble = f"the Lease {self} cannot be read or written: {error}"
            return False
        finally:
            if trouble and trouble != self._trouble:
                logger.warning("%s", trouble)
            self._trouble = trouble

    async def _take(self) -> bool:
        found = await self._cluster.get(_API, "Lease", self._namespace, self._name)
        now = self._clock()
        # A Lease that is not there is treated as one of an unknown holder: an operator of a release that knew of none
        # may still be at work, or somebody has deleted it under its holder's hands.
        spec: dict[str, Any] = found.get("spec", {}) if found else {"holderIdentity": "somebody"}
        if self._seen_at is None or spec != self._seen:
            self._seen, self._seen_at = spec, now
        held_s = spec.get("leaseDurationSeconds") or self._terms.duration_s
        if spec.get("holderIdentity") and now - self._seen_at < held_s:
            return False
        taken = {**self._claim(), "acquireTime": _micro_time(), "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
        if found:
            await self._write({**found, "spec": taken})
            return True
        metadata = {"namespace": self._namespace, "name": self._name}
        sent = self._clock()
        made = await self._cluster.create({"apiVersion": _API, "kind": "Lease", "metadata": metadata, "spec": taken})
        if made is None:
            return False
        self._holds(made, sent)
        return True

    async def _renew(self) -> bool:
        try:
            await self._write({**self._lease, "spec": {**self._lease["spec"], **self._claim()}})
        except (Gone, Conflict):
            await self._look_whose()
        return True

    async def _look_whose(self) -> None:
        """Go on from the Lease as it is: somebody may only have labelled it, or a renewal's answer was lost."""
        found = await self._cluster.get(_API, "Lease", self._namespace, self._name)
        if found is None:
            self._lost(f"The Lease {self} was deleted.")
        elif found["spec"].get("holderIdentity") != self._identity:
            self._lost(f"The Lease {self} is held by {found['spec'].get('holderIdentity') or 'nobody'} now.")
        else:
            await self._write({**found, "spec": {**found["spec"], **self._claim()}})

    async def _return(self) -> bool:
        spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
        await self._cluster.replace({**self._lease, "spec": spec})
        return True

    async def _write(self, lease: dict[str, Any]) -> None:
        sent = self._clock()
        self._holds(await self._cluster.replace(lease), sent)

    def _holds(self, lease: dict[str, Any], sent: float) -> None:
        """Open the fence: nobody can have seen this write before it was sent, and waits from there on."""
        self._lease = lease
        self._fence.until = sent + self._terms.deadline_s
        if self._watchdog:
            self._watchdog.cancel()
        left_s = max(self._fence.until - self._clock(), 0.0)
        self._watchdog = asyncio.get_running_loop().call_later(left_s, self._expired)

    def _expired(self) -> None:
        why = f" ({self._trouble})" if self._trouble else ""
        self._lost(f"The Lease {self} was not renewed for {self._terms.deadline_s:g} s{why}.")

    def _claim(self) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._terms.duration_s,
            "renewTime": _micro_time(),
        }


def _micro_time() -> str:
    """Return the time of day for people to read, in the form of Kubernetes' MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
