"""Which revision gets the next request: by weight, deterministically, and as evenly interleaved as possible.

Smooth weighted round robin, as in nginx: after each full round every revision has had exactly its share, and shares are
interleaved, so that a canary of 10 percent gets one request in ten and not ten in a row. Pure.
"""

from collections.abc import Mapping


class WeightedRoundRobin:
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
