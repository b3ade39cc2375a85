"""Reads JSON lines. Holds one row at a time."""

import json
from collections.abc import Iterator
from typing import IO

from luthier_trainer.data.readers.rows import Columns, Row, missing_column
from luthier_trainer.data.readers.text_lines import lines
from luthier_trainer.runtime.errors import InvalidData

# Keys of JSON objects that are remembered, to name them when a column is missing.
MAX_KEYS = 1000


def read_jsonl(source: IO[bytes], name: str, columns: Columns) -> Iterator[Row]:
    """Read the wanted keys of each line's object; a key that no line has is refused at the end."""
    seen: dict[str, None] = {}
    absent = set(columns.names)
    for number, line in enumerate(lines(source, name), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
            raise InvalidData(f"{name}, line {number} is not JSON: {reason}.") from None
        if not isinstance(value, dict):
            raise InvalidData(f"{name}, line {number} is not a JSON object with the columns as keys.")
        if absent and len(seen) < MAX_KEYS:
            seen |= dict.fromkeys(value)
        absent -= value.keys()
        pair = value.get(columns.pair) if columns.pair is not None else None
        yield columns.row(value.get(columns.text), pair, value.get(columns.label), name, "line", number)
    for column in columns.names:
        if seen and column in absent:
            raise InvalidData(missing_column(column, list(seen), name))
