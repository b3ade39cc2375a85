"""Files as spreadsheets and public data sets write them: separators, quotes, encodings and line ends."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from luthier_api.training import DataFile
from luthier_artifacts.readers.formats import SourceFile, read_rows
from luthier_artifacts.readers.rows import Reading
from luthier_trainer.runtime.errors import InvalidData, InvalidSpec

pytestmark = pytest.mark.unit

Pairs = list[tuple[Any, Any]]


def read(tmp_path: Path, name: str, content: bytes, reading: Reading | None = None, **file: Any) -> Pairs:
    path = tmp_path / "download"
    path.write_bytes(content)
    described = DataFile.model_validate({"uri": f"s3://data/{name}", **file})
    return [(row.text, row.label) for row in read_rows(SourceFile(path, name), described, reading=reading)]


def how(tmp_path: Path, name: str, content: bytes, **file: Any) -> tuple[Pairs, str]:
    reading = Reading()
    rows = read(tmp_path, name, content, reading, **file)
    (told,) = reading.how
    return rows, told


# CoLA and PAWS have texts that begin with a quote, and no quoting.
GLUE = 'text\tlabel\n"It was good" , he said\t1\nbad\t0\n"Open only\t1\nlast word"\t0\n'
PANDAS = 'text\tlabel\n"He said ""good"""\t1\n"a\tb"\t0\n"one\ntwo"\t1\n'


def test_a_tsv_whose_quotes_enclose_nothing_is_read_without_quoting_with_a_note(tmp_path: Path) -> None:
    rows, told = how(tmp_path, "train.tsv", GLUE.encode())
    assert rows == [('"It was good" , he said', "1"), ("bad", "0"), ('"Open only', "1"), ('last word"', "0")]
    assert told == "utf-8, separated by tab, quotes are characters like any other"


def test_a_tsv_with_quoted_cells_is_read_with_quoting(tmp_path: Path) -> None:
    rows, told = how(tmp_path, "train.tsv", PANDAS.encode())
    assert rows == [('He said "good"', "1"), ("a\tb", "0"), ("one\ntwo", "1")]
    assert told == "utf-8, separated by tab, cells may be in quotes"
    enclosed = 'text\tlabel\n"good"\t"1"\n"bad"\t"0"\n'
    assert how(tmp_path, "train.tsv", enclosed.encode())[0] == [("good", "1"), ("bad", "0")]


def test_a_tsv_with_as_many_cells_in_each_line_never_loses_a_row(tmp_path: Path) -> None:
    texts = ['"', '""', '"a', 'a"', '"a"', '"a" b', "'", '"a"b"', "a"]
    for first in texts:
        for second in texts:
            content = f"text\tlabel\n{first}\t1\n{second}\t0\n".encode()
            assert len(read(tmp_path, "a.tsv", content)) == 2, (first, second)


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        # A row with a cell too few makes quoting possible, and then a quote takes the next rows with it.
        ("a.tsv", 'text\tlabel\nbroken\n"Open\tpos\nclose"\tneg\n', (3, 4)),
        ("a.tsv", 'label\ttext\nbroken\npos\t"Open\nneg\tmiddle\npos\tclose"\n', (3, 5)),
        ("a.csv", 'text,label\nfine,pos\n"Open,pos\nclose",neg\n', (3, 4)),
        ("a.csv", 'text;label\nfine;pos\n"Open;pos\nclose";neg\n', (3, 4)),
    ],
)
def test_rows_that_a_quote_would_melt_are_refused(
    tmp_path: Path, name: str, content: str, lines: tuple[int, int]
) -> None:
    reading = Reading(tolerant=True)
    try:
        read(tmp_path, name, content.encode(), reading)
        found = reading.faults[-1]
    except InvalidData as refused:
        found = str(refused)
    first, last = lines
    assert found.startswith(f"{name}, line {first}: a quote makes one row of the lines {first} to {last}")
    assert "Set format.quoting: none" in found
    assert read(tmp_path, name, content.encode(), Reading(tolerant=True), format={"quoting": "quotes"})


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.tsv", 'text\tlabel\n"one\ntwo"\tpos\nx\tneg\n', "one\ntwo"),
        ("a.tsv", 'label\ttext\npos\t"one\ntwo\nthree"\nneg\tx\n', "one\ntwo\nthree"),
        ("a.csv", 'text,label\n"one, really\ntwo",pos\nx,neg\n', "one, really\ntwo"),
        ("a.csv", 'label,text\npos,"one\ntwo"\nneg,x\n', "one\ntwo"),
    ],
)
def test_a_text_of_several_lines_in_quotes_is_one_text(tmp_path: Path, name: str, content: str, text: str) -> None:
    assert read(tmp_path, name, content.encode()) == [(text, "pos"), ("x", "neg")]


