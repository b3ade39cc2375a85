"""What a model's output means: one small module for each task, behind one interface.

    compute: logits -> decode -> values      replica: values -> result -> JSON; fields -> OpenAPI

Nothing else in the server knows one task from another: a new task is a module here and an entry below. Both halves of a
task are in one module, because one reads what the other wrote. `interface` defines what a task is given and returns,
`probabilities` is shared by several tasks, `entities` joins labelled words.
"""

from luthier_api.training import Task
from luthier_serving.tasks.interface import TaskOutput
from luthier_serving.tasks.multi_label import MultiLabel
from luthier_serving.tasks.regression import Regression
from luthier_serving.tasks.text_classification import TextClassification
from luthier_serving.tasks.token_classification import TokenClassification

_ALL: tuple[TaskOutput, ...] = (TextClassification(), MultiLabel(), Regression(), TokenClassification())
OUTPUTS: dict[Task, TaskOutput] = {output.name: output for output in _ALL}
