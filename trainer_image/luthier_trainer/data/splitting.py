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
    groups = _groups(rows, strata, names) if split.stratify else [rows]
    held_out, left = _draw_from(groups, groups, float(split.fraction), generator)
    test = rows[:0]
    if split.test_fraction:
        test, _ = _draw_from(groups, left, float(split.test_fraction), generator)
    return Parts(np.setdiff1d(rows, np.concatenate([held_out, test]), assume_unique=True), held_out, test)


def _draw_from(
    groups: list[Rows], left: list[Rows], fraction: float, generator: random.Random
) -> tuple[Rows, list[Rows]]:
    """Draw from what is left of each group this fraction of the whole group; return the drawn rows and the others."""
    drawn, others = [], []
    for whole, rows in zip(groups, left, strict=True):
        count = min(max(1, round(len(whole) * fraction)), max(0, len(rows) - 1))
        chosen = np.array(generator.sample(range(len(rows)), count), dtype=np.int64)
        drawn.append(rows[chosen])
        others.append(np.delete(rows, chosen))
    return np.sort(np.concatenate(drawn)), others


def _groups(rows: Rows, strata: Rows, names: Sequence[str]) -> list[Rows]:
    """Return the rows of each stratum that occurs, in the order of the strata's names."""
    order = np.argsort(strata, kind="stable")
    bounds = np.searchsorted(strata[order], np.arange(len(names) + 1))
    members = [rows[order[low:high]] for low, high in pairwise(bounds)]
    return [members[stratum] for stratum in sorted(range(len(names)), key=names.__getitem__) if len(members[stratum])]
