"""Turns texts into token ids with the base model's own tokenizer, cut at maxLength.

Uses the `tokenizers` library directly: it is what "fast" tokenizers are, needs no torch, and computes a batch with as
many threads as `processors` allows. While it works on one batch, Python packs the one before.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from tokenizers import Encoding, Tokenizer

from luthier_artifacts.readers.rows import Text

Batch = TypeVar("Batch")
Input = str | list[str] | tuple[str, str]


@dataclass(frozen=True)
class Encoded:
    """Some examples as tokens.

    Attributes:
        ids: token ids, at most maxLength, special tokens included.
        lengths: tokens of each before it was cut.
        second_starts: where the second text begins, 0 without one.
        word_ids: the word that each token belongs to, None for special tokens; empty unless per token.
    """

    ids: list[list[int]]
    lengths: list[int]
    second_starts: list[int]
    word_ids: list[list[int | None]]


def configure(tokenizer: Tokenizer, max_length: int, *, per_token: bool = False) -> Tokenizer:
    """Return the tokenizer as training and serving use it: it cuts at max_length and never pads.

    For tasks per token, a tokenizer that marks words by the space before them (byte-level BPE) gets a space before each
    word; transformers asks for the same, `add_prefix_space=True` with `is_split_into_words`.
    """
    if per_token:
        tokenizer = _with_prefix_space(tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Tell whether the tokenizer takes a space to belong to the word after it."""
    return bool(_byte_level_steps(json.loads(tokenizer.to_str())))


def _with_prefix_space(tokenizer: Tokenizer) -> Tokenizer:
    settings = json.loads(tokenizer.to_str())
    for step in _byte_level_steps(settings):
        step["add_prefix_space"] = True
    return Tokenizer.from_str(json.dumps(settings))


def _byte_level_steps(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of what adds a space before a text, and of what takes it out of the words' places again."""
    before, after = settings.get("pre_tokenizer") or {}, settings.get("post_processor") or {}
    steps = (before, *before.get("pretokenizers", ()), after, *after.get("processors", ()))
    return [step for step in steps if step.get("type") in ("ByteLevel", "RobertaProcessing")]


class TextEncoder:
    """A tokenizer set up for one run.

    Args:
        tokenizer: the base model's.
        max_length: tokens kept of an example.
        pairs: whether examples are pairs of texts.
        per_token: whether texts come as words.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, pairs: bool = False, per_token: bool = False) -> None:
        self._tokenizer = configure(tokenizer, max_length, per_token=per_token)
        self._pairs, self._per_token = pairs, per_token
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=pairs)

    def without_text(self) -> list[int]:
        """Return the special tokens that every example has."""
        ids: list[int] = self._tokenizer.encode("", "" if self._pairs else None).ids
        return ids

    def encode_ahead(
        self, batches: Iterable[tuple[Batch, Sequence[Text], Sequence[str | None]]]
    ) -> Iterator[tuple[Batch, Encoded]]:
        """Tokenize (batch, texts, second texts) one after the other, each while the one before is used."""
        with ThreadPoolExecutor(1) as ahead:
            waiting: tuple[Batch, list[Input], Future[list[Encoding]]] | None = None
            for batch, texts, pairs in batches:
                inputs = self._inputs(texts, pairs)
                following = (batch, inputs, ahead.submit(self._encodings, inputs))
                if waiting:
                    yield waiting[0], self._packed(waiting[1], waiting[2].result())
                waiting = following
            if waiting:
                yield waiting[0], self._packed(waiting[1], waiting[2].result())

    def _inputs(self, texts: Sequence[Text], pairs: Sequence[str | None]) -> list[Input]:
        if self._pairs:
            return [(str(text), pair or "") for text, pair in zip(texts, pairs, strict=True)]
        return list(texts)

    def _encodings(self, inputs: list[Input]) -> list[Encoding]:
        if self._per_token:
            return self._tokenizer.encode_batch(inputs, is_pretokenized=True)
        # Leaves out the places of characters and words.
        return self._tokenizer.encode_batch_fast(inputs)

    def _packed(self, inputs: list[Input], encodings: list[Encoding]) -> Encoded:
        ids = [encoding.ids for encoding in encodings]
        return Encoded(
            ids,
            self._full_lengths(inputs, encodings, ids),
            [_second_start(encoding) for encoding in encodings] if self._pairs else [0] * len(ids),
            [encoding.word_ids for encoding in encodings] if self._per_token else [],
        )

    def _full_lengths(self, inputs: list[Input], encodings: list[Encoding], ids: list[list[int]]) -> list[int]:
        lengths = [len(each) for each in ids]
        cut = [row for row, encoding in enumerate(encodings) if encoding.overflowing]
        if not self._pairs:
            # What was cut comes as further pieces, each with special tokens of its own (all but one are lost before
            # tokenizers 0.23.3).
            for row in cut:
                lengths[row] += sum(len(piece.ids) - self._special for piece in encodings[row].overflowing)
            return lengths
        # The pieces of a pair are combined with each other, so that their sum says nothing.
        for row in cut:
            lengths[row] = self._special + sum(self._count(text) for text in inputs[row])
        return lengths

    def _count(self, text: str) -> int:
        """Count the tokens of one text without special tokens and without the limit."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return len(encoding.ids) + sum(len(piece.ids) for piece in encoding.overflowing)


def _second_start(encoding: Encoding) -> int:
    """Return the position of the second text's first token; where none is left of it, that of the last token."""
    sequences = encoding.sequence_ids
    return sequences.index(1) if 1 in sequences else len(sequences) - 1
