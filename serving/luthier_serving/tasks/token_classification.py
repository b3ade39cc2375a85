"""token-classification: labelled spans of a text, such as names.

The first token of a word decides for the word, as in training; the tokenizer says what a word is. A row holds every
word, so that a request may ask for the words instead of the entities that they make.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, conlist, create_model

from luthier_api.entity_labels import kinds_of, read_labels
from luthier_api.training import Task
from luthier_serving.answers import ModelInfo, Row, Span
from luthier_serving.tasks.entities import join_words
from luthier_serving.tasks.interface import AnswerFields, Form, Logits, Scored, Summary, Word
from luthier_serving.tasks.options import NO_OPTIONS, Options
from luthier_serving.tasks.probabilities import DECIMALS, Probability, label_type, softmax

IGNORED = frozenset({"O"})


class TokenClassification:
    """Values: the words with their labels, also those that are no part of an entity."""

    name = Task.TOKEN_CLASSIFICATION
    per_token = True
    form: Form = "entities"
    options = frozenset({"aggregation_strategy", "ignore_labels"})
    summary = "Label the words of one text or several."

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> list[list[Span]]:
        """Return the words of each text, in the order of the text."""
        return [_labelled(one, its_words) for one, its_words in zip(logits, words, strict=True)]

    def result(self, text: str, values: list[Span], model: ModelInfo, options: Options = NO_OPTIONS) -> dict[str, Any]:
        """Return the label, text and position of each span."""
        spans = [
            {
                "label": span.label,
                "text": text[span.start : span.end],
                "start": span.start,
                "end": span.end,
                "confidence": span.score,
            }
            for span in self.scored(Row(values), model, options)
        ]
        return {"prediction": spans}

    def scored(self, row: Row, model: ModelInfo, options: Options = NO_OPTIONS) -> list[Scored]:
        """Return the entities, or with the strategy `none` the words; those with a label to ignore are left out."""
        words: Any = row.values
        ignored = IGNORED if options.ignore_labels is None else options.ignore_labels
        if options.aggregation_strategy == "none":
            found = [(model.labels[word.label], word) for word in words]
        else:
            meanings = read_labels(model.labels)
            outside = "O" not in ignored
            found = [(meanings[span.label].kind or "O", span) for span in join_words(words, model.labels, outside)]
        return [
            Scored(label, round(span.confidence, DECIMALS), span.start, span.end)
            for label, span in found
            if label not in ignored
        ]

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


def _labelled(logits: Logits, words: Sequence[Word]) -> list[Span]:
    """Return the words of one text with their labels.

    Args:
        logits: [tokens, labels], padding included.
        words: of the text.
    """
    if not words:
        return []
    probabilities = softmax(logits[[word.token for word in words]])
    likeliest = probabilities.argmax(axis=1).tolist()
    confidences = probabilities.max(axis=1).tolist()
    return [
        Span(word.start, word.end, label, confidence)
        for word, label, confidence in zip(words, likeliest, confidences, strict=True)
    ]
