"""The labelled examples of a FineTuneJob: files, cleaning, split, and the limits that they must keep."""

from decimal import Decimal
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from luthier_api.base import ApiModel, Fraction, OpenFraction, PositiveCount, cel, decimal_type
from luthier_api.data_files import DataFile
from luthier_api.storage import NO_ACCESS_TO_A_CLAIM, StorageAccess

Label = Annotated[str, Field(min_length=1, max_length=256)]

SAME_LABEL_COLUMNS = "give the same labelColumns for all files of the dataset, or for none"
NOTHING_TO_LEARN_FROM = "fraction and testFraction must add up to less than 1, so that training examples are left"


class Split(ApiModel):
    """How evaluation examples are split off the training file."""

    model_config = ConfigDict(
        json_schema_extra=cel(("double(self.fraction) + double(self.testFraction) < 1.0", NOTHING_TO_LEARN_FROM))
    )

    fraction: OpenFraction = Field(
        default=Decimal("0.1"),
        validate_default=True,
        description="Share of the examples held out for evaluation.",
    )
    test_fraction: Fraction = Field(
        default=Decimal("0"),
        validate_default=True,
        description="Share of the examples held out as a test split, never used for model selection.",
    )
    stratify: bool = Field(default=True, description="Keep the proportion of each label the same in all parts.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(default=42, description="Seed for the split.")


class Preprocessing(ApiModel):
    """Cleaning of the texts before tokenization."""

    lowercase: bool = Field(
        default=False, description="Convert texts to lower case. Uncased tokenizers do so themselves."
    )
    strip_whitespace: bool = Field(
        default=True, description="Strip leading and trailing white space, and collapse runs of it."
    )
    drop_duplicates: bool = Field(default=True, description="Keep one of several rows with the same text and label.")
    drop_missing: bool = Field(default=True, description="Drop rows without text or label; false makes them an error.")
    max_length: Annotated[int, Field(ge=4, le=8192)] = Field(
        default=128, description="Tokens to keep of each text. The rest is cut off."
    )


class Quality(ApiModel):
    """Limits that the data must meet. They are checked before a GPU is requested."""

    max_missing_fraction: Fraction = Field(
        default=Decimal("0.05"),
        validate_default=True,
        description="Largest allowed share of rows without text or label.",
    )
    max_malformed_fraction: Fraction = Field(
        default=Decimal("0"),
        validate_default=True,
        description="Largest allowed share of rows that cannot be read, or whose label is none of the task's. They are "
        "left out, and the first ten are named in quality.json.",
    )
    max_duplicate_fraction: Fraction = Field(
        default=Decimal("1"),
        validate_default=True,
        description="Largest allowed share of rows that repeat another row.",
    )
    min_examples_per_label: PositiveCount = Field(default=2, description="Fewest examples that each label must have.")
    max_leakage_fraction: Fraction = Field(
        default=Decimal("1"),
        validate_default=True,
        description="Largest allowed share of the texts of an eval or test file that also appear in the training file. "
        "Such texts are excluded from training in any case.",
    )
    max_conflicting_fraction: Fraction = Field(
        default=Decimal("1"),
        validate_default=True,
        description="Largest allowed share of texts that appear with more than one label.",
    )
    max_cut_fraction: Fraction = Field(
        default=Decimal("1"),
        validate_default=True,
        description="Largest allowed share of texts that are cut off at maxLength.",
    )
    max_imbalance_ratio: decimal_type(ge="1", example="20") | None = Field(  # type: ignore[valid-type]
        default=None,
        description="Largest allowed ratio between the examples of the most frequent and of the rarest label.",
    )


class Dataset(StorageAccess):
    """The labelled examples."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!(has(self.eval) && has(self.split))",
                "give either eval (a file of its own) or split (a share of train), not both",
            ),
            (
                "(!has(self.eval) || has(self.eval.textPairColumn) == has(self.train.textPairColumn))"
                " && (!has(self.test) || has(self.test.textPairColumn) == has(self.train.textPairColumn))",
                "give textPairColumn for all files of the dataset or for none",
            ),
            (
                "(!has(self.eval) || has(self.eval.labelColumns) == has(self.train.labelColumns))"
                " && (!has(self.test) || has(self.test.labelColumns) == has(self.train.labelColumns))",
                SAME_LABEL_COLUMNS,
            ),
            (
                "!has(self.test) || !has(self.split) || string(self.split.testFraction).matches('^0([.]0*)?$')",
                "give either test (a file of its own) or split.testFraction (a share of train), not both",
            ),
            (
                "!(has(self.secretRef) || has(self.endpoint) || has(self.region) || has(self.caBundle)"
                " || has(self.forcePathStyle)) || !self.train.uri.startsWith('pvc://')"
                " || (has(self.eval) && !self.eval.uri.startsWith('pvc://'))"
                " || (has(self.test) && !self.test.uri.startsWith('pvc://'))",
                NO_ACCESS_TO_A_CLAIM,
            ),
            (
                "!(has(self.endpoint) || has(self.region) || has(self.forcePathStyle))"
                " || !self.train.uri.matches('^(https|hf)://')"
                " || (has(self.eval) && !self.eval.uri.matches('^(https|hf)://'))"
                " || (has(self.test) && !self.test.uri.matches('^(https|hf)://'))",
                "endpoint, region and forcePathStyle apply to s3:// data only",
            ),
            (
                "!has(self.secretRef) || !self.train.uri.startsWith('https://')"
                " || (has(self.eval) && !self.eval.uri.startsWith('https://'))"
                " || (has(self.test) && !self.test.uri.startsWith('https://'))",
                "https:// is read without credentials: remove secretRef, or copy the file to s3://",
            ),
        )
    )

    train: DataFile = Field(description="The file to train on.")
    eval: DataFile | None = Field(
        default=None, description="The file to evaluate on. Without it, a share of train is held out."
    )
    test: DataFile | None = Field(default=None, description="A test file, never used for model selection.")
    split: Split | None = Field(default=None, description="How to hold out examples when there is no eval file.")
    label_map: (
        Annotated[dict[Annotated[str, Field(max_length=256)], Label], Field(min_length=1, max_length=1000)] | None
    ) = Field(
        default=None,
        description='Renames labels of the file ({"0": "negative", "1": "positive"}). Labels that are not in the map '
        "are kept. Without a map, integers are positions in spec.labels, unless spec.labels itself contains one "
        "of them.",
    )
    preprocessing: Preprocessing = Field(default=Preprocessing(), description="Cleaning and tokenization.")
    quality: Quality = Field(default=Quality(), description="Limits that the data must meet.")

    @model_validator(mode="after")
    def _one_source_of_evaluation(self) -> "Dataset":
        if self.eval and self.split:
            raise ValueError("give either eval (a file of its own) or split (a share of train), not both")
        if self.test and self.split and self.split.test_fraction:
            raise ValueError("give either test (a file of its own) or split.testFraction (a share of train), not both")
        return self

    @model_validator(mode="after")
    def _pairs_in_all_files_or_in_none(self) -> "Dataset":
        if len({file.text_pair_column is None for file in self.files()}) > 1:
            raise ValueError("give textPairColumn for all files of the dataset or for none")
        return self

    @model_validator(mode="after")
    def _label_columns_are_the_same(self) -> "Dataset":
        if len({file.label_columns and frozenset(file.label_columns) for file in self.files()}) > 1:
            raise ValueError(SAME_LABEL_COLUMNS)
        return self

    def files(self) -> list[DataFile]:
        """Return the labelled files that there are."""
        return [file for file in (self.train, self.eval, self.test) if file]

    def effective_split(self) -> Split | None:
        """Return the split to make: none with an eval file, otherwise the one given or the default."""
        return None if self.eval else self.split or Split()
