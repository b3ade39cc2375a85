"""A ModelDeployment as an object: apply it, wait, ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.kinds import MODELDEPLOYMENT
from luthier.notebook.handle import Handle
from luthier.prediction import predict
from luthier_api.modeldeployment import ModelDeploymentSpec


@dataclass(frozen=True)
class Prediction:
    """The answer to one text.

    Attributes:
        text: What was asked.
        prediction: A label; for multi-label a list of them, for regression a number, for token-classification entities.
        confidence: Probability of the label, where there is one.
        probabilities: Probability of each label.
        error: Why the model failed on this text, if it did.
    """

    text: str
    prediction: Any = None
    confidence: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Prediction:
        """Return what the server's answer says."""
        return cls(
            text=str(answer.get("input_text", "")),
            prediction=answer.get("prediction"),
            confidence=answer.get("confidence"),
            probabilities=dict(answer.get("probabilities") or {}),
            error=answer.get("error"),
        )


class ModelDeployment(Handle[ModelDeploymentSpec]):
    """A model that answers HTTP."""

    KIND = MODELDEPLOYMENT

    @property
    def version(self) -> str | None:
        """The version that answers most requests now."""
        return self.resource.deployment_status.current_version

    @property
    def url(self) -> str | None:
        """The URL for requests from inside the cluster."""
        return self.resource.deployment_status.url

    def predict(self, texts: Sequence[str] | str, pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Ask the model, through the API server.

        Raises:
            Unreachable: if it does not answer, with the resource's own sentence on why.
        """
        asked = [texts] if isinstance(texts, str) else list(texts)
        return [Prediction.of(answer) for answer in predict(self.cluster, self.name, asked, pairs)]

    async def predict_async(self, texts: Sequence[str] | str, pairs: Sequence[str] | None = None) -> list[Prediction]:
        """`predict`, in a thread."""
        return await asyncio.to_thread(self.predict, texts, pairs)
