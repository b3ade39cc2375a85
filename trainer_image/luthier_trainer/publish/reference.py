"""reference.json: what the evaluation split looks like, and what the final model answers to it.

The server compares what it is asked with it. Counted by the contract's own `Tally`, as the server does, from the tokens
and logits that are there anyway. The same run counts the same.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

from luthier_api.documents import MOST_LABELS, MULTI_LABEL_THRESHOLD, ReferenceDocument, Tally
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.interface import Predictions, TaskModule
from luthier_trainer.tasks.metrics.calibration import sigmoid, softmax

# As the server rounds a probability before it counts it.
_DECIMALS = 6

Answered = tuple[list[str] | None, float | None]


def reference_of(
    task: TaskModule, answers: Predictions, part: Part, labels: Sequence[str], tokenizer: Tokenizer
) -> ReferenceDocument:
    """Return the reference.

    Args:
        task: what the model has learned.
        answers: of the final model to every text of the part.
        part: the evaluation split.
        labels: names of the model's outputs.
        tokenizer: of the base model.
    """
    unknown, tally = unknown_token_id(tokenizer), Tally()
    for index, (given, confidence) in enumerate(_answered(task, answers, labels)):
        ids = part.input_ids(index)
        tally.add(given, confidence, len(ids), int((ids == unknown).sum()) if unknown is not None else 0)
    names = list(labels) if _labels_texts(task) else []
    if len(names) > MOST_LABELS:
        names = sorted(names, key=lambda name: -tally.labels[name])[:MOST_LABELS]
    return ReferenceDocument(label_names=names, unknown_token_id=unknown, profile=tally.profile(names))


def _answered(task: TaskModule, answers: Predictions, labels: Sequence[str]) -> Iterator[Answered]:
    """Yield of each text its labels and the probability of the likeliest; None where it has none as a whole."""
    if not _labels_texts(task):
        yield from ((None, None) for _ in answers.rows_per_text)
        return
    several = task.loss == "binary-cross-entropy"
    probabilities = (sigmoid if several else softmax)(answers.logits).round(_DECIMALS)
    for row in probabilities:
        given = np.flatnonzero(row >= MULTI_LABEL_THRESHOLD) if several else [int(row.argmax())]
        yield [labels[int(index)] for index in given], float(row.max())


def _labels_texts(task: TaskModule) -> bool:
    return not task.per_token and task.loss != "mean-squared-error"


def unknown_token_id(tokenizer: Tokenizer) -> int | None:
    """Return the token that stands for what the tokenizer does not know; None where it knows everything, as bytes."""
    model = json.loads(tokenizer.to_str())["model"]
    if "unk_id" in model:  # Unigram has its number, all others its text
        found: int | None = model["unk_id"]
        return found
    token = model.get("unk_token")
    return tokenizer.token_to_id(token) if token else None
