"""What a model's output means: one small module for each task behind one interface.

    revision: logits -> rows -> values      front: values -> result -> JSON; schema -> OpenAPI

Nothing else in the server knows one task from another: adding one adds a module here and its line below. Both halves
of a task lie together, because the one reads what the other wrote. `output` is the interface, `probabilities` what
several share, `entities` joins labelled words.
"""

from luthier_api.training import Task
from luthier_serving.tasks.interface import TaskOutput
from luthier_serving.tasks.multi_label import MultiLabel
from luthier_serving.tasks.regression import Regression
from luthier_serving.tasks.text_classification import TextClassification
from luthier_serving.tasks.token_classification import TokenClassification

_ALL: tuple[TaskOutput, ...] = (TextClassification(), MultiLabel(), Regression(), TokenClassification())
OUTPUTS: dict[Task, TaskOutput] = {output.name: output for output in _ALL}
