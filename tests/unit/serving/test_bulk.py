"""A batch prediction: one row out for each row in, in order, whatever is killed when, and nothing computed twice."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from luthier_artifacts import IntegrityError, StorageConfig
from luthier_artifacts.file_store import FileStore
from luthier_artifacts.readers.errors import InvalidData
from luthier_serving.bulk.errors import InputChanged, WrongModel
from luthier_serving.bulk.progress import Progress
from support.serving.bulk import Bulk, ToldModel, Written, as_csv
from support.serving.doubles import MODEL, row

pytestmark = pytest.mark.unit

TEXTS = [f"text number {number}" for number in range(47)]
ROWS = [{"text": text, "key": f"k{number}"} for number, text in enumerate(TEXTS)]


@pytest.fixture
def bulk(tmp_path: Path) -> Bulk:
    made = Bulk(f"file://{tmp_path}/storage")
    made.put("a.csv", as_csv(ROWS))
    return made


def written(uri: str) -> Written:
    return Written(uri, StorageConfig())


def confidence(text: str) -> float:
    values = row(text).values
    assert isinstance(values[1], float)
    return values[1]


def check_exactly_once(found: Written, texts: list[str] = TEXTS) -> None:
    """One row for each text, in its order, with its own answer, as the manifest says."""
    assert [each["row"] for each in found.rows] == list(range(len(texts)))
    assert [each["confidence"] for each in found.rows] == [confidence(text) for text in texts]
    manifest = found.manifest
    assert [part.name for part in manifest.parts] == found.files
    assert sum(part.rows for part in manifest.parts) == manifest.rows == len(texts)
    for part in manifest.parts:
        content = found.content(part.name)
        assert (len(content), hashlib.sha256(content).hexdigest()) == (part.size_bytes, part.sha256)


def test_each_row_has_one_prediction_in_its_place_with_its_id(bulk: Bulk, tmp_path: Path) -> None:
    done = bulk.run(tmp_path / "work", id_column="key")
    assert (done.rows, done.shards, done.errors, done.complete, done.reused) == (47, 5, 0, True, False)
    found = written(done.output)
    check_exactly_once(found)
    assert [each["id"] for each in found.rows] == [each["key"] for each in ROWS]
    assert found.rows[3] == {
        "row": 3,
        "id": "k3",
        "prediction": "positive",
        "confidence": confidence(TEXTS[3]),
        "probabilities": {"negative": round(1 - confidence(TEXTS[3]), 6), "positive": confidence(TEXTS[3])},
        "version": "v1",
    }


def test_a_row_that_cannot_be_computed_has_an_error_in_its_place_and_stops_no_other(tmp_path: Path) -> None:
    bulk = Bulk(f"file://{tmp_path}/storage")
    lines = [
        '{"text": "good"}',
        '{"text": "  "}',
        '{"text": null}',
        "not json",
        '{"text": 7}',
        '{"text": "poison"}',
        json.dumps({"text": "x" * 30}),
        '{"text": "good"}',
        "[1]",
    ]
    bulk.put("a.jsonl", "\n".join(lines) + "\n")
    done = bulk.run(tmp_path / "work", max_text_characters=20)
    rows = written(done.output).rows
    assert [each["row"] for each in rows] == list(range(9))
    assert [each.get("error") for each in rows] == [
        None,
        "The text is empty.",
        "The text is empty.",
        "a.jsonl, line 4 is not JSON: Expecting value.",
        "a.jsonl, line 5, column 'text' holds 7, which is not text.",
        "The model failed on this text.",
        "The text has 30 characters; it may have at most 20.",
        None,
        "a.jsonl, line 9 is not a JSON object with the columns as keys.",
    ]
    assert rows[0] == rows[7] | {"row": 0}
    assert not any("prediction" in each for each in rows if "error" in each)
    assert done.errors == written(done.output).manifest.errors == 7


def test_several_files_of_all_formats_are_one_input_in_the_order_of_their_names(tmp_path: Path) -> None:
    bulk = Bulk(f"file://{tmp_path}/storage")
    bulk.put("c.csv", "key;text\n1;c one\n2;c two\n")
    bulk.put("b/part.jsonl.gz", gzip.compress(b'{"text": "b one"}\n\n{"text": "b two"}\n'))
    bulk.put("a.tsv", "text\tkey\na one\t1\n")
    bulk.put("readme.txt", "no data")
    texts = ["a one", "b one", "b two", "c one", "c two"]
    check_exactly_once(written(bulk.run(tmp_path / "work", shard_rows=2).output), texts)
    assert bulk.model.texts == texts


def test_workers_share_the_shards_and_the_last_one_writes_the_manifest(bulk: Bulk, tmp_path: Path) -> None:
    first = bulk.run(tmp_path / "work", 1, workers=2)
    assert not first.complete and len(bulk.model.texts) == 20
    second = bulk.run(tmp_path / "work", 0, workers=2)
    assert second.complete and sorted(bulk.model.texts) == sorted(TEXTS)
    check_exactly_once(written(second.output))


def test_a_worker_without_a_shard_of_its_own_ends_well(bulk: Bulk, tmp_path: Path) -> None:
    assert not bulk.run(tmp_path / "work", 7, workers=8).complete and not bulk.model.texts


def test_there_is_no_manifest_while_a_single_part_is_missing(bulk: Bulk, tmp_path: Path) -> None:
    assert not any(bulk.run(tmp_path / "work", index, workers=5).complete for index in (0, 1, 2, 4))
    check_exactly_once(written(bulk.run(tmp_path / "work", 3, workers=5).output))


def test_the_same_spec_is_found_and_not_computed_again_also_by_another_resource(bulk: Bulk, tmp_path: Path) -> None:
    done = bulk.run(tmp_path / "work")
    bulk.model.texts.clear()
    again = bulk.run(tmp_path / "work", origin=None)
    assert again == done.model_copy(update={"reused": True}) and not bulk.model.texts


@pytest.mark.parametrize(
    "changes",
    [
        {"shard_rows": 20},
        {"include_text": True},
        {"text_column": "key"},
        {"id_column": "key"},
        {"output_format": "Parquet"},
        {"max_text_characters": 5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_decides_the_predictions_gives_them_a_folder_of_their_own(
    bulk: Bulk, tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert bulk.run(tmp_path / "work").output != bulk.run(tmp_path / "work", **changes).output


def test_how_many_workers_there_are_decides_nothing(bulk: Bulk, tmp_path: Path) -> None:
    bulk.run(tmp_path / "work", 0, workers=3)
    bulk.model.texts.clear()
    check_exactly_once(written(bulk.run(tmp_path / "work").output))
    assert len(bulk.model.texts) == 47 - 20, "what three workers began, one ends"


class Killed(BaseException):
    """The process is gone: nothing catches this."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> Callable[[], int]:
    """Have the process die at its n-th write, before or after that is in storage; return how many writes came."""
    write, counted = FileStore.write, 0

    def dying(self: FileStore, *arguments: Any, **named: Any) -> str:
        nonlocal counted
        counted += 1
        if counted == number and not after:
            raise Killed
        etag = write(self, *arguments, **named)
        if counted == number:
            raise Killed
        return etag

    monkeypatch.setattr(FileStore, "write", dying)
    return lambda: counted


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_killed_at_any_write_loses_and_doubles_nothing(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    number = 0
    while True:
        number += 1
        place = Bulk(f"{bulk.uri}-{number}")
        place.put("a.csv", as_csv(ROWS))
        with monkeypatch.context() as patch:
            writes = kill_at(patch, number, after=after)
            with suppress(Killed):
                place.run(tmp_path / "work")
        if writes() < number:
            break
        computed = len(place.model.texts)
        done = place.run(tmp_path / "work")
        check_exactly_once(written(done.output))
        assert len(place.model.texts) <= computed + 47 - max(0, computed - 10), "at most one shard is computed twice"
    assert number > 12, "a plan, five parts, five notes, a manifest, and what proves the storage"


def test_a_part_that_was_stored_but_not_noted_is_not_computed_again(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        write = FileStore.write

        def dying(self: FileStore, key: str, *arguments: Any, **named: Any) -> str:
            if "_parts/" in key:
                raise Killed
            return write(self, key, *arguments, **named)

        patch.setattr(FileStore, "write", dying)
        with pytest.raises(Killed):
            bulk.run(tmp_path / "work")
    assert len(bulk.model.texts) == 10
    check_exactly_once(written(bulk.run(tmp_path / "work").output))
    assert len(bulk.model.texts) == 47


def test_of_two_workers_with_one_number_the_second_goes_on_with_the_part_of_the_first(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a node is lost whose pod still runs, and Kubernetes starts another."""
    twin = Bulk(bulk.uri, model=ToldModel(MODEL._replace(labels=("down", "up"))))
    predict = twin.model.predict

    def overtaken(texts: Any) -> Any:
        if not bulk.model.texts:
            bulk.run(tmp_path / "other")
        return predict(texts)

    monkeypatch.setattr(twin.model, "predict", overtaken)
    check_exactly_once(written(twin.run(tmp_path / "work").output))


def test_what_only_has_the_name_of_a_part_is_refused(bulk: Bulk, tmp_path: Path) -> None:
    done = bulk.run(tmp_path / "work")
    folder = Path(done.output.removeprefix("file://"))
    for note in [*folder.glob("_parts/00002-*"), folder / "_manifest.json"]:
        note.unlink()
    (folder / "part-00002.jsonl.gz").write_bytes(gzip.compress(b'{"row": 20}\n'))
    with pytest.raises(IntegrityError, match=r"part-00002\.jsonl\.gz is not the part of 10 rows"):
        bulk.run(tmp_path / "work")


def test_an_input_that_changed_since_the_run_began_ends_it_with_a_sentence(bulk: Bulk, tmp_path: Path) -> None:
    bulk.run(tmp_path / "work", 0, workers=2)
    bulk.put("a.csv", as_csv([*ROWS, {"text": "one more", "key": "k"}]))
    with pytest.raises(InputChanged, match=r"\(a.csv\) changed while the run was under way"):
        bulk.run(tmp_path / "work", 1, workers=2)
    other = bulk.run(tmp_path / "work", begun="2026-01-02T00:00:00Z")
    assert other.rows == 48, "a run that begins later takes it as it is"


def test_a_file_that_changes_while_it_is_read_ends_the_run(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = bulk.model.predict

    def meddled(texts: Any) -> Any:
        bulk.put("b.csv", "text\nother\n")
        return predict(texts)

    bulk.put("b.csv", "text\nbefore\n")
    monkeypatch.setattr(bulk.model, "predict", meddled)
    with pytest.raises(InputChanged, match=r"b\.csv changed"):
        bulk.run(tmp_path / "work")


def test_a_column_that_is_not_there_is_found_before_anything_is_computed(bulk: Bulk, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="has no column 'body'; it has 'text', 'key'"):
        bulk.run(tmp_path / "work", text_column="body")
    assert not bulk.model.texts


@pytest.mark.parametrize(
    ("pairs", "column", "sentence"),
    [(True, None, "name the column of the second ones"), (False, "key", "remove input.textPairColumn")],
)
def test_a_model_that_cannot_read_the_columns_ends_the_run(
    tmp_path: Path, bulk: Bulk, pairs: bool, column: str | None, sentence: str
) -> None:
    bulk.model = ToldModel(MODEL._replace(pairs=pairs))
    with pytest.raises(WrongModel, match=sentence):
        bulk.run(tmp_path / "work", text_pair_column=column)


def test_pairs_are_computed_as_pairs_and_may_be_repeated_beside_their_prediction(bulk: Bulk, tmp_path: Path) -> None:
    bulk.model = ToldModel(MODEL._replace(pairs=True))
    done = bulk.run(tmp_path / "work", text_pair_column="key", include_text=True)
    assert bulk.model.texts[5] == (TEXTS[5], "k5")
    assert (
        written(done.output).rows[5] | {"input_text": TEXTS[5], "input_text_pair": "k5"} == written(done.output).rows[5]
    )


def test_an_input_without_rows_is_done_at_once(tmp_path: Path) -> None:
    bulk = Bulk(f"file://{tmp_path}/storage")
    bulk.put("a.csv", "text,key\n")
    done = bulk.run(tmp_path / "work")
    assert (done.rows, done.shards, done.complete) == (0, 0, True)
    assert written(done.output).manifest.parts == []


def test_progress_is_of_all_workers_together(bulk: Bulk, tmp_path: Path) -> None:
    seconds = iter(range(1000))
    progress = Progress(lambda: float(next(seconds)))
    bulk.run(tmp_path / "work", 0, workers=2)
    bulk.run(tmp_path / "work", 1, progress, workers=2)
    told = progress.document()
    assert (told.stage, told.step, told.total_steps, told.rows, told.eta_seconds) == ("Done", 5, 5, 47, 0.0)
    assert told.examples_per_second is not None and 0 < told.examples_per_second <= 20
