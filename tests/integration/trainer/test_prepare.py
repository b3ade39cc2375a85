"""*prepare* on a real S3 server: what it leaves there, and what it finds again."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luthier_api.exitcodes import ExitCode
from luthier_trainer.formats.prepared import PreparedFolder, read_prepared
from luthier_trainer.tasks.interface import IGNORED

pytestmark = pytest.mark.integration


def test_prepared_data_lies_in_the_registry_and_is_found_again(bench: Any, document: dict[str, Any]) -> None:
    first = bench.run("prepare", document)
    assert first.code == 0, first.log
    prepared = first.result.prepared
    assert (prepared.train_examples, prepared.eval_examples, prepared.labels) == (54, 6, 2)
    assert "prepared 54 training and 6 evaluation examples of 2 labels" in first.log
    assert (bench.folder / "termination-log").read_text() == first.result.to_termination_message()
    before = bench.keys("registry/sentiment/prepared")

    again = bench.run("prepare", document)
    assert again.result == first.result
    assert "found the prepared data" in again.log
    assert bench.keys("registry/sentiment/prepared") == before

    bench.registry.get_prepared(prepared.resolved.data_key, bench.folder / "data")
    data = read_prepared(bench.folder / "data")
    assert data.data.labels == ["negative", "positive"]
    assert len(data.train) == 54
    assert set(data.held_out.targets().to_pylist()) == {0, 1}
    train = [data.train.input_ids(index) for index in range(len(data.train))]
    assert all(2 < len(ids) <= 32 and ids[0] == 2 and ids[-1] == 3 for ids in train)
    assert not {data.train.text(i) for i in range(54)} & {data.held_out.text(i) for i in range(6)}


def test_warnings_name_settings_without_effect_and_what_is_odd_in_the_data(
    bench: Any, document: dict[str, Any]
) -> None:
    document["spec"]["hyperparameters"] = {"epochs": 1, "batchSize": 16, "warmupSteps": 500, "evalSteps": 500}
    ended = bench.run("prepare", document)
    assert [warning.split(",")[0] for warning in ended.result.prepared.warnings] == [
        "hyperparameters.warmupSteps = 500 and the run has 4 steps",
        "hyperparameters.evalSteps = 500 and the run has 4 steps",
        "Only 6 examples are evaluated",
    ]
    assert all(warning in ended.log for warning in ended.result.prepared.warnings)


def test_keys_follow_what_decides_the_result_and_nothing_else(bench: Any, document: dict[str, Any]) -> None:
    def resolved(**changes: Any) -> Any:
        return bench.run("prepare", document | {"spec": document["spec"] | changes}).result.prepared.resolved

    first = resolved()
    longer = resolved(hyperparameters={"epochs": 2})
    assert (longer.data_key, longer.run_key != first.run_key) == (first.data_key, True)
    shorter = resolved(dataset=document["spec"]["dataset"] | {"preprocessing": {"maxLength": 16}})
    assert shorter.data_key != first.data_key
    moved = bench.put_folder("elsewhere", bench.folder / "workspace-1" / "model")
    assert resolved(model={"uri": moved}) == first


def lines(rows: Any, columns: tuple[str, ...] = ("text", "label")) -> bytes:
    return "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows).encode()


def prepared(bench: Any, answer: Any) -> PreparedFolder:
    assert answer.code == 0, answer.log
    folder = bench.folder / f"data-{bench.workspaces}"
    bench.registry.get_prepared(answer.result.prepared.resolved.data_key, folder)
    return read_prepared(folder)


def texts(part: Any) -> list[str]:
    return [part.text(index) for index in range(len(part))]


@pytest.mark.parametrize("pattern", ["reviews/", "reviews/part-*"])
def test_several_files_are_one_in_the_order_of_their_names(
    bench: Any, document: dict[str, Any], reviews: Any, pattern: str
) -> None:
    table = pa.table({"text": [text for text, _ in reviews[20:30]], "label": [label for _, label in reviews[20:30]]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    packed = gzip.compress(lines(reviews[10:20]), mtime=0)
    bench.put("reviews/part-2.jsonl.gz", packed)
    bench.put("reviews/part-1.jsonl", lines(reviews[:10]))
    bench.put("reviews/part-3.parquet", sink.getvalue())
    bench.put("reviews/_SUCCESS", b"")
    bench.put("reviews/.part-1.jsonl.crc", b"crc")
    document["spec"]["dataset"]["train"]["uri"] = f"{bench.uri}/{pattern}"
    document["spec"]["dataset"]["split"] = {"fraction": "0.2"}
    several = bench.run("prepare", document)
    made = prepared(bench, several)
    wanted = [text for text, _ in reviews[:30]]
    assert [text for text in wanted if text in texts(made.train)] == texts(made.train)
    assert sorted(texts(made.train) + texts(made.held_out)) == sorted(set(wanted))
    (file,) = made.quality.files
    assert (file.name, file.files, file.rows) == (pattern.removeprefix("reviews/") or "reviews/", 3, 30)

    # The same bytes elsewhere are the same data; another order is not.
    bench.put("moved/a.jsonl", lines(reviews[:10]))
    bench.put("moved/b.jsonl.gz", packed)
    bench.put("moved/c.parquet", sink.getvalue())
    document["spec"]["dataset"]["train"]["uri"] = f"{bench.uri}/moved/"
    again = bench.run("prepare", document)
    assert again.result.prepared.resolved == several.result.prepared.resolved
    assert "found the prepared data" in again.log
    bench.put("moved/d.jsonl", lines(reviews[30:32]))
    assert bench.run("prepare", document).result.prepared.resolved.data_key != several.result.prepared.resolved.data_key


@pytest.mark.parametrize(
    ("uri", "code", "sentence"),
    [
        ("reviews/", ExitCode.INPUT_NOT_FOUND, "names no file that can be used; check the path and the names there."),
        ("reviews/*.csv", ExitCode.INPUT_NOT_FOUND, "names no file that can be used; check the path and the names"),
        ("reviews/*", ExitCode.INVALID_SPEC, "The format of notes.xlsx is not known: name it .csv"),
        ("*/a.csv", ExitCode.INVALID_SPEC, "has * in the name of a folder; it may stand in the last part only."),
    ],
)
def test_files_that_cannot_be_used_are_named(
    bench: Any, document: dict[str, Any], uri: str, code: ExitCode, sentence: str
) -> None:
    bench.put("reviews/notes.xlsx", b"PK")
    document["spec"]["dataset"]["train"]["uri"] = f"{bench.uri}/{uri}"
    refused = bench.run("prepare", document)
    assert (refused.code, sentence in refused.message) == (code, True), refused.message


def test_a_folder_of_the_machine_is_read_like_a_bucket(bench: Any, document: dict[str, Any], reviews: Any) -> None:
    folder = bench.folder / "local"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines(reviews[:20]))
    (folder / "b.jsonl").write_bytes(lines(reviews[20:40]))
    for uri in (f"file://{folder}/", f"file://{folder}/*.jsonl"):
        document["spec"]["dataset"]["train"]["uri"] = uri
        assert len(prepared(bench, bench.run("prepare", document)).train) == 36


def test_a_test_file_is_a_part_of_its_own(bench: Any, document: dict[str, Any], reviews: Any) -> None:
    document["spec"]["dataset"]["eval"] = {"uri": bench.put_csv("eval.csv", reviews[50:70])}
    document["spec"]["dataset"]["test"] = {"uri": bench.put("test.jsonl.gz", gzip.compress(lines(reviews[60:80])))}
    answer = bench.run("prepare", document)
    made = prepared(bench, answer)
    found = answer.result.prepared
    assert (found.train_examples, found.eval_examples, found.test_examples) == (50, 10, 20)
    assert made.test is not None
    assert texts(made.test) == [text for text, _ in reviews[60:80]]
    assert texts(made.held_out) == [text for text, _ in reviews[50:60]]
    assert "and 20 for the test" in answer.log
    assert "10 evaluation examples were left out because their text is in the test set" in answer.log
    document["spec"]["dataset"]["quality"] = {"maxLeakageFraction": "0.1"}
    refused = bench.run("prepare", document)
    assert refused.message.startswith("10 of 30 texts for evaluation and test are also in the training file, which is")


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ({"testFraction": "0.1"}, "test (a file of its own) or split.testFraction (a share of train), not both."),
        ({"fraction": "0.5", "testFraction": "0.5"}, "leave no training data; lower them."),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    bench: Any, document: dict[str, Any], reviews: Any, split: dict[str, str], sentence: str
) -> None:
    document["spec"]["dataset"]["split"] = split
    if "fraction" not in split:
        document["spec"]["dataset"]["test"] = {"uri": bench.put_csv("test.csv", reviews[60:80])}
    refused = bench.run("prepare", document)
    assert (refused.code, refused.message.endswith(sentence)) == (ExitCode.INVALID_SPEC, True)


TASKS: dict[str, tuple[Callable[[str, str], tuple[Any, ...]], dict[str, Any]]] = {
    "pairs": (lambda text, label: (text, label[::-1], label), {"task": "text-classification"}),
    "multi-label": (lambda text, label: (text, [label, "any"][len(text) % 2 :]), {"task": "multi-label"}),
    "regression": (lambda text, label: (text, len(text) / 7), {"task": "regression"}),
    "token-classification": (
        lambda text, label: (text.split(), ["LONG" if len(word) > 4 else "O" for word in text.split()]),
        {"task": "token-classification"},
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_prepared(bench: Any, document: dict[str, Any], reviews: Any, name: str) -> None:
    make, spec = TASKS[name]
    columns = ("text", "more", "label") if name == "pairs" else ("text", "label")
    rows = [make(text, label) for text, label in reviews[:60]]
    document["spec"] |= spec
    document["spec"]["dataset"]["train"]["uri"] = bench.put("train.jsonl", lines(rows, columns))
    if name == "pairs":
        document["spec"]["dataset"]["train"]["textPairColumn"] = "more"
    made = prepared(bench, bench.run("prepare", document))
    targets = [made.train.target(index) for index in range(len(made.train))]
    ids = [made.train.input_ids(index).tolist() for index in range(len(made.train))]
    labels = made.data.labels
    match name:
        case "pairs":
            assert made.data.pairs
            starts = [made.train.second_start(index) for index in range(len(ids))]
            assert all(
                each[0] == 2 and each[start - 1] == 3 == each[-1] for each, start in zip(ids, starts, strict=True)
            )
            assert [made.train.text_pair(i) for i in range(len(ids))] == [labels[target][::-1] for target in targets]
        case "multi-label":
            expected = {text: sorted(map(labels.index, each)) for text, each in rows}
            assert targets == [expected[text] for text in texts(made.train)]
        case "regression":
            assert (labels, targets) == (["label"], [len(text) / 7 for text in texts(made.train)])
            assert made.quality.numbers["train"].max == max(targets)
        case "token-classification":
            assert labels == ["LONG", "O"]
            assert [len(each) for each in targets] == [len(each) for each in ids]
            judged = [[labels[t] for t in each if t != IGNORED] for each in targets]
            wanted = [["LONG" if len(word) > 4 else "O" for word in text.split()] for text in texts(made.train)]
            assert all(given == words[: len(given)] and given for given, words in zip(judged, wanted, strict=True))


def test_limits_are_judged_also_when_the_data_was_found(bench: Any, document: dict[str, Any]) -> None:
    assert bench.run("prepare", document).code == 0
    document["spec"]["dataset"]["quality"] = {"minExamplesPerLabel": 31}
    refused = bench.run("prepare", document)
    assert refused.code == ExitCode.INVALID_DATA
    assert "needs at least 31 examples" in refused.message
