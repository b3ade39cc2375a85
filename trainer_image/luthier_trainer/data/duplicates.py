"""Which examples say the same: repeats, contradictions and leaks, found by hashes and row numbers alone. Pure.

Texts of several inputs get numbers, equal ones the same; everything else is arithmetic on those.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


def number_texts(hashes: Sequence[Hashes]) -> list[Numbers]:
    """Return for each input [examples] a number for each text: the same for the same text, from 0 without gaps.

    Args:
        hashes: for each input [examples, 2].
    """
    together = np.concatenate(hashes)
    order = np.lexsort((together[:, 1], together[:, 0]))
    ordered = together[order]
    is_new = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.zeros(len(together), dtype=np.int64)
    numbers[order[1:]] = np.cumsum(is_new)
    return np.split(numbers, np.cumsum([len(each) for each in hashes])[:-1])


def repeats(texts: Numbers, labels: Hashes) -> Mask:
    """Tell which examples have the text and the label of an earlier one."""
    # lexsort is stable, so that of equal examples the first comes first.
    order = np.lexsort((labels, texts))
    same = (texts[order][1:] == texts[order][:-1]) & (labels[order][1:] == labels[order][:-1])
    found = np.zeros(len(texts), dtype=np.bool_)
    found[order[1:]] = same
    return found


def conflicts(texts: Numbers, labels: Hashes) -> int:
    """Count the texts that stand there with more than one label."""
    once = ~repeats(texts, labels)
    return int((np.bincount(texts[once]) > 1).sum())


def distinct(texts: Numbers) -> int:
    """Count the different texts."""
    return len(np.unique(texts))


def shared(texts: Numbers, others: Sequence[Numbers]) -> Mask:
    """Tell which examples have a text that also stands in one of the others."""
    return np.isin(texts, np.concatenate([*others, np.zeros(0, dtype=np.int64)]))
