"""In which scripts texts are written: the share of their letters that is Latin, Cyrillic, Han and so on.

Counts code points with numpy and asks `unicodedata` once for each that occurs. A letter's script is the first word of
its name in Unicode, which is exact for all but letters that are signs in mathematics, counted as Other.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable

import numpy as np

_CODE_POINTS = 0x110000
# Where the first word of a name is not what people call the script.
_NAMES = {"CJK": "Han", "HALFWIDTH": "Katakana", "FULLWIDTH": "Latin"}
_NO_SCRIPTS = frozenset(
    {"MATHEMATICAL", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "MODIFIER", "FEMININE", "MASCULINE"}
    | {"MICRO", "OHM", "KELVIN", "ANGSTROM", "INFORMATION", "PLANCK"}
)
OTHER = "Other"
LEAST_SHARE = 0.0001


class ScriptCount:
    """Counts letters as texts come."""

    def __init__(self) -> None:
        self._counts = np.zeros(_CODE_POINTS, dtype=np.int64)

    def add(self, texts: Iterable[str]) -> None:
        """Count the letters of some texts."""
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
        counts = np.bincount(codes)
        self._counts[: len(counts)] += counts

    def shares(self) -> dict[str, float]:
        """Return the share of each script among all letters, the largest first; traces are left out."""
        found: Counter[str] = Counter()
        for code in np.flatnonzero(self._counts).tolist():
            if script := _script(chr(code)):
                found[script] += int(self._counts[code])
        letters = found.total()
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return {script: round(count / letters, 4) for script, count in ordered if count / letters >= LEAST_SHARE}


def _script(character: str) -> str | None:
    """Return the script of a letter, or none for what is no letter."""
    if not unicodedata.category(character).startswith("L"):
        return None
    word = unicodedata.name(character, OTHER).split()[0]
    if word in _NO_SCRIPTS:
        return OTHER
    return _NAMES.get(word, word.capitalize())
