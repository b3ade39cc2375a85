"""Plans which examples make which optimizer step, on which rank and in which pieces. Pure: numbers in, numbers out.

    seed, epoch -> order of all examples -> global batches -> shares of the ranks -> micro-batches

A step's gradient is that of its global batch, however many ranks and micro-batches compute it: shares are disjoint,
together they are the global batch, and who computes the loss divides by the rows of the global batch, not by its own.
Needs no torch; `loading` makes tensors of what is planned here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32]

# Batches that are sorted by length together where a model cannot be packed; as many as transformers' group_by_length.
_GROUPED_BATCHES = 50


@dataclass(frozen=True)
class BatchLimits:
    """What one forward pass may hold.

    Attributes:
        texts: at most.
        tokens: at most, padding included, unless a single text has more.
        padded_to: tokens that each text takes whatever its length, for tutorials' padding; 0 otherwise.
        packed: texts lie behind one another, so that none is padded; otherwise each is as wide as the longest.
        one_length: only texts of one length are computed at once, for models whose answers padding changes.
    """

    texts: int
    tokens: int
    padded_to: int = 0
    packed: bool = True
    one_length: bool = False

    def width(self, length: int, longest: int) -> int:
        """Return the tokens that a text takes in a forward pass whose longest text has `longest`."""
        return length if self.packed else max(self.padded_to, longest)

    def tokens_of(self, lengths: Sequence[int]) -> int:
        """Return the tokens that a forward pass over these texts computes, longest first."""
        return sum(self.width(length, lengths[0]) for length in lengths)

    def allow(self, lengths: Sequence[int]) -> bool:
        """Tell whether these texts, longest first, may be computed at once; one text always may."""
        if len(lengths) == 1:
            return True
        mixed = self.one_length and min(lengths) < max(lengths)
        return not mixed and len(lengths) <= self.texts and self.tokens_of(lengths) <= self.tokens

    def halved(self, lengths: Sequence[int]) -> "BatchLimits":
        """Return limits that cut what did not fit, texts of these lengths, at least in two."""
        return replace(self, texts=max(1, len(lengths) // 2), tokens=max(1, self.tokens_of(lengths) // 2))


class Schedule:
    """Which examples each step sees: a function of the seed and the epoch alone, the same on every rank.

    Args:
        lengths: [examples] tokens of each example.
        examples_per_step: size of a global batch; the last one of an epoch may be smaller.
        seed: of the order.
        grouped: let a global batch hold texts of about one length, for models that cannot be packed.
    """

    def __init__(self, lengths: Lengths, examples_per_step: int, seed: int, *, grouped: bool = False) -> None:
        self._lengths = lengths
        self._per_step = examples_per_step
        self._seed = seed
        self._grouped = grouped
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every example is seen once."""
        return -(-len(self._lengths) // self._per_step)

    def batch(self, step: int) -> Indices:
        """Return the examples of one step, counted from the beginning of the training."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.order(epoch)[place * self._per_step : (place + 1) * self._per_step]

    def order(self, epoch: int) -> Indices:
        """Return all examples in the order of one epoch."""
        if epoch != self._epoch:
            random = np.random.default_rng([self._seed, epoch])
            order = random.permutation(len(self._lengths))
            self._order = self._by_length(order, random) if self._grouped else order
            self._epoch = epoch
        return self._order

    def _by_length(self, order: Indices, random: np.random.Generator) -> Indices:
        """Sort large pieces of a random order by length, then shuffle the batches that this makes."""
        size = self._per_step * _GROUPED_BATCHES
        pieces = [order[start : start + size] for start in range(0, len(order), size)]
        sorted_ = np.concatenate([piece[np.argsort(-self._lengths[piece], kind="stable")] for piece in pieces])
        whole = len(sorted_) // self._per_step * self._per_step
        batches = random.permutation(sorted_[:whole].reshape(-1, self._per_step))
        return np.concatenate([batches.reshape(-1), sorted_[whole:]])


def longest_first(indices: Indices, lengths: Lengths) -> Indices:
    """Return examples sorted by length, those of one length in the order of their positions."""
    ordered: Indices = np.sort(indices)
    return ordered[np.argsort(-lengths[ordered], kind="stable")]


def rank_share(batch: Indices, lengths: Lengths, rank: int, world: int) -> Indices:
    """Return a rank's part of a global batch, longest first.

    Texts are dealt back and forth from the longest on, so that ranks get as many texts give or take one, and about as
    many tokens. A rank's part is empty where a batch has fewer texts than there are ranks.
    """
    dealt = longest_first(batch, lengths)
    rounds, place = np.divmod(np.arange(len(dealt)), world)
    share: Indices = dealt[np.where(rounds % 2, world - 1 - place, place) == rank]
    return share


def micro_batches(ordered: Indices, lengths: Lengths, limits: BatchLimits) -> list[Indices]:
    """Cut examples that are sorted by length, longest first, into pieces that each fit into one forward pass."""
    pieces: list[Indices] = []
    start, tokens = 0, 0
    for place, index in enumerate(ordered):
        longest = int(lengths[ordered[start]])
        width = limits.width(int(lengths[index]), longest)
        full = place - start == limits.texts or tokens + width > limits.tokens
        if place > start and (full or (limits.one_length and lengths[index] < longest)):
            pieces.append(ordered[start:place])
            start, tokens = place, 0
            width = limits.width(int(lengths[index]), int(lengths[index]))
        tokens += width
    return [*pieces, ordered[start:]] if len(ordered) else []
