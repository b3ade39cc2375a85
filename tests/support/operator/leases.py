"""The API server's rules for one Lease, without an API server: what an election or a claim meets at any moment."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from luthier_operator.kube.errors import ClusterError, Conflict, Gone, Transient

Raw = dict[str, Any]


class Leases:
    """The API server's rules for one Lease: versions, conflicts, and answers that get lost."""

    def __init__(self) -> None:
        self.lease: Raw | None = None
        self.version = 0
        self.away: ClusterError | None = None
        self.lose_answers = False
        self.requests: list[str] = []

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Raw | None:
        await self._arrive("get")
        return copy.deepcopy(self.lease)

    async def create(self, manifest: Raw) -> Raw | None:
        await self._arrive("create")
        return None if self.lease else self._store(manifest)

    async def replace(self, manifest: Raw) -> Raw:
        await self._arrive("replace")
        if self.lease is None:
            raise Gone("it is not there")
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("it has changed")
        return self._store(manifest)

    async def close(self) -> None:
        """Nothing is open."""

    async def _arrive(self, verb: str) -> None:
        self.requests.append(verb)
        await asyncio.sleep(0)
        if self.away:
            raise self.away

    def _store(self, manifest: Raw) -> Raw:
        self.version += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        if self.lose_answers:
            raise Transient("no answer")
        return copy.deepcopy(self.lease)

    @property
    def holder(self) -> str | None:
        return self.lease["spec"]["holderIdentity"] if self.lease else None
