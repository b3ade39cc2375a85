"""Reads Parquet by pyarrow, a batch at a time."""

import json
from collections.abc import Callable, Iterator
from typing import IO, Any

from luthier_api.training import DataFormat
from luthier_artifacts.readers.errors import InvalidData, InvalidSpec
from luthier_artifacts.readers.rows import Columns, Reading, Row, doubled_column, missing_column

PARQUET_ROWS = 4096
# What the `datasets` library writes into a schema, and where it has the names of a column of class numbers.
_DATASETS_KEY = b"huggingface"
_NO_LABEL = -1


def read_parquet(
    source: IO[bytes], name: str, columns: Columns, format_: DataFormat, reading: Reading
) -> Iterator[Row]:
    """Read the wanted columns."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise InvalidSpec(
            f"{name} is Parquet, and this image has no pyarrow to read it: use one that has, or write it as .jsonl."
        ) from None
    if format_.said():
        raise InvalidSpec(f"{name} is Parquet, so format has no meaning there; leave it out.")
    try:
        table = pq.ParquetFile(source)
        names = table.schema_arrow.names
        for column in columns.names:
            if column not in names:
                raise InvalidData(missing_column(column, names, name))
            if names.count(column) > 1:
                raise InvalidData(doubled_column(column, names.count(column), name))
            kind = table.schema_arrow.field(column).type
            if pa.types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
                # Python has no type for it, unless pandas is there.
                raise InvalidData(f"{name} holds a column that is neither text nor numbers ({column}: {kind}).")
        name_labels = _label_names(table.schema_arrow.metadata or {}, columns)
        reading.how["Parquet" + (", labels named by the file's ClassLabel" if name_labels else "")] = None
        number = 0
        for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=columns.names):
            cells = batch.to_pydict()
            for place in range(batch.num_rows):
                number += 1
                try:
                    row = columns.row(lambda column: cells[column][place], name, "row", number)  # noqa: B023
                    if name_labels:
                        row = row._replace(label=name_labels(row.label))
                except InvalidData as error:
                    reading.fault(str(error))
                except LookupError as error:
                    reading.fault(f"{name}, row {number}, column {columns.labels[0]!r} holds {error.args[0]}.")
                else:
                    yield row
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidData(f"{name} is not a Parquet file, or is cut short ({reason}).") from None
    except UnicodeDecodeError:
        raise InvalidData(f"{name} holds text that is not UTF-8; write it again with a string column.") from None
    except ValueError as error:  # what Python has no type for
        reason = str(error).splitlines()[0]
        raise InvalidData(f"{name} holds a column that is neither text nor numbers ({reason}).") from None


def _label_names(metadata: dict[bytes, bytes], columns: Columns) -> Callable[[object], object] | None:
    """Return what reads a label of a column for which `datasets` has left names; none for other columns.

    The names are used unless the spec has names of its own for the numbers.
    """
    names = _class_names(metadata, columns.labels[0]) if columns.one_label else None
    if names is None:
        return None
    named = not columns.known_labels or bool(columns.known_labels & set(names))

    def name(label: object) -> object:
        if isinstance(label, list):
            return None if label == [_NO_LABEL] else [name(each) for each in label]
        if not isinstance(label, int) or isinstance(label, bool):
            return label
        if label == _NO_LABEL:
            return None
        if not 0 <= label < len(names):
            raise LookupError(f"{label}, and the file has names of {len(names)} labels, counted from 0")
        return names[label] if named else label

    return name


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """Return the names that a ClassLabel has, also one in a list; none for what is no ClassLabel."""
    try:
        feature: Any = json.loads(metadata.get(_DATASETS_KEY, b"{}"))["info"]["features"][column]
        # Releases have written a list's feature in two ways.
        if isinstance(feature, list):
            feature = feature[0]
        elif "feature" in feature:
            feature = feature["feature"]
        names = feature["names"] if feature.get("_type") == "ClassLabel" else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None
