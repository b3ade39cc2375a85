"""The forward pass of one model over micro-batches: packed where that computes the same logits, padded otherwise.

A text's logits are those that it has alone, whatever shares its batch: the server answers it alone or in other company.
Where texts may be padded is not looked up in a list of architectures but tried on real texts: a model that reads its
answer off the last token (XLNet) must be padded on the left, one that knows no attention mask (FNet) not at all.
"""

import contextlib
import logging

import numpy as np
import torch
from torch import nn

from luthier_api.documents import Padding
from luthier_trainer.engine.collate import Collator, MicroBatch
from luthier_trainer.engine.packing import Packing, find_packing
from luthier_trainer.engine.schedule import BatchLimits, Indices, longest_first

log = logging.getLogger(__name__)

# Texts on which packed and padded logits are compared with those of single texts before they are trusted.
_COMPARED_TEXTS = 8
_NO_LIMIT = 2**62
# How far padded logits may be from those of single texts: by rounding, or by a part of what tells texts apart.
_ROUNDING, _PART_OF_SPREAD = 1e-5, 1e-2


class ForwardPass:
    """How one model computes logits.

    Args:
        packing: how the model is packed; None where it is not.
        padding: where texts of a batch are filled up.
    """

    def __init__(self, packing: Packing | None, padding: Padding = "right") -> None:
        self.packing, self.padding = packing, padding

    def computing(self, batch: MicroBatch) -> contextlib.AbstractContextManager[None]:
        """Compute a batch within this context, its backward pass included."""
        return self.packing.computing(batch) if self.packing else contextlib.nullcontext()

    def logits(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        """Return logits [rows, outputs] of a micro-batch."""
        names = ("input_ids", "position_ids", "attention_mask", "token_type_ids")
        given = {name: value for name in names if (value := getattr(batch, name)) is not None}
        logits: torch.Tensor = model(**given).logits
        return logits if batch.rows is None else logits.flatten(0, 1)[batch.rows]


def choose_forward_pass(
    model: nn.Module, train: Collator, device: torch.device, *, may_pack: bool, max_length: int
) -> ForwardPass:
    """Try the model on a few training texts, and return the fastest pass that computes what it says of each alone.

    Args:
        model: on the device.
        train: the training examples.
        device: where it is computed.
        may_pack: whether packing is wanted.
        max_length: tokens that the model can read.
    """
    tried = _Trial(model, train, device)
    model.eval()
    with torch.no_grad():
        wanted = tried.alone()
        padding = _choose_padding(tried, wanted, max_length)
        if not may_pack:
            return ForwardPass(None, padding)
        packed = tried.batch(train, tried.texts, packed=True)
        packing = find_packing(model, packed, wanted, per_token=train.per_token, compute=tried.logits)
    return ForwardPass(packing, padding)


class _Trial:
    """A few real texts of all lengths, longest first, and the model that computes them in several ways."""

    def __init__(self, model: nn.Module, train: Collator, device: torch.device) -> None:
        self._model, self._device, self._pass = model, device, ForwardPass(None)
        self.collator = train
        lengths = train.part.lengths
        order = longest_first(np.arange(len(lengths)), lengths)
        self.texts: Indices = order[np.unique(np.linspace(0, len(order) - 1, _COMPARED_TEXTS).astype(int))]

    def batch(self, collator: Collator, texts: Indices, *, packed: bool = False, padded_to: int = 0) -> MicroBatch:
        limits = BatchLimits(len(texts), _NO_LIMIT, padded_to, packed)
        return collator.collate(texts, limits, 0.0).to(self._device)

    def logits(self, batch: MicroBatch) -> torch.Tensor:
        return self._pass.logits(self._model, batch).float()

    def alone(self) -> torch.Tensor:
        """Return the logits of each text in a batch of its own, which nothing fills up."""
        return torch.cat(
            [self.logits(self.batch(self.collator, self.texts[[place]])) for place in range(len(self.texts))]
        )

    def rounding(self) -> float:
        """Return how far the logits of a text are from those of the same text twice in a batch."""
        one = self.texts[[0]]
        alone, twice = (self.logits(self.batch(self.collator, each)) for each in (one, np.repeat(one, 2)))
        return float((twice[: len(alone)] - alone).abs().max()) if len(alone) else 0.0


def _choose_padding(tried: _Trial, wanted: torch.Tensor, max_length: int) -> Padding:
    """Return the first side on which padding leaves the logits of single texts as they are."""
    if not wanted.numel():
        return "right"
    size, spread = float(wanted.abs().max()), float((wanted.amax(0) - wanted.amin(0)).max())
    allowed = max(_ROUNDING * size, 30 * tried.rounding(), _PART_OF_SPREAD * spread if spread > 1e-3 * size else 0.0)
    lengths = tried.collator.part.lengths[tried.texts]
    # Texts that are all of one length would not be padded.
    width = max_length if lengths.min() == lengths.max() else 0
    # Words are found by their places from the left.
    sides: tuple[Padding, ...] = ("right",) if tried.collator.per_token else ("right", "left")
    for side in sides:
        try:
            found = tried.logits(tried.batch(tried.collator.padded(side), tried.texts, padded_to=width))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError):  # a model that wants texts of one length says so in its own way
            continue
        if float((found - wanted).abs().max()) <= allowed:
            if side != "right":
                log.info("texts are padded on the %s, because padding elsewhere changes the model's answers", side)
            return side
    log.info("only texts of one length are computed together, because padding changes the model's answers")
    return "none"
