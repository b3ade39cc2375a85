"""Texts to the values of a task: tokens, batches, an engine. The same for every engine and every task.

A text that makes a batch fail is found by computing that batch again text by text, so that it fails alone.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from luthier_api.base import Engine as EngineName
from luthier_api.documents import SERVING_DOCUMENT_FILE, DocumentError, ServingDocument
from luthier_api.reasons import Reason
from luthier_serving.answers import About, Row, Text, Values
from luthier_serving.compute.batch_plan import plan_batches
from luthier_serving.compute.engines import Engine, Logits, open_engine
from luthier_serving.compute.tokenization import Encoded, Tokenization
from luthier_serving.errors import LoadError
from luthier_serving.tasks import OUTPUTS

WARM_UP = "warm-up"

logger = logging.getLogger("ray.serve")


class Model:
    """A model, loaded and tried once.

    Attributes:
        about: what it is.
        merges: whether it pays to give it the texts of several calls at once.

    Args:
        folder: the artifact's files, verified.
        document: its luthier.json.
        engine: what computes logits.
        version: in the registry.
        max_tokens: tokens of one batch, padding included.

    Raises:
        LoadError: the artifact's parts do not fit together.
    """

    def __init__(self, folder: Path, document: ServingDocument, engine: Engine, *, version: str, max_tokens: int):
        self._output = OUTPUTS[document.task]
        self._tokenization = Tokenization(folder, document, per_token=self._output.per_token)
        self._engine = engine
        # A text of more tokens than fit is a batch of its own.
        self._max_tokens = max_tokens if engine.independent else 0
        self.about = About(
            version, engine.weights, document.task, tuple(document.labels), document.pairs, document.threshold
        )
        self.merges = engine.pads
        self._refused = Row([], _refusal(pairs=document.pairs), refused=True)
        self._try_out()

    def predict(self, texts: Sequence[Text]) -> list[Row]:
        """Return one row per text, in order. A pair is refused by a model of single texts, and the other way round."""
        rows = [self._refused] * len(texts)
        read = [index for index, text in enumerate(texts) if isinstance(text, tuple) == self.about.pairs]
        encoded = self._tokenization.encode([texts[index] for index in read])
        lengths = [len(text.ids) for text in encoded]
        for batch in plan_batches(lengths, max_tokens=self._max_tokens, pad=self._engine.pads):
            for position, row in zip(batch, self._rows([encoded[position] for position in batch]), strict=True):
                rows[read[position]] = row
        return rows

    def _rows(self, texts: list[Encoded]) -> list[Row]:
        try:
            return [Row(values) for values in self._values(texts)]
        except Exception as error:
            if len(texts) > 1:
                logger.warning("a batch of %d texts failed (%s); its texts are computed one by one", len(texts), error)
                return [row for text in texts for row in self._rows([text])]
            logger.exception("a text of %d tokens failed", len(texts[0].ids))
            return [Row([], f"The model failed on this text: {error}")]

    def _values(self, texts: list[Encoded]) -> Sequence[Values]:
        return self._output.rows(self._logits(texts), texts, self.about)

    def _logits(self, texts: list[Encoded]) -> Logits:
        logits = self._engine.logits(self._tokenization.rectangle(texts))
        if not np.isfinite(logits).all():
            raise ArithmeticError("the model's output is not finite")
        return logits

    def _try_out(self) -> None:
        """Compute one text: the labels must fit the model, and the first client should not wait for warm-up."""
        first: Text = (WARM_UP, WARM_UP) if self.about.pairs else WARM_UP
        texts = self._tokenization.encode([first])
        try:
            logits = self._logits(texts)
        except Exception as error:
            raise LoadError(Reason.INVALID_MODEL, f"The model fails on a first text: {error}") from error
        per_token = logits.ndim == 3
        if per_token != self._output.per_token:
            raise LoadError(
                Reason.INVALID_MODEL,
                f"The model has outputs per {'token' if per_token else 'text'}, but {SERVING_DOCUMENT_FILE} says that "
                f"its task is {self.about.task}.",
            )
        if logits.shape[-1] != len(self.about.labels):
            raise LoadError(
                Reason.INVALID_MODEL,
                f"The model has {logits.shape[-1]} outputs but {SERVING_DOCUMENT_FILE} names "
                f"{len(self.about.labels)} labels.",
            )
        self._values(texts)


def open_model(
    folder: Path, engine: EngineName, *, version: str = "", gpus: int = 0, cpus: int = 1, max_tokens: int = 4096
) -> Model:
    """Return the model of an artifact's folder.

    Args:
        folder: the artifact's files, verified.
        engine: which engine; auto is torch with a GPU, else ONNX Runtime.
        version: in the registry.
        gpus: GPUs of this replica.
        cpus: threads to compute with.
        max_tokens: tokens of one batch, padding included.

    Raises:
        LoadError: the artifact or the engine does not allow it.
    """
    document = read_document(folder)
    per_token = OUTPUTS[document.task].per_token
    opened = open_engine(folder, engine, per_token=per_token, gpus=gpus, cpus=cpus)
    return Model(folder, document, opened, version=version, max_tokens=max_tokens)


def read_document(folder: Path) -> ServingDocument:
    """Return what the artifact says about itself.

    Raises:
        LoadError: it does not, or not in words that this server knows.
    """
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


def _refusal(*, pairs: bool) -> str:
    if pairs:
        return 'The model reads pairs of texts; send {"text": "...", "text_pair": "..."}, or texts with text_pairs.'
    return "The model reads single texts; leave out text_pair and text_pairs."
