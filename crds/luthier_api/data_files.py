"""The labelled files of a dataset: where they lie, which columns are read, and how their text is written."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from luthier_api.base import ApiModel, cel
from luthier_api.storage import HUB_DATASET, DataUri

Column = Annotated[str, Field(min_length=1, max_length=256)]

LABEL_COLUMN_OR_COLUMNS = "give either labelColumn or labelColumns, not both"
TEXT_COLUMN_OR_COLUMNS = "give either textColumn or textColumns, not both"
NO_SEPARATOR_OF_COLUMNS = "labelSeparator separates labels in one cell: remove it, or labelColumns"
ONE_CHARACTER = "must be one character"
SHA256_IS_NEEDED = (
    "give the sha256 of a file from https:// (sha256sum prints it), so that what is read is what you have seen"
)
SHA256_OF_ONE_FILE = "sha256 is of one file: remove it, or name a file"
OF_A_HUB_ONLY = "revision, config and split apply to hf://datasets only; others are named by their path"
PATH_OR_SPLIT = "config and split choose among the files of hf://datasets/owner/name: remove them, or the path"
_WHOLE_DATASET = "^hf://datasets/[^/]+/[^/]+/?$"
_SEVERAL_FILES = "/$|[*][^/]*$|^hf://datasets/[^/]+/[^/]+$"
HEX_DIGITS = "must be 64 digits 0-9 and a-f, as sha256sum prints them"


def _one_character(value: str) -> str:
    if len(value) != 1 and value != "\\t":
        raise ValueError(ONE_CHARACTER)
    return value


def _hex_digits(value: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(HEX_DIGITS)
    return value


Sha256Digits = Annotated[
    str,
    Field(max_length=128, json_schema_extra=cel(("self.matches('^[0-9a-f]{64}$')", HEX_DIGITS))),
    AfterValidator(_hex_digits),
]
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
        "one of comma, semicolon, tab and | by which the first line has all columns. A first line such as sep=; says "
        "it too, and is no row.",
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
            ("!self.uri.startsWith('https://') || has(self.sha256)", SHA256_IS_NEEDED),
            (
                f"!has(self.sha256) || self.uri.startsWith('https://') || !self.uri.matches('{_SEVERAL_FILES}')",
                SHA256_OF_ONE_FILE,
            ),
            (
                "!(has(self.revision) || has(self.config) || has(self.split)) || self.uri.startsWith('hf://datasets/')",
                OF_A_HUB_ONLY,
            ),
            (f"!(has(self.config) || has(self.split)) || self.uri.matches('{_WHOLE_DATASET}')", PATH_OR_SPLIT),
            ("!has(self.labelColumns) || self.labelColumn == 'label'", LABEL_COLUMN_OR_COLUMNS),
            ("!has(self.textColumns) || self.textColumn == 'text'", TEXT_COLUMN_OR_COLUMNS),
            ("!has(self.labelColumns) || !has(self.labelSeparator)", NO_SEPARATOR_OF_COLUMNS),
        )
    )

    uri: DataUri = Field(
        description="s3://bucket/key, https://host/path, pvc://claim/path or file:///path of a .csv, .tsv, .jsonl or "
        ".parquet file, optionally with .gz; or hf://datasets/owner/name, optionally with a path in it. A trailing / "
        "reads all such files below the folder; * in the last part reads all that match, in the order of their names; "
        "https:// names one file. A claim is a PersistentVolumeClaim in the same namespace, mounted read-only."
    )
    sha256: Sha256Digits | None = Field(
        default=None,
        description="What sha256sum prints for the file: another content is refused. Needed for https://.",
    )
    revision: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="For hf://datasets: a commit, tag or branch. Unset: the main branch.",
    )
    config: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="For hf://datasets/owner/name: the configuration (subset) to read, if the dataset has several.",
    )
    split: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None,
        description="For hf://datasets/owner/name: the split to read. Unset: train, in eval validation, and in test "
        "test.",
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

    @model_validator(mode="after")
    def _source_is_said_once(self) -> "DataFile":
        web = self.uri.startswith("https://")
        if web and not self.sha256:
            raise ValueError(SHA256_IS_NEEDED)
        if self.sha256 and not web and re.search(_SEVERAL_FILES, self.uri):
            raise ValueError(SHA256_OF_ONE_FILE)
        if (self.revision or self.config or self.split) and not self.uri.startswith(HUB_DATASET):
            raise ValueError(OF_A_HUB_ONLY)
        if (self.config or self.split) and not re.fullmatch(_WHOLE_DATASET, self.uri):
            raise ValueError(PATH_OR_SPLIT)
        return self
