"""Makes tensors of planned batches: what the DataLoader of the training yields, and what an evaluation reads.

One item of the training data is a rank's whole share of one optimizer step, as a list of micro-batches, and its key is
the number of the step: a worker process or a resumed run needs to know nothing else. Needs torch.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

from luthier_api.documents import Padding
from luthier_trainer.engine.schedule import BatchLimits, Indices
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.interface import IGNORED, TaskModule
from luthier_trainer.tasks.judged_tokens import judged_tokens


@dataclass(frozen=True)
class TokenFormat:
    """How a model wants its tokens.

    Attributes:
        pad_token_id: fills a batch up.
        first_position: position of a text's first token: 0, or 2 in RoBERTa and its kin.
        token_types: whether the model marks the tokens of a second text by their type.
        padding: where a batch is filled up; none: it holds texts of one length only.
    """

    pad_token_id: int
    first_position: int = 0
    token_types: bool = False
    padding: Padding = "right"


def pretrained(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model, which peft may have wrapped."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


def token_format(model: nn.Module, pad_token_id: int) -> TokenFormat:
    """Return how a model wants its tokens, read off its embeddings."""
    modules = list(model.modules())
    # RoBERTa and its kin count positions from the one after the padding token's.
    counting = [each for each in modules if hasattr(each, "create_position_ids_from_input_ids")]
    first = 1 + int(counting[0].padding_idx) if counting else 0  # type: ignore[arg-type]
    return TokenFormat(pad_token_id, first, getattr(pretrained(model).config, "type_vocab_size", 0) > 1)


@dataclass(frozen=True)
class MicroBatch:
    """Texts of one forward pass, longest first.

    Attributes:
        indices: [texts] their positions in the part.
        lengths: [texts] tokens of each.
        packed: whether the texts lie behind one another in one row.
        input_ids: [1, tokens] packed, [texts, width] otherwise.
        position_ids: [1, tokens] packed, None otherwise.
        attention_mask: [texts, width], None packed.
        token_type_ids: as input_ids; None where the model has none.
        starts: [texts] packed: where each text begins.
        targets: [rows] or [rows, outputs].
        rows: [rows] for tasks per token the judged tokens' places among all tokens of input_ids; None otherwise.
        share: the loss of this micro-batch is the sum of its rows times this: 1 / rows of the global batch, or 0 for a
            text that only keeps an idle rank in step.
    """

    indices: Indices
    lengths: tuple[int, ...]
    packed: bool
    input_ids: torch.Tensor
    position_ids: torch.Tensor | None
    attention_mask: torch.Tensor | None
    token_type_ids: torch.Tensor | None
    starts: torch.Tensor | None
    targets: torch.Tensor
    rows: torch.Tensor | None
    share: float

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the same on a device, without waiting for the copy where the memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "MicroBatch":
        """Return the same in memory that a GPU can copy from by itself; the DataLoader asks for it."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "MicroBatch":
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                values[name] = change(value)
        return MicroBatch(**values)


class Collator:
    """Makes micro-batches of one part's examples.

    Args:
        part: the examples.
        task: says what is learned from them.
        outputs: of the model.
        tokens: how the model wants them.
    """

    def __init__(self, part: Part, task: TaskModule, outputs: int, tokens: TokenFormat) -> None:
        self.part = part
        self.tokens = tokens
        self._task, self._outputs = task, outputs
        self.per_token = task.per_token
        self._targets = None if task.per_token else task.dense_targets(part, outputs)
        # How many rows of the loss each text has.
        self.rows = judged_tokens(part) if task.per_token else np.ones(len(part), dtype=np.int64)

    def of(self, part: Part) -> "Collator":
        """Return one of other examples."""
        return Collator(part, self._task, self._outputs, self.tokens)

    def padded(self, padding: Padding) -> "Collator":
        """Return one of the same examples that fills batches up elsewhere."""
        other = copy.copy(self)
        other.tokens = replace(self.tokens, padding=padding)
        return other

    def collate(self, indices: Indices, limits: BatchLimits, share: float) -> MicroBatch:
        """Make tensors of examples that are sorted by length, longest first."""
        ids = [self.part.input_ids(int(index)) for index in indices]
        lengths = tuple(len(each) for each in ids)
        width = 0 if limits.packed else max(limits.padded_to, lengths[0])
        starts = np.cumsum([0, *lengths[:-1]]) if limits.packed else np.arange(len(ids)) * width
        if self.tokens.padding == "left" and not limits.packed:
            starts = starts + width - np.array(lengths)
        count = sum(lengths) if limits.packed else width * len(ids)
        shape = (1, count) if limits.packed else (len(ids), width)

        def filled(values: list[npt.NDArray[Any]], filler: int) -> torch.Tensor:
            flat = np.full(count, filler, dtype=np.int64)
            for start, each in zip(starts, values, strict=True):
                flat[start : start + len(each)] = each
            return torch.from_numpy(flat).view(shape)

        first, kinds = self.tokens.first_position, None
        if self.tokens.token_types:
            kinds = filled([self._token_types(int(i), n) for i, n in zip(indices, lengths, strict=True)], 0)
        targets, rows = self._targets_of(indices, starts)
        return MicroBatch(
            indices=indices,
            lengths=lengths,
            packed=limits.packed,
            input_ids=filled(list(ids), self.tokens.pad_token_id),
            position_ids=filled([np.arange(n) + first for n in lengths], 0) if limits.packed else None,
            attention_mask=None if limits.packed else filled([np.ones(n) for n in lengths], 0),
            token_type_ids=kinds,
            starts=torch.from_numpy(starts) if limits.packed else None,
            targets=targets,
            rows=rows,
            share=share,
        )

    def _token_types(self, index: int, length: int) -> npt.NDArray[np.int64]:
        second = self.part.second_start(index)
        return (np.arange(length) >= (second or length)).astype(np.int64)

    def _targets_of(self, indices: Indices, starts: npt.NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self._targets is not None:
            return torch.from_numpy(self._targets[indices]), None
        targets = [np.asarray(self.part.target(int(index)), dtype=np.int64) for index in indices]
        judged = [np.flatnonzero(each != IGNORED) for each in targets]
        places = [start + each for start, each in zip(starts, judged, strict=True)]
        chosen = [each[where] for each, where in zip(targets, judged, strict=True)]
        return torch.from_numpy(np.concatenate(chosen)), torch.from_numpy(np.concatenate(places))
