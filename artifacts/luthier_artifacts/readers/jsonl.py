"""Reads JSON lines. Holds one row at a time."""

import json
from collections.abc import Iterator
from typing import IO, Any

from luthier_api.training import DataFormat
from luthier_artifacts.readers.errors import InvalidData, InvalidSpec
from luthier_artifacts.readers.rows import Columns, Reading, Row, doubled_column, missing_column
from luthier_artifacts.readers.text_lines import encoding_of, lines

# Keys of JSON objects that are remembered, to name them when a column is missing.
MAX_KEYS = 1000


def read_jsonl(source: IO[bytes], name: str, columns: Columns, format_: DataFormat, reading: Reading) -> Iterator[Row]:
    """Read the wanted keys of each line's object; a key that no line has is refused at the end."""
    if useless := set(format_.said()) - {"encoding"}:
        raise InvalidSpec(f"{name} is JSON lines, so format.{min(useless)} has no meaning there; leave it out.")
    encoding = encoding_of(source, format_.encoding)
    reading.how[f"JSON lines, {encoding}"] = None
    seen: dict[str, None] = {}
    absent = set(columns.names)
    keys = {column: json.dumps(column, ensure_ascii=False) for column in columns.names}
    for number, line in enumerate(lines(source, name, encoding, reading), 1):
        if not line.strip():
            continue
        fault = reading.take_line_fault()
        value = None if fault else _parsed(line, name, number, keys)
        if not isinstance(value, dict):
            reading.fault(fault or str(value))
            continue
        if absent and len(seen) < MAX_KEYS:
            seen |= dict.fromkeys(value)
        absent -= value.keys()
        try:
            row = columns.row(value.get, name, "line", number)
        except InvalidData as error:
            reading.fault(str(error))
            continue
        yield row
    for column in columns.names:
        if seen and column in absent:
            raise InvalidData(missing_column(column, list(seen), name))


def _parsed(line: str, name: str, number: int, keys: dict[str, str]) -> dict[str, Any] | str:
    """Return the object of a line, or the sentence that says why it is none."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return f"{name}, line {number} is not JSON: {error.msg}."
    except RecursionError:
        return f"{name}, line {number} is not JSON: too deeply nested."
    except ValueError:  # Python refuses to read them, as that takes time beyond all measure
        return f"{name}, line {number} holds an integer of thousands of digits; put it in quotes, or leave it out."
    if not isinstance(value, dict):
        return f"{name}, line {number} is not a JSON object with the columns as keys."
    for column, key in keys.items():
        # The last of two would be taken without a word. Looking closer is slow, so only where the text occurs twice.
        if line.count(key) > 1:
            pairs: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=list)
            if (count := sum(each == column for each, _ in pairs)) > 1:
                return doubled_column(column, count, f"{name}, line {number}")
    return value
