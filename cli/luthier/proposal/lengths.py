"""How many tokens the texts have, and how many to keep.

Counted by the model's tokenizer where transformers is installed and has it in its cache; else estimated as 1.3 tokens a
word, which is what English wordpieces come to, and a token a character where words are not separated.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_TOKENS_PER_WORD = 1.3
# [CLS] and [SEP]; one more between the texts of a pair.
_SPECIAL = 2
_STEP = 16
_MODEL_LIMIT = 512
_SHARE_KEPT = 0.99
_SAMPLE = 5000


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens, and how they were counted."""

    median: int
    p95: int
    p99: int
    longest: int
    counted_by: str
    max_length: int
    cut: float
    """Share of the texts that are longer than that."""


def measure(
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    count: tuple[Callable[[str], int], str] | None = None,
    keep: int | None = None,
) -> Lengths:
    """Return the lengths of texts, and the fewest tokens to keep that leave 99 % of them whole.

    Args:
        texts: The texts.
        pairs: The second texts, of pairs.
        count: Counts the tokens of a text, and what it is called. Default: an estimate.
        keep: Tokens to keep of each text, if that is decided already.
    """
    tokens, counted_by = count or (estimate, f"estimated as {_TOKENS_PER_WORD} tokens a word")
    second = pairs if pairs is not None else [""] * len(texts)
    special = _SPECIAL + (pairs is not None)
    found = sorted(
        tokens(text) + (tokens(other) if other else 0) + special
        for text, other in zip(texts[:_SAMPLE], second[:_SAMPLE], strict=True)
        if text
    ) or [special]
    kept = keep or min(_MODEL_LIMIT, max(_STEP, math.ceil(_quantile(found, _SHARE_KEPT) / _STEP) * _STEP))
    cut = sum(length > kept for length in found) / len(found)
    return Lengths(
        _quantile(found, 0.5), _quantile(found, 0.95), _quantile(found, 0.99), found[-1], counted_by, kept, cut
    )


def estimate(text: str) -> int:
    """Return about how many tokens a text has."""
    words = text.split()
    separated = math.ceil(len(words) * _TOKENS_PER_WORD)
    dense = sum(1 for character in text if ord(character) > 0x2E80)
    return max(separated, dense)


def tokenizer_of(uri: str) -> tuple[Callable[[str], int], str] | None:
    """Return what counts with a model's own tokenizer, if transformers is installed and it lies on this machine.

    Nothing is downloaded: a manifest is not worth a minute of waiting. Nor is transformers imported in vain.
    """
    name = unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri.removeprefix("hf://")
    if importlib.util.find_spec("transformers") is None or not _is_here(name, hub=uri.startswith("hf://")):
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        return None
    return (lambda text: len(tokenizer.tokenize(text))), f"counted by the tokenizer of {name}"


def _is_here(name: str, *, hub: bool) -> bool:
    """Tell whether a model is a folder of this machine, or in the cache that Hugging Face's libraries share."""
    if not hub:
        return Path(name).is_dir()
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return (cache / f"models--{name.replace('/', '--')}").is_dir()


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
