"""Hostile and harmless files, as a table: what is read, or the one sentence that says what is wrong."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luthier_api.training import DataFile
from luthier_artifacts.readers import jsonl, separated, text_lines
from luthier_artifacts.readers import rows as row_checks
from luthier_artifacts.readers.formats import SourceFile, format_of, is_known, read_rows
from luthier_artifacts.readers.rows import Row
from luthier_trainer.runtime.errors import InvalidData, InvalidSpec

pytestmark = pytest.mark.unit


def row(text: Any, label: object, number: int, pair: str | None = None) -> Row:
    return Row(text, pair, label, number)


GOOD = [row("good", "positive", 2), row("bad", "negative", 3)]


def read(tmp_path: Path, name: str, content: bytes, *, words: bool = False, **columns: Any) -> list[Row]:
    path = tmp_path / "download"
    path.write_bytes(content)
    return list(read_rows(SourceFile(path, name), DataFile(uri=f"s3://data/folder/{name}", **columns), words=words))


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def doubled_parquet() -> bytes:
    sink = io.BytesIO()
    columns = [pa.array(["a"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "label", "label"]), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text,label\ngood,positive\nbad,negative\n", GOOD),
        ("no-newline-at-the-end.csv", b"text,label\ngood,positive\nbad,negative", GOOD),
        ("bom.csv", b"\xef\xbb\xbftext,label\ngood,positive\nbad,negative\n", GOOD),
        ("crlf.csv", b"text,label\r\ngood,positive\r\nbad,negative\r\n", GOOD),
        ("blank-lines.csv", b"text,label\n\ngood,positive\n\n\n", [row("good", "positive", 3)]),
        ("header-with-spaces.csv", b"text , label\ngood,positive\n", [row("good", "positive", 2)]),
        ("other-columns.csv", b"id,label,text\n7,positive,good\n", [row("good", "positive", 2)]),
        ("empty-cells.csv", b"text,label\n,positive\ngood,\n", [row(None, "positive", 2), row("good", None, 3)]),
        (
            "lines-in-cells.csv",
            b'text,label\n"one\ntwo, ""three""",positive\ngood,negative\n',
            [row('one\ntwo, "three"', "positive", 2), row("good", "negative", 4)],
        ),
        ("quote-inside.csv", b'text,label\n5" screen,positive\n', [row('5" screen', "positive", 2)]),
        # Read as they come: until 0.2 both were refused with the advice to save them otherwise.
        ("semicolons.csv", b"text;label\ngood;positive\nbad;negative\n", GOOD),
        ("utf16.csv", "text,label\ngood,positive\nbad,negative\n".encode("utf-16"), GOOD),
        ("no-bytes.jsonl", b"", []),
        ("header-only.csv", b"text,label\n", []),
        ("a.tsv", b"text\tlabel\ngood\tpositive\nbad\tnegative\n", GOOD),
        ("A.CSV.GZ", gzip.compress(b"text,label\ngood,positive\nbad,negative\n"), GOOD),
        (
            "a.jsonl",
            b'\n{"text": "good", "label": 1}\n{"text": "bad", "label": false, "id": 3}\n{"text": null}\n',
            [row("good", 1, 2), row("bad", False, 3), row(None, None, 4)],
        ),
        ("a.parquet", parquet(text=["good", None], label=[1, 0]), [row("good", 1, 1), row(None, 0, 2)]),
        (
            "nan.jsonl",
            b'{"text": NaN, "label": "x"}\n{"text": "a", "label": NaN}\n',
            [row(None, "x", 1), row("a", pytest.approx(float("nan"), nan_ok=True), 2)],
        ),
        ("nan.parquet", parquet(text=pa.array([None], pa.float64()), label=["x"]), [row(None, "x", 1)]),
        (
            "gaps.parquet",
            parquet(text=["good", "bad"], label=[1.0, None]),
            [row("good", 1.0, 1), row("bad", None, 2)],
        ),
        ("words.parquet", parquet(text=["good"], label=pa.array(["x"]).dictionary_encode()), [row("good", "x", 1)]),
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
        (
            "latin1.csv",
            b"text,label\ncaf\xe9,positive\n",
            "latin1.csv, line 2 is not UTF-8: byte 0xE9 at position 4. Set format.encoding: cp1252 reads "
            "'café,positive'.",
        ),
        (
            "nul.csv",
            b"text,label\ngo\0od,positive\n",
            "nul.csv, line 2 holds a NUL byte at position 3; it is not a text file, was damaged in transfer, or is "
            "UTF-16, for which set format.encoding: utf-16-le.",
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
            b"review;stars\ngood;5\n",
            "semicolons.csv has no column 'text'; it has 'review;stars'. It seems to be separated by ';', not by ','.",
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
            "list-of-words.jsonl",
            b'{"text": ["a"], "label": "x"}\n',
            "list-of-words.jsonl, line 1, column 'text' holds ['a'], which is not text.",
        ),
        (
            "surrogate-in-a-list.jsonl",
            b'{"text": "a", "label": ["x", "\\ud800"]}\n',
            "surrogate-in-a-list.jsonl, line 1, column 'label' holds half of a surrogate pair, which is not a "
            "character.",
        ),
        (
            "surrogate.jsonl",
            b'{"text": "\\ud800", "label": "x"}\n',
            "surrogate.jsonl, line 1, column 'text' holds half of a surrogate pair, which is not a character.",
        ),
        (
            "nul.jsonl",
            b'{"text": "a\\u0000b", "label": "x"}\n',
            "nul.jsonl, line 1, column 'text' holds a NUL character; it was damaged in transfer.",
        ),
        ("no-label.jsonl", b'{"text": "a"}\n', "no-label.jsonl has no column 'label'; it has 'text'."),
        (
            "digits.jsonl",
            b'{"text": "a", "label": "x", "id": ' + b"9" * 5000 + b"}\n",
            "digits.jsonl, line 1 holds an integer of thousands of digits; put it in quotes, or leave it out.",
        ),
        (
            "twice.jsonl",
            b'{"text": "text", "label": "x"}\n{"text": "a", "label": "x", "text": "b"}\n',
            "twice.jsonl, line 2 has 2 columns named 'text'; rename all but one.",
        ),
        ("twice.parquet", doubled_parquet(), "twice.parquet has 2 columns named 'label'; rename all but one."),
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
    for module in (row_checks, separated, text_lines):
        monkeypatch.setattr(module, "MAX_CELL_BYTES", 1024 * 1024)
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


