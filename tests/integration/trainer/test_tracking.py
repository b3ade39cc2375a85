"""MLflow, a real server and servers that misbehave, and the event files that TensorBoard itself reads."""

from __future__ import annotations

import http.server
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerControl, TrainerState, TrainingArguments

from luthier_api.documents import Published, Resolved, RunDocument
from luthier_dev.mlflow_server import start_mlflow
from luthier_dev.processes import free_ports
from luthier_trainer.publish.event_files import write_event_files
from luthier_trainer.runtime.errors import LossNotFinite
from luthier_trainer.tracking import mlflow_tracker as tracking
from luthier_trainer.tracking.mlflow_tracker import MlflowTracker

pytestmark = pytest.mark.integration

PUBLISHED = Published(
    run_key="cd" * 32, version="v7", uri="s3://models/sentiment/versions/v7", digest="sha256:" + "ab" * 32, size_bytes=9
)


def run_document(uri: str | None, key: str = "cd" * 32, **hyperparameters: Any) -> RunDocument:
    digest = "sha256:" + "ab" * 32
    return RunDocument(
        spec={
            "model": {"uri": "s3://models/base/bert"},
            "dataset": {"train": {"uri": "s3://data/train.csv"}},
            "hyperparameters": hyperparameters,
            "tracking": {"mlflow": {"uri": uri, "experiment": "reviews"}} if uri else {},
            "output": {"name": "sentiment", "uri": "s3://models/"},
        },
        resolved=Resolved(run_key=key, data_key="ef" * 32, model_digest=digest, dataset_digest=digest),
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = start_mlflow(tmp_path_factory.mktemp("mlflow"))
    yield running.uri
    running.stop()


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers everything with one status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()


@contextmanager
def hanging() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def refusing() -> Iterator[str]:
    yield f"http://127.0.0.1:{free_ports(1)[0]}"


def log_steps(tracker: MlflowTracker, first: int, last: int) -> None:
    """Tell the tracker of steps as the Trainer does."""
    arguments: Any = TrainingArguments(report_to="none", use_cpu=True)
    state, control = TrainerState(), TrainerControl()
    tracker.on_train_begin(arguments, state, control)
    for step in range(first, last + 1):
        state.global_step = step
        state.log_history.append({"step": step, "loss": 1 / step, "grad_norm": float("nan")})
        tracker.on_log(arguments, state, control)


def test_a_tracking_server_gets_parameters_metrics_and_the_place_of_the_version(server: str) -> None:
    key = "11" * 32
    with MlflowTracker(run_document(server, key, epochs=2)) as tracker:
        log_steps(tracker, 1, 30)
        tracker.measured({"eval_accuracy": 0.91, "eval_loss": 0.3}, 30)
        tracker.published(PUBLISHED)
    found = _only_run(server, key)
    assert found.info.status == "FINISHED"
    assert found.data.params["hyperparameters.epochs"] == "2"
    assert found.data.params["dataset.train.uri"] == "s3://data/train.csv"
    assert found.data.metrics["eval_accuracy"] == 0.91
    assert "grad_norm" not in found.data.metrics
    told = MlflowClient(server).get_metric_history(found.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in told) == [(step, 1 / step) for step in range(1, 31)]
    tags = {name: value for name, value in found.data.tags.items() if name.startswith("luthier.")}
    assert tags == {
        "luthier.run_key": key,
        "luthier.version": "v7",
        "luthier.uri": PUBLISHED.uri,
        "luthier.digest": PUBLISHED.digest,
        "luthier.promotable": "true",
    }


def test_a_run_that_was_interrupted_goes_on_in_its_mlflow_run(server: str) -> None:
    key = "22" * 32
    with pytest.raises(LossNotFinite), MlflowTracker(run_document(server, key)) as tracker:
        log_steps(tracker, 1, 3)
        raise LossNotFinite("The loss is nan.")
    assert _only_run(server, key).info.status == "FAILED"
    # What does not decide the result, and so not the run key, may have been edited in between.
    with MlflowTracker(run_document(server, key, evalBatchSize=7)) as tracker:
        log_steps(tracker, 4, 6)
    found = _only_run(server, key)
    assert found.info.status == "FINISHED"
    told = MlflowClient(server).get_metric_history(found.info.run_id, "loss")
    assert sorted(point.step for point in told) == [1, 2, 3, 4, 5, 6]


@contextmanager
def flaky(server: str, failures: int) -> Iterator[tuple[str, list[str]]]:
    """A server in front of another one that answers the first requests to log values with 503."""
    failed: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.endswith("log-batch") and b"metrics" in body and len(failed) < failures:
                failed.append(self.path)
                self.send_error(503)
                return
            request = urllib.request.Request(server + self.path, data=body or None, method=self.command)
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request) as response:
                    status, answer = response.status, response.read()
            except urllib.error.HTTPError as error:
                status, answer = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_address[1]}", failed
        listener.shutdown()