def test_the_spec_says_how_a_file_is_written(tmp_path: Path) -> None:
    content = b'text^label\n"a, b^1\nc\\^d^0\n'
    rows, told = how(tmp_path, "a.csv", content, format={"separator": "^", "quoting": "none", "escape": "\\"})
    assert rows == [('"a, b', "1"), ("c^d", "0")]
    assert told == "utf-8, separated by '^', quotes are characters like any other, escaped by '\\\\'"
    tab = read(tmp_path, "a.csv", b'text\tlabel\n"a\t1\n', format={"separator": r"\t", "quoting": "none"})
    assert tab == [('"a', "1")], "a tab in single quotes in YAML is two characters"
    escaped = b'text,label\n"a \\"b\\", c",1\n'
    assert read(tmp_path, "a.csv", escaped, format={"escape": "\\"}) == [('a "b", c', "1")]


@pytest.mark.parametrize(
    ("name", "content", "separator"),
    [
        ("a.csv", "sep=;\ntext;label\ngood;pos\n", "';'"),
        ("a.csv", "SEP=;\r\n\r\ntext;label\r\ngood;pos\r\n", "';'"),
        ("a.csv", '"sep=,"\ntext,label\ngood,pos\n', "','"),
        ("a.csv", "sep=;;\ntext;label\ngood;pos\n", "';'"),
        ("a.csv", "sep=^\ntext^label\ngood^pos\n", "'^'"),
        ("a.csv", "sep=\t\ntext\tlabel\ngood\tpos\n", "tab"),
        ("a.tsv", 'sep=\t\ntext\tlabel\n"good" it was\tpos\n', "tab"),
        # Both marks give the header all columns, so that the line alone decides.
        ("a.csv", "sep=;\ntext;label;a,text,label\ngood;pos;x\n", "';'"),
    ],
)
def test_a_first_line_that_tells_excel_the_separator_is_heeded_and_is_no_header(
    tmp_path: Path, name: str, content: str, separator: str
) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        rows, told = how(tmp_path, name, content.encode(encoding))
        assert rows in ([("good", "pos")], [('"good" it was', "pos")])
        assert f"separated by {separator}," in told


def test_lines_are_counted_with_the_one_for_excel_and_the_spec_comes_before_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"a\.csv, line 3 has 3 cells and the header has 2"):
        read(tmp_path, "a.csv", b"sep=;\ntext;label\na;b;c\n")
    said = read(tmp_path, "a.csv", b"sep=;\ntext|label\na;b|pos\n", format={"separator": "|"})
    assert said == [("a;b", "pos")]
    with pytest.raises(InvalidData, match=r"a\.csv holds only blank lines"):
        read(tmp_path, "a.csv", b"sep=;\n")
    assert read(tmp_path, "a.csv", b"text,label\nsep=;,pos\n") == [("sep=;", "pos")], "a text of the data"


