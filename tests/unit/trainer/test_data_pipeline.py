"""Files to prepared data, without storage and without torch: tokens, parts, tasks, and pieces of any size."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel, Sequence

from luthier_trainer.data import staging
from luthier_trainer.data.tokenization import Encoded, TextEncoder, configure
from luthier_trainer.runtime.errors import InvalidData
from luthier_trainer.tasks.interface import IGNORED
from support.trainer.pipeline import BAD, CSV, FILM, GOOD, Rows, prepare, texts, tokenizer

pytestmark = pytest.mark.unit


def encode(encoder: TextEncoder, texts: list[Any], pairs: list[str | None] | None = None) -> Encoded:
    """Tokenize one batch."""
    ((_, encoded),) = encoder.encode_ahead([(None, texts, pairs or [])])
    return encoded


def test_texts_are_cut_at_the_limit_and_measured_without_it() -> None:
    encoded = encode(TextEncoder(tokenizer(), 4), ["good", "good bad good bad good", "bad bad"])
    assert encoded.ids == [[2, 4, 3], [2, 4, 5, 3], [2, 5, 5, 3]]
    assert encoded.lengths == [3, 7, 4]
    assert encoded.second_starts == [0, 0, 0]


def test_of_pairs_the_second_texts_place_is_known_and_the_longer_text_is_cut() -> None:
    texts = ["good film", "good good good good good good", "good"]
    encoded = encode(TextEncoder(tokenizer(), 7, pairs=True), texts, ["bad", "bad bad bad", "\u200b"])
    assert encoded.ids[0] == [2, GOOD, FILM, 3, BAD, 3]
    assert (len(encoded.ids[1]), encoded.ids[1].count(BAD)) == (7, 2)
    assert encoded.second_starts[:2] == [4, 4]
    assert encoded.lengths == [6, 12, 5]


def test_every_token_knows_its_word() -> None:
    encoded = encode(TextEncoder(tokenizer(), 6, per_token=True), [["good", "", "film's", "bad"], ["bad"]])
    assert encoded.ids[0] == [2, GOOD, FILM, 7, 8, 3]
    assert encoded.word_ids == [[None, 0, 2, 2, 2, None], [None, 0, None]]
    assert encoded.lengths == [7, 3]


def test_a_byte_level_tokenizer_sees_a_space_before_each_word() -> None:
    made = tokenizer()
    made.pre_tokenizer = Sequence([ByteLevel(add_prefix_space=False)])
    before = configure(made, 8, per_token=True).pre_tokenizer
    assert before.pre_tokenize_str("good") == [("Ġgood", (0, 4))]


@pytest.fixture
def folder() -> Any:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


REVIEWS: Rows = [(f"good {number}", "pos") for number in range(10)] + [(f"bad {number}", "neg") for number in range(10)]


def test_a_split_makes_three_parts_that_share_no_text(folder: Path) -> None:
    split = {"fraction": "0.2", "testFraction": "0.1"}
    made = prepare(folder, {"train/a.csv": [*REVIEWS, ("bad 3", "neg")]}, dataset={"split": split})
    assert (made.data.train_examples, made.data.eval_examples, made.data.test_examples) == (14, 4, 2)
    assert made.test is not None
    assert sorted(texts(made.train) + texts(made.held_out) + texts(made.test)) == sorted(text for text, _ in REVIEWS)
    assert made.data.labels == ["neg", "pos"]
    assert [made.train.target(index) for index in range(14)] == [1] * 7 + [0] * 7
    assert made.quality.labels["pos"].to_wire() == {"train": 7, "eval": 2, "test": 1}
    assert made.quality.files[0].duplicates == 1
    assert made.quality.scripts == {"Latin": 1.0}


def test_files_of_their_own_keep_their_examples_and_training_loses_what_they_hold(folder: Path) -> None:
    made = prepare(
        folder,
        {
            "train/a.csv": REVIEWS,
            "eval/b.csv": [("good 1", "pos"), ("good  2", "neg"), ("bad new", "neg"), ("film", "pos")],
            "test/c.csv": [("bad 5", "neg"), ("film", "pos"), ("good and bad", "pos")],
        },
    )
    assert texts(made.held_out) == ["good 1", "good 2", "bad new"]
    assert made.test is not None
    assert texts(made.test) == ["bad 5", "film", "good and bad"]
    assert {"good 1", "good 2", "bad 5"}.isdisjoint(texts(made.train))
    assert made.quality.leakage.to_wire() == {"evaluated": 6, "leaked": 3, "leftOutOfTrain": 3, "leftOutOfEval": 1}
    assert made.quality.examples == {"train": 17, "eval": 3, "test": 3}


@pytest.mark.parametrize(("drop", "kept"), [(True, 21), (False, 23)])
def test_repeats_are_counted_in_any_case_and_dropped_where_the_spec_says_so(
    folder: Path, drop: bool, kept: int
) -> None:
    repeated = [("good 3", "pos"), ("good 3", "pos"), ("good 3", "neg")]
    made = prepare(
        folder,
        {"train/a.csv": [*REVIEWS, *repeated], "eval/b.csv": [("new", "pos")]},
        dataset={"preprocessing": {"dropDuplicates": drop}},
    )
    # The same text with another label is a contradiction, not a repeat.
    assert (made.data.train_examples, made.quality.files[0].duplicates) == (kept, 2)
    assert made.quality.files[0].conflicting_texts == 1


def test_nothing_of_a_killed_attempt_is_left(folder: Path) -> None:
    for name in ("made/test.arrow", "staging/train"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"half")
    made = prepare(folder, {"train/a.csv": REVIEWS})
    assert made.data.test_examples == 0
    assert sorted(path.name for path in (folder / "made").iterdir()) == [
        *("eval.arrow", "prepared.json", "quality.json", "train.arrow"),
    ]


def test_a_test_file_leaves_evaluation_to_a_split_of_train(folder: Path) -> None:
    made = prepare(folder, {"train/a.csv": REVIEWS, "test/c.csv": [("film", "pos"), ("film 2", "neg")]})
    assert (made.data.train_examples, made.data.eval_examples, made.data.test_examples) == (18, 2, 2)


@pytest.mark.parametrize(
    ("files", "quality", "sentence"),
    [
        ({"eval/b.csv": REVIEWS[3:6]}, {"maxLeakageFraction": "0.9"}, "3 of 3 texts for evaluation and test are also"),
        ({"eval/b.csv": REVIEWS}, {}, "Every training text is also among the examples for evaluation, so there is n"),
        (
            {"eval/b.csv": [("x", "pos")], "test/c.csv": [("x", "pos")]},
            {},
            "No example is left for evaluation: add examples, or test on other texts than those.",
        ),
        ({"eval/b.csv": []}, {}, "eval files holds no rows."),
        (
            {"eval/b.csv": [("", "x"), ("y", "")]},
            {},
            "eval files holds 2 rows, and none of them has both a text and a la",
        ),
        ({"eval/b.csv": [("x", "other")]}, {"minExamplesPerLabel": 1}, "The labels 'other' are only among the examp"),
        ({}, {"maxCutFraction": "0.1"}, None),
    ],
)
def test_data_that_cannot_be_used_is_refused_before_it_is_tokenized(
    folder: Path, files: dict[str, Rows], quality: dict[str, Any], sentence: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sentence is None:
        prepare(folder, {"train/a.csv": REVIEWS, **files}, dataset={"quality": quality})
        return
    monkeypatch.setattr(TextEncoder, "encode_ahead", None)
    with pytest.raises(InvalidData) as refused:
        prepare(folder, {"train/a.csv": REVIEWS, **files}, dataset={"quality": quality})
    assert str(refused.value).startswith(sentence)


def test_faults_and_outliers_are_named_by_the_file_and_line_of_each_of_several(folder: Path) -> None:
    long = [("good " * 100, "pos")]
    made = prepare(folder, {"train/1.csv": REVIEWS + long, "train/2.csv": [], "train/3.jsonl": REVIEWS[:2]})
    (file,) = made.quality.files
    assert (file.name, file.files, file.rows, file.duplicates) == ("train files", 3, 23, 2)
    outliers = {place for each in made.quality.outliers.values() for place in each.places}
    assert outliers == {"1.csv, line 22: 102 tokens"}
    made = prepare(folder, {"train/1.csv": REVIEWS, "train/2.csv": [*long, ("film", "neg")]})
    assert [place for each in made.quality.outliers.values() for place in each.places] == ["2.csv, line 2: 102 tokens"]
    with pytest.raises(InvalidData, match=r"^3\.jsonl, line 2, column 'label' holds \{\}; a label is text"):
        prepare(folder, {"train/1.csv": REVIEWS, "train/3.jsonl": [("good", "pos"), ("bad", {})]})


def test_integers_count_the_labels_of_the_spec(folder: Path) -> None:
    rows: Rows = [(text, int(label == "pos")) for text, label in REVIEWS]
    made = prepare(folder, {"train/a.jsonl": rows}, labels=["negative", "positive"])
    assert made.data.labels == ["negative", "positive"]
    assert all(made.train.target(index) == int("good" in made.train.text(index)) for index in range(len(made.train)))
    assert made.quality.labels["positive"].total == 10


def test_a_label_map_merges_labels(folder: Path) -> None:
    rows = [*REVIEWS, ("bad 1", "negative")]
    made = prepare(folder, {"train/a.csv": rows}, dataset={"labelMap": {"neg": "negative", "pos": "positive"}})
    assert made.data.labels == ["negative", "positive"]
    assert (made.quality.files[0].duplicates, made.quality.files[0].conflicting_texts) == (1, 0)


def test_pairs_are_compared_and_tokenized_as_pairs(folder: Path) -> None:
    rows: Rows = [(f"good {number}", "bad film", "x") for number in range(5)]
    rows += [("good 1", "film", "y"), ("good 2", "film", "y"), ("good 3", "", "y")]
    limits = {"quality": {"maxMissingFraction": "0.2"}}
    made = prepare(folder, {"train/a.csv": rows}, ("text", "pair", "label"), dataset=limits)
    assert made.data.pairs
    assert (made.quality.files[0].missing, made.quality.files[0].conflicting_texts) == (1, 0)
    assert made.train.input_ids(0).tolist()[-4:] == [3, BAD, FILM, 3]
    assert made.train.second_start(0) == len(made.train.input_ids(0)) - 3
    assert made.train.text_pair(0) == "bad film"


def test_regression_learns_numbers_which_no_limit_on_labels_judges(folder: Path) -> None:
    rows: Rows = [(f"good {number}", number / 4) for number in range(20)] + [("good 1", 9)]
    made = prepare(
        folder,
        {"train/a.jsonl": rows},
        task="regression",
        dataset={"quality": {"minExamplesPerLabel": 100, "maxImbalanceRatio": "1"}},
    )
    assert (made.data.labels, made.quality.labels) == (["label"], {})
    found = {made.train.text(index): made.train.target(index) for index in range(len(made.train))}
    assert found.items() <= {(text, float(number)) for text, number in rows}
    numbers = made.quality.numbers
    assert min(numbers["train"].min, numbers["eval"].min) == 0
    assert made.quality.files[0].conflicting_texts == 1


def test_several_labels_become_positions(folder: Path) -> None:
    rows: Rows = [(f"good {number}", ["a", "b"][: number % 3]) for number in range(12)]
    made = prepare(folder, {"train/a.jsonl": rows}, task="multi-label")
    expected = {text: [("a", "b").index(each) for each in labels] for text, labels in rows}
    assert {made.train.text(i): made.train.target(i) for i in range(len(made.train))}.items() <= expected.items()
    assert made.quality.labels["a"].total == 8


def test_words_labels_stand_at_their_first_tokens(folder: Path) -> None:
    rows: Rows = [(["good", "film's", f"n{number}"], ["A", "O", "B"]) for number in range(8)]
    made = prepare(folder, {"train/a.jsonl": rows}, task="token-classification")
    assert made.data.labels == ["A", "B", "O"]
    assert made.train.target(0) == [IGNORED, 0, 2, IGNORED, IGNORED, 1, IGNORED]
    assert made.train.text(0).startswith("good film's n")
    assert made.quality.labels["O"].total == 8


# One frame as pandas writes it: to_csv(index=False), to_json(orient="records", lines=True) and to_parquet().
FRAMES: dict[str, tuple[list[Any], str, str]] = {
    "floats with a gap": ([1.0, 0.0, None], "1.0 0.0 ", "1.0 0.0 null"),
    "integers": ([1, 0, 1], "1 0 1", "1 0 1"),
    "decimals": ([0.5, 1.5, 2.0], "0.5 1.5 2.0", "0.5 1.5 2.0"),
    "booleans": ([True, False, None], "True False ", "true false null"),
    "words": (["pos", "neg", None], "pos neg ", '"pos" "neg" null'),
}


@pytest.mark.parametrize("labels", FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_is_the_same_data_as_csv_as_json_and_as_parquet(
    folder: Path, labels: tuple[list[Any], str, str]
) -> None:
    values, in_csv, in_json = labels
    rows = [(f'Ä "{number}", {cell}\n/', number % 3) for number, cell in enumerate(["good", "bad", "film"] * 8)]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([CSV, *((t, in_csv.split(" ")[kind]) for t, kind in rows)])
    lines = [f'{{"text":{json.dumps(t)},"label":{in_json.split(" ")[kind]}}}\n'.replace("/", "\\/") for t, kind in rows]
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [values[kind] for _, kind in rows]}), sink)
    files = {"csv": text.getvalue().encode(), "jsonl": "".join(lines).encode(), "parquet": sink.getvalue()}
    made = [
        prepare(folder / kind, {f"train/a.{kind}": content}, dataset={"quality": {"maxMissingFraction": "1"}})
        for kind, content in files.items()
    ]
    first, *others = made
    assert first.data.train_examples > 10 and len(first.data.labels) >= 2
    for other in others:
        assert other.data == first.data
        assert [contents(part) for part in (other.train, other.held_out)] == [
            contents(part) for part in (first.train, first.held_out)
        ]


def test_rows_that_cannot_be_read_are_left_out_up_to_the_limit_and_named(folder: Path) -> None:
    rows: Rows = [*REVIEWS, ("broken", {}), ("film", "pos")]
    with pytest.raises(InvalidData, match=r"^a\.jsonl, line 21, column 'label' holds \{\}; a label is text"):
        prepare(folder, {"train/a.jsonl": rows})
    made = prepare(folder, {"train/a.jsonl": rows}, dataset={"quality": {"maxMalformedFraction": "0.05"}})
    (file,) = made.quality.files
    assert (file.rows, file.malformed, file.read_as) == (22, 1, ["JSON lines, utf-8"])
    assert file.faults == ["a.jsonl, line 21, column 'label' holds {}; a label is text, a number or a boolean."]
    assert made.quality.warnings[0] == "1 of 22 rows of train files cannot be read and were left out."
    with pytest.raises(
        InvalidData, match=r"^1 of 22 rows of train files cannot be read, .*0\.04 allows\. The first: a\."
    ):
        prepare(folder, {"train/a.jsonl": rows}, dataset={"quality": {"maxMalformedFraction": "0.04"}})


@pytest.mark.parametrize("pairs", [False, True])
def test_the_text_of_an_end_token_is_refused_where_the_model_reads_texts_off_at_it(folder: Path, pairs: bool) -> None:
    columns = ("text", "pair", "label") if pairs else CSV
    second = ("film",) if pairs else ()
    rows: Rows = [(f"good {number}", *second, "x" if number % 2 else "y") for number in range(40)]
    assert prepare(folder, {"train/a.csv": rows}, columns, end_token_id=3).data.train_examples == 36
    rows[30] = ("good [SEP] film", *second, "x")
    with pytest.raises(InvalidData, match=r"^a\.csv, line 32 holds '\[SEP\]' in its text, which is the token"):
        prepare(folder, {"train/a.csv": rows}, columns, end_token_id=3)
    assert prepare(folder, {"train/a.csv": rows}, columns).data.train_examples == 36, "others read it like a word"


words = st.sampled_from(["good", "bad", "film", "good film", "bad " * 12, "", "привет", '"quoted, text"'])
rows = st.lists(st.tuples(words, st.sampled_from(["x", "y", ""])), max_size=30)


@settings(max_examples=40)
@given(rows, rows, st.sampled_from([1, 2, 3, 7]), st.sampled_from([1, 30, 10**6]), st.sampled_from([1, 4, 10**6]))
def test_pieces_of_any_size_give_the_same_data(
    learned: Rows, more: Rows, batch_rows: int, batch_characters: int, batch_wanted: int
) -> None:
    always: Rows = [(f"{word} {number}", label) for word, label in (("good", "x"), ("bad", "y")) for number in range(5)]
    files = {"train/1.csv": always + learned, "train/2.jsonl": more, "test/t.csv": [("film good bad", "x"), *more]}
    dataset = {"quality": {"maxMissingFraction": "1"}, "preprocessing": {"maxLength": 8}}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = prepare(Path(one), files, dataset=dataset)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(staging, "BATCH_CHARACTERS", batch_characters)
            patched.setattr(staging, "BATCH_ROWS", batch_wanted)
            pieces = prepare(Path(other), files, batch_rows=batch_rows, dataset=dataset)
        assert (pieces.data, pieces.quality) == (whole.data, whole.quality)
        for name in ("train", "held_out", "test"):
            assert contents(getattr(pieces, name)) == contents(getattr(whole, name))


def contents(part: Any) -> list[tuple[Any, ...]]:
    return [
        (part.input_ids(index).tolist(), part.second_start(index), part.target(index), part.text(index))
        for index in range(len(part))
    ]
