"""From texts to the values of a task, by tokens, batches and an engine; the same for every engine and every task.

A batch that fails is computed again text by text, so that only the text at fault fails.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from luthier_api.artifact_files import SERVING_DOCUMENT_FILE
from luthier_api.base import Engine as EngineName
from luthier_api.documents import DocumentError, ServingDocument
from luthier_api.reasons import Reason
from luthier_serving.answers import ModelInfo, Row, Text, Values
from luthier_serving.compute.batch_plan import plan_batches
from luthier_serving.compute.engines import Engine, open_engine
from luthier_serving.compute.tokenization import EncodedText, Tokenization
from luthier_serving.errors import LoadError
from luthier_serving.tasks import OUTPUTS
from luthier_serving.tasks.interface import Logits

WARM_UP = "warm-up"

logger = logging.getLogger("ray.serve")


class Model:
    """A model, loaded and warmed up.

    Attributes:
        info: what answers report about it.
        merges_calls: whether it is faster to compute the texts of several calls together.

    Args:
        folder: the artifact's files, verified.
        document: its luthier.json.
        engine: what computes logits.
        version: in the registry.
        digest: of that version.
        max_tokens: tokens of one batch, padding included.

    Raises:
        LoadError: the weights do not match the artifact's description.
    """

    def __init__(
        self,
        folder: Path,
        document: ServingDocument,
        engine: Engine,
        *,
        version: str,
        max_tokens: int,
        digest: str = "",
    ):
        self._output = OUTPUTS[document.task]
        self._tokenization = Tokenization(folder, document, per_token=self._output.per_token)
        self._engine = engine
        # With a budget of 0 every text is a batch of its own.
        self._max_tokens = max_tokens if engine.batch_invariant else 0
        labels = tuple(document.labels)
        self.info = ModelInfo(
            version, engine.weights, document.task, labels, document.pairs, document.threshold, digest
        )
        self._pads = engine.pads and document.padding != "none"
        self.merges_calls = self._pads
        self._wrong_input = Row([], _wrong_input(pairs=document.pairs), invalid_input=True)
        self._warm_up()

    def predict(self, texts: Sequence[Text]) -> list[Row]:
        """Return one row per text, in order; an error for a pair if the model reads single texts, and vice versa."""
        rows = [self._wrong_input] * len(texts)
        readable = [index for index, text in enumerate(texts) if isinstance(text, tuple) == self.info.pairs]
        encoded = self._tokenization.encode([texts[index] for index in readable])
        lengths = [len(text.ids) for text in encoded]
        for batch in plan_batches(lengths, max_tokens=self._max_tokens, pad=self._pads):
            for position, row in zip(batch, self._rows([encoded[position] for position in batch]), strict=True):
                rows[readable[position]] = row
        return rows

    def _rows(self, texts: list[EncodedText]) -> list[Row]:
        try:
            return [Row(values) for values in self._values(texts)]
        except Exception as error:
            if len(texts) > 1:
                logger.warning("a batch of %d texts failed (%s); its texts are computed one by one", len(texts), error)
                return [row for text in texts for row in self._rows([text])]
            logger.exception("a text of %d tokens failed", len(texts[0].ids))
            return [Row([], f"The model failed on this text: {error}")]

    def _values(self, texts: list[EncodedText]) -> Sequence[Values]:
        return self._output.decode(self._logits(texts), [text.words for text in texts], self.info)

    def _logits(self, texts: list[EncodedText]) -> Logits:
        logits = self._engine.logits(self._tokenization.collate(texts))
        if not np.isfinite(logits).all():
            raise ArithmeticError("the model's output is not finite")
        return logits

    def _warm_up(self) -> None:
        """Compute one text, so that the first request is not slow, and check that the labels match the model."""
        first: Text = (WARM_UP, WARM_UP) if self.info.pairs else WARM_UP
        texts = self._tokenization.encode([first])
        try:
            logits = self._logits(texts)
        except Exception as error:
            raise LoadError(Reason.INVALID_MODEL, f"The model fails on a test text: {error}") from error
        per_token = logits.ndim == 3
        if per_token != self._output.per_token:
            raise LoadError(
                Reason.INVALID_MODEL,
                f"The model has outputs per {'token' if per_token else 'text'}, but its task in "
                f"{SERVING_DOCUMENT_FILE} is {self.info.task}.",
            )
        if logits.shape[-1] != len(self.info.labels):
            raise LoadError(
                Reason.INVALID_MODEL,
                f"The model has {logits.shape[-1]} outputs, but {SERVING_DOCUMENT_FILE} has "
                f"{len(self.info.labels)} labels.",
            )
        self._values(texts)


def open_model(
    folder: Path,
    engine: EngineName,
    *,
    version: str = "",
    digest: str = "",
    gpus: int = 0,
    cpus: int = 1,
    max_tokens: int = 4096,
) -> Model:
    """Return the model of an artifact's folder.

    Args:
        folder: the artifact's files, verified.
        engine: which engine; auto is torch with a GPU, else ONNX Runtime.
        version: in the registry.
        digest: of that version.
        gpus: GPUs of this replica.
        cpus: threads to compute with.
        max_tokens: tokens of one batch, padding included.

    Raises:
        LoadError: the artifact is incomplete, or the engine cannot load it.
    """
    document = read_document(folder)
    per_token = OUTPUTS[document.task].per_token
    opened = open_engine(folder, engine, per_token=per_token, gpus=gpus, cpus=cpus)
    return Model(folder, document, opened, version=version, digest=digest, max_tokens=max_tokens)


def read_document(folder: Path) -> ServingDocument:
    """Return the artifact's luthier.json.

    Raises:
        LoadError: there is none, or this server cannot read it.
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
            Reason.INVALID_MODEL, f"This server cannot read the artifact's {SERVING_DOCUMENT_FILE}: {error}"
        ) from error


def _wrong_input(*, pairs: bool) -> str:
    if pairs:
        return 'The model reads pairs of texts; send {"text": "...", "text_pair": "..."}, or texts with text_pairs.'
    return "The model reads single texts; leave out text_pair and text_pairs."
