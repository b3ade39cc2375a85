"""Finds the module of a task."""

from luthier_api.training import Task
from luthier_trainer.tasks.interface import TaskModule
from luthier_trainer.tasks.multi_label import MultiLabel
from luthier_trainer.tasks.regression import Regression
from luthier_trainer.tasks.text_classification import TextClassification
from luthier_trainer.tasks.token_classification import TokenClassification

_MODULES: tuple[TaskModule, ...] = (TextClassification(), MultiLabel(), Regression(), TokenClassification())


def task_of(task: Task) -> TaskModule:
    """Return the module of a task."""
    return next(module for module in _MODULES if module.name is task)
