"""token-classification: labelled stretches of a text, such as names.

The first token of a word decides for the word, as in training; what a word is, the tokenizer says.
"""

from collections.abc import Sequence
from typing import Any

from luthier_api.entity_labels import kinds_of, read_labels
from luthier_api.training import Task
from luthier_serving.answers import About, Span
from luthier_serving.compute.engines import Logits
from luthier_serving.compute.tokenization import Encoded
from luthier_serving.tasks.entities import join_words
from luthier_serving.tasks.probabilities import DIGITS, SHARE, softmax


class TokenClassification:
    """Values: the labelled spans."""

    name = Task.TOKEN_CLASSIFICATION
    per_token = True
    summary = "Label the words of one text or several."

    def rows(self, logits: Logits, texts: Sequence[Encoded], about: About) -> list[list[Span]]:
        """Return the spans of each text, in its order."""
        return [_spans(one, text, about.labels) for one, text in zip(logits, texts, strict=True)]

    def result(self, text: str, values: list[Span], about: About) -> dict[str, Any]:
        """Return what each span says, and where it is."""
        spans = [
            {
                "label": read_labels(about.labels)[span.label].kind,
                "text": text[span.start : span.end],
                "start": span.start,
                "end": span.end,
                "confidence": span.confidence,
            }
            for span in values
        ]
        return {"prediction": spans}

    def schema(self, about: About | None) -> dict[str, Any]:
        """Return the schema of `result`."""
        known = {"enum": kinds_of(about.labels)} if about else {}
        span = {
            "label": {"type": "string", **known},
            "text": {"type": "string"},
            "start": {"type": "integer", "minimum": 0, "description": "Its first character in input_text."},
            "end": {"type": "integer", "minimum": 0, "description": "The character after its last."},
            "confidence": {**SHARE, "description": "Probability of the label, the mean over its words."},
        }
        return {
            "prediction": {
                "type": "array",
                "items": {"type": "object", "properties": span, "required": list(span)},
                "description": "Labelled stretches of the text, in order. Words with the label O are left out.",
            }
        }


def _spans(logits: Logits, text: Encoded, labels: tuple[str, ...]) -> list[Span]:
    """Return the spans of one text.

    Args:
        logits: [tokens, labels], padding included.
        text: says which tokens begin a word.
        labels: all of them.
    """
    if not text.words:
        return []
    shares = softmax(logits[[word.token for word in text.words]])
    chosen = shares.argmax(axis=1).tolist()
    sure = shares.max(axis=1).tolist()
    words = [
        Span(word.start, word.end, label, confidence)
        for word, label, confidence in zip(text.words, chosen, sure, strict=True)
    ]
    return [span._replace(confidence=round(span.confidence, DIGITS)) for span in join_words(words, labels)]
