"""What the right answers are, and whether a server gave them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.serving_bench.load import Answer
from benchmarks.serving_bench.peers.model import Model

_TIMEOUT_S = 30


class WrongAnswer(Exception):
    """A server said something else than it must: what it is measured at is worth nothing."""


@dataclass(frozen=True)
class Expected:
    """The label and the confidence of each text as the int8 model by hand has them, and the version."""

    version: str
    labels: dict[str, str]
    confidences: dict[str, float]

    @classmethod
    def of(cls, model: Model, texts: Iterable[str]) -> Expected:
        found = {text: model.predict(text) for text in texts}
        return cls(
            model.version,
            {text: each["prediction"] for text, each in found.items()},
            {text: each["confidence"] for text, each in found.items()},
        )

    def check(self, answers: Iterable[Answer]) -> None:
        """Check every answer that has status 200.

        Raises:
            WrongAnswer: one has another label or another version than it must.
        """
        for answer in answers:
            if answer.status == 200:
                self._check(json.loads(answer.body))

    def check_server(self, url: str) -> float:
        """Ask for every text once, and return the largest difference in confidence.

        Raises:
            WrongAnswer: as above.
        """
        largest = 0.0
        for text in self.labels:
            said = ask(url, text)
            self._check(said)
            largest = max(largest, abs(said["confidence"] - self.confidences[text]))
        return largest

    def _check(self, said: dict[str, Any]) -> None:
        text = said["input_text"]
        got, wanted = (said["prediction"], said["version"]), (self.labels[text], self.version)
        if got != wanted:
            raise WrongAnswer(f"{text!r} is {wanted}, and the server said {got}.")


def ask(url: str, text: str) -> dict[str, Any]:
    """Send one request, and return its answer.

    Raises:
        OSError: there is none.
    """
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
        answer: dict[str, Any] = json.loads(reply.read())
        return answer
