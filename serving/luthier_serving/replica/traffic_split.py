"""Which revision gets a request. Pure.

By weight it is smooth weighted round robin, as in nginx: after each full round each revision has had exactly its share,
and shares are interleaved, so that a canary of 10 percent gets one request in ten and not ten in a row. By key it is a
hash, so that all server replicas send one user to the same revision; with many users, shares are those of the weights.
"""

import hashlib
from collections.abc import Mapping

PERCENT_STEPS = 10_000


class TrafficSplit:
    """Picks names by weight. Names of weight 0 are never picked."""

    def __init__(self, weights: Mapping[str, int]):
        self._weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._total = sum(self._weights.values())
        self._credit = dict.fromkeys(self._weights, 0)

    def next(self) -> str | None:
        """Return the name that is next, or None if no name has a weight."""
        if len(self._weights) <= 1:
            return next(iter(self._weights), None)
        for name, weight in self._weights.items():
            self._credit[name] += weight
        chosen = max(self._credit, key=self._credit.__getitem__)
        self._credit[chosen] -= self._total
        return chosen

    def of_key(self, key: str) -> str | None:
        """Return the name that this key always gets as long as weights are as they are.

        Names are taken in the order given, so the key's place does not move when only weights change: a user whom a
        canary of 5 percent has met meets it at 25 percent too.
        """
        if not self._weights:
            return None
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        place = int.from_bytes(digest, "big") % PERCENT_STEPS * self._total / PERCENT_STEPS
        upto = 0
        for name, weight in self._weights.items():
            upto += weight
            if place < upto:
                return name
        return name
