"""Reads Parquet by pyarrow, a batch at a time."""

from collections.abc import Iterator
from typing import IO

from luthier_trainer.data.readers.rows import Columns, Row, missing_column
from luthier_trainer.runtime.errors import InvalidData

PARQUET_ROWS = 4096


def read_parquet(source: IO[bytes], name: str, columns: Columns) -> Iterator[Row]:
    """Read the wanted columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(source)
        names = table.schema_arrow.names
        for column in columns.names:
            if column not in names:
                raise InvalidData(missing_column(column, names, name))
        number = 0
        for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=columns.names):
            cells = batch.to_pydict()
            pairs = cells[columns.pair] if columns.pair is not None else [None] * batch.num_rows
            for text, pair, label in zip(cells[columns.text], pairs, cells[columns.label], strict=True):
                number += 1
                yield columns.row(text, pair, label, name, "row", number)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidData(f"{name} is not a Parquet file, or is cut short ({reason}).") from None
    except UnicodeDecodeError:
        raise InvalidData(f"{name} holds text that is not UTF-8; write it again with a string column.") from None
