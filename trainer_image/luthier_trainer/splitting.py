"""Sets examples aside for evaluation, and keeps what is evaluated out of what is learned.

Pure and deterministic: the same examples, fraction and seed give the same parts in every version of every library,
which is why it uses nothing but `random.Random`.
"""

import random
from collections.abc import Sequence

from luthier_api.training import Split
from luthier_trainer.cleaning import Example


def split_examples(examples: Sequence[Example], split: Split) -> tuple[list[Example], list[Example]]:
    """Return (train, eval), each in the order of the file.

    Stratified, every label with at least two examples is in both parts. Neither part is empty when there are at least
    two examples.
    """
    generator = random.Random(split.seed)
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.label if split.stratify else "", []).append(index)
    held_out: set[int] = set()
    for label in sorted(groups):
        held_out.update(_draw(groups[label], float(split.fraction), generator))
    train = [example for index, example in enumerate(examples) if index not in held_out]
    return train, [examples[index] for index in sorted(held_out)]


def _draw(indexes: list[int], fraction: float, generator: random.Random) -> list[int]:
    count = min(max(1, round(len(indexes) * fraction)), len(indexes) - 1)
    return generator.sample(indexes, count)


def without_leakage(train: Sequence[Example], held_out: Sequence[Example]) -> list[Example]:
    """Return the training examples whose text is not evaluated, whatever its label there."""
    evaluated = {example.text for example in held_out}
    return [example for example in train if example.text not in evaluated]