GERMAN = "text;label\nÜber „Äpfel“ – 5 €;gut\nnaja, geht so;schlecht\n"
CHINESE = "text,label\n这部电影很好看，推荐,好\n太差了,坏\n"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (GERMAN, "cp1252"),
        (GERMAN, "utf-8-sig"),
        (GERMAN, "utf-16"),
        (CHINESE, "gbk"),
        (CHINESE, "gb18030"),
        (CHINESE, "utf-16"),
        (CHINESE, "utf-32"),
        (CHINESE.replace(",", "\t"), "utf-16"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_a_spreadsheet_exports_is_read(tmp_path: Path, content: str, encoding: str, end: str) -> None:
    # An encoding with a byte order mark need not be said.
    said = {} if encoding.startswith("utf") else {"encoding": encoding}
    separator = next(mark for mark in ";\t," if mark in content.splitlines()[0])
    expected = list(csv.reader(io.StringIO(content), delimiter=separator))[1:]
    raw = content.replace("\n", end).encode(encoding)
    assert [list(row) for row in read(tmp_path, "Mappe1.csv", raw, format=said)] == expected


def test_lines_are_counted_whatever_ends_them(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        with pytest.raises(InvalidData, match=r"^a\.csv, line 3 has 3 cells"):
            read(tmp_path, "a.csv", "text,label\na,1\nb,2,3\n".replace("\n", end).encode())


@pytest.mark.parametrize(
    ("content", "encoding", "guess"),
    [
        (GERMAN, "cp1252", "cp1252 reads 'Über"),
        (CHINESE, "gbk", "gb18030 reads '这部电影"),
    ],
)
def test_bytes_that_are_not_utf_8_are_shown_as_what_they_may_be(
    tmp_path: Path, content: str, encoding: str, guess: str
) -> None:
    with pytest.raises(InvalidData) as refused:
        read(tmp_path, "a.csv", content.encode(encoding))
    assert guess in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "said", "sentence"),
    [
        ("a.csv", b"text,label\na,1\n", {"encoding": "latin-42"}, "format.encoding is 'latin-42', which is no encodin"),
        ("a.csv", b"text,label\na,1\n", {"encoding": "base64"}, "format.encoding is 'base64', which is no encoding of"),
        ("a.jsonl", b'{"text": "a", "label": 1}', {"separator": ";"}, "a.jsonl is JSON lines, so format.separator has"),
        ("a.parquet", b"PAR1", {"encoding": "utf-8"}, "a.parquet is Parquet, so format has no meaning there; leave it"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, content: bytes, said: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InvalidSpec) as refused:
        read(tmp_path, name, content, format=said)
    assert str(refused.value).startswith(sentence)


def test_the_wrong_encoding_is_refused_where_it_shows(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"^a\.csv, line 2 is not ascii: byte 0xC3 at position 1\. Set format\.encod"):
        read(tmp_path, "a.csv", "text,label\nä,1\n".encode(), format={"encoding": "ascii"})
    assert read(tmp_path, "a.csv", "text,label\na,1\n".encode("utf-16-le"), format={"encoding": "utf-16-le"}) == [
        ("a", "1")
    ]
    with pytest.raises(
        InvalidData, match=r"^a\.csv is not utf-16 after line 0 \(UTF-16 stream does not start with BOM\); check"
    ):
        read(tmp_path, "a.csv", b"text,label\na,12\n", format={"encoding": "utf-16"})


def test_json_lines_may_have_another_encoding(tmp_path: Path) -> None:
    content = '{"text": "Käse", "label": "gut"}\n'.encode("cp1252")
    assert read(tmp_path, "a.jsonl", content, format={"encoding": "cp1252"}) == [("Käse", "gut")]


def test_texts_of_several_columns_are_joined_and_empty_ones_left_out(tmp_path: Path) -> None:
    columns = {"textColumns": ["title", "body"]}
    content = b"title,body,label\nGood,film,1\n,film,0\nGood,,0\n,,1\n"
    expected = [("Good film", "1"), ("film", "0"), ("Good", "0"), (None, "1")]
    assert read(tmp_path, "a.csv", content, **columns) == expected
    lines = b'{"title": "Good", "body": "film", "label": 1}\n{"title": null, "label": 0}\n'
    assert read(tmp_path, "a.jsonl", lines, **columns) == [("Good film", 1), (None, 0)]
    with pytest.raises(InvalidData, match=r"^a\.csv has no column 'body'; it has 'title', 'label'\.$"):
        read(tmp_path, "a.csv", b"title,label\na,1\n", **columns)


BROKEN_CSV = b'text,label\ngood,1\nbad,2,3\n\xff,1\n"a"b,0\nfine,0\n"open,1\nx,1\n'
BROKEN_JSONL = b'{"text": "good", "label": 1}\nnonsense\n[1]\n{"text": 5, "label": 1}\n{"text": "fine", "label": 0}\n'


def test_rows_that_cannot_be_read_are_left_out_where_that_is_tolerated_and_the_others_kept(tmp_path: Path) -> None:
    reading = Reading(tolerant=True)
    assert read(tmp_path, "a.csv", BROKEN_CSV, reading) == [("good", "1"), ("fine", "0")]
    # The quote that is never closed takes the rest of the file with it, line by line.
    assert reading.malformed == 5
    assert [fault.split(" ")[2] for fault in reading.faults] == ["3", "4", "5", "7"]
    reading = Reading(tolerant=True)
    assert read(tmp_path, "a.jsonl", BROKEN_JSONL, reading) == [("good", 1), ("fine", 0)]
    assert (reading.malformed, len(reading.faults)) == (3, 3)


def test_of_rows_that_cannot_be_read_ten_are_named(tmp_path: Path) -> None:
    reading = Reading(tolerant=True)
    read(tmp_path, "a.csv", b"text,label\na,1\n" + b"a,b,c\n" * 30, reading)
    assert (reading.malformed, len(reading.faults)) == (30, 10)
