"""Which texts are computed together: a plan of batches within a token budget.

Texts are sorted by length, so that texts of similar length share a batch. On a GPU they are padded to the longest of
their batch; on a CPU, where padding costs as much as text, only texts of equal length share a batch. Pure.
"""

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], *, max_tokens: int, pad: bool) -> list[list[int]]:
    """Return batches of indices, each index once; texts times the longest length stays within the budget.

    Args:
        lengths: number of tokens of each text.
        max_tokens: tokens of one batch, padding included. A single text with more tokens is a batch of its own.
        pad: whether texts of different lengths may share a batch.
    """
    batches: list[list[int]] = []
    current: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        longest = lengths[current[0]] if current else lengths[index]
        fits = (len(current) + 1) * longest <= max_tokens and (pad or lengths[index] == longest)
        if current and not fits:
            batches.append(current)
            current = []
        current.append(index)
    if current:
        batches.append(current)
    return batches
