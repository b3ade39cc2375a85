"""From the rows of a shard to their predictions, in the order of the rows: the server's own model and words.

A row that cannot be computed has `error` and no prediction; it never stops the others, and never goes missing.
"""

import json
from collections.abc import Sequence
from typing import Any

from luthier_api.documents import BulkDocument
from luthier_serving.answers import Text
from luthier_serving.bulk.errors import WrongModel
from luthier_serving.bulk.source import InputRow
from luthier_serving.compute.model import Model
from luthier_serving.tasks import OUTPUTS

Prediction = dict[str, Any]


def check_columns(model: Model, document: BulkDocument) -> None:
    """Check that the spec names the columns that the model reads.

    Raises:
        WrongModel: it reads pairs and the spec names no second column, or the other way round.
    """
    if model.info.pairs and not document.text_pair_column:
        raise WrongModel("The model reads pairs of texts; name the column of the second ones in input.textPairColumn.")
    if document.text_pair_column and not model.info.pairs:
        raise WrongModel("The model reads single texts; remove input.textPairColumn.")


def predict_rows(model: Model, rows: Sequence[InputRow], first: int, document: BulkDocument) -> list[Prediction]:
    """Return one prediction per row, in order.

    Args:
        model: computes them.
        rows: of one shard. All are computed together, so that texts of one length share batches.
        first: number of the first row in the input, from 0.
        document: what else is wanted.
    """
    errors = [_unreadable(row, document) for row in rows]
    readable = [index for index, error in enumerate(errors) if error is None]
    answers = dict(zip(readable, model.predict([_text_of(rows[index], document) for index in readable]), strict=True))
    task = OUTPUTS[model.info.task]
    predictions = []
    for index, row in enumerate(rows):
        said: Prediction = {"row": first + index}
        if document.id_column is not None:
            said["id"] = _plain(row.id)
        if document.include_text:
            said["input_text"] = row.text
            if document.text_pair_column:
                said["input_text_pair"] = row.pair
        answer = answers.get(index)
        if answer is None or answer.error is not None:
            said["error"] = errors[index] if answer is None else answer.error
        else:
            said |= task.result(row.text or "", answer.values, model.info)
        predictions.append({**said, "version": model.info.version})
    return predictions


def _text_of(row: InputRow, document: BulkDocument) -> Text:
    assert row.text is not None
    return (row.text, row.pair or "") if document.text_pair_column else row.text


def _unreadable(row: InputRow, document: BulkDocument) -> str | None:
    """Return why a row has no prediction before the model has seen it, as the server would refuse its text."""
    if row.error is not None:
        return row.error
    texts = {"text": row.text, **({"second text": row.pair} if document.text_pair_column else {})}
    for name, text in texts.items():
        if text is None or not text.strip():
            return f"The {name} is empty."
        if len(text) > document.max_text_characters:
            return f"The {name} has {len(text)} characters; it may have at most {document.max_text_characters}."
    return None


def _plain(value: object) -> object:
    """Return an id as JSON can hold it: dates of a Parquet file, for one, become text."""
    return json.loads(json.dumps(value, default=str))
