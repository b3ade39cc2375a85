"""The forward pass of one model over micro-batches: packed where that computes the same logits, padded otherwise."""

import contextlib

import numpy as np
import torch
from torch import nn

from luthier_trainer.engine.collate import Collator, MicroBatch
from luthier_trainer.engine.packing import Packing, find_packing
from luthier_trainer.engine.schedule import BatchLimits, longest_first

# Texts on which packed and padded logits are compared before a packed model is trusted.
_COMPARED_TEXTS = 8


class ForwardPass:
    """How one model computes logits.

    Args:
        packing: how the model is packed; None where every text is padded.
    """

    def __init__(self, packing: Packing | None) -> None:
        self.packing = packing

    def computing(self, batch: MicroBatch) -> contextlib.AbstractContextManager[None]:
        """Compute a batch within this context, its backward pass included."""
        return self.packing.computing(batch) if self.packing else contextlib.nullcontext()

    def logits(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        """Return logits [rows, outputs] of a micro-batch."""
        names = ("input_ids", "position_ids", "attention_mask", "token_type_ids")
        given = {name: value for name in names if (value := getattr(batch, name)) is not None}
        logits: torch.Tensor = model(**given).logits
        return logits if batch.rows is None else logits.flatten(0, 1)[batch.rows]


def choose_forward_pass(model: nn.Module, train: Collator, device: torch.device) -> ForwardPass:
    """Try the model packed and padded on a few training texts, and return the packed pass if it computes the same."""
    padded_pass = ForwardPass(None)
    lengths = train.part.lengths
    order = longest_first(np.arange(len(lengths)), lengths)
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _COMPARED_TEXTS).astype(int))]
    packed, padded = (
        train.collate(chosen, BatchLimits(len(chosen), 2**62, packed=packed), 0.0).to(device)
        for packed in (True, False)
    )
    model.eval()
    with torch.no_grad():
        packing = find_packing(
            model,
            per_token=train.per_token,
            pairs=[(packed, padded)],
            compute=lambda batch: padded_pass.logits(model, batch),
        )
    return ForwardPass(packing)
