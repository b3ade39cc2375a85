"""*prepare* on a real S3 server: what it leaves there, what it finds again, and each bad input in one sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luthier_api.documents import Access, credential_env, read_result
from luthier_api.exitcodes import OUTCOMES, ExitCode
from luthier_trainer.prepared import PreparedFolder, read_prepared
from luthier_trainer.tasks import IGNORED

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]


@pytest.fixture
def document(bench: Any, tiny_models: Models, reviews: Any) -> dict[str, Any]:
    model = bench.put_folder("base", tiny_models("bert"))
    found: dict[str, Any] = bench.document(model=model, train=bench.put_csv("train.csv", reviews[:60]))
    return found


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
        ({"fraction": "0.5", "testFraction": "0.5"}, "leave nothing to learn from; lower them."),
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


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "train.csv is empty (0 bytes)."),
        (b"text,label\n", "train.csv holds no rows."),
        (b"text,stars\ngood,5\n", "train.csv has no column 'label'; it has 'text', 'stars'."),
        (b"text,label\ngood,x\nbad,x\n", "train.csv holds only one label, 'x'"),
        (
            b"text,label\ngood,x\nbad,x\nugly,y\n",
            "Each label needs at least 2 examples (quality.minExamplesPerLabel), ",
        ),
        (b'text,label\n"good,x\n', "train.csv, line 2 opens a quote that is never closed."),
        (b"text,label\ncaf\xe9,x\n", "train.csv, line 2 is not UTF-8"),
        (b"text,label\ngo\0od,x\n", "train.csv, line 2 holds a NUL byte"),
        (b"text,label\n" + b"x" * 11_000_000 + b",x\n", "train.csv, line 2 is longer than 10 MB"),
    ],
    ids=["empty", "no rows", "column", "one label", "single row", "quote", "Latin-1", "NUL", "huge cell"],
)
def test_bad_data_is_refused_in_one_sentence_and_leaves_nothing(
    bench: Any, document: dict[str, Any], content: bytes, sentence: str
) -> None:
    bench.put("train.csv", content)
    refused = bench.run("prepare", document)
    assert refused.code == ExitCode.INVALID_DATA
    assert refused.message.startswith(sentence)
    assert read_result((bench.folder / "termination-log").read_text()) == refused.result
    assert bench.keys("registry/sentiment/prepared") == []


def cut_weights(bench: Any, document: dict[str, Any], models: Models) -> None:
    bench.put("base/model.safetensors", (models("bert") / "model.safetensors").read_bytes()[:-100])


def make_it_speech(bench: Any, document: dict[str, Any], models: Models) -> None:
    config = json.loads((models("bert") / "config.json").read_text())
    bench.put("base/config.json", json.dumps(config | {"model_type": "whisper"}).encode())


def lose_the_bucket(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["output"]["uri"] = "s3://no-such-bucket/registry"


def lose_the_dataset(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["dataset"]["train"]["uri"] = f"{bench.uri}/nothing.csv"


def lose_the_model(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["model"]["uri"] = f"{bench.uri}/nothing"


def misspell_an_argument(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["trainingArguments"] = {"lerning_rate": "1"}


def ask_for_too_many_tokens(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["dataset"]["preprocessing"]["maxLength"] = 41


def add_a_field(bench: Any, document: dict[str, Any], models: Models) -> None:
    document["spec"]["learnin_rate"] = 1


@pytest.mark.parametrize(
    ("damage", "code", "sentence"),
    [
        (cut_weights, ExitCode.INVALID_MODEL, "model.safetensors is cut short: its header promises"),
        (make_it_speech, ExitCode.INVALID_MODEL, "is of type 'whisper', which has no AutoModelForSequ"),
        (lose_the_bucket, ExitCode.BUCKET_NOT_FOUND, "no-such-bucket"),
        (lose_the_dataset, ExitCode.INPUT_NOT_FOUND, "nothing.csv"),
        (lose_the_model, ExitCode.INPUT_NOT_FOUND, "/nothing"),
        (misspell_an_argument, ExitCode.INVALID_SPEC, "trainingArguments.lerning_rate is not a field"),
        (ask_for_too_many_tokens, ExitCode.INVALID_SPEC, "reads at most 40 tokens; lower it."),
        (add_a_field, ExitCode.INVALID_SPEC, "is not a run document: spec.learnin_rate"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_any_gpu(
    bench: Any, document: dict[str, Any], tiny_models: Models, damage: Any, code: ExitCode, sentence: str
) -> None:
    damage(bench, document, tiny_models)
    refused = bench.run("prepare", document)
    assert (refused.code, refused.result.failure.reason) == (code, OUTCOMES[code].reason)
    assert sentence in refused.message
    assert "\n" not in refused.message
    assert "Traceback" not in refused.log


def test_a_wrong_key_is_denied(bench: Any, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(credential_env("output")["AWS_SECRET_ACCESS_KEY"], "wrong")
    assert bench.run("prepare", document).code == ExitCode.STORAGE_DENIED


def test_a_missing_key_is_denied_by_name(bench: Any, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    variable = credential_env("output")["AWS_ACCESS_KEY_ID"]
    monkeypatch.delenv(variable)
    denied = bench.run("prepare", document)
    assert denied.code == ExitCode.STORAGE_DENIED
    assert variable in denied.message


def test_a_key_that_may_only_read_is_denied_before_a_gpu_waits_for_it(
    bench: Any, document: dict[str, Any], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = credential_env("output")
    monkeypatch.setenv(names["AWS_ACCESS_KEY_ID"], s3.server.reader.access_key)
    monkeypatch.setenv(names["AWS_SECRET_ACCESS_KEY"], s3.server.reader.secret_key)
    assert bench.run("prepare", document).code == ExitCode.STORAGE_DENIED


def test_storage_that_does_not_answer_is_tried_again_by_the_job(bench: Any, document: dict[str, Any]) -> None:
    document["outputAccess"]["endpoint"] = "http://127.0.0.1:9"
    assert bench.run("prepare", document).code == ExitCode.STORAGE_UNAVAILABLE


def test_inputs_may_lie_behind_another_key_than_the_output(
    bench: Any, document: dict[str, Any], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = credential_env("dataset")
    monkeypatch.setenv(names["AWS_ACCESS_KEY_ID"], s3.server.reader.access_key)
    monkeypatch.setenv(names["AWS_SECRET_ACCESS_KEY"], s3.server.reader.secret_key)
    document["datasetAccess"] = Access(endpoint=s3.endpoint, credentials="dataset").to_wire()
    assert bench.run("prepare", document).code == 0
    monkeypatch.setenv(names["AWS_SECRET_ACCESS_KEY"], "wrong")
    assert bench.run("prepare", document).code == ExitCode.STORAGE_DENIED


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that a download needs, with the files of one model."""

    folder: Path
    tokens: list[str | None]

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        self.tokens.append(self.headers.get("Authorization"))
        path = self.path.split("?")[0]
        files = [(file.name, file.stat().st_size) for file in self.folder.iterdir()]
        if path == f"/api/models/luthier/tiny/tree/{COMMIT}":
            body = json.dumps([{"type": "file", "path": n, "size": s, "oid": n} for n, s in files]).encode()
            self.send_response(200)
        elif path.startswith("/api/models/luthier/tiny"):
            siblings = [{"rfilename": name} for name, _ in files]
            body = json.dumps({"id": "luthier/tiny", "sha": COMMIT, "siblings": siblings}).encode()
            self.send_response(200)
        elif path.startswith(f"/luthier/tiny/resolve/{COMMIT}/"):
            body = (self.folder / path.rsplit("/", 1)[-1]).read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            body = b""
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_request(self, *arguments: object) -> None:
        """The test's output is about the trainer."""


def test_a_hubs_revision_is_resolved_to_its_commit(
    bench: Any, document: dict[str, Any], tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(credential_env("model")["HF_TOKEN"], "hf_secret")
    monkeypatch.setattr(Hub, "folder", tiny_models("bert"), raising=False)
    monkeypatch.setattr(Hub, "tokens", [], raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        document["modelAccess"] = {"endpoint": f"http://127.0.0.1:{server.server_port}", "credentials": "model"}
        from_storage = bench.run("prepare", document | {"modelAccess": {}}).result.prepared.resolved
        document["spec"]["model"] = {"uri": "hf://luthier/tiny", "revision": "main"}
        resolved = bench.prepared(document)["resolved"]
        document["spec"]["model"] = {"uri": "hf://luthier/other"}
        missing = bench.run("prepare", document)
        server.shutdown()
    silent = bench.run("prepare", document)
    assert resolved == from_storage.to_wire() | {"modelRevision": COMMIT}
    assert set(Hub.tokens) == {"Bearer hf_secret"}
    assert missing.code == ExitCode.INPUT_NOT_FOUND
    assert silent.code == ExitCode.STORAGE_UNAVAILABLE
    assert missing.message == "hf://luthier/other does not exist, or is private and HF_TOKEN does not open it."