def test_the_format_is_in_the_name() -> None:
    assert [format_of(name) for name in ("a.csv", "B.JSONL.gz", "x.csv.parquet")] == [".csv", ".jsonl", ".parquet"]
    assert [name for name in ("a.tsv.gz", "a.ndjson", "_SUCCESS", "a.csv.crc", "a.gz") if is_known(name)] == [
        "a.tsv.gz",
        "a.ndjson",
    ]


def test_columns_are_the_ones_that_the_spec_names(tmp_path: Path) -> None:
    content = json.dumps({"review": "good", "stars": 5}).encode()
    assert read(tmp_path, "a.jsonl", content, text_column="review", label_column="stars") == [row("good", 5, 1)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"label,more,text\nyes,so it is,rain\nno,,sun\n"),
        ("a.tsv", b"more\ttext\tlabel\nso it is\train\tyes\n\tsun\tno\n"),
        ("a.jsonl", b'{"text":"rain","more":"so it is","label":"yes"}\n{"text":"sun","label":"no"}\n'),
        ("a.parquet", parquet(text=["rain", "sun"], more=["so it is", None], label=["yes", "no"])),
    ],
)
def test_a_second_text_is_read_where_it_is_asked_for(tmp_path: Path, name: str, content: bytes) -> None:
    rows = read(tmp_path, name, content, text_pair_column="more")
    assert [(row.text, row.pair, row.label) for row in rows] == [("rain", "so it is", "yes"), ("sun", None, "no")]
    with pytest.raises(InvalidData, match=r"has no column 'other'; it has "):
        read(tmp_path, name, content, text_pair_column="other")


def test_words_may_come_as_a_list(tmp_path: Path) -> None:
    lines = b'{"text": ["New York", "is"], "label": ["B", "O"]}\n{"text": "New York", "label": "B I"}\n'
    expected = [(["New York", "is"], ["B", "O"]), ("New York", "B I")]
    assert [(row.text, row.label) for row in read(tmp_path, "a.jsonl", lines, words=True)] == expected
    table = parquet(text=[["New York", "is"]], label=[["B", "O"]])
    assert [(row.text, row.label) for row in read(tmp_path, "a.parquet", table, words=True)] == expected[:1]
    with pytest.raises(InvalidData, match=r"^a\.jsonl, line 1, column 'text' holds 5, which is not text\.$"):
        read(tmp_path, "a.jsonl", b'{"text": ["a", 5], "label": ["B", "O"]}\n', words=True)


def test_a_row_is_given_before_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,label\ngood,positive\n"open,negative\n')
    rows = read_rows(SourceFile(path, "a.csv"), DataFile(uri="s3://data/a.csv"))
    assert next(rows) == row("good", "positive", 2)
    with pytest.raises(InvalidData, match="line 3 opens a quote"):
        next(rows)


def test_a_column_that_only_late_objects_have_is_there(tmp_path: Path) -> None:
    wide = json.dumps({f"key {number}": 0 for number in range(jsonl.MAX_KEYS)}).encode()
    lines = wide + b'\n{"text": "good", "label": "x"}\n'
    assert read(tmp_path, "a.jsonl", lines)[1] == row("good", "x", 2)


def test_a_column_that_python_has_no_type_for_is_refused_with_its_file(tmp_path: Path) -> None:
    nanoseconds = parquet(text=["a"], label=pa.array([1], pa.timestamp("ns")))
    with pytest.raises(
        InvalidData, match=r"^ns\.parquet holds a column that is neither text nor numbers \(label: timestamp\[ns\]"
    ):
        read(tmp_path, "ns.parquet", nanoseconds)
