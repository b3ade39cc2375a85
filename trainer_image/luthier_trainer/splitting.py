"""Holds out examples for evaluation and test, by row numbers.

Pure and deterministic: the same labels, fractions and seed give the same parts in every version of every library,
which is why the draw uses nothing but `random.Random`.
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from luthier_api.training import Split

Rows = npt.NDArray[np.int64]


class Parts(NamedTuple):
    """Row numbers of each part, ascending."""

    train: Rows
    held_out: Rows
    test: Rows


def split_rows(rows: Rows, strata: Rows, names: Sequence[str], split: Split) -> Parts:
    """Divide examples. What is evaluated does not depend on how much is tested.

    Stratified, every stratum with at least two examples is in train and evaluation, and with at least three in the test
    too, if there is one. Training keeps at least one of each.

    Args:
        rows: row numbers, ascending.
        strata: the stratum of each, an index into `names`.
        names: of the strata.
        split: fractions and seed.
    """
    generator = random.Random(split.seed)
    held_out: list[Rows] = []
    test: list[Rows] = []
    for group in _groups(rows, strata, names) if split.stratify else [rows]:
        evaluated = _draw(len(group), _count(len(group), float(split.fraction), len(group) - 1), generator)
        held_out.append(group[evaluated])
        left = np.delete(group, evaluated)
        if split.test_fraction:
            count = _count(len(group), float(split.test_fraction), len(left) - 1)
            test.append(left[_draw(len(left), count, generator)])
    found = [np.sort(np.concatenate([*each, rows[:0]])) for each in (held_out, test)]
    return Parts(np.setdiff1d(rows, np.concatenate(found), assume_unique=True), *found)


def _groups(rows: Rows, strata: Rows, names: Sequence[str]) -> list[Rows]:
    """Return the rows of each stratum that occurs, in the order of the strata's names."""
    order = np.argsort(strata, kind="stable")
    bounds = np.searchsorted(strata[order], np.arange(len(names) + 1))
    members = [rows[order[low:high]] for low, high in pairwise(bounds)]
    return [members[stratum] for stratum in sorted(range(len(names)), key=names.__getitem__) if len(members[stratum])]


def _count(group: int, fraction: float, most: int) -> int:
    return min(max(1, round(group * fraction)), max(0, most))


def _draw(size: int, count: int, generator: random.Random) -> Rows:
    return np.array(generator.sample(range(size), count), dtype=np.int64)
