"""A part as bytes: the same predictions are the same bytes, and Parquet has types that do not depend on the rows."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luthier_api.training import Task
from luthier_artifacts.readers.errors import InvalidSpec
from luthier_serving.bulk.part_files import summary, write_part
from support.serving.bulk import Bulk, Written, as_csv

pytestmark = pytest.mark.unit

NONE: dict[str, Any] = {"row": 1, "error": "The text is empty.", "version": "v1"}
PREDICTIONS: dict[Task, dict[str, Any]] = {
    Task.TEXT_CLASSIFICATION: {"prediction": "a", "confidence": 0.75, "probabilities": {"a": 0.75, "b": 0.25}},
    Task.MULTI_LABEL: {"prediction": ["a"], "probabilities": {"a": 0.75, "b": 0.25}},
    Task.REGRESSION: {"prediction": 1.5},
    Task.TOKEN_CLASSIFICATION: {
        "prediction": [{"label": "PER", "text": "Ada", "start": 0, "end": 3, "confidence": 0.5}]
    },
}


def read(content: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist(maps_as_pydicts="strict")
    return rows


@pytest.mark.parametrize("task", list(PREDICTIONS))
def test_parquet_holds_the_answer_of_every_task(task: Task) -> None:
    rows = [{"row": 0, **PREDICTIONS[task], "version": "v1"}, NONE]
    content = write_part(rows, "Parquet", task)
    first, second = read(content)
    assert {name: value for name, value in first.items() if value is not None} == rows[0]
    assert {name: value for name, value in second.items() if value is not None} == NONE
    assert summary(content, "Parquet") == (2, 1)


@pytest.mark.parametrize("task", list(PREDICTIONS))
def test_the_types_of_parquet_are_the_same_for_a_shard_of_errors_only(task: Task) -> None:
    schemas = [
        pq.read_schema(io.BytesIO(write_part([each], "Parquet", task)))
        for each in ({"row": 0, **PREDICTIONS[task], "version": "v1"}, NONE)
    ]
    assert schemas[0].equals(schemas[1]) and pa.null() not in schemas[0].types


@pytest.mark.parametrize("format_", ["JSONL", "Parquet"])
def test_the_same_predictions_are_the_same_bytes(format_: Any) -> None:
    rows = [{"row": 0, **PREDICTIONS[Task.TEXT_CLASSIFICATION], "version": "v1"}, NONE]
    assert len({write_part(rows, format_, Task.TEXT_CLASSIFICATION) for _ in range(2)}) == 1
    assert summary(write_part(rows, format_, Task.TEXT_CLASSIFICATION), format_) == (2, 1)


def test_an_id_is_text_in_parquet_and_what_it_was_in_json(tmp_path: Path) -> None:
    bulk = Bulk(f"file://{tmp_path}/storage")
    bulk.put("a.jsonl", '{"text": "one", "key": 7}\n{"text": "two", "key": "x"}\n{"text": "three", "key": null}\n')
    written = Written(bulk.run(tmp_path / "work", id_column="key").output, bulk.config)
    assert [each["id"] for each in written.rows] == [7, "x", None]
    written = Written(bulk.run(tmp_path / "work", id_column="key", output_format="Parquet").output, bulk.config)
    assert [each["id"] for each in read(written.content("part-00000.parquet"))] == ["7", "x", None]


def test_parquet_is_read_and_written(tmp_path: Path) -> None:
    bulk = Bulk(f"file://{tmp_path}/storage")
    content = io.BytesIO()
    pq.write_table(pa.table({"text": ["one", None, "three"], "label": [1, 2, 3]}), content)
    bulk.put("a.parquet", content.getvalue())
    done = bulk.run(tmp_path / "work", output_format="Parquet", include_text=True, shard_rows=2)
    written = Written(done.output, bulk.config)
    assert written.files == ["part-00000.parquet", "part-00001.parquet"] and (done.rows, done.errors) == (3, 1)
    rows = [row for name in written.files for row in read(written.content(name))]
    assert [(row["row"], row["input_text"], row["error"]) for row in rows] == [
        (0, "one", None),
        (1, None, "The text is empty."),
        (2, "three", None),
    ]


def test_an_image_without_pyarrow_says_so_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    bulk = Bulk(f"file://{tmp_path}/storage")
    bulk.put("a.csv", as_csv([{"text": "one"}]))
    with pytest.raises(InvalidSpec, match="cannot write Parquet: it has no pyarrow"):
        bulk.run(tmp_path / "work", output_format="Parquet")
    assert not bulk.model.texts
    assert bulk.run(tmp_path / "work").complete
