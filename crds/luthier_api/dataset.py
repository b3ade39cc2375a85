"""The labelled examples of a FineTuneJob: files, columns, cleaning, split, and the limits that they must keep."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from luthier_api.base import ApiModel, Fraction, OpenFraction, PositiveCount, cel, decimal_type
from luthier_api.storage import NO_ACCESS_TO_A_CLAIM, DataUri, StorageAccess

Column = Annotated[str, Field(min_length=1, max_length=256)]
Label = Annotated[str, Field(min_length=1, max_length=256)]


LABEL_COLUMN_OR_COLUMNS = "give either labelColumn or labelColumns, not both"
TEXT_COLUMN_OR_COLUMNS = "give either textColumn or textColumns, not both"
NO_SEPARATOR_OF_COLUMNS = "labelSeparator separates labels in one cell: remove it, or labelColumns"
SAME_LABEL_COLUMNS = "give the same labelColumns for all files of the dataset, or for none"
ONE_CHARACTER = "must be one character"
NOTHING_TO_LEARN_FROM = "fraction and testFraction must add up to less than 1, so that training examples are left"


def _one_character(value: str) -> str:
    if len(value) != 1 and value != "\\t":
        raise ValueError(ONE_CHARACTER)
    return value


# A tab is one character in double quotes in YAML, and two in single quotes or none.
Character = Annotated[
    str,
    Field(min_length=1, max_length=2, json_schema_extra=cel((r"size(self) == 1 || self == r'\t'", ONE_CHARACTER))),
    AfterValidator(_one_character),
]
Columns = Annotated[
    list[Column], Field(min_length=1, max_length=256, json_schema_extra={"x-kubernetes-list-type": "set"})
]


class DataFormat(ApiModel):
    """How the bytes of text files are read, where their names do not say enough."""

    separator: Character | None = Field(
        default=None,
        description="Character between cells of .csv and .tsv files. Unset: a comma or a tab, as the name says, or the "
        "one of comma, semicolon, tab and | by which the first line has all columns.",
    )
    quoting: Literal["auto", "quotes", "none"] = Field(
        default="auto",
        description="quotes: cells may be in double quotes, as RFC 4180 says. none: a double quote is a character like "
        "any other, as in the files of GLUE. auto: quotes, except in a .tsv file in which they cannot be meant so.",
    )
    encoding: Annotated[str, Field(min_length=1, max_length=32)] | None = Field(
        default=None,
        description="Encoding of the text, under its Python name, such as cp1252, utf-16 or gb18030. Unset: UTF-8, or "
        "what a byte order mark says.",
    )
    escape: Character | None = Field(
        default=None, description="Character that makes the next one ordinary in .csv and .tsv files, such as \\."
    )

    def said(self) -> dict[str, str]:
        """Return what differs from the defaults."""
        wire: dict[str, str] = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        return wire


class DataFile(ApiModel):
    """One labelled file, or several of the same format."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.labelColumns) || self.labelColumn == 'label'", LABEL_COLUMN_OR_COLUMNS),
            ("!has(self.textColumns) || self.textColumn == 'text'", TEXT_COLUMN_OR_COLUMNS),
            ("!has(self.labelColumns) || !has(self.labelSeparator)", NO_SEPARATOR_OF_COLUMNS),
        )
    )

    uri: DataUri = Field(
        description="s3://bucket/key, pvc://claim/path or file:///path of a .csv, .tsv, .jsonl or .parquet file, "
        "optionally with .gz. A trailing / reads all such files below the folder; * in the last part reads "
        "all that match, in the order of their names. A claim is a PersistentVolumeClaim in the same "
        "namespace, mounted read-only."
    )
    text_column: Column = Field(
        default="text",
        description="Column that holds the text; for token-classification the words, as a list or separated by white "
        "space.",
    )
    text_columns: Columns | None = Field(
        default=None,
        description="Instead of textColumn: columns whose texts are joined by a space, in this order. Empty ones are "
        "left out.",
    )
    text_pair_column: Column | None = Field(
        default=None, description="Column that holds a second text, for tasks on pairs of texts."
    )
    label_column: Column = Field(
        default="label",
        description="Column that holds the label; for multi-label and token-classification several labels, as a list "
        "or separated by labelSeparator; for regression a number.",
    )
    label_columns: Columns | None = Field(
        default=None,
        description="Instead of labelColumn, for multi-label: one column of 0 and 1 for each label, which has the "
        "column's name.",
    )
    label_separator: Annotated[str, Field(min_length=1, max_length=8)] | None = Field(
        default=None,
        description="Separator between the labels in one cell. Default: a comma for multi-label, white space for token-"
        "classification.",
    )
    format: DataFormat = Field(default=DataFormat(), description="How the text of the files is read.")

    @model_validator(mode="after")
    def _columns_are_said_once(self) -> "DataFile":
        if self.label_columns and self.label_column != "label":
            raise ValueError(LABEL_COLUMN_OR_COLUMNS)
        if self.text_columns and self.text_column != "text":
            raise ValueError(TEXT_COLUMN_OR_COLUMNS)
        if self.label_columns and self.label_separator:
            raise ValueError(NO_SEPARATOR_OF_COLUMNS)
        return self


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
