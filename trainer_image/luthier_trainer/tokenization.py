"""Turns texts into token ids with the base model's own tokenizer, cut at maxLength.

Uses the `tokenizers` library directly: it is what "fast" tokenizers are, and needs no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

BATCH_TEXTS = 1000


@dataclass(frozen=True)
class Encoded:
    """Token ids of some texts, and how many tokens each had before it was cut."""

    ids: list[list[int]]
    lengths: list[int]


def configure(tokenizer: Tokenizer, max_length: int) -> Tokenizer:
    """Cut at max_length and never pad, whatever the tokenizer's file says. Special tokens are kept."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Encoded:
    """Tokenize texts.

    Returns:
        ids: per text at most `max_length` ids, special tokens included.
        lengths: per text the number of tokens, special tokens included, without the limit.
    """
    configure(tokenizer, max_length)
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    ids: list[list[int]] = []
    lengths: list[int] = []
    for batch in _batches(texts):
        for encoding in tokenizer.encode_batch(batch):
            ids.append(encoding.ids)
            # The tokens that were cut come as further pieces, each with special tokens of its own.
            lengths.append(len(encoding.ids) + sum(len(piece.ids) - special for piece in encoding.overflowing))
    return Encoded(ids, lengths)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), BATCH_TEXTS):
        yield list(texts[start : start + BATCH_TEXTS])
