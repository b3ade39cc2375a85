"""Versions in a real registry, and a model that answers: versions, diff, lineage, report, aliases, predict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from luthier.commands import app
from luthier_artifacts import Lineage, Metadata, PublishedVersion
from support.cli.model import played_model
from support.operator.operator_process import finetunejob, sha
from support.s3 import S3

pytestmark = pytest.mark.integration

Luthier = Callable[..., Result]


@pytest.fixture
def luthier(cluster: Any, namespace: Any, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Luthier:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    # The resource names an address inside of a cluster, as most do.
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)

    def run(*arguments: str, code: int = 0, stdin: str = "") -> Result:
        answer = CliRunner().invoke(app, [*arguments, "-n", namespace.name], input=stdin, catch_exceptions=False)
        assert answer.exit_code == code, answer.output
        return answer

    return run


@pytest.fixture
def published(namespace: Any, s3: S3, tmp_path: Path) -> list[PublishedVersion]:
    """Two versions in storage, which the status of a FineTuneJob names; the second one is of the present spec."""
    from luthier_artifacts import open_registry

    uri = s3.fresh_uri()
    registry = open_registry(uri, "sentiment", s3.config)
    versions = []
    for number, (epochs, f1) in enumerate([(1, 0.8), (3, 0.9)]):
        folder = tmp_path / f"files-{number}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "report.html").write_text(f"<h1>Report {number}</h1>")
        (folder / "metrics.json").write_text(json.dumps({"labels": [{"label": "positive", "f1": f1}]}))
        lineage = Lineage(
            base_model_uri="hf://a/b",
            dataset_uri="s3://data/reviews.csv",
            dataset_digest=f"sha256:{sha('data')}",
            run_document={"spec": {"hyperparameters": {"epochs": epochs}}},
        )
        versions.append(
            registry.publish(folder, sha(str(number)), Metadata(metrics={"eval_f1_macro": f1}, lineage=lineage))
        )
    output = {"name": "sentiment", "uri": uri, "endpoint": "http://s3.inside.svc:8333"}
    namespace.apply(finetunejob(output=output))
    namespace.merge("ftj", "reviews", {"status": _status(versions)}, status=True)
    return versions


def _status(versions: list[PublishedVersion]) -> dict[str, Any]:
    def artifact(each: PublishedVersion) -> dict[str, Any]:
        figures = {name: str(value) for name, value in each.manifest.metrics.items()}
        return {"version": each.version, "uri": each.uri, "digest": each.digest, "metrics": figures, "promotable": True}

    chosen = {"specHash": sha("s"), "runKey": sha("r"), "chosenAt": "2026-01-01T00:00:00Z"}
    newest = list(reversed(versions))
    return {
        "observedGeneration": 1,
        "phase": "Succeeded",
        "artifact": artifact(newest[0]),
        "versions": [artifact(each) | chosen for each in newest],
    }


def test_versions_differ_in_what_was_asked_for_and_in_what_came_of_it(
    published: list[PublishedVersion], luthier: Luthier
) -> None:
    document = json.loads(luthier("diff", "reviews", "-o", "json").stdout)
    assert (document["before"], document["after"]) == (published[0].version, published[1].version)
    assert document["spec"] == [{"name": "hyperparameters.epochs", "before": "1", "after": "3"}]
    assert document["data"] == []
    assert document["metrics"][0]["better"] is True and document["labels"][0]["name"] == "positive"
    assert "hyperparameters.epochs" in luthier("diff", "reviews", "previous", "current").stdout


def test_a_report_is_downloaded_and_verified_with_the_user_s_own_keys(
    published: list[PublishedVersion], luthier: Luthier, tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    luthier("report", "reviews", "previous", "--save", str(target))
    assert target.read_text() == "<h1>Report 0</h1>"
    assert "has no console.log" in luthier("report", "reviews", "--file", "console.log", "--save", "x", code=3).stderr


def test_keys_that_storage_does_not_know_are_told_with_where_to_put_them(
    published: list[PublishedVersion], luthier: Luthier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "Your own keys are used here" in luthier("lineage", "reviews", code=5).stderr


def test_a_lineage_names_model_and_data(published: list[PublishedVersion], luthier: Luthier) -> None:
    text = luthier("lineage", "reviews").stdout
    assert published[1].version in text and "hf://a/b" in text and "s3://data/reviews.csv" in text


def test_an_alias_is_made_moved_listed_and_used(published: list[PublishedVersion], luthier: Luthier) -> None:
    first, second = (each.version for each in published)
    assert luthier("alias", "set", "reviews", "production", "previous").stdout == f"production: new -> {first}\n"
    assert luthier("alias", "set", "reviews", "production", second).stdout == f"production: {first} -> {second}\n"
    assert second in luthier("alias", "list", "reviews").stdout
    assert f"{second}" in luthier("lineage", "reviews", "production").stdout
    rows = json.loads(luthier("versions", "reviews", "--all", "-o", "json").stdout)
    assert [row["aliases"] for row in rows if row["version"] == second] == [["production"]]
    assert "has no version or alias nope" in luthier("lineage", "reviews", "nope", code=3).stderr


def test_the_beginning_of_a_version_is_enough_and_one_of_several_is_not(
    published: list[PublishedVersion], luthier: Luthier
) -> None:
    first, second = (each.version for each in published)
    common = first[: next(n for n in range(len(first)) if first[n] != second[n])]
    assert first in luthier("lineage", "reviews", first[:-1]).stdout
    assert "Several versions begin with" in luthier("lineage", "reviews", common, code=4).stderr


@pytest.fixture
def model(namespace: Any) -> Iterator[None]:
    with played_model(namespace):
        yield


DEPLOYMENT = {
    "apiVersion": "luthier.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "reviews"},
    "spec": {"model": {"fineTuneJobRef": {"name": "reviews"}}},
}


def test_a_model_is_asked_through_the_api_server(namespace: Any, luthier: Luthier, model: None) -> None:
    namespace.apply(DEPLOYMENT)
    answer = luthier("predict", "reviews", "Works perfectly.", "And cheap.")
    assert answer.stdout.count("positive") == 2 and "0.97" in answer.stdout and "Works perfectly." in answer.stdout
    document = json.loads(luthier("predict", "reviews", "-", "-o", "json", stdin="one\ntwo\n").stdout)
    assert [each["input_text"] for each in document] == ["one", "two"]
    assert "texts[0] is empty" in luthier("predict", "reviews", "", code=4).stderr
    assert "give --pair once for each text" in luthier("predict", "reviews", "a", "b", "--pair", "c", code=4).stderr


def test_a_model_that_does_not_answer_is_told_with_the_resource_s_sentence(namespace: Any, luthier: Luthier) -> None:
    namespace.apply(DEPLOYMENT)
    error = luthier("predict", "reviews", "Works.", code=6).stderr
    assert "ModelDeployment reviews does not answer (" in error and "no operator has seen it" in error
    assert "There is no ModelDeployment other" in luthier("predict", "other", "Works.", code=3).stderr
