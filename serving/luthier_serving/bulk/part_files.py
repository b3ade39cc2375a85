"""A part as bytes: gzipped JSON lines, or Parquet. The same predictions are the same bytes.

pyarrow is imported for Parquet only; a server image may lack it.
"""

import gzip
import io
import json
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from luthier_api.training import Task
from luthier_artifacts.readers.errors import InvalidSpec
from luthier_serving.bulk.predictions import Prediction
from luthier_serving.tasks import OUTPUTS

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["JSONL", "Parquet"]
ENDINGS: dict[Format, str] = {"JSONL": "jsonl.gz", "Parquet": "parquet"}
_GZIP_LEVEL = 6


def check_format(format_: Format) -> None:
    """Check that this image can write a format.

    Raises:
        InvalidSpec: it lacks the package.
    """
    if format_ == "Parquet":
        _pyarrow()


def write_part(predictions: Sequence[Prediction], format_: Format, task: Task) -> bytes:
    """Return the predictions of a shard as the content of a file."""
    if format_ == "Parquet":
        return _write_parquet(predictions, task)
    lines = [json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n" for each in predictions]
    return gzip.compress("".join(lines).encode(errors="replace"), _GZIP_LEVEL, mtime=0)


def summary(content: bytes, format_: Format) -> tuple[int, int]:
    """Return how many rows a part has, and how many of them have an error."""
    if format_ == "Parquet":
        _, parquet = _pyarrow()
        errors = parquet.read_table(io.BytesIO(content), columns=["error"]).column("error")
        return len(errors), len(errors) - errors.null_count
    with gzip.open(io.BytesIO(content), "rt", encoding="utf-8") as lines:
        found = ["error" in json.loads(line) for line in lines]
    return len(found), sum(found)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InvalidSpec(
            "This server image cannot write Parquet: it has no pyarrow. Use one that is built with PARQUET=1, or "
            "output.format: JSONL."
        ) from None
    return pyarrow, pyarrow.parquet


def _write_parquet(predictions: Sequence[Prediction], task: Task) -> bytes:
    pyarrow, parquet = _pyarrow()
    fields = {name: annotation for name, (annotation, _) in OUTPUTS[task].fields(None).items()}
    given = [name for name in ("id", "input_text", "input_text_pair") if predictions and name in predictions[0]]
    schema = pyarrow.schema(
        [
            ("row", pyarrow.int64()),
            *((name, pyarrow.string()) for name in given),
            *((name, arrow_type(annotation)) for name, annotation in fields.items()),
            ("error", pyarrow.string()),
            ("version", pyarrow.string()),
        ]
    )
    columns = [[_cell(each.get(field.name), field) for each in predictions] for field in schema]
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
    content = io.BytesIO()
    parquet.write_table(table, content, compression="zstd")
    return content.getvalue()


def _cell(value: Any, field: "pa.Field") -> Any:
    """Return a value as pyarrow takes it: maps as pairs, and an id, which may be anything, as text."""
    if isinstance(value, dict):
        return list(value.items())
    if field.name == "id" and value is not None and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return value


def arrow_type(annotation: Any) -> "pa.DataType":
    """Return pyarrow's type for that of a field of an answer."""
    pyarrow, _ = _pyarrow()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return arrow_type(arguments[0])
    if origin in (Union, UnionType):
        (only,) = (each for each in arguments if each is not NoneType)
        return arrow_type(only)
    if origin is list:
        return pyarrow.list_(arrow_type(arguments[0]))
    if origin is dict:
        return pyarrow.map_(arrow_type(arguments[0]), arrow_type(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        # Of a field's type, pydantic keeps what Annotated said apart.
        return pyarrow.struct([(n, arrow_type(each.annotation)) for n, each in annotation.model_fields.items()])
    return {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_()}[annotation]
