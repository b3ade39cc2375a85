"""What `luthier init` finds out about a file: columns, task, labels, lengths, language; and that it may be applied."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import Invalid, LuthierError, NotFound
from luthier.proposal import Choices, Columns, Proposal, Table, detect_language, find_columns, propose, read_table
from luthier.proposal.build import resource_name
from luthier.proposal.lengths import measure
from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.training import Task

pytestmark = pytest.mark.unit

CHOICES = Choices(name="reviews", data_uri="s3://data/reviews.csv", output_uri="s3://models/", secret="s3")
ENGLISH = "The parcel was late and the box is torn, but they sent a new one."
GERMAN = "Das Paket war sehr spät und die Schachtel ist kaputt, aber wir sind nicht böse."


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(header: Sequence[str], rows: Iterable[Sequence[str]], name: str = "reviews.csv", by: str = ",") -> Path:
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=by)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    return written


def found(path: Path, **given: Any) -> tuple[Table, Columns]:
    table = read_table(path)
    return table, find_columns(table, **given)


def proposed(path: Path, **given: Any) -> Proposal:
    table, columns = found(path, **given)
    return propose(table, columns, CHOICES)


def test_text_label_and_classes_are_found_by_name_and_content(write: Callable[..., Path]) -> None:
    rows = [(str(number), f"{ENGLISH} {number}", ["negative", "positive"][number % 2]) for number in range(300)]
    proposal = proposed(write(("id", "review", "sentiment"), rows))
    spec = proposal.job["spec"]
    assert spec["task"] == "text-classification"
    assert spec["dataset"]["train"] == {
        "uri": "s3://data/reviews.csv", "textColumn": "review", "labelColumn": "sentiment"
    }  # fmt: skip
    assert spec["labels"] == ["negative", "positive"]
    assert spec["model"]["uri"] == "hf://distilbert/distilbert-base-uncased"
    assert not proposal.warnings


def test_columns_with_unknown_names_are_found_by_what_is_in_them(write: Callable[..., Path]) -> None:
    rows = [(["rot", "blau", "grün"][number % 3], f"{GERMAN} {number}", str(number * 17)) for number in range(90)]
    _, columns = found(write(("farbe", "satz", "nummer"), rows))
    assert (columns.text, columns.label, columns.labels) == ("satz", "farbe", ("blau", "grün", "rot"))


@pytest.mark.parametrize("separator", ["|", ";", ","])
def test_labels_that_come_back_in_other_company_are_several_in_a_cell(
    write: Callable[..., Path], separator: str
) -> None:
    topics = ["delivery", "packaging", "price", "service"]
    cells = [separator.join({topics[n % 4], topics[n // 4 % 4]}) for n in range(160)]
    proposal = proposed(write(("text", "topics"), [(f"{ENGLISH} {n}", cell) for n, cell in enumerate(cells)]))
    spec = proposal.job["spec"]
    assert (spec["task"], spec["labels"]) == ("multi-label", sorted(topics))
    # A comma is the contract's own default.
    assert spec["dataset"]["train"].get("labelSeparator") == (None if separator == "," else separator)


def test_a_comma_in_a_class_s_name_does_not_make_it_several_labels(write: Callable[..., Path]) -> None:
    names = ["Berlin, Germany", "Paris, France", "Rome, Italy"]
    rows = [(f"{ENGLISH} {n}", names[n % 3]) for n in range(90)]
    assert found(write(("text", "label"), rows))[1].task is Task.TEXT_CLASSIFICATION


def test_columns_of_0_and_1_are_one_label_each(write: Callable[..., Path]) -> None:
    rows = [(f"{ENGLISH} {n}", str(n % 2), str(n // 2 % 2), str(n // 4 % 2)) for n in range(80)]
    spec = proposed(write(("comment", "toxic", "insult", "threat"), rows)).job["spec"]
    assert spec["task"] == "multi-label"
    assert spec["dataset"]["train"]["labelColumns"] == ["toxic", "insult", "threat"]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["1.5", "2.25", "3.0", "4.75"], Task.REGRESSION),
        (["1,5", "2,25", "3,0", "4,75"], Task.REGRESSION),
        (["1", "2", "3", "4"], Task.TEXT_CLASSIFICATION),
        ([str(number) for number in range(60)], Task.REGRESSION),
    ],
)
def test_fractions_and_many_integers_are_numbers_and_few_integers_are_classes(
    write: Callable[..., Path], values: list[str], task: Task
) -> None:
    rows = [(f"{ENGLISH} {n}", values[n % len(values)]) for n in range(240)]
    path = write(("text", "stars"), rows)
    assert found(path)[1].task is task
    assert found(path, task=Task.REGRESSION)[1].task is Task.REGRESSION


def test_classes_that_are_numbers_are_ordered_by_value(write: Callable[..., Path]) -> None:
    rows = [(f"{ENGLISH} {n}", str(n % 12)) for n in range(240)]
    assert found(write(("text", "label"), rows))[1].labels == tuple(str(number) for number in range(12))


def test_two_texts_with_the_names_of_a_pair_are_a_pair(write: Callable[..., Path]) -> None:
    rows = [(f"{ENGLISH} {n}", f"{ENGLISH} not {n}", ["yes", "no"][n % 2]) for n in range(80)]
    train = proposed(write(("premise", "hypothesis", "label"), rows)).job["spec"]["dataset"]["train"]
    assert (train["textColumn"], train["textPairColumn"]) == ("premise", "hypothesis")


def test_lists_of_words_with_a_label_each_are_token_classification(tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    row = {"tokens": ["Ada", "lives", "in", "Rome"], "ner_tags": ["B-PER", "O", "O", "B-LOC"]}
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(20)))
    spec = proposed(path).job["spec"]
    assert spec["task"] == "token-classification"
    assert "labels" not in spec, "they are learned from the data, sorted"


def test_semicolons_gzip_and_cp1252_are_read_and_the_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bewertungen.csv.gz"
    lines = ["text;label", *(f"Schön, aber teuer {n};{'gut' if n % 2 else 'schlecht'}" for n in range(60))]
    path.write_bytes(gzip.compress("\n".join(lines).encode("cp1252")))
    spec = proposed(path).job["spec"]
    assert spec["dataset"]["train"]["format"] == {"encoding": "cp1252"}
    assert spec["labels"] == ["gut", "schlecht"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        ("Le colis est arrivé en retard et la boîte est cassée, mais je ne suis pas fâché.", "fr"),
        ("El paquete llegó tarde y la caja está rota, pero no estoy enfadado con ellos.", "es"),
        ("包裹来晚了，盒子坏了。", "zh"),
        ("荷物が遅れて、箱が壊れていました。", "ja"),
        ("Посылка пришла поздно, и коробка порвана.", "ru"),
        ("1234 5678", None),
        ("xqz wvk plm", None),
    ],
)
def test_a_language_is_recognized_by_script_and_common_words(text: str, language: str | None) -> None:
    assert detect_language([text] * 20) == language


def test_texts_in_two_languages_get_the_model_for_all(write: Callable[..., Path]) -> None:
    rows = [([ENGLISH, GERMAN][n % 2] + f" {n}", ["a", "b"][n // 2 % 2]) for n in range(200)]
    proposal = proposed(write(("text", "label"), rows))
    assert proposal.job["spec"]["model"]["uri"] == "hf://distilbert/distilbert-base-multilingual-cased"
    assert any("several languages" in reason for reason in proposal.reasons)


def test_max_length_keeps_99_percent_whole_and_says_how_tokens_were_counted() -> None:
    texts = ["word " * 20] * 98 + ["word " * 400] * 2
    lengths = measure(texts)
    assert (lengths.median, lengths.longest, lengths.max_length) == (28, 522, 512)
    assert "1.3 tokens a word" in lengths.counted_by
    assert measure(["word " * 20] * 1000 + ["word " * 400] * 2).max_length == 32
    counted = measure(["a b c"], count=(len, "counted by hand"))
    assert (counted.longest, counted.counted_by) == (7, "counted by hand")


def test_the_gate_asks_for_more_than_always_answering_the_commonest_label(write: Callable[..., Path]) -> None:
    rows = [(f"{ENGLISH} {n}", "rare" if n % 10 == 0 else "common") for n in range(400)]
    proposal = proposed(write(("text", "label"), rows))
    spec = proposal.job["spec"]
    assert spec["evaluation"]["gates"] == [{"metric": "eval_accuracy", "operator": "GT", "threshold": "0.90"}]
    assert spec["hyperparameters"] == {"classWeights": "balanced"}
    assert "9 times as frequent" in " ".join(proposal.warnings)


def test_missing_labels_are_allowed_for_and_told(write: Callable[..., Path]) -> None:
    rows = [(f"{ENGLISH} {n}", "" if n % 10 == 0 else ["a", "b"][n % 2]) for n in range(400)]
    proposal = proposed(write(("text", "label"), rows))
    assert proposal.job["spec"]["dataset"]["quality"] == {"maxMissingFraction": "0.1"}
    assert any("10.0% of the rows lack" in warning for warning in proposal.warnings)


def test_the_proposal_passes_the_contract_with_all_its_defaults(write: Callable[..., Path]) -> None:
    rows = [(f"{ENGLISH} {n}", ["a", "b"][n % 2]) for n in range(40)]
    proposal = proposed(write(("text", "label"), rows))
    spec = FineTuneJobSpec.model_validate(proposal.job["spec"])
    assert spec.dataset.preprocessing.max_length == 32
    assert proposal.deployment["spec"] == {"model": {"fineTuneJobRef": {"name": "reviews"}}}


def test_the_yaml_says_why_in_comments(write: Callable[..., Path]) -> None:
    rows = [(f"{ENGLISH} {n}", ["a", "b"][n % 2]) for n in range(40)]
    text = proposed(write(("text", "label"), rows)).to_yaml("reviews.csv")
    assert text.startswith("# Made by `luthier init` from reviews.csv.")
    assert "# - text holds the text: 16 words in the mean" in text
    assert "# ! 40 rows are few" in text


@pytest.mark.parametrize(
    ("header", "rows", "sentence"),
    [
        (("text",), [("a b c d",)] * 9, "No column looks like a label"),
        (("id", "label"), [("1", "a"), ("2", "b")] * 9, "No column looks like text"),
        (("text", "label"), [(ENGLISH, "a")] * 9, "has 1 label; a model needs two"),
        (("text", "label"), [(ENGLISH, f"l{n}") for n in range(300)], "too many classes"),
        (("text", "text"), [(ENGLISH, "a")], "each once"),
    ],
)
def test_a_file_that_cannot_be_learned_from_says_what_to_do(
    write: Callable[..., Path], header: Sequence[str], rows: Any, sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        found(write(header, rows))


def test_a_missing_file_an_unknown_format_and_an_empty_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        read_table(tmp_path / "none.csv")
    other = tmp_path / "data.xlsx"
    other.write_bytes(b"PK")
    with pytest.raises(Invalid, match=r"give a \.csv"):
        read_table(other)
    empty = tmp_path / "empty.csv"
    empty.write_text("text,label\n")
    with pytest.raises(LuthierError, match="no rows"):
        read_table(empty)


def test_a_name_that_is_no_resource_s_is_refused_with_the_field(write: Callable[..., Path]) -> None:
    table, columns = found(write(("text", "label"), [(f"{ENGLISH} {n}", ["a", "b"][n % 2]) for n in range(20)]))
    with pytest.raises(Invalid, match=r"spec\.output\.name"):
        propose(table, columns, Choices("Reviews", "s3://data/x.csv", "s3://models/"))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("My Reviews (2024).csv.gz", "my-reviews-2024"),
        ("2024.csv", "model-2024"),
        ("日本.csv", "model"),
        ("a" * 60, "a" * 40),
    ],
)
def test_a_resource_is_named_after_the_file(file: str, name: str) -> None:
    assert resource_name(file) == name


def test_only_the_first_rows_are_looked_at_and_that_is_told(write: Callable[..., Path]) -> None:
    path = write(("text", "label"), [(f"{ENGLISH} {n}", ["a", "b"][n % 2]) for n in range(40)])
    table = read_table(path, limit=30)
    assert (table.rows, table.whole) == (30, False)
    assert "only the first 30 rows" in " ".join(propose(table, find_columns(table), CHOICES).warnings)


def test_a_length_that_is_given_says_how_many_texts_it_cuts(write: Callable[..., Path]) -> None:
    rows = [(f"{ENGLISH} {n}", ["a", "b"][n % 2]) for n in range(40)]
    table, columns = found(write(("text", "label"), rows))
    proposal = propose(table, columns, replace(CHOICES, max_length=16))
    assert proposal.job["spec"]["dataset"]["preprocessing"] == {"maxLength": 16}
    assert any(reason.startswith("maxLength 16:") and "100.0% are cut" in reason for reason in proposal.reasons)
