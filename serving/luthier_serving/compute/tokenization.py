"""Texts to token ids: cleaning and the artifact's own tokenizer, truncated as in training. Needs no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from luthier_api.artifact_files import TOKENIZER_FILE
from luthier_api.documents import ServingDocument
from luthier_api.reasons import Reason
from luthier_api.text import normalize_text
from luthier_serving.answers import Text
from luthier_serving.compute.engines import Batch
from luthier_serving.compute.offsets import original_positions
from luthier_serving.errors import LoadError
from luthier_serving.tasks.interface import Word


class EncodedText(NamedTuple):
    """A text, or a pair of texts, as a model reads it.

    Attributes:
        ids: its tokens, special tokens included.
        type_ids: for a pair, the tokenizer's type of each token: usually 0 in the first text and 1 in the second.
        words: for a task per token.
        cut: tokens of the text that were left out, since it was too long.
    """

    ids: list[int]
    type_ids: list[int] | None = None
    words: Sequence[Word] = ()
    cut: int = 0


class Tokenization:
    """The tokenizer of an artifact, and the cleaning before it.

    Args:
        folder: the artifact's files.
        document: how its texts are cleaned and truncated.
        per_token: whether the task needs the words of a text.
        like: another one of the same tokenizer.json, whose tokenizer is used again if it truncates alike.

    Raises:
        LoadError: the artifact has no tokenizer, or none that can be read.
    """

    def __init__(self, folder: Path, document: ServingDocument, *, per_token: bool, like: "Tokenization | None" = None):
        alike = like is not None and like._document.max_length == document.max_length
        self._tokenizer: Tokenizer = like._tokenizer if like and alike else _read_tokenizer(folder, document.max_length)
        self._document: ServingDocument = document
        self._special_tokens: int = self._tokenizer.num_special_tokens_to_add(False)
        self._per_token = per_token
        # In training the words came as a list: the tokenizer saw no white space between them.
        strip_whitespace = document.strip_whitespace or per_token
        self._cleaning = {"lowercase": document.lowercase, "strip_whitespace": strip_whitespace}

    def encode(self, texts: Sequence[Text]) -> list[EncodedText]:
        """Return the tokens of each text. Either all are pairs or none is."""
        cleaned = [self._clean(text) if isinstance(text, str) else tuple(map(self._clean, text)) for text in texts]
        if self._per_token:
            encodings = self._tokenizer.encode_batch(cleaned)
            return [
                EncodedText(ids := encoding.ids, words=self._words(text, encoding), cut=self._cut(text, ids, encoding))
                for text, encoding in zip(texts, encodings, strict=True)
                if isinstance(text, str)
            ]
        # Without offsets: takes half the time.
        encodings = self._tokenizer.encode_batch_fast(cleaned)
        pairs = self._document.pairs
        return [
            EncodedText(ids := encoding.ids, encoding.type_ids if pairs else None, cut=self._cut(text, ids, encoding))
            for text, encoding in zip(cleaned, encodings, strict=True)
        ]

    def collate(self, texts: Sequence[EncodedText]) -> Batch:
        """Return the input of an engine: texts padded on the side on which the model reads past padding."""
        longest = max(len(text.ids) for text in texts)
        input_ids = np.full((len(texts), longest), self._document.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        type_ids = np.zeros_like(input_ids) if self._document.pairs else None
        for row, text in enumerate(texts):
            start = longest - len(text.ids) if self._document.padding == "left" else 0
            place = slice(start, start + len(text.ids))
            input_ids[row, place] = text.ids
            mask[row, place] = 1
            if type_ids is not None and text.type_ids:
                type_ids[row, place] = text.type_ids
        return Batch(input_ids, mask, type_ids)

    def _clean(self, text: str) -> str:
        return normalize_text(text, **self._cleaning)

    def _cut(self, text: str | tuple[str, ...], ids: list[int], encoding: Encoding) -> int:
        """Return how many tokens of a text were left out; only one that fills the limit can have lost any."""
        if len(ids) < self._document.max_length:
            return 0
        if isinstance(text, str):
            return sum(len(part.ids) - self._special_tokens for part in encoding.overflowing)
        # What overflows of a pair is repeated for each combination of its parts: so each text is counted by itself.
        alone = self._tokenizer.encode_batch_fast(list(text), add_special_tokens=False)
        tokens = sum(len(part.ids) for each in alone for part in (each, *each.overflowing))
        return tokens + self._tokenizer.num_special_tokens_to_add(True) - len(ids)

    def _words(self, text: str, encoding: Encoding) -> list[Word]:
        positions = original_positions(text, **self._cleaning)
        first: dict[int, int] = {}
        starts: dict[int, int] = {}
        ends: dict[int, int] = {}
        for token, (word, (start, end)) in enumerate(zip(encoding.word_ids, encoding.offsets, strict=True)):
            if word is None:
                continue
            first.setdefault(word, token)
            # A token may be empty, or only the white space before a word.
            if start < end:
                starts.setdefault(word, positions[start])
                ends[word] = positions[end - 1] + 1
        words = [_trimmed(Word(first[word], start, ends[word]), text) for word, start in starts.items()]
        return [word for word in words if word.start < word.end]


def _trimmed(word: Word, text: str) -> Word:
    """Return the word without the leading white space that some tokenizers count as part of it."""
    inside = text[word.start : word.end]
    return word._replace(start=word.end - len(inside.lstrip()))


def _read_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise LoadError(Reason.INVALID_MODEL, f"The artifact has no {TOKENIZER_FILE}; train with a fast tokenizer.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise LoadError(Reason.INVALID_MODEL, f"The artifact's {TOKENIZER_FILE} cannot be read: {error}") from error
    tokenizer.enable_truncation(max_length=max_length)
    tokenizer.no_padding()
    return tokenizer
