"""Which examples are learned, which evaluated and which tested, and what is left out of them. Row numbers only.

repeats go -> the split is drawn, if there is one -> evaluation loses what is tested, training what either has
"""

from dataclasses import dataclass

import numpy as np

from luthier_api.training import Dataset
from luthier_trainer.data import duplicates
from luthier_trainer.data.duplicates import Mask, Numbers
from luthier_trainer.data.quality import file_quality
from luthier_trainer.data.splitting import Rows, split_rows
from luthier_trainer.data.staging import Staged
from luthier_trainer.formats.prepared import PartName
from luthier_trainer.formats.quality_report import FileQuality, Leakage
from luthier_trainer.runtime.errors import InvalidData

PARTS: tuple[PartName, ...] = ("train", "eval", "test")

Inputs = dict[PartName, Staged]


@dataclass(frozen=True)
class PartRows:
    """The examples of one part: some row numbers of an input."""

    staged: Staged
    rows: Rows


def partition(dataset: Dataset, inputs: Inputs) -> tuple[dict[PartName, PartRows], list[FileQuality], Leakage]:
    """Return the parts, what each input is like, and what stands in several.

    Raises:
        InvalidData: if nothing is left of a part.
    """
    numbers = duplicates.number_texts([each.texts for each in inputs.values()])
    texts = dict(zip(inputs, numbers, strict=True))
    repeats = {part: duplicates.repeats(texts[part], each.labels) for part, each in inputs.items()}
    files = [_file_quality(each, texts[part], repeats[part]) for part, each in inputs.items()]
    rows = {
        part: np.flatnonzero(~again) if dataset.preprocessing.drop_duplicates else np.arange(len(again))
        for part, again in repeats.items()
    }
    evaluated, leaked = _leaks(texts)

    source: dict[PartName, PartName] = {part: part for part in inputs}
    if split := dataset.effective_split():
        staged = inputs["train"]
        drawn = split_rows(rows["train"], staged.strata[rows["train"]], staged.stratum_names, split)
        rows["train"], rows["eval"], source["eval"] = drawn.train, drawn.held_out, "train"
        if split.test_fraction:
            rows["test"], source["test"] = drawn.test, "train"

    texts_of = {part: texts[source[part]][rows[part]] for part in rows}
    tested = [texts_of["test"]] if "test" in rows else []
    again = duplicates.shared(texts_of["eval"], tested)
    known = duplicates.shared(texts_of["train"], [texts_of["eval"], *tested])
    rows["eval"], rows["train"] = rows["eval"][~again], rows["train"][~known]
    _check(rows)
    leakage = Leakage(
        evaluated=evaluated, leaked=leaked, left_out_of_train=int(known.sum()), left_out_of_eval=int(again.sum())
    )
    return {part: PartRows(inputs[source[part]], rows[part]) for part in PARTS if part in rows}, files, leakage


def _file_quality(staged: Staged, texts: Numbers, repeats: Mask) -> FileQuality:
    return file_quality(
        staged.name,
        files=len(staged.sources),
        rows=staged.read,
        missing=staged.missing,
        reading=staged.reading,
        duplicates=int(repeats.sum()),
        texts=duplicates.distinct(texts),
        conflicting=duplicates.conflicts(texts, staged.labels),
    )


def _leaks(texts: dict[PartName, Numbers]) -> tuple[int, int]:
    """Count the different texts of files for evaluation and test, and those of them that are in the training file."""
    others = [each for part, each in texts.items() if part != "train"]
    evaluated = np.unique(np.concatenate([*others, np.zeros(0, dtype=np.int64)]))
    return len(evaluated), int(duplicates.shared(evaluated, [texts["train"]]).sum())


def _check(rows: dict[PartName, Rows]) -> None:
    if not len(rows["train"]):
        raise InvalidData(
            "Every training text is also among the examples for evaluation, so there is nothing to learn."
        )
    if not len(rows["eval"]):
        raise InvalidData("No example is left for evaluation: add examples, or test on other texts than those.")
    if "test" in rows and not len(rows["test"]):
        raise InvalidData("No example is left for the test: add examples, or leave out split.testFraction.")
