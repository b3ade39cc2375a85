"""Q4, BentoML: its own service around the int8 model, one worker; started by `bentoml serve`."""

from __future__ import annotations

from typing import Any

import bentoml
from model import Model


@bentoml.service(workers=1)
class Classifier:
    def __init__(self) -> None:
        self.model = Model.from_environment()

    @bentoml.api
    def predict(self, text: str) -> dict[str, Any]:
        return self.model.predict(text)
