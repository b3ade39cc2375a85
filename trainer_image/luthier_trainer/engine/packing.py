"""Computes texts concatenated in one row, so that no layer computes padding.

    embeddings, linear layers, norms   on [1, tokens], as if it were one text; position ids restart with each text
    attention                          within each text alone (`attention`)
    head of a task per text            on [texts, 1, hidden]: first tokens, the only ones it reads
    last layer of a task per text      beyond attention's keys and values for first tokens alone

No model is forked: attention goes through transformers' AttentionInterface, the rest through hooks, and both act only
while a packed batch is computed, so that the model stays what it was for everybody else. Whether an architecture can be
packed is not looked up in a list but tried on real texts (`find_packing`). Needs torch.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from luthier_trainer.engine.attention import Layout, NotPackable, attend
from luthier_trainer.engine.collate import MicroBatch, pretrained

log = logging.getLogger(__name__)

IMPLEMENTATION = "luthier_packed"
# Logits of one model in fp32, computed in another order. Texts that were mixed up differ by a hundred times as much.
TOLERANCE = 1e-4

# Names within the last layer, in BERT and its kin or in DistilBERT. After the first there are only operations on single
# tokens; the second makes queries.
_AFTER_ATTENTION = re.compile(r"(^|\.)(attention\.output|sa_layer_norm)$")
_QUERY = re.compile(r"(^|\.)attention\.(self\.query|q_lin)$")
# Arguments of transformers' attention functions that change what is computed.
_UNKNOWN_ATTENTION = ("sliding_window", "softcap", "s_aux", "position_bias", "head_mask")

Compute = Callable[[MicroBatch], torch.Tensor]


class Packing:
    """Makes one model compute packed batches.

    Args:
        model: any transformers model, or a peft model around one.
        per_token: whether the task reads all tokens; otherwise only the first of each text.
        skip: skip what the last layer would compute for tokens that are not used.
    """

    # What is computed at the moment. Not by thread or context: gradient checkpointing computes a layer again in
    # autograd's own thread. One process trains one model at a time.
    _current: "Packing | None" = None

    def __init__(self, model: nn.Module, *, per_token: bool, skip: bool) -> None:
        self._model = pretrained(model)
        self._layout: Layout | None = None
        self._short: nn.Module | None = None
        self._gathering: list[nn.Module] = []
        self._query: nn.Module | None = None
        self._last: nn.Module | None = None
        if not per_token:
            self._find_last_layer(skip)
        AttentionInterface.register(IMPLEMENTATION, _attention)

    @contextmanager
    def computing(self, batch: MicroBatch) -> Iterator[None]:
        """Compute a batch, its backward pass included: what was not kept is computed again there."""
        if not batch.packed:
            yield
            return
        assert batch.starts is not None
        config, before = self._model.config, self._model.config._attn_implementation
        self._layout, Packing._current = Layout.of(batch.lengths, batch.starts), self
        config._attn_implementation = IMPLEMENTATION
        hooks = self._hook()
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            config._attn_implementation = before
            self._layout, Packing._current = None, None

    def attend(self, module: nn.Module, query: Any, key: Any, value: Any, **arguments: Any) -> torch.Tensor:
        """Compute attention for one layer."""
        assert self._layout is not None
        return attend(query, key, value, self._layout, first_only=module is self._short, **arguments)

    def _find_last_layer(self, skip: bool) -> None:
        layers = [module for module in self._model.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise NotPackable("its layers are not known")
        self._last = layers[-1]
        names = dict(self._last.named_modules())
        gathering = [module for name, module in names.items() if _AFTER_ATTENTION.search(name)]
        queries = [name for name in names if _QUERY.search(name)]
        if skip and len(gathering) == len(queries) == 1:
            self._gathering, self._query = [names[queries[0]], *gathering], names[queries[0]]
            self._short = names[queries[0].rpartition(".")[0]]

    def _hook(self) -> list[RemovableHandle]:
        hooks = [module.register_forward_pre_hook(self._gather_inputs) for module in self._gathering]
        if self._query is not None:
            hooks.append(self._query.register_forward_hook(self._scatter_output))
        if self._last is not None:
            hooks.append(self._last.register_forward_hook(self._as_texts))
        return hooks

    def _gather_inputs(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Go on with first tokens alone: [1, tokens, hidden] to [1, texts, hidden]."""
        assert self._layout is not None
        return tuple(each.index_select(1, self._layout.starts) for each in inputs)

    def _scatter_output(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """Put first tokens back to their places; attention reads no other query."""
        assert self._layout is not None
        zeros = output.new_zeros(1, self._layout.tokens, output.shape[-1])
        return zeros.index_copy(1, self._layout.starts, output)

    def _as_texts(self, module: nn.Module, inputs: Any, output: Any) -> torch.Tensor:
        """Show the head a batch of texts of one token each: [texts, 1, hidden]."""
        assert self._layout is not None
        if not isinstance(output, torch.Tensor):
            raise NotPackable("its layers return more than hidden states")
        return (output if self._query is not None else output.index_select(1, self._layout.starts)).transpose(0, 1)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' AttentionInterface asks."""
    packing = Packing._current
    assert packing is not None, "only set while a packed batch is computed"
    if getattr(module, "is_causal", False) or kwargs.get("is_causal"):
        raise NotPackable("it reads texts from left to right")
    if unknown := [name for name in _UNKNOWN_ATTENTION if kwargs.get(name) is not None]:
        raise NotPackable(f"its attention has a {unknown[0]}")
    return packing.attend(module, query, key, value, dropout=dropout, scaling=scaling), None


def find_packing(
    model: nn.Module, packed: MicroBatch, wanted: torch.Tensor, *, per_token: bool, compute: Compute
) -> "Packing | None":
    """Return a packing whose logits are those of single texts, None where there is none.

    Args:
        model: in evaluation mode.
        packed: real texts.
        wanted: the logits of each of them alone.
        per_token: whether the task reads all tokens.
        compute: returns the logits of a micro-batch.
    """
    reason = ""
    for skip in (True, False):
        try:
            packing = Packing(model, per_token=per_token, skip=skip)
            with packing.computing(packed):
                found = compute(packed)
            if found.shape != wanted.shape:
                raise NotPackable(f"its logits have the shape {tuple(found.shape)}, not {tuple(wanted.shape)}")
            difference = float((found - wanted).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):
                raise NotPackable(f"its logits differ by {difference:.2g} from those of single texts")
            return packing
        except torch.OutOfMemoryError:
            raise
        # Whatever goes wrong within a model that was not made for this: it can still be trained with padding.
        except (NotPackable, RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    log.info("texts are padded to the longest of each batch, because the model cannot be packed: %s", reason)
    return None
