"""A namespace that is remembered: what the command asks of the API server, answered from objects in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

from luthier.cluster import NOT_INSTALLED, Cluster
from luthier.errors import NotFound
from luthier.kinds import KINDS, Kind, Raw, Resource


class RememberedCluster(Cluster):
    """The resources of one namespace.

    Args:
        resources: What is there.
        pods: Pods, of which a list by label returns those that have it.
        kinds: The kinds that the cluster's release has.
    """

    def __init__(self, *resources: Resource, pods: Iterable[Raw] = (), kinds: Iterable[Kind] = KINDS) -> None:
        super().__init__(cast(Any, None), "team")
        self.patches: list[tuple[str, Raw]] = []
        self._objects: dict[str, list[Raw]] = {kind.plural: [] for kind in kinds}
        for each in resources:
            self._objects[each.kind.plural].append(each.raw)
        self._objects |= {"pods": list(pods), "events": []}

    @property
    def server(self) -> str:
        """No URL at all."""
        return "memory"

    def may(self, *_: Any, **__: Any) -> bool:
        """Nobody may do anything."""
        return False

    def request(self, method: str, path: str, **options: Any) -> Raw:
        """Answer as the API server does."""
        if path == "/version":
            return {"gitVersion": "v1"}
        plural, _, name = path.partition("/namespaces/team/")[2].partition("/")
        if plural not in self._objects:
            raise NotFound(NOT_INSTALLED)
        found = self._objects[plural]
        if not name:
            label, _, value = ((options.get("query") or {}).get("labelSelector") or "").partition("=")
            return {"items": [each for each in found if not label or each["metadata"]["labels"].get(label) == value]}
        one = next((each for each in found if each["metadata"]["name"] == name), None)
        if one is None:
            raise NotFound(f"{plural} {name!r} not found")
        if method == "PATCH":
            self.patches.append((f"{plural}/{name}", options["body"]))
        return copy.deepcopy(one)
