"""A namespace that is remembered: what the command asks of the API server, answered from objects in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
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
        paths: What is not of the namespace, by the path of the request; lists are cut to what has the labels asked for.
        may: Whether everybody may do everything, or nobody anything.
    """

    def __init__(
        self,
        *resources: Resource,
        pods: Iterable[Raw] = (),
        kinds: Iterable[Kind] = KINDS,
        paths: Mapping[str, Raw] | None = None,
        may: bool = False,
    ) -> None:
        super().__init__(cast(Any, None), "team")
        self.patches: list[tuple[str, Raw]] = []
        self._may = may
        self._paths = {"/version": {"gitVersion": "v1"}, **(paths or {})}
        self._objects: dict[str, list[Raw]] = {kind.plural: [] for kind in kinds}
        for each in resources:
            self._objects[each.kind.plural].append(each.raw)
        self._objects |= {"pods": list(pods), "events": []}

    @property
    def server(self) -> str:
        """No URL that anything listens at."""
        return "https://kubernetes.example.com:6443"

    def may(self, *_: Any, **__: Any) -> bool:
        """Tell what was said at the beginning."""
        return self._may

    def request(self, method: str, path: str, **options: Any) -> Raw:
        """Answer as the API server does."""
        wanted = _labels((options.get("query") or {}).get("labelSelector"))
        if path in self._paths:
            return _chosen(self._paths[path], wanted)
        plural, _, name = path.partition("/namespaces/team/")[2].partition("/")
        if plural not in self._objects:
            raise NotFound(NOT_INSTALLED)
        found = self._objects[plural]
        if not name:
            return _chosen({"items": found}, wanted)
        one = next((each for each in found if each["metadata"]["name"] == name), None)
        if one is None:
            raise NotFound(f"{plural} {name!r} not found")
        if method == "PATCH":
            self.patches.append((f"{plural}/{name}", options["body"]))
        return copy.deepcopy(one)


def _labels(selector: str | None) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in selector.split(",")) if selector else {}


def _chosen(found: Raw, wanted: Mapping[str, str]) -> Raw:
    """Return an object as it is, and of a list the items with these labels."""
    if "items" not in found:
        return copy.deepcopy(found)
    return {"items": [each for each in found["items"] if wanted.items() <= each["metadata"].get("labels", {}).items()]}
