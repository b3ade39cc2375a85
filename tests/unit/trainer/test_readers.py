"""Hostile and harmless files, as a table: what is read, or the one sentence that says what is wrong."""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luthier_api.training import DataFile
from luthier_trainer import readers
from luthier_trainer.errors import InvalidData, InvalidSpec
from luthier_trainer.readers import Row, read_table

pytestmark = pytest.mark.unit

GOOD = [Row("good", "positive", 2), Row("bad", "negative", 3)]


def read(tmp_path: Path, name: str, content: bytes, **columns: str) -> list[Row]:
    path = tmp_path / "download"
    path.write_bytes(content)
    return read_table(path, DataFile(uri=f"s3://data/folder/{name}", **columns)).rows


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text,label\ngood,positive\nbad,negative\n", GOOD),
        ("no-newline-at-the-end.csv", b"text,label\ngood,positive\nbad,negative", GOOD),
        ("bom.csv", b"\xef\xbb\xbftext,label\ngood,positive\nbad,negative\n", GOOD),
        ("crlf.csv", b"text,label\r\ngood,positive\r\nbad,negative\r\n", GOOD),
        ("blank-lines.csv", b"text,label\n\ngood,positive\n\n\n", [Row("good", "positive", 3)]),
        ("header-with-spaces.csv", b"text , label\ngood,positive\n", [Row("good", "positive", 2)]),
        ("other-columns.csv", b"id,label,text\n7,positive,good\n", [Row("good", "positive", 2)]),
        ("empty-cells.csv", b"text,label\n,positive\ngood,\n", [Row(None, "positive", 2), Row("good", None, 3)]),
        (
            "lines-in-cells.csv",
            b'text,label\n"one\ntwo, ""three""",positive\ngood,negative\n',
            [Row('one\ntwo, "three"', "positive", 2), Row("good", "negative", 4)],
        ),
        ("quote-inside.csv", b'text,label\n5" screen,positive\n', [Row('5" screen', "positive", 2)]),
        ("a.tsv", b"text\tlabel\ngood\tpositive\nbad\tnegative\n", GOOD),
        ("A.CSV.GZ", gzip.compress(b"text,label\ngood,positive\nbad,negative\n"), GOOD),
        (
            "a.jsonl",
            b'\n{"text": "good", "label": 1}\n{"text": "bad", "label": false, "id": 3}\n{"text": null}\n',
            [Row("good", "1", 2), Row("bad", "false", 3), Row(None, None, 4)],
        ),
        ("a.parquet", parquet(text=["good", None], label=[1, 0]), [Row("good", "1", 1), Row(None, "0", 2)]),
        (
            "gaps.parquet",
            parquet(text=["good", "bad"], label=[1.0, float("nan")]),
            [Row("good", "1", 1), Row("bad", None, 2)],
        ),
        ("words.parquet", parquet(text=["good"], label=pa.array(["x"]).dictionary_encode()), [Row("good", "x", 1)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_readable_file_gives_its_rows_with_their_places(
    tmp_path: Path, name: str, content: bytes, expected: list[Row]
) -> None:
    assert read(tmp_path, name, content) == expected


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.csv", b"", "none.csv is empty (0 bytes)."),
        ("blank.csv", b"\n\n", "blank.csv holds only blank lines."),
        ("header.csv", b"text,label\n", "header.csv holds no rows."),
        (
            "latin1.csv",
            b"text,label\ncaf\xe9,positive\n",
            "latin1.csv, line 2 is not UTF-8: byte 0xE9 at position 4. If the file is Latin-1, convert it with "
            "`iconv -f latin1 -t utf-8`.",
        ),
        ("utf16.csv", "text,label\n".encode("utf-16"), "utf16.csv is UTF-16; save it as UTF-8."),
        (
            "nul.csv",
            b"text,label\ngo\0od,positive\n",
            "nul.csv, line 2 holds a NUL byte at position 3; it is not a text file, or was damaged on its way.",
        ),
        (
            "open.csv",
            b'text,label\ngood,positive\n"bad,negative\n',
            "open.csv, line 3 opens a quote that is never closed.",
        ),
        (
            "after.csv",
            b'text,label\n"good"ly,positive\n',
            "after.csv, line 2 has text between a closing quote and the next ','; write a quote inside a quoted cell "
            'as "".',
        ),
        (
            "comma.csv",
            b"text,label\ngood, really,positive\n",
            "comma.csv, line 2 has 3 cells and the header has 2: put quotes around a text that holds the separator, "
            "and close every quote.",
        ),
        (
            "swallowed.csv",
            b'text,label\n"good,positive\n"bad,negative\n',
            "swallowed.csv, line 2 has text between a closing quote and the next ','; write a quote inside a quoted "
            'cell as "".',
        ),
        (
            "names.csv",
            b"review,stars\ngood,5\n",
            "names.csv has no column 'text'; it has 'review', 'stars'.",
        ),
        (
            "semicolons.csv",
            b"text;label\ngood;positive\n",
            "semicolons.csv has no column 'text'; it has 'text;label'. It seems to be separated by ';', not by ','.",
        ),
        ("twice.csv", b"text,text,label\na,b,c\n", "twice.csv has 2 columns named 'text'; rename all but one."),
        (
            "cut.csv.gz",
            gzip.compress(b"text,label\ngood,positive\n" * 50)[:40],
            "cut.csv.gz cannot be unpacked (Compressed file ended before the end-of-stream marker was reached): it is "
            "not gzip, or it is cut short.",
        ),
        (
            "plain.csv.gz",
            b"text,label\ngood,positive\n",
            "plain.csv.gz cannot be unpacked (Not a gzipped file (b'te')): it is not gzip, or it is cut short.",
        ),
        ("broken.jsonl", b'{"text": "good",}\n', "broken.jsonl, line 1 is not JSON: "),
        ("list.jsonl", b"[1, 2]\n", "list.jsonl, line 1 is not a JSON object with the columns as keys."),
        (
            "number.jsonl",
            b'{"text": 5, "label": "x"}\n',
            "number.jsonl, line 1, column 'text' holds 5, which is not text.",
        ),
        (
            "score.jsonl",
            b'{"text": "a", "label": 0.5}\n',
            "score.jsonl, line 1, column 'label' holds 0.5; a label is text, an integer or a boolean.",
        ),
        (
            "surrogate.jsonl",
            b'{"text": "\\ud800", "label": "x"}\n',
            "surrogate.jsonl, line 1, column 'text' holds half of a surrogate pair, which is no character.",
        ),
        (
            "nul.jsonl",
            b'{"text": "a\\u0000b", "label": "x"}\n',
            "nul.jsonl, line 1, column 'text' holds a NUL character; it was damaged on its way.",
        ),
        ("no-label.jsonl", b'{"text": "a"}\n', "no-label.jsonl has no column 'label'; it has 'text'."),
        ("text.parquet", b"text,label\n", "text.parquet is not a Parquet file, or is cut short ("),
        ("cut.parquet", parquet(text=["a"], label=["b"])[:-20], "cut.parquet is not a Parquet file, or is cut short ("),
        ("names.parquet", parquet(text=["a"]), "names.parquet has no column 'label'; it has 'text'."),
        (
            "bytes.parquet",
            parquet(text=[b"a"], label=["b"]),
            "bytes.parquet, row 1, column 'text' holds b'a', which is",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[:20] and " " not in value else "",
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence_that_says_where(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    with pytest.raises(InvalidData) as refused:
        read(tmp_path, name, content)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_a_cell_of_100_mb_is_refused_without_reading_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidData, match=r"^huge\.csv, line 2 is longer than 10 MB; shorten the text"):
        read(tmp_path, "huge.csv", b"text,label\n" + b"x" * 100 * 1024 * 1024 + b",positive\n")
    # Lines of ordinary length that one quote swallows; a smaller limit keeps the test quick.
    monkeypatch.setattr(readers, "MAX_CELL_BYTES", 1024 * 1024)
    rows = b'"opened here,positive\n' + b"ordinary line,negative\n" * 60_000
    with pytest.raises(
        InvalidData, match=r"^swallowed\.csv, line 3 holds a cell of more than 1 MB; a quote is probably"
    ):
        read(tmp_path, "swallowed.csv", b"text,label\ngood,positive\n" + rows)


def test_a_long_list_of_columns_is_cut_in_the_message(tmp_path: Path) -> None:
    header = ",".join(f"c{number}" for number in range(30)).encode()
    with pytest.raises(InvalidData, match=r"'c19' and 10 more\.$"):
        read(tmp_path, "wide.csv", header + b"\n")


def test_an_unknown_format_is_a_fault_of_the_spec(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"^The format of data\.xlsx is not known: name it \.csv"):
        read(tmp_path, "data.xlsx", b"PK")


def test_columns_are_the_ones_that_the_spec_names(tmp_path: Path) -> None:
    content = json.dumps({"review": "good", "stars": 5}).encode()
    assert read(tmp_path, "a.jsonl", content, text_column="review", label_column="stars") == [Row("good", "5", 1)]
