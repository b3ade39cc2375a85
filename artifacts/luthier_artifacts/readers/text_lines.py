"""Decodes the lines of a text file, and says where a byte is that cannot be text."""

import codecs
import contextlib
import io
from collections.abc import Iterator
from typing import IO

from luthier_artifacts.readers.errors import InvalidData, InvalidSpec
from luthier_artifacts.readers.rows import MAX_CELL_BYTES, Reading, megabytes

# The longer mark first: that of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BYTE_ORDER_MARK = "\ufeff"
_HEAD_BYTES = 65536
# What spreadsheets write where the system speaks a western European language, Chinese or Japanese.
_GUESSES = ("cp1252", "gb18030", "cp932")
_SHOWN_BYTES = 24


def encoding_of(source: IO[bytes], wanted: str | None) -> str:
    """Return Python's name of a file's encoding: the one that is said, that of a byte order mark, or UTF-8.

    Raises:
        InvalidSpec: if there is no such encoding of text.
    """
    source.seek(0)
    start = source.read(4)
    source.seek(0)
    if wanted is None:
        return next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
    try:
        "\n".encode(wanted)
        return codecs.lookup(wanted).name
    except (LookupError, ValueError):
        raise InvalidSpec(
            f"format.encoding is {wanted!r}, which is no encoding of text that is known; write for instance utf-8, "
            "cp1252 (western European Windows), gb18030 (Chinese), cp932 (Japanese) or utf-16-le."
        ) from None


def lines(source: IO[bytes], name: str, encoding: str, reading: Reading) -> Iterator[str]:
    """Yield decoded lines with their ends, from the beginning; those that cannot be text are told to `reading`.

    Raises:
        InvalidData: if a line is too long, or cannot be text and that is not tolerated.
    """
    source.seek(0)
    head = source.read(_HEAD_BYTES)
    source.seek(0)
    if "\n".encode(encoding) != b"\n" or (b"\r" in head and b"\n" not in head):
        yield from _wide_lines(source, name, encoding)
        return
    number = 0
    while raw := source.readline(MAX_CELL_BYTES + 1):
        number += 1
        if len(raw) > MAX_CELL_BYTES:
            raise _too_long(name, number)
        if b"\0" in raw:
            reading.line_fault(
                f"{name}, line {number} holds a NUL byte at position {raw.index(0) + 1}; it is not a text file, was "
                "damaged in transfer, or is UTF-16, for which set format.encoding: utf-16-le."
            )
        try:
            line = raw.decode(encoding)
        except UnicodeDecodeError as error:
            reading.line_fault(_not_text(raw, error, name, number, encoding))
            line = raw.decode(encoding, errors="replace")
        yield line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line


def _wide_lines(source: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    """Yield lines of an encoding whose line end is more than a byte, or of lines that end with CR alone."""
    number = 0
    text = io.TextIOWrapper(source, encoding=encoding, newline="")
    try:
        head = text.read(_HEAD_BYTES)
        text.seek(0)
        text.reconfigure(newline="\r" if "\n" not in head and "\r" in head else "\n")
        while line := text.readline(MAX_CELL_BYTES + 1):
            number += 1
            if len(line) > MAX_CELL_BYTES:
                raise _too_long(name, number)
            yield line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise InvalidData(f"{name} is not {encoding} after line {number} ({reason}); check format.encoding.") from None
    finally:
        # What reads on after a fault finds the file closed.
        with contextlib.suppress(ValueError):
            text.detach()


def _too_long(name: str, number: int) -> InvalidData:
    return InvalidData(
        f"{name}, line {number} is longer than {megabytes(MAX_CELL_BYTES)}; shorten the text, or put each example on a "
        "line of its own."
    )


def _not_text(raw: bytes, error: UnicodeDecodeError, name: str, number: int, encoding: str) -> str:
    """Return the sentence for bytes that cannot be text, with what they would be in other encodings."""
    known = "UTF-8" if encoding == "utf-8" else encoding
    guesses = []
    for guess in _GUESSES:
        try:
            text = raw.decode(guess)
        except UnicodeDecodeError:
            continue
        # Decoded apart, what comes before tells where the byte's character begins.
        place = len(raw[: error.start].decode(guess, errors="ignore"))
        shown = text[max(0, place - _SHOWN_BYTES // 2) : place + _SHOWN_BYTES // 2].strip()
        if guess != encoding and shown.isprintable():
            guesses.append(f"{guess} reads {shown!r}")
    advice = f"Set format.encoding: {', '.join(guesses)}." if guesses else "Save it as UTF-8."
    return (
        f"{name}, line {number} is not {known}: byte 0x{raw[error.start]:02X} at position {error.start + 1}. {advice}"
    )
