"""Every task, and answers to judge: made at random and often right, or perfect, with the part that they are about."""

from typing import Any

import numpy as np
import pytest

from luthier_api.training import Task
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.interface import IGNORED, Predictions, TaskModule
from luthier_trainer.tasks.registry import task_of

TEXT, MULTI, NUMBER, WORDS = (task_of(task) for task in Task)
EVERY = [TEXT, MULTI, NUMBER, WORDS]
TAGS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def names_of(task: TaskModule) -> list[str]:
    return {TEXT: ["a", "b", "c"], MULTI: ["a", "b", "c"], NUMBER: ["label"], WORDS: TAGS}[task]


def sample(task: TaskModule, texts: int, seed: int, *, noise: float = 1.5) -> Predictions:
    """Answers that are often right."""
    generator = np.random.default_rng(seed)
    outputs = len(names_of(task))
    rows = generator.integers(1, 6, texts) if task.per_token else np.ones(texts, dtype=np.int64)
    count = int(rows.sum())
    if task is NUMBER:
        targets: Any = generator.normal(size=count).round(1)
        logits = targets[:, None] + generator.normal(size=(count, 1)) * noise
    elif task is MULTI:
        targets = (generator.random((count, outputs)) < 0.4).astype(np.int8)
        logits = (targets - 0.5) * 2 + generator.normal(size=targets.shape) * noise
    else:
        targets = generator.integers(outputs, size=count)
        logits = np.eye(outputs)[targets] * 2 + generator.normal(size=(count, outputs)) * noise
    return Predictions(logits.astype(np.float32), targets, rows, 1.0)


def perfect(predictions: Predictions, task: TaskModule) -> Predictions:
    targets = predictions.targets
    if task is NUMBER:
        logits: Any = targets[:, None]
    elif task is MULTI:
        logits = np.where(targets, 50.0, -50.0)
    else:
        logits = np.eye(len(names_of(task)))[targets] * 99.0
    return Predictions(logits, targets, predictions.rows_per_text, 0.0)


def part_of(task: TaskModule, predictions: Predictions) -> Part:
    """The part that the answers are about."""
    targets: list[Any] = []
    ends = np.cumsum(predictions.rows_per_text)
    for low, high in zip([0, *ends[:-1]], ends, strict=True):
        if task.per_token:
            targets.append([IGNORED, *predictions.targets[low:high].tolist(), IGNORED])
        elif task is MULTI:
            targets.append(np.flatnonzero(predictions.targets[low]).tolist())
        else:
            targets.append(predictions.targets[low].item())
    texts = [" ".join(f"t{i}w{j}" for j in range(n)) for i, n in enumerate(predictions.rows_per_text)]
    return Part.of([[1]] * len(texts), targets, task.target_type, texts=texts)


def evaluate(task: TaskModule, predictions: Predictions, seed: int = 7) -> Any:
    return task.evaluate(predictions, part_of(task, predictions), names_of(task), seed=seed)


tasks = pytest.mark.parametrize("task", EVERY, ids=lambda task: task.name)
"""For tests of every task."""
