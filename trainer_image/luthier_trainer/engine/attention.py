"""Attention of each text to itself, for texts concatenated in one row.

    CUDA, half precision   FlashAttention over variable lengths (torch.nn.attention.varlen); it knows no dropout
    CUDA, fp32             padded inside attention alone, with a mask
    CPU                    texts of one length at once

Dropout of attention weights is that of the padded model, except under FlashAttention, where it is 0: torch offers none.
Queries, keys and values are [1, heads, tokens, size], as transformers' AttentionInterface hands them over.
"""

from dataclasses import dataclass
from itertools import groupby

import torch
from torch.nn import functional

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None  # type: ignore[assignment]


class NotPackable(Exception):
    """The model attends in a way that this module does not compute."""


@dataclass(frozen=True)
class Layout:
    """Where texts lie in a row.

    Attributes:
        lengths: [texts] tokens of each, longest first.
        starts: [texts] where each begins.
        ends: [texts + 1] int32, where each begins and the last ends.
    """

    lengths: tuple[int, ...]
    starts: torch.Tensor
    ends: torch.Tensor

    @classmethod
    def of(cls, lengths: tuple[int, ...], starts: torch.Tensor) -> "Layout":
        """Lay out texts."""
        return cls(lengths, starts, torch.nn.functional.pad(starts, (0, 1), value=sum(lengths)).to(torch.int32))

    @property
    def tokens(self) -> int:
        """Length of the row."""
        return sum(self.lengths)

    def groups(self) -> list[tuple[int, int]]:
        """Return (texts, length) for each run of texts of one length."""
        return [(len(list(texts)), length) for length, texts in groupby(self.lengths)]


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    *,
    dropout: float,
    scaling: float | None,
    first_only: bool,
) -> torch.Tensor:
    """Return attention's output [1, tokens, heads, size].

    Args:
        query: [1, heads, tokens, size].
        key: the same.
        value: the same.
        layout: where the texts lie.
        dropout: of attention weights.
        scaling: of the scores; None for 1 / sqrt(size).
        first_only: leave every row but those of first tokens zero.
    """
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    if not query.is_cuda:
        output = _by_length(q, k, v, layout, dropout, scaling, first_only)
    elif varlen_attn is not None and query.dtype in (torch.float16, torch.bfloat16):
        output = _variable_lengths(q, k, v, layout, scaling)
    else:
        output = _padded(q, k, v, layout, dropout, scaling)
    return output.unsqueeze(0)


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    dropout: float,
    scaling: float | None,
    first_only: bool,
) -> torch.Tensor:
    """Compute the texts of each length as one batch without a mask."""
    groups = layout.groups()
    sizes = [texts * length for texts, length in groups]
    # One split, not a slice for each length: the gradient of a slice is as large as what it was cut from.
    parts = zip(groups, *(torch.split(each, sizes) for each in (query, key, value)), strict=True)
    outputs = []
    for (texts, length), *rows in parts:
        q, k, v = (each.unflatten(0, (texts, length)).transpose(1, 2) for each in rows)
        output = _attended(q[:, :, :1] if first_only else q, k, v, dropout, scaling)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    together = torch.cat(outputs)
    return torch.zeros_like(query).index_copy(0, layout.starts, together) if first_only else together


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, scaling: float | None
) -> torch.Tensor:
    """Attend without a mask: [texts, heads, queries, size].

    On a CPU torch's own function has a kernel without dropout only. With it, it takes twice as many small operations as
    are written out here, some of them to find rows that a mask has emptied.
    """
    if not dropout:
        return functional.scaled_dot_product_attention(query, key, value, scale=scaling)
    scores = torch.matmul(query, key.transpose(2, 3)) * (scaling or query.shape[-1] ** -0.5)
    weights = functional.dropout(scores.softmax(dim=-1), dropout)
    return torch.matmul(weights, value)


def _variable_lengths(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scaling: float | None
) -> torch.Tensor:
    longest = layout.lengths[0]
    if scaling is not None and scaling != query.shape[-1] ** -0.5:
        # Not every release that has the function lets the scale be chosen.
        query = query * (scaling * query.shape[-1] ** 0.5)
    output = varlen_attn(query, key, value, layout.ends, layout.ends, longest, longest)
    assert isinstance(output, torch.Tensor)
    return output


def _padded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    places = torch.arange(layout.lengths[0], device=query.device)
    lengths = layout.ends.diff().unsqueeze(1)
    real = places < lengths
    index = (layout.starts.unsqueeze(1) + places).clamp(max=layout.tokens - 1)
    q, k, v = (each[index].transpose(1, 2) for each in (query, key, value))
    output = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=real[:, None, None, :], dropout_p=dropout, scale=scaling
    )
    # Where each token of the row lies in the padded batch, without asking the GPU how many are real.
    text = torch.repeat_interleave(
        torch.arange(len(layout.lengths), device=query.device), layout.ends.diff(), output_size=layout.tokens
    )
    back = torch.arange(layout.tokens, device=query.device) - layout.starts[text] + text * len(places)
    return output.transpose(1, 2).flatten(0, 1)[back]
