"""What is minimized: the losses of the tasks, row by row.

A row is a text, or a judged token. Callers sum the rows and divide by the rows of the global batch, so that the loss
does not depend on how a batch was cut. Class weights are scaled so that their mean over the training rows is 1: the
division stays the same. Needs torch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from luthier_api.training import Hyperparameters
from luthier_trainer.tasks.interface import LossName


@dataclass(frozen=True)
class Loss:
    """One loss function.

    Attributes:
        name: what is computed.
        weights: [outputs] for cross-entropy the weight of a row of each label, for binary cross-entropy the weight of
            each label's positive rows, None for all 1.
        smoothing: share of the target that is spread over all labels (Szegedy et al., 2016, section 7).
    """

    name: LossName
    weights: torch.Tensor | None = None
    smoothing: float = 0.0

    def rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss [rows] of logits [rows, outputs], in fp32."""
        logits = logits.float()
        targets = targets.to(torch.int64 if self.name == "cross-entropy" else torch.float32)
        match self.name:
            case "cross-entropy":
                return self._cross_entropy(logits, targets)
            case "binary-cross-entropy":
                return self._binary_cross_entropy(logits, targets)
            case "mean-squared-error":
                return (logits.squeeze(-1) - targets) ** 2

    def plain(self) -> "Loss":
        """Return the same loss without weights and smoothing, by which models are compared."""
        return Loss(self.name)

    def to(self, device: torch.device) -> "Loss":
        """Return the loss for tensors on another device."""
        return Loss(self.name, None if self.weights is None else self.weights.to(device), self.smoothing)

    def _cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=self.smoothing)
        # Not the function's own weights, which also weigh what smoothing spreads over the other labels.
        return losses if self.weights is None else losses * self.weights[targets]

    def _binary_cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.smoothing:
            targets = targets * (1 - self.smoothing) + self.smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights, reduction="none")
        return losses.mean(dim=-1)


def choose_loss(name: LossName, parameters: Hyperparameters, targets: npt.NDArray[np.generic], outputs: int) -> Loss:
    """Return a task's loss as the spec wants it.

    Args:
        name: the task's loss.
        parameters: class weights and label smoothing.
        targets: of all training rows, to count labels in.
        outputs: number of labels.
    """
    weighted, smoothing = parameters.class_weights == "balanced", float(parameters.label_smoothing)
    if not weighted:
        return Loss(name, smoothing=smoothing)
    weights = balanced_weights(targets, outputs) if name == "cross-entropy" else positive_weights(targets)
    return Loss(name, torch.from_numpy(weights), smoothing)


def balanced_weights(targets: npt.NDArray[np.generic], outputs: int) -> npt.NDArray[np.float32]:
    """Return rows / (labels x rows of the label), as scikit-learn's "balanced"; 0 for a label that no row has."""
    counts = np.bincount(np.asarray(targets, dtype=np.int64), minlength=outputs)
    present = counts > 0
    weights = np.zeros(outputs)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype(np.float32)


def positive_weights(targets: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Return negative rows / positive rows of each label, at most 100; 1 for a label that no row has."""
    dense = np.asarray(targets, dtype=np.float64)
    positive = dense.sum(axis=0)
    ratio = (len(dense) - positive) / np.where(positive > 0, positive, 1)
    return np.where(positive > 0, np.minimum(ratio, 100), 1).astype(np.float32)
