"""quality.json: what the data is like, as a document. `data.quality` fills it and `data.quality_gates` judges it."""

from typing import Annotated

from pydantic import Field

from luthier_api.base import Document

_Fraction = Annotated[float, Field(ge=0, le=1)]


class FileQuality(Document):
    """What one input, of one file or several, is like before the split.

    Attributes:
        read_as: formats, encodings and separators by which its files were read.
        malformed: rows that could not be read, and were left out.
        malformed_fraction: their share.
        faults: what is wrong with the first of them.
        missing: rows without text or label.
        duplicates: rows that repeat the text and the label of an earlier one, dropped or not.
        texts: different texts.
        conflicting_texts: those of them that have more than one label.
    """

    name: str
    files: int = 1
    rows: int
    read_as: list[str] = Field(default=[])
    malformed: int = 0
    malformed_fraction: _Fraction = 0
    faults: list[str] = Field(default=[])
    missing: int
    missing_fraction: _Fraction
    duplicates: int
    duplicate_fraction: _Fraction
    texts: int
    conflicting_texts: int


class Leakage(Document):
    """Texts that stand in more than one part.

    Attributes:
        evaluated: different texts of evaluation and test files of their own.
        leaked: those of them that are in the training file too.
        left_out_of_train: training examples that went because their text is evaluated or tested.
        left_out_of_eval: evaluation examples that went because their text is tested.
    """

    evaluated: int = 0
    leaked: int = 0
    left_out_of_train: int = 0
    left_out_of_eval: int = 0


class TokenLengths(Document):
    """How long the examples of a part are in tokens, special tokens included, before they are cut."""

    mean: float
    min: int
    p50: int
    p90: int
    p95: int
    p99: int
    max: int
    cut: int
    cut_fraction: _Fraction
    max_length: int


class Outliers(Document):
    """Examples of a part that are far shorter or longer than the others.

    The rule is Tukey's, on logarithms of lengths in tokens: further from the middle half than three times its width,
    and at least a factor of four.

    Attributes:
        shorter_than, longer_than: where that begins.
        short, long: examples beyond.
        places: of the first few.
    """

    shorter_than: int
    longer_than: int
    short: int
    long: int
    places: list[str]


class NumberSummary(Document):
    """How the numbers of a part are spread, for regression."""

    min: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    max: float
    mean: float
    std: float


class LabelCount(Document):
    """How often a label stands in each part; for token-classification in words, else in examples."""

    train: int
    eval: int
    test: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return self.train + self.eval + self.test


class QualityReport(Document):
    """quality.json.

    Attributes:
        files: each input.
        examples: of each part.
        labels: how often each stands in each part; empty for regression.
        numbers: of each part, for regression.
        leakage: texts in more than one part.
        scripts: share of the letters of all texts that belongs to each script.
        tokens, outliers: of each part.
    """

    files: list[FileQuality]
    examples: dict[str, int]
    labels: dict[str, LabelCount]
    imbalance_ratio: float
    numbers: dict[str, NumberSummary] = Field(default={})
    leakage: Leakage
    scripts: dict[str, float]
    tokens: dict[str, TokenLengths] = Field(default={})
    outliers: dict[str, Outliers] = Field(default={})
    warnings: list[str] = Field(default=[])
