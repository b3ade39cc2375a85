"""From texts to the values of a task, by tokens, batches and an engine; the same for every engine and every task.

A batch that fails is computed again text by text, so that only the text at fault fails.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from luthier_api.artifact_files import REFERENCE_FILE, SERVING_DOCUMENT_FILE
from luthier_api.base import Engine as EngineName
from luthier_api.documents import DocumentError, ReferenceDocument, ServingDocument
from luthier_api.reasons import Reason
from luthier_serving.answers import ModelInfo, Row, Text, Work
from luthier_serving.compute.batch_plan import plan_batches
from luthier_serving.compute.engines import Engine, open_engine
from luthier_serving.compute.tokenization import EncodedText, Tokenization
from luthier_serving.errors import LoadError
from luthier_serving.tasks import OUTPUTS
from luthier_serving.tasks.interface import Logits

WARM_UP = "warm-up"

logger = logging.getLogger("ray.serve")


class LoadTimes(NamedTuple):
    """How long a model took to load, in seconds: its download with verification, and the engine with a first text."""

    download_s: float
    load_s: float


class Model:
    """A model, loaded and warmed up.

    Attributes:
        info: what answers report about it.
        engine: what computes logits.
        max_tokens: tokens of one batch, padding included; 0: each text is a batch of its own.
        times: how long it took to load; None if nobody measured it.
        merges_calls: whether it is faster to compute the texts of several calls together.
        reference: what the texts of its training look like; None in artifacts of earlier releases.
        work: what the last call of `predict` has done; one thread computes a model.

    Args:
        folder: the artifact's files, verified.
        document: its luthier.json.
        engine: what computes logits.
        version: in the registry.
        digest: of that version.
        max_tokens: tokens of one batch, padding included.
        reference: its reference.json.
        like: a model with the same tokenizer.json, which may take a hundred megabytes.

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
        reference: ReferenceDocument | None = None,
        like: "Model | None" = None,
    ):
        self._output = OUTPUTS[document.task]
        known = like._tokenization if like else None
        self._tokenization: Tokenization = Tokenization(folder, document, per_token=self._output.per_token, like=known)
        self.engine = engine
        # With a budget of 0 every text is a batch of its own.
        self.max_tokens = max_tokens if engine.batch_invariant else 0
        self.times: LoadTimes | None = None
        labels = tuple(document.labels)
        self.info = ModelInfo(
            version,
            engine.weights,
            document.task,
            labels,
            document.pairs,
            document.threshold,
            document.max_length,
            digest,
        )
        self._pads = engine.pads and document.padding != "none"
        self.merges_calls = self._pads
        self.reference = reference
        self.work: Work | None = None
        self._unknown = reference.unknown_token_id if reference else None
        self._wrong_input = Row([], _wrong_input(pairs=document.pairs), invalid_input=True)
        self._warm_up()

    def predict(self, texts: Sequence[Text]) -> list[Row]:
        """Return one row per text, in order; an error for a pair if the model reads single texts, and vice versa."""
        started_ns, started = time.time_ns(), time.perf_counter()
        rows = [self._wrong_input] * len(texts)
        readable = [index for index, text in enumerate(texts) if isinstance(text, tuple) == self.info.pairs]
        encoded = self._tokenization.encode([texts[index] for index in readable])
        tokenized = time.perf_counter()
        lengths = [len(text.ids) for text in encoded]
        for batch in plan_batches(lengths, max_tokens=self.max_tokens, pad=self._pads):
            for position, row in zip(batch, self._rows([encoded[position] for position in batch]), strict=True):
                rows[readable[position]] = row
        self.work = Work(started_ns, tokenized - started, time.perf_counter() - tokenized, sum(lengths))
        return rows

    def _rows(self, texts: list[EncodedText]) -> list[Row]:
        try:
            return self._decode(self._logits(texts), texts)
        except Exception as error:
            if len(texts) > 1:
                logger.warning("a batch of %d texts failed (%s); its texts are computed one by one", len(texts), error)
                return [row for text in texts for row in self._rows([text])]
            logger.exception("a text of %d tokens failed", len(texts[0].ids))
            return [Row([], f"The model failed on this text: {error}")]

    def _decode(self, logits: Logits, texts: list[EncodedText]) -> list[Row]:
        values = self._output.decode(logits, [text.words for text in texts], self.info)
        kept = [b""] * len(texts) if self._output.per_token else [row.tobytes() for row in logits]
        return [
            Row(each, cut_tokens=text.cut, logits=row, tokens=len(text.ids), unknown=self._unknown_in(text))
            for each, text, row in zip(values, texts, kept, strict=True)
        ]

    def _unknown_in(self, text: EncodedText) -> int:
        return 0 if self._unknown is None else text.ids.count(self._unknown)

    def _logits(self, texts: list[EncodedText]) -> Logits:
        logits = self.engine.logits(self._tokenization.collate(texts))
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
        self._decode(logits, texts)


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
    reference = read_reference(folder)
    return Model(folder, document, opened, version=version, digest=digest, max_tokens=max_tokens, reference=reference)


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


def read_reference(folder: Path) -> ReferenceDocument | None:
    """Return the artifact's reference.json; None without one, or if this server cannot read it."""
    path = folder / REFERENCE_FILE
    if not path.is_file():
        return None
    try:
        return ReferenceDocument.from_json(path.read_bytes())
    except ValueError as error:
        logger.warning("%s cannot be read, so drift is not measured: %s", REFERENCE_FILE, error)
        return None


def _wrong_input(*, pairs: bool) -> str:
    if pairs:
        return 'The model reads pairs of texts; send {"text": "...", "text_pair": "..."}, or texts with text_pairs.'
    return "The model reads single texts; leave out text_pair and text_pairs."
