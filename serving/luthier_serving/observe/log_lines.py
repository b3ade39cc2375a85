"""What stands in the request log: one JSON object for each text of a request, or one for a request without an answer.

Texts, and what quotes them, are there only if they were asked for. Pure.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from luthier_serving.answers import Answer, Row, Text
from luthier_serving.tasks import OUTPUTS


class LoggedRequest(NamedTuple):
    """A request that is to be logged.

    Attributes:
        at: when it was answered, in seconds since 1970.
        request_id: from the header X-Request-Id, or empty.
        revision: that answered, or was asked; empty if none was.
        seconds: from admission to answer.
        status: HTTP status.
        number: of its texts.
        texts: None if they are not to be logged.
        answer: None without one.
        error: why there is none.
    """

    at: float
    request_id: str
    revision: str
    seconds: float
    status: int
    number: int
    texts: Sequence[Text] | None
    answer: Answer | None
    error: str | None

    @property
    def size_bytes(self) -> int:
        """About how much memory it holds."""
        rows = self.answer.rows if self.answer else []
        numbers = sum(len(row.values) for row in rows)
        characters = sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in self.texts or ())
        return 600 + 120 * self.number + 48 * numbers + 2 * characters


def json_lines(request: LoggedRequest) -> Iterator[str]:
    """Yield the request's lines, each with its end."""
    for document in _documents(request):
        yield json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


def _documents(request: LoggedRequest) -> Iterator[dict[str, Any]]:
    time = datetime.fromtimestamp(request.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    about: dict[str, Any] = {
        "time": time,
        "requestId": request.request_id or None,
        "revision": request.revision or None,
    }
    about |= {"latencyMs": round(request.seconds * 1000, 3), "status": request.status, "count": request.number}
    answer = request.answer
    if answer is None:
        yield {**about, "version": None, "error": request.error}
        return
    about["version"] = answer.model.version
    for index, row in enumerate(answer.rows):
        text = request.texts[index] if request.texts is not None else None
        yield {**about, "index": index, "tokens": row.tokens, **_result(row, answer, text), **_text(text)}


def _result(row: Row, answer: Answer, text: Text | None) -> dict[str, Any]:
    if row.error is not None:
        return {"error": row.error}
    first = text if isinstance(text, str) else text[0] if text else ""
    found = OUTPUTS[answer.model.task].result(first, row.values, answer.model)
    prediction = found["prediction"]
    if text is None and isinstance(prediction, list):
        prediction = [_without_text(each) for each in prediction]
    confidence = {"confidence": found["confidence"]} if "confidence" in found else {}
    return {"prediction": prediction, **confidence}


def _without_text(each: Any) -> Any:
    """Return a span without the words that it quotes; a label as it is."""
    return {key: value for key, value in each.items() if key != "text"} if isinstance(each, dict) else each


def _text(text: Text | None) -> dict[str, str]:
    if text is None:
        return {}
    return {"text": text} if isinstance(text, str) else {"text": text[0], "textPair": text[1]}
