"""The training data as the DataLoader sees it: one item is a rank's whole share of one optimizer step.

An item's key is the number of the step, so that a worker process or a resumed run needs to know nothing else.
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Dataset, Sampler

from luthier_trainer.engine.collate import Collator, MicroBatch
from luthier_trainer.engine.schedule import BatchLimits, Indices, Schedule, micro_batches, rank_share


class StepShares(Dataset[list[MicroBatch]]):
    """This rank's shares of all steps, by the number of the step.

    Args:
        collator: of the training part.
        schedule: which examples make a step.
        limits: of a micro-batch.
        rank, world: whose shares.
    """

    def __init__(self, collator: Collator, schedule: Schedule, limits: BatchLimits, rank: int, world: int) -> None:
        self.collator = collator
        self._schedule = schedule
        self._rank, self._world = rank, world
        self.limits = limits

    def __len__(self) -> int:
        return self._schedule.steps_per_epoch

    def __getitem__(self, step: int) -> list[MicroBatch]:
        batch = self._schedule.batch(step)
        rows = int(self.collator.rows[batch].sum())
        lengths = self.collator.part.lengths
        share = rank_share(batch, lengths, self._rank, self._world)
        if not len(share):
            return [self.collator.collate(batch[:1], self.limits, 0.0)]
        return self._split(share, 1 / max(1, rows))

    def sizes(self, step: int) -> tuple[int, int]:
        """Return the examples and the tokens of a step, over all ranks."""
        batch = self._schedule.batch(step)
        return len(batch), int(self.collator.part.lengths[batch].sum())

    def split_again(self, share: list[MicroBatch]) -> list[MicroBatch]:
        """Return a share cut by the limits of now."""
        return self._split(np.concatenate([each.indices for each in share]), share[0].share)

    def _split(self, share: Indices, weight: float) -> list[MicroBatch]:
        pieces = micro_batches(share, self.collator.part.lengths, self.limits)
        return [self.collator.collate(piece, self.limits, weight) for piece in pieces]


class StepSampler(Sampler[list[int]]):
    """Yields the steps of the epoch that is to be trained, each as a batch of its own.

    The epoch follows from the number of steps done. accelerate's skip_first_batches skips the steps
    that an earlier attempt did without making them.
    """

    def __init__(self, steps_per_epoch: int, steps_done: Callable[[], int]) -> None:
        self._steps = steps_per_epoch
        self._done = steps_done
        # What DataLoaders of accelerate and transformers look for.
        self.batch_size, self.drop_last = 1, False

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        first = self._done() // self._steps * self._steps
        yield from ([step] for step in range(first, first + self._steps))


def only(items: list[list[MicroBatch]]) -> list[MicroBatch]:
    """Return the share that is the batch; the DataLoader's collate_fn."""
    (share,) = items
    return share
