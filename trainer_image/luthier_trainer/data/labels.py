"""Which labels there are, in which order, and which output of the model each is.

Fed with every label while the files are read, it remembers each one's first place, so that a label that cannot be is
named with the line where it stands. Pure.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from luthier_artifacts.readers.formats import SourceFile
from luthier_trainer.runtime.errors import InvalidData, InvalidSpec
from luthier_trainer.tasks.label_parsing import canonical

# What an artifact can name (luthier_api.documents.ServingDocument).
MAX_LABELS = 1000
MAX_CHARACTERS = 256
LABELS_SHOWN = 10

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Labels:
    """The labels of a run.

    Attributes:
        names: in the order of the model's outputs.
        index: position of what stands in the data; that is a name, or the position itself as text.
    """

    names: list[str]
    index: Mapping[str, int]


class SeenLabels:
    """Remembers where each label was first seen."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[SourceFile, int]] = {}

    def add(self, words: Iterable[str], source: SourceFile, number: int) -> None:
        """Take note of an example's labels.

        Raises:
            InvalidData: if they are more, or longer, than labels can be.
        """
        for word in words:
            if word not in self._places:
                if len(self._places) == MAX_LABELS:
                    raise InvalidData(
                        f"{source.place(number)} has the label {_brief(word)}, and {MAX_LABELS} others came before it: "
                        "more than a model may have. Check that labelColumn is the right column, and that the task is "
                        "the right one."
                    )
                if len(word) > MAX_CHARACTERS:
                    raise InvalidData(
                        f"{source.place(number)} has the label {_brief(word)} of {len(word)} characters, and at most "
                        f"{MAX_CHARACTERS} are possible; check that labelColumn is the right column."
                    )
                self._places[word] = (source, number)

    def resolve(self, wanted: Sequence[str] | None, *, least: int) -> Labels:
        """Return the labels in the order of the model's outputs: those of the spec, or those of the data, sorted.

        Integers that the spec does not name count the spec's labels from 0, where the data has nothing else. Numbers
        are sorted as numbers.

        Args:
            wanted: spec.labels.
            least: how many the task needs.

        Raises:
            InvalidData: if there are fewer, or the data has one that the spec does not name.
        """
        if len(self._places) < least:
            self._refuse_few(least)
        self._refuse_nan()
        integers = all(_INTEGER.fullmatch(word) for word in self._places)
        if not wanted:
            numbers = all(_NUMBER.fullmatch(word) for word in self._places)
            names = sorted(self._places, key=Decimal) if numbers else sorted(self._places)
            return Labels(names, _positions(names))
        # The data's labels are canonical, so the spec's 1.0 is what the data has as 1.
        canonical_names = [canonical(name) for name in wanted]
        counts = integers and not self._places.keys() & set(canonical_names)
        index = _positions([str(position) for position in range(len(wanted))] if counts else canonical_names)
        for word, (source, number) in self._places.items():
            if word not in index:
                known = f"has {len(wanted)} labels, counted from 0" if counts else f"names {quoted(list(wanted))}"
                raise InvalidData(
                    f"{source.place(number)} has the label {_brief(word)}, which spec.labels does not name; it {known}."
                )
        return Labels(list(wanted), index)

    def check_map(self, label_map: Mapping[str, str], met: Collection[str]) -> list[str]:
        """Return the warning about names in labelMap that no label of the data has.

        Args:
            label_map: the spec's.
            met: the names in it that the data has.

        Raises:
            InvalidSpec: if the data has none of them, or has one that YAML has read as something else.
        """
        unmet = [name for name in label_map if name not in met]
        if not unmet:
            return []
        read_as = {_yaml_reading(word): word for word in self._places if word not in label_map.values()}
        for name in unmet:
            if (word := read_as.get(name)) is not None and word != name:
                raise InvalidSpec(
                    f"labelMap renames {name!r}, which no label of the data is, and the data has {word!r}: YAML reads "
                    f'{word} without quotes as {name}. Quote it: labelMap: {{"{word}": ...}}.'
                )
        if not met:
            raise InvalidSpec(
                f"labelMap renames {quoted(unmet)}, and no label of the data is among them; it has "
                f"{quoted(list(self._places))}. Correct the names in labelMap, or remove it."
            )
        return [f"labelMap renames {quoted(unmet)}, and no label of the data is called so."]

    def _refuse_nan(self) -> None:
        """Refuse the word nan among numbers: there it is a missing value that became text."""
        words = [word for word in self._places if word.lower() in ("nan", "<na>")]
        others = self._places.keys() - set(words)
        if words and others and all(_NUMBER.fullmatch(word) for word in others):
            source, number = self._places[words[0]]
            raise InvalidData(
                f"{source.place(number)} has the label {words[0]!r} and all others are numbers: it is a missing value "
                "that became text; leave the cell empty."
            )

    def _refuse_few(self, least: int) -> None:
        if not self._places:
            raise InvalidData("The data holds no label at all; check that labelColumn is the right column.")
        word, (source, _) = next(iter(self._places.items()))
        raise InvalidData(
            f"{source.name} holds only one label, {word!r}; a classifier needs at least {_count(least)}. Check that "
            "labelColumn is the right column."
        )


def quoted(labels: list[str]) -> str:
    """Return labels for a sentence."""
    return ", ".join(repr(label) for label in labels[:LABELS_SHOWN]) + and_more(labels)


def and_more(labels: list[str]) -> str:
    """Return how many labels a sentence leaves out."""
    return f" and {len(labels) - LABELS_SHOWN} more" if len(labels) > LABELS_SHOWN else ""


def _yaml_reading(word: str) -> str:
    """Return what YAML makes of a word that stands without quotes, as far as it is a boolean, a number or nothing."""
    if word.lower() in ("yes", "on", "y", "true"):
        return "true"
    if word.lower() in ("no", "off", "n", "false"):
        return "false"
    if word.lower() in ("null", "~"):
        return "null"
    return str(int(word)) if word.isdecimal() else word


def _positions(names: Sequence[str]) -> dict[str, int]:
    return {name: position for position, name in enumerate(names)}


def _count(number: int) -> str:
    return {2: "two"}.get(number, str(number))


def _brief(word: str) -> str:
    return repr(word if len(word) <= 60 else word[:60] + "…")
