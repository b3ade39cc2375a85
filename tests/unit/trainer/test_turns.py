"""Whose turn it is to train, in a local folder: what is waited for, what is said of it, and what is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import Resolved, RunDocument
from luthier_artifacts import Claim, Holder, Metadata, Registry, StorageUnavailable
from luthier_artifacts.file_store import FileStore
from luthier_dev.waiting import wait_until
from luthier_trainer.runtime import turns
from luthier_trainer.runtime.errors import AlreadyTraining, InvalidSpec
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.turns import LAPSE_VARIABLE, turn_to_prepare, turn_to_train

pytestmark = pytest.mark.unit

KEY = "ab" * 32
OTHER = Holder("uid of the other", "run other-1 of FineTuneJob team/other")
SPEC = {
    "model": {"uri": "s3://models/base"},
    "dataset": {"train": {"uri": "s3://data/train.csv"}},
    "output": {"name": "m", "uri": "s3://models/registry"},
}
ORIGIN = {"name": "mine", "namespace": "team", "uid": "uid of mine", "generation": 1, "run": "mine-1"}
DIGEST = f"sha256:{KEY}"
RESOLVED = Resolved(run_key=KEY, data_key=KEY, model_digest=DIGEST, dataset_digest=DIGEST)
POD = RunDocument.model_validate({"spec": SPEC, "origin": ORIGIN})
LOCAL = RunDocument.model_validate({"spec": SPEC})


class Troubled(FileStore):
    """Does not answer while it is down."""

    down = False

    def read(self, key: str) -> tuple[bytes, str]:
        if self.down:
            raise StorageUnavailable("storage does not answer")
        return super().read(key)

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if self.down:
            raise StorageUnavailable("storage does not answer")
        return super().write(key, data, if_absent=if_absent, if_match=if_match)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Troubled:
    monkeypatch.setenv(LAPSE_VARIABLE, "0.3")
    return Troubled(tmp_path / "storage")


@pytest.fixture
def registry(store: Troubled) -> Registry:
    return Registry(store, "m")


@pytest.fixture
def other(registry: Registry) -> Iterator[Claim]:
    """Another run, which trains and lives."""
    claim = registry.claim(KEY, OTHER, trains=True, lapse_s=0.3)
    assert claim.take() is None
    claim.keep_alive()
    yield claim
    claim.stop()


def publish(registry: Registry, folder: Path) -> str:
    folder.mkdir()
    (folder / "weights").write_text("trained")
    return registry.publish(folder, KEY, Metadata()).version


@contextmanager
def once_it_waits(progress: Progress, act: Any) -> Iterator[None]:
    def work() -> None:
        wait_until(lambda: None if progress.document().waiting_for else "nobody", "a run that waits", 30, 0.01)
        act()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def claims(store: FileStore) -> list[str]:
    return [info.key for info in store.list("m/claims")]


def test_prepare_waits_for_the_version_of_the_run_that_trains_and_says_for_which(
    registry: Registry, other: Claim, tmp_path: Path
) -> None:
    progress, shown, versions = Progress(), [], []

    def publishes() -> None:
        shown.append(progress.document())
        versions.append(publish(registry, tmp_path / "model"))

    with once_it_waits(progress, publishes), turn_to_prepare(POD, registry, RESOLVED, progress) as turn:
        found = turn.wait()
    assert found and [found.version] == versions
    assert (shown[0].stage, shown[0].waiting_for) == ("Waiting", OTHER.about)
    other.beat()
    assert other.lost_to is None, "what is another's is not touched"


def test_prepare_takes_over_from_a_run_that_is_silent_and_leaves_the_claim_to_its_training(
    registry: Registry, other: Claim, store: Troubled
) -> None:
    progress = Progress()
    with once_it_waits(progress, other.stop), turn_to_prepare(POD, registry, RESOLVED, progress) as turn:
        assert turn.wait() is None
        progress.enter("Downloading")
    assert progress.document().waiting_for is None
    twin = POD.model_copy(update={"origin": None})
    with pytest.raises(RuntimeError), turn_to_train(POD, registry, RESOLVED, progress) as turn:
        assert turn.wait() is None
        raise RuntimeError("it fails")
    with turn_to_train(twin, registry, RESOLVED, progress) as turn:
        assert turn.wait() is None, "what was given back is free at once"
    assert claims(store) == []


def test_an_outage_of_storage_while_it_waits_neither_fails_it_nor_lets_it_take_over(
    registry: Registry, other: Claim, store: Troubled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    progress, outages = Progress(), []

    def outage() -> None:
        store.down = True
        outages.append(
            wait_until(lambda: None if len(caplog.records) > 3 else "none", "heartbeats that fail", 30, 0.01)
        )
        store.down = False
        publish(registry, tmp_path / "model")

    with (
        caplog.at_level("WARNING"),
        once_it_waits(progress, outage),
        turn_to_prepare(POD, registry, RESOLVED, progress) as turn,
    ):
        assert turn.wait()
    assert outages


def test_an_outage_that_does_not_end_is_told(
    registry: Registry, other: Claim, store: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_OUTAGE_S", 0.0)
    progress = Progress()

    def goes_down() -> None:
        store.down = True

    with (
        pytest.raises(StorageUnavailable),
        once_it_waits(progress, goes_down),
        turn_to_prepare(POD, registry, RESOLVED, progress) as turn,
    ):
        turn.wait()


def test_runs_that_only_make_something_else_of_the_same_weights_wait_for_each_other(registry: Registry) -> None:
    weights = "ef" * 32
    first = RESOLVED.model_copy(update={"weights_key": weights})
    second = RESOLVED.model_copy(update={"weights_key": weights, "run_key": "12" * 32})
    with turn_to_train(LOCAL, registry, first, Progress()) as turn:
        assert turn.wait() is None
        with pytest.raises(AlreadyTraining), turn_to_train(POD, registry, second, Progress()) as other:
            other.wait()


def test_a_pod_that_is_to_train_never_waits_for_another_run(registry: Registry, other: Claim) -> None:
    with (
        pytest.raises(AlreadyTraining, match="trained by run other-1 of FineTuneJob team/other; this run waits"),
        turn_to_train(POD, registry, RESOLVED, Progress()) as turn,
    ):
        turn.wait()


def test_without_kubernetes_a_training_waits_itself_and_prepare_claims_nothing(
    registry: Registry, other: Claim, store: Troubled
) -> None:
    progress = Progress()
    with turn_to_prepare(LOCAL, registry, RESOLVED, progress) as turn:
        assert turn.wait() is None
    with once_it_waits(progress, other.release), turn_to_train(LOCAL, registry, RESOLVED, progress) as turn:
        assert turn.wait() is None
        turn.check()
    assert claims(store) == []


def test_a_training_learns_while_it_trains_that_another_run_has_taken_over(registry: Registry, store: Troubled) -> None:
    with (
        pytest.raises(AlreadyTraining, match="run other-1"),
        turn_to_train(POD, registry, RESOLVED, Progress()) as turn,
    ):
        assert turn.wait() is None
        turn.check()
        ours = registry.claim(KEY, OTHER, trains=True, lapse_s=1e-9)
        wait_until(lambda: (found := ours.take()) and found.about, "the takeover", 30, 0.001)
        wait_until(lambda: None if turn.lost else "not lost", "that it is lost", 30, 0.01)
        turn.check()
    third = registry.claim(KEY, Holder("third", "run third"), trains=True).take()
    assert third and third.about == OTHER.about, "the claim stays with whoever took over"


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_time_to_lapse_that_is_no_time_is_refused_by_name(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(LAPSE_VARIABLE, text)
    with pytest.raises(InvalidSpec, match=LAPSE_VARIABLE), turn_to_train(POD, registry, RESOLVED, Progress()):
        pass
