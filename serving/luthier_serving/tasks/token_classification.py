"""token-classification: labelled spans of a text, such as names.

The first token of a word decides for the word, as in training; the tokenizer says what a word is.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, conlist, create_model

from luthier_api.entity_labels import kinds_of, read_labels
from luthier_api.training import Task
from luthier_serving.answers import ModelInfo, Span
from luthier_serving.tasks.entities import join_words
from luthier_serving.tasks.interface import AnswerFields, Logits, Summary, Word
from luthier_serving.tasks.probabilities import DECIMALS, Probability, label_type, softmax


class TokenClassification:
    """Values: the labelled spans."""

    name = Task.TOKEN_CLASSIFICATION
    per_token = True
    summary = "Label the words of one text or several."

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> list[list[Span]]:
        """Return the spans of each text, in the order of the text."""
        return [_spans(one, its_words, model.labels) for one, its_words in zip(logits, words, strict=True)]

    def result(self, text: str, values: list[Span], model: ModelInfo) -> dict[str, Any]:
        """Return the label, text and position of each span."""
        spans = [
            {
                "label": read_labels(model.labels)[span.label].kind,
                "text": text[span.start : span.end],
                "start": span.start,
                "end": span.end,
                "confidence": span.confidence,
            }
            for span in values
        ]
        return {"prediction": spans}

    def summary_of(self, values: list[Span], model: ModelInfo) -> Summary:
        """Return nothing: a text as a whole has no label."""
        return Summary()

    def fields(self, model: ModelInfo | None) -> AnswerFields:
        """Return the fields of `result`."""
        entity = create_model(
            "Entity",
            label=label_type(kinds_of(model.labels) if model else None),
            text=str,
            start=Annotated[int, Field(ge=0, description="Its first character in input_text.")],
            end=Annotated[int, Field(ge=0, description="The character after its last.")],
            confidence=Annotated[Probability, Field(description="Probability of the label, the mean over its words.")],
        )
        described = "The labelled spans, in the order of the text. Words with the label O are left out."
        return {"prediction": (conlist(entity), Field(description=described))}


def _spans(logits: Logits, words: Sequence[Word], labels: tuple[str, ...]) -> list[Span]:
    """Return the spans of one text.

    Args:
        logits: [tokens, labels], padding included.
        words: of the text.
        labels: all of them.
    """
    if not words:
        return []
    probabilities = softmax(logits[[word.token for word in words]])
    likeliest = probabilities.argmax(axis=1).tolist()
    confidences = probabilities.max(axis=1).tolist()
    labelled = [
        Span(word.start, word.end, label, confidence)
        for word, label, confidence in zip(words, likeliest, confidences, strict=True)
    ]
    return [span._replace(confidence=round(span.confidence, DECIMALS)) for span in join_words(labelled, labels)]
