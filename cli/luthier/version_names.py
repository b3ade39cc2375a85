"""Which version is meant: by its whole name, its beginning, an alias, or `current` and `previous`."""

from __future__ import annotations

from luthier.cluster import Cluster
from luthier.errors import Invalid, NotFound
from luthier.kinds import FINETUNEJOB, Resource
from luthier.storage import Place, place_of, told

CURRENT, PREVIOUS = "current", "previous"


class Versions:
    """The versions of one FineTuneJob: those of its status, and those that only storage knows."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.job = cluster.read(FINETUNEJOB, name)
        self._cluster = cluster

    @property
    def place(self) -> Place:
        """Where they lie."""
        return place_of(self.job)

    @property
    def known(self) -> list[str]:
        """Those of the status, most recently used first."""
        return [version.version for version in self.job.job_status.versions]

    def uri(self, version: str) -> str:
        """Return the folder of a version."""
        found = next((each.uri for each in self.job.job_status.versions if each.version == version), None)
        return found or f"{self.place.uri.rstrip('/')}/{self.place.name}/versions/{version}"

    def digest(self, version: str) -> str | None:
        """Return the digest that a version had when it was published; None of one that only storage knows."""
        return next((each.digest for each in self.job.job_status.versions if each.version == version), None)

    def followers(self) -> list[Resource]:
        """Return the resources that serve them, or predict with them."""
        return [each for each in self._cluster.every() if each.follows == self.job.name]

    def resolve(self, given: str | None) -> str:
        """Return the version that is meant.

        Raises:
            NotFound: if there is none, or no alias of this name.
            Invalid: if several begin so.
        """
        known = self.known
        if given in (None, CURRENT, PREVIOUS):
            place = 1 if given == PREVIOUS else 0
            if len(known) <= place:
                raise NotFound(f"{self.job.title} has {len(known)} versions, so there is no {given or CURRENT} one.")
            return known[place]
        matching = [version for version in known if version.startswith(given)]
        if given in known or len(matching) == 1:
            return given if given in known else matching[0]
        if len(matching) > 1:
            raise Invalid(f"Several versions begin with {given}: {', '.join(matching)}.")
        return self._stored(given)

    def _stored(self, given: str) -> str:
        """Ask storage, which also knows versions of earlier resources, and aliases."""
        registry = self.place.registry
        with told():
            versions = registry.list_versions()
            if given in versions:
                return given
            alias = None if given[:1].isdigit() else registry.get_alias(given)
        if alias is None:
            there = ", ".join(self.known[:5]) or "none yet"
            raise NotFound(f"{self.job.title} has no version or alias {given}; it has: {there}.")
        return alias.version
