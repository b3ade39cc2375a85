"""Which texts are computed together: a plan of batches under a token budget.

Texts are sorted by length, so that neighbours are alike. On a GPU short texts are padded to the longest of their batch;
on a CPU padding costs as much as text, so there only texts of equal length share a batch. Pure.
"""

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], *, max_tokens: int, pad: bool) -> list[list[int]]:
    """Return lists of positions, each position once, so that rows times longest row stays within the budget.

    Args:
        lengths: tokens of each text.
        max_tokens: tokens of one batch, padding included. A text that is longer by itself is a batch of its own.
        pad: whether texts of different lengths may share a batch.
    """
    batches: list[list[int]] = []
    current: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda position: (-lengths[position], position)):
        longest = lengths[current[0]] if current else lengths[index]
        fits = (len(current) + 1) * longest <= max_tokens and (pad or lengths[index] == longest)
        if current and not fits:
            batches.append(current)
            current = []
        current.append(index)
    if current:
        batches.append(current)
    return batches