def test_a_server_that_fails_for_a_while_receives_everything_once_it_answers(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    key = "33" * 32
    with flaky(server, failures=3) as (uri, failed), MlflowTracker(run_document(uri, key)) as tracker:
        log_steps(tracker, 1, 8)
    assert len(failed) == 3
    told = MlflowClient(server).get_metric_history(_only_run(server, key).info.run_id, "loss")
    assert sorted(point.step for point in told) == list(range(1, 9))


def test_a_server_that_is_down_when_training_begins_is_tried_again(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "_REOPEN_AFTER_S", 0.05)
    find, failures = tracking._Reporter._find_or_begin, [OSError("cut off"), OSError("cut off")]

    def unreachable_at_first(reporter: Any, client: Any) -> str:
        if failures:
            raise failures.pop()
        return find(reporter, client)

    monkeypatch.setattr(tracking._Reporter, "_find_or_begin", unreachable_at_first)
    key = "44" * 32
    with MlflowTracker(run_document(server, key)) as tracker:
        log_steps(tracker, 1, 5)
        deadline = time.monotonic() + 20
        while failures and time.monotonic() < deadline:
            time.sleep(0.02)
    found = _only_run(server, key)
    told = MlflowClient(server).get_metric_history(found.info.run_id, "loss")
    assert sorted(point.step for point in told) == list(range(1, 6))
    assert found.data.params["hyperparameters.epochs"] == "3"
    assert "does not answer, training continues without it: cut off" in caplog.text


@pytest.mark.parametrize("misbehaving", [hanging, refusing, lambda: answering(500), lambda: answering(403)])
def test_a_server_that_misbehaves_costs_a_warning_and_a_few_seconds_at_most(
    misbehaving: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with misbehaving() as uri, caplog.at_level(logging.WARNING):
        tracker = MlflowTracker(run_document(uri))
        started = time.monotonic()
        log_steps(tracker, 1, 200)
        trained = time.monotonic() - started
        with tracker:
            tracker.published(PUBLISHED)
        ended = time.monotonic() - started
    assert trained < 1
    assert ended < tracking.CLOSE_TIMEOUT_S + 1
    assert any("MLflow server" in record.message for record in caplog.records)
    # Standard output is the Result document's alone.
    assert capsys.readouterr().out == ""


def test_without_a_tracking_server_nothing_is_sent() -> None:
    before = set(threading.enumerate())
    with MlflowTracker(run_document(None)) as tracker:
        log_steps(tracker, 1, 3)
    assert not {thread.name for thread in set(threading.enumerate()) - before}


def test_tensorboard_reads_the_event_files(tmp_path: Path) -> None:
    history = [
        {"step": 1, "epoch": 0.5, "loss": 0.9, "learning_rate": 1e-5, "grad_norm": float("nan")},
        {"step": 2, "epoch": 1.0, "eval_loss": 0.8, "eval_accuracy": 0.6},
        {"step": 3, "epoch": 1.5, "loss": 0.7, "learning_rate": 5e-6},
    ]
    write_event_files(tmp_path / "tensorboard", run_document(None).spec, history, {"eval_accuracy": 0.62}, 3)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = {
        tag: [(event.step, round(event.value, 6)) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }
    assert scalars == {
        "train/loss": [(1, 0.9), (3, 0.7)],
        "train/learning_rate": [(1, 1e-5), (3, 5e-6)],
        "eval/loss": [(2, 0.8)],
        "eval/accuracy": [(2, 0.6)],
        "final/eval_accuracy": [(3, 0.62)],
    }


def test_a_whole_run_ends_well_with_a_server_and_without_one_that_answers(
    server: str, bench: Any, tiny_models: Callable[[str], Path], reviews: Any
) -> None:
    model, train = bench.put_folder("base", tiny_models("bert")), bench.put_csv("train.csv", reviews[:120])
    with hanging() as dead:
        for seed, uri in ((1, server), (2, dead)):
            document = bench.document(
                model=model, train=train, tracking={"mlflow": {"uri": uri}}, export=["safetensors"]
            )
            document["spec"]["hyperparameters"]["seed"] = seed
            answer = bench.run("run", document)
            assert answer.code == 0, answer.log
            assert ("the MLflow server" in answer.log) == (uri is dead)
            manifest = bench.registry.download(answer.result.published.version, bench.folder / f"artifact-{seed}")
            assert uri not in json.dumps(manifest.lineage.run_document)
            if uri is server:
                client, published = MlflowClient(server), answer.result.published
    experiment = client.get_experiment_by_name("luthier")
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.data.tags["luthier.uri"]) == ("FINISHED", published.uri)
    assert found.data.metrics["eval_accuracy"] == pytest.approx(float(published.metrics["eval_accuracy"]), abs=1e-5)
    assert {"loss", "learning_rate", "examples_per_second"} <= set(found.data.metrics)


def _only_run(server: str, key: str) -> Any:
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("reviews")
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`luthier.run_key` = '{key}'")
    return found
