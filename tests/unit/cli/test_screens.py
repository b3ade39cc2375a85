"""What people see: every line of the page is there when there is something to say, and only then."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console, RenderableType

from luthier.comparison import compare
from luthier.overview import Overview
from luthier.screens import words
from luthier.screens.bars import bar
from luthier.screens.live import follow, line_of
from luthier.screens.status_page import status_page
from luthier.screens.tables import diff_page, lineage_tree, predictions_table
from luthier_artifacts import Lineage
from support.cli import (
    PREDICTIONS,
    V1,
    V2,
    batch,
    condition,
    deployment,
    job,
    manifest,
    predicted,
    predicting,
    rolling,
    training,
    version,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 2, 2, 15, 20, tzinfo=UTC)


def drawn(page: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=140, highlight=False)
    console.print(page)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def page(*, verbose: bool = False, **parts: Any) -> str:
    resources = [*([parts["job"]] if "job" in parts else []), *parts.get("others", [])]
    found = Overview("reviews", "team", resources, parts.get("pods", []))
    return drawn(status_page(found, NOW, verbose=verbose))


def test_a_training_shows_how_far_it_is_and_how_long_it_takes() -> None:
    text = page(job=training(attempts={"failed": 1, "preempted": 2}))
    assert "42 % · training · step 420 of 1000 · epoch 1.26 · 4m10s left · 310 examples/s" in text
    assert "eval_f1_macro 0.88   loss 0.31" in text
    assert "reviews-6f7a, train, started 3h20m ago" in text and "1 failed, 2 interrupted" in text


def test_the_sentence_of_a_stalled_resource_comes_before_what_ready_says() -> None:
    conditions = [condition("Ready", "False", "Failed", "Not ready."), condition("Stalled", reason="OutOfMemory")]
    text = page(job=job(phase="Failed", conditions=conditions))
    assert "OutOfMemory: A sentence." in text and "Not ready." not in text
    assert "for 3h20m" in text


def test_versions_show_gates_and_which_one_is_of_the_present_spec() -> None:
    artifact = {key: value for key, value in version(V2).items() if key not in ("specHash", "runKey", "chosenAt")}
    text = page(job=job(artifact=artifact, versions=[version(V2), version(V1, promotable=False)]))
    assert f"● {V2}" in text.replace("  ", " ") and f"○ {V1}" in text.replace("  ", " ")
    assert "promotable" in text and "failed a gate" in text
    assert "and 3 more" in page(job=job(versions=[version(f"v{n}") for n in range(8)]))


def test_a_rollout_shows_each_share_its_figures_and_what_it_waits_for() -> None:
    text = page(others=[rolling(url="http://x:8000", replicas=2, readyReplicas=2)])
    assert "rollout: step, step 1 of 3, 10 %, for 3h20m" in text
    assert "120 requests · 0.02 errors · p99 48 ms" in text
    assert "90 %" in text and "2 of 2 answer" in text and "http://x:8000" in text


def test_what_was_rejected_says_why() -> None:
    rejected = {"name": "rev-2", "version": V2, "reason": "RolledBack", "message": "5 % failed.", "at": NOW.isoformat()}
    assert f"rejected {V2} 0s ago: 5 % failed." in page(others=[deployment(rejected=[rejected])])


def test_predictions_under_way_show_how_far_they_are_how_fast_and_where_they_will_lie() -> None:
    text = page(others=[predicting()])
    assert "BatchPrediction reviews  team  Predicting  for 3h20m" in text
    assert "Predicting: 1 of 4 shards are stored, about 1m1s left." in text
    assert "25 % · 1 of 4 shards · 1m1s left · 51.2 rows/s" in text
    assert "reviews-0a1b, running, started 3h20m ago" in text and V1 in text
    assert "a folder below s3://predictions/reviews/" in text


def test_predictions_that_are_done_show_where_they_lie_and_how_many_rows_have_none() -> None:
    text = page(others=[predicted()])
    assert "Succeeded" in text and "rows     100, 3 of them with an error in place of a prediction" in text
    assert f"output   {PREDICTIONS}" in text
    assert "shards" not in text and "░" not in text, "nothing is left to be done"


def test_predictions_that_are_suspended_or_failed_show_how_far_they_came_and_promise_no_time() -> None:
    failure = {
        "reason": "OutOfMemory",
        "message": "A worker ran out of memory.",
        "at": NOW.isoformat(),
        "exitCode": 137,
    }
    conditions = [condition("Ready", "False", "OutOfMemory"), condition("Stalled", reason="OutOfMemory")]
    for phase in ("Suspended", "Failed"):
        text = page(others=[predicting(phase=phase, conditions=conditions, failedAttempts=4, lastFailure=failure)])
        assert "25 % · 1 of 4 shards" in text and "1m1s" not in text and "rows/s" not in text
        assert "4 failed" in text and "OutOfMemory: A worker ran out of memory." in text


def test_predictions_that_wait_show_the_sentence_and_no_bar() -> None:
    waits = condition("Ready", "False", "WaitingForModel", "FineTuneJob reviews has no version yet.")
    text = page(others=[batch(phase="Waiting", conditions=[waits])])
    assert "WaitingForModel: FineTuneJob reviews has no version yet." in text
    assert "░" not in text and "rows" not in text and "version " not in text.replace("no version yet", "")


def test_a_resource_that_nobody_has_seen_says_where_to_look() -> None:
    text = page(job=job(observed=0, phase="Pending"))
    assert "No operator has seen this resource yet" in text and "doctor" in text


def test_verbose_adds_conditions_and_pods_and_text_from_the_cluster_is_no_markup() -> None:
    pod = {
        "metadata": {"name": "reviews-0"},
        "status": {"phase": "Running", "containerStatuses": [{"restartCount": 3}]},
    }
    text = page(job=job(conditions=[condition("Ready", message="[red]not markup[/red]")]), pods=[pod], verbose=True)
    assert text.count("[red]not markup[/red]") == 2
    assert "reviews-0" in text and "Running" in text


def test_text_of_a_sentence_with_brackets_is_kept() -> None:
    assert "labels [a, b]" in page(job=job(conditions=[condition("Ready", message="labels [a, b]")]))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h"), (12000, "3h20m"), (90000, "1d1h"), (-5, "0s")],
)
def test_a_duration_has_two_units_at_most(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_a_size_is_said_with_the_fewest_digits() -> None:
    assert [words.size(each) for each in (0, 999, 1500, 17_000_000, 5_300_000_000)] == [
        "0 B", "999 B", "1.5 kB", "17 MB", "5.3 GB",
    ]  # fmt: skip


@pytest.mark.parametrize("percent", [-1, 0, 0.4, 33, 99.9, 100, 250])
def test_a_bar_has_its_width_whatever_the_share(percent: float) -> None:
    assert len(bar(percent, 28).plain) == 28


def spec(**hyperparameters: Any) -> dict[str, Any]:
    return {"spec": {"hyperparameters": hyperparameters, "output": {"uri": f"s3://{len(hyperparameters)}"}}}


def test_a_comparison_names_what_differs_and_leaves_out_what_does_not() -> None:
    old = manifest(V1, lineage=Lineage(run_document=spec(epochs=1), dataset_digest="sha256:a", seed=1))
    new = manifest(
        V2,
        metrics={"eval_f1_macro": 0.92, "eval_loss": 0.35},
        lineage=Lineage(run_document=spec(epochs=2, seed=3), dataset_digest="sha256:a", environment={"torch": "2.9"}),
    )
    labels = [{"labels": [{"label": "positive", "f1": f1}]} for f1 in (0.8, 0.9)]
    found = compare(old, new, *labels)
    assert [(each.name, each.before, each.after) for each in found.spec] == [
        ("hyperparameters.epochs", "1", "2"), ("hyperparameters.seed", None, "3"),
    ]  # fmt: skip
    assert found.same_data and found.data == []
    assert {each.name: each.better for each in found.metrics} == {"eval_f1_macro": True, "eval_loss": False}
    assert [(each.name, round(each.delta, 3)) for each in found.labels] == [("positive", 0.1)]
    text = drawn(diff_page(found))
    assert "hyperparameters.epochs" in text and "+0.02" in text and "data: the same bytes" in text
    assert found.to_json()["metrics"][0]["better"] is True


def test_a_lineage_says_what_a_version_was_made_of() -> None:
    origin = {"origin": {"namespace": "team", "name": "reviews", "generation": 7, "run": "reviews-6f7a"}}
    lineage = Lineage(
        base_model_uri="hf://x/y", dataset_uri="s3://d", run_document=origin, environment={"torch": "2.9"}
    )
    text = drawn(lineage_tree(manifest(V1, lineage=lineage, promotable=False, gate_messages=["0.9 < 0.95"]), "s3://u"))
    for expected in ("hf://x/y", "s3://d", "reviews-6f7a", "team/reviews, generation 7", "torch  2.9", "0.9 < 0.95"):
        assert expected in text


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        ("positive", "positive"), (["a", "b"], "a, b"), ([], "none"), (3.14159, "3.142"),
        ([{"label": "PER", "text": "Ada", "start": 0, "end": 3}], "Ada (PER)"),
    ],
)  # fmt: skip
def test_a_prediction_of_every_task_is_said_in_a_few_words(prediction: Any, said: str) -> None:
    assert said in drawn(predictions_table([{"prediction": prediction, "input_text": "x"}]))


@pytest.mark.parametrize(
    ("resource", "line"),
    [
        (predicting(), "Predicting · 25 %, 1 of 4 shards"),
        (predicted(), f"Succeeded · {PREDICTIONS}"),
        (batch(phase="Waiting"), "Waiting"),
    ],
)
def test_a_line_on_predictions_says_how_far_they_are_and_in_the_end_where_they_lie(resource: Any, line: str) -> None:
    assert line_of(resource) == line


def looks() -> Iterator[Overview]:
    for stage in ("Preparing", "Preparing", "Training", "Succeeded"):
        yield Overview("reviews", "team", [job(phase=stage)])


def test_without_a_terminal_a_line_is_printed_for_each_change() -> None:
    console = Console(file=io.StringIO(), width=140, highlight=False)
    last = follow(looks(), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [f"FineTuneJob reviews: {stage}" for stage in ("Preparing", "Training", "Succeeded")]
    assert last is not None and last.job is not None and last.job.status.phase == "Succeeded"


def test_on_a_terminal_the_last_page_stays() -> None:
    console = Console(file=io.StringIO(), width=140, highlight=False, force_terminal=True)
    follow(looks(), console)
    assert "Succeeded" in console.file.getvalue()  # type: ignore[attr-defined]
