"""Which row of a base model's head stands for which label, where the base model is a classifier already.

A head is used again only if its rows mean what is learned now: they are put into the order of the labels by their
names. Otherwise it is made anew, for a row that means another label is worse than none. Needs no torch.
"""

import json
from collections.abc import Sequence

from luthier_api.artifact_files import CONFIG_FILE
from luthier_api.training import Label
from luthier_trainer.models.base_model import BaseModel

_SHOWN = 5


def head_labels(base: BaseModel, auto_class: str) -> list[str]:
    """Return the names of the base model's outputs, in order; none if it has no head of this kind."""
    config = json.loads((base.folder / CONFIG_FILE).read_bytes())
    kind = auto_class.removeprefix("AutoModel")
    if not any(str(name).endswith(kind) for name in config.get("architectures") or []):
        return []
    names = config.get("id2label")
    if not isinstance(names, dict):
        # What transformers has for a number of outputs that is not its default.
        return [f"LABEL_{place}" for place in range(2)]
    return [str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0]))]


def rows_of(labels: Sequence[Label], found: Sequence[str]) -> list[int] | None:
    """Return for each label the row of a head that is named so, whatever its case; None if they are not the same."""
    for key in (str, str.casefold):
        places = {key(name): place for place, name in enumerate(found)}
        rows = [places.get(key(label), -1) for label in labels]
        if len(places) == len(found) == len(labels) and sorted(rows) == list(range(len(found))):
            return rows
    return None


def head_note(base: BaseModel, uri: str, auto_class: str, labels: Sequence[Label], *, numbers: bool) -> str | None:
    """Return a sentence on what becomes of the base model's head; None where it has none, or it stays as it is.

    Args:
        base: a model that passed.
        uri: where it came from.
        auto_class: name of the transformers Auto class that has the task's head.
        labels: what is learned.
        numbers: whether the one output is a number, which every head of one output gives.
    """
    found = head_labels(base, auto_class)
    if not found or (numbers and len(found) == 1):
        return None
    rows = rows_of(labels, found)
    if rows is None:
        return (
            f"The base model {uri} is a classifier of {_listed(found)}, and this run has {_listed(labels)}; its head "
            "is not used, and a new one is trained."
        )
    if rows == sorted(rows):
        return None
    return f"The head of the base model {uri} is used again, its rows in the order of this run's labels by their names."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more labels" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more
