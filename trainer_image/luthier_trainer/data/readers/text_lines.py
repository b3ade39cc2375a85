"""Decodes the lines of a text file, and says where a byte is that cannot be text."""

from collections.abc import Iterator
from typing import IO

from luthier_trainer.data.readers.rows import MAX_CELL_BYTES, megabytes
from luthier_trainer.runtime.errors import InvalidData

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def lines(source: IO[bytes], name: str) -> Iterator[str]:
    """Yield decoded lines with their ends, and say where a byte is that cannot be text."""
    number = 0
    while raw := source.readline(MAX_CELL_BYTES + 1):
        number += 1
        if len(raw) > MAX_CELL_BYTES:
            raise InvalidData(
                f"{name}, line {number} is longer than {megabytes(MAX_CELL_BYTES)}; shorten the text, or put each "
                "example on a line of its own."
            )
        if number == 1:
            if raw.startswith(_UTF16_MARKS):
                raise InvalidData(f"{name} is UTF-16; save it as UTF-8.")
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        if b"\0" in raw:
            raise InvalidData(
                f"{name}, line {number} holds a NUL byte at position {raw.index(0) + 1}; it is not a text file, or was "
                "damaged in transfer."
            )
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidData(
                f"{name}, line {number} is not UTF-8: byte 0x{raw[error.start]:02X} at position {error.start + 1}. If "
                "the file is Latin-1, convert it with `iconv -f latin1 -t utf-8`."
            ) from None
