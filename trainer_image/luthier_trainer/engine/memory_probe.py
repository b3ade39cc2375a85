"""Finds out by trying how many texts a GPU computes at once (`batchSize: auto`)."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from luthier_trainer.engine import memory
from luthier_trainer.engine.collate import Collator
from luthier_trainer.engine.forward import ForwardPass
from luthier_trainer.engine.losses import Loss
from luthier_trainer.engine.schedule import BatchLimits, longest_first
from luthier_trainer.runtime.errors import GpuOutOfMemory

log = logging.getLogger(__name__)


def probe_batch_limits(
    model: nn.Module,
    forward: ForwardPass,
    train: Collator,
    loss: Loss,
    limits: BatchLimits,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]],
    copies: int,
) -> BatchLimits:
    """Return limits that this rank's memory allows, tried out on the longest texts.

    Ranks need not agree: a share is the same in however many pieces.

    Args:
        model: that is trained.
        forward: how it computes.
        train: the training examples.
        loss: what is minimized.
        limits: that are not exceeded.
        device: where it is computed.
        autocast: of the precision of training.
        copies: how often the trained weights will lie in memory beside themselves: the optimizer's averages and, with
            several ranks, the buckets that gradients are added up in.

    Raises:
        GpuOutOfMemory: if not even one text fits.
    """
    model.train()
    lengths = train.part.lengths
    order = longest_first(np.arange(len(lengths)), lengths)
    most = min(limits.texts, len(order))
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def try_out(texts: int) -> None:
        reserved = [torch.empty_like(weight) for weight in weights for _ in range(copies)]
        batch = train.collate(order[:texts], limits, 1.0).to(device)
        try:
            with autocast(), forward.computing(batch):
                loss.rows(forward.logits(model, batch), batch.targets).mean().backward()  # type: ignore[no-untyped-call]
        finally:
            del reserved
            model.zero_grad(set_to_none=True)

    texts = memory.largest_that_fits(try_out, most)
    if not texts:
        raise GpuOutOfMemory(
            f"The GPU has no memory to train on one text of {lengths[order[0]]} tokens. Lower maxLength, set "
            "gradientCheckpointing, or train with method LoRA."
        )
    tokens = limits.tokens_of([int(length) for length in lengths[order[:texts]]])
    if texts < most:
        tokens = int(tokens * memory.MARGIN)
    log.info("batchSize auto: up to %d tokens at once", tokens)
    return replace(limits, tokens=tokens)
