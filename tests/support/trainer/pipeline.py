"""Files to prepared data in a test: a small tokenizer, and `prepare`, which does what the stage of that name does."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from luthier_api.training import TrainingSpec
from luthier_artifacts.readers.formats import SourceFile
from luthier_trainer.data import staging
from luthier_trainer.data.dataset import FetchedDataset
from luthier_trainer.data.pipeline import make_prepared
from luthier_trainer.formats.prepared import PreparedFolder, read_prepared
from luthier_trainer.models.base_model import BaseModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "'", "s"]
GOOD, BAD, FILM = 4, 5, 6


def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(["[CLS]", "[SEP]"])
    # Files of real models say such things; they must not decide what is trained.
    made.enable_truncation(2)
    made.enable_padding(length=9)
    return made


Rows = list[tuple[Any, ...]]
CSV = ("text", "label")


def write(folder: Path, files: Mapping[str, Rows | bytes], columns: tuple[str, ...] = CSV) -> FetchedDataset:
    """Write the files of each part; a name such as train/1.jsonl says the part."""
    found: dict[str, list[SourceFile]] = {}
    for name, rows in files.items():
        part, _, file = name.partition("/")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rows if isinstance(rows, bytes) else _content(name, rows, columns))
        found.setdefault(part, []).append(SourceFile(path, file))
    return FetchedDataset(
        found,  # type: ignore[arg-type]
        {part: f"{part} files" for part in found},  # type: ignore[misc]
        "sha256:" + "0" * 64,
    )


def _content(name: str, rows: Rows, columns: tuple[str, ...]) -> bytes:
    text = io.StringIO(newline="")
    if name.endswith(".csv"):
        csv.writer(text).writerows([columns, *rows])
    else:
        text.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    return text.getvalue().encode()


def prepare(
    folder: Path,
    files: Mapping[str, Rows | bytes],
    columns: tuple[str, ...] = CSV,
    batch_rows: int = staging.BATCH_ROWS,
    end_token_id: int | None = None,
    **spec: Any,
) -> PreparedFolder:
    data = write(folder / "data", files, columns)
    wire = {
        "model": {"uri": "s3://models/base"},
        "output": {"uri": "s3://models/registry", "name": "m"},
        **spec,
        "dataset": {"train": {"uri": "s3://data/train.csv"}, **spec.get("dataset", {})},
    }
    for part in data.files:
        wire["dataset"].setdefault(part, {"uri": f"s3://data/{part}.csv"})
        if "pair" in columns:
            wire["dataset"][part]["textPairColumn"] = "pair"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    base = BaseModel(folder, "bert", 0, "0" * 64, end_token_id)
    make_prepared(TrainingSpec.model_validate(wire), data, base, folder / "made", batch_rows=batch_rows)
    assert not (folder / "staging").exists()
    return read_prepared(folder / "made")


def texts(part: Any) -> list[str]:
    return [part.text(index) for index in range(len(part))]
