"""What texts and answers looked like lately: counts in bins, by revision, of the last so many seconds.

A ring of slices: counts go into the newest, and what is read is the sum of those that are young enough. So the figures
say what is so now, and memory does not grow with traffic.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

from luthier_api.documents import Profile, Tally
from luthier_serving.answers import Answer
from luthier_serving.tasks import OUTPUTS

SLICES = 12


class DriftWindows:
    """The counts of each revision.

    Args:
        window_s: how far back they count; by whole slices, so up to a twelfth less.
        clock: seconds; monotonic.
    """

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic):
        self.window_s = window_s
        self._clock = clock
        self._slices: dict[str, deque[tuple[int, Tally]]] = {}

    def add(self, revision: str, answer: Answer) -> None:
        """Count the texts of an answer; those that failed say nothing."""
        tally = self._newest(revision)
        summary_of, model = OUTPUTS[answer.model.task].summary_of, answer.model
        for row in answer.rows:
            if row.error is None:
                tally.add(*summary_of(row.values, model), row.tokens, row.unknown)

    def profile(self, revision: str, label_names: Sequence[str]) -> Profile:
        """Return the counts of a revision, with these labels in bins of their own."""
        total, oldest = Tally(), self._slice() - SLICES
        for number, tally in self._slices.get(revision, ()):
            if number > oldest:
                total.merge(tally)
        return total.profile(label_names)

    def keep(self, revisions: Sequence[str]) -> None:
        """Forget all other revisions."""
        self._slices = {name: slices for name, slices in self._slices.items() if name in revisions}

    def _newest(self, revision: str) -> Tally:
        number, slices = self._slice(), self._slices.setdefault(revision, deque(maxlen=SLICES))
        if not slices or slices[-1][0] != number:
            slices.append((number, Tally()))
        return slices[-1][1]

    def _slice(self) -> int:
        return int(self._clock() * SLICES / self.window_s)
