"""Texts to probabilities: cleaning, tokenization, batches, an engine, softmax. The same for every engine.

A text that makes a batch fail is found by computing that batch again text by text, so that it fails alone.
"""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from luthier_api.documents import SERVING_DOCUMENT_FILE, DocumentError, ServingDocument
from luthier_api.reasons import Reason
from luthier_api.text import normalize_text
from luthier_serving.answers import Row
from luthier_serving.engines import Engine, Ids
from luthier_serving.errors import LoadError
from luthier_serving.planning import plan_batches

TOKENIZER_FILE = "tokenizer.json"
# Digits of a probability in an answer: more than a float16 model knows, and half the bytes.
DIGITS = 6

logger = logging.getLogger("ray.serve")


class Classifier:
    """A text classifier, loaded and tried once.

    Attributes:
        labels: in the order of a row's probabilities.
        merges: whether it pays to give it the texts of several calls at once.

    Args:
        folder: the artifact's files, verified.
        engine: what computes logits.
        max_tokens: tokens of one batch, padding included.

    Raises:
        LoadError: the artifact's parts do not fit together.
    """

    def __init__(self, folder: Path, engine: Engine, *, max_tokens: int):
        self._document = _read_document(folder)
        self._tokenizer = _read_tokenizer(folder, self._document.max_length)
        self._engine = engine
        self._max_tokens = max_tokens
        self.labels = tuple(self._document.labels)
        self.merges = engine.pads
        self._try_out()

    def predict(self, texts: list[str]) -> list[Row]:
        """Return one row per text, in order."""
        ids = self._tokenize(texts)
        rows: list[Row] = [Row([])] * len(texts)
        plan = plan_batches([len(one) for one in ids], max_tokens=self._max_tokens, pad=self._engine.pads)
        for batch in plan:
            for index, row in zip(batch, self._rows([ids[index] for index in batch]), strict=True):
                rows[index] = row
        return rows

    def _rows(self, ids: list[list[int]]) -> list[Row]:
        try:
            return [Row(row) for row in self._probabilities(ids).round(DIGITS).tolist()]
        except Exception as error:
            if len(ids) > 1:
                logger.warning("a batch of %d texts failed (%s); its texts are computed one by one", len(ids), error)
                return [row for one in ids for row in self._rows([one])]
            logger.exception("a text of %d tokens failed", len(ids[0]))
            return [Row([], f"The model failed on this text: {error}")]

    def _probabilities(self, ids: list[list[int]]) -> npt.NDArray[np.float64]:
        logits = self._engine.logits(*_rectangle(ids, self._document.pad_token_id)).astype(np.float64)
        # Subtracting the largest logit keeps exp() finite (Goodfellow et al., Deep Learning, section 4.1).
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        if not np.isfinite(shares).all():
            raise ArithmeticError("the model's output is not finite")
        return shares

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        document = self._document
        cleaned = [
            normalize_text(text, lowercase=document.lowercase, strip_whitespace=document.strip_whitespace)
            for text in texts
        ]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(cleaned)]

    def _try_out(self) -> None:
        """Compute one text: the labels must fit the model, and the first client should not wait for warm-up."""
        try:
            width = self._probabilities(self._tokenize(["warm-up"])).shape[1]
        except Exception as error:
            raise LoadError(Reason.INVALID_MODEL, f"The model fails on a first text: {error}") from error
        if width != len(self.labels):
            raise LoadError(
                Reason.INVALID_MODEL,
                f"The model has {width} outputs but {SERVING_DOCUMENT_FILE} names {len(self.labels)} labels.",
            )


def _rectangle(ids: list[list[int]], pad_token_id: int) -> tuple[Ids, Ids]:
    """Return token ids and mask [texts, longest], filled up on the right."""
    longest = max(len(one) for one in ids)
    input_ids = np.full((len(ids), longest), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(ids), longest), dtype=np.int64)
    for row, one in enumerate(ids):
        input_ids[row, : len(one)] = one
        mask[row, : len(one)] = 1
    return input_ids, mask


def _read_document(folder: Path) -> ServingDocument:
    path = folder / SERVING_DOCUMENT_FILE
    if not path.is_file():
        raise LoadError(
            Reason.INVALID_MODEL,
            f"The artifact has no {SERVING_DOCUMENT_FILE}; serve a version that Luthier's trainer published.",
        )
    try:
        return ServingDocument.from_json(path.read_bytes())
    except (ValueError, DocumentError) as error:
        raise LoadError(
            Reason.INVALID_MODEL, f"The artifact's {SERVING_DOCUMENT_FILE} is not what this server reads: {error}"
        ) from error


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
