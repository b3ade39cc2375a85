"""`luthier` against a real API server and the operator: what it shows of lives, and what its steering brings about."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from luthier.commands import app
from luthier.errors import ExitCode
from luthier_api.documents import Failure, Predicted
from luthier_api.documents import Result as PodResult
from luthier_api.exitcodes import ExitCode as PodExit
from luthier_api.reasons import Reason
from support.cli.kubelet import played_kubelet, pod_of
from support.operator.kuberay import MODELDEPLOYMENT, Server, install_kuberay
from support.operator.least import BATCHPREDICTION

pytestmark = pytest.mark.integration

Luthier = Callable[..., Result]
STEPS = [{"trafficPercent": 10, "pause": "Manual"}, {"trafficPercent": 50, "pause": "Manual"}]


@pytest.fixture
def luthier(cluster: Any, namespace: Any, monkeypatch: pytest.MonkeyPatch) -> Luthier:
    """The command in the namespace of the test, with the administrator's kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))

    def run(*arguments: str, code: int = 0, stdin: str = "") -> Result:
        answer = CliRunner().invoke(app, [*arguments, "-n", namespace.name], input=stdin, catch_exceptions=False)
        assert answer.exit_code == code, answer.output
        return answer

    return run


@pytest.fixture
def server(cluster: Any, namespace: Any) -> Iterator[Server]:
    install_kuberay(cluster)
    played = Server(namespace)
    yield played
    played.close()


@pytest.fixture
def rolling(operator: Any, namespace: Any, server: Server) -> Server:
    """A ModelDeployment that serves v1, with v2 in the first of two steps that wait for people."""
    namespace.apply({**MODELDEPLOYMENT, "spec": {**MODELDEPLOYMENT["spec"], "rollout": {"steps": STEPS}}})
    namespace.submit()
    namespace.run_through()
    namespace.until("the server", lambda: namespace.all("rayservice"))
    server.tell()
    namespace.await_reason("mdep", "reviews", "Serving")
    namespace.submit(hyperparameters={"epochs": 1})
    namespace.run_through("b", "v2")
    namespace.until("the canary", lambda: "v2" in server.weights)
    server.tell()
    namespace.until("the first step", lambda: server.weights == {"v1": 90, "v2": 10})
    namespace.until("its pause", lambda: "promote" in rollout(namespace).get("message", ""))
    return server


def rollout(namespace: Any) -> dict[str, Any]:
    return dict(namespace.get("mdep", "reviews").get("status", {}).get("rollout") or {})


def test_a_life_is_shown_from_nothing_to_its_version(operator: Any, namespace: Any, luthier: Luthier) -> None:
    assert "has no resource of Luthier" in luthier("status").stdout
    assert (
        "There is no FineTuneJob, ModelDeployment or BatchPrediction reviews"
        in luthier("status", "reviews", code=3).stderr
    )
    namespace.submit()
    pod = namespace.await_pod("prepare")
    namespace.until("Preparing", lambda: "Preparing" in luthier("status", "reviews").stdout)
    namespace.end(pod, 0, _prepared())
    namespace.await_pod("train")
    namespace.until("Training", lambda: "Training" in luthier("status", "reviews").stdout)
    namespace.train_ends()
    namespace.await_version("v1")
    namespace.until("Published", lambda: "Published" in luthier("status", "reviews").stdout)
    page = luthier("status", "reviews", "-v").stdout
    for expected in ("FineTuneJob reviews", "v1", "promotable", "eval_f1_macro 0.91", "Succeeded", "Normal"):
        assert expected in page
    document = json.loads(luthier("status", "reviews", "-v", "-o", "json").stdout)
    assert document["fineTuneJob"]["status"]["artifact"]["version"] == "v1"
    assert len(document["pods"]) == 2 and document["events"]
    assert "managedFields" not in document["fineTuneJob"]["metadata"]
    assert "reviews" in luthier("status").stdout
    rows = json.loads(luthier("versions", "reviews", "-o", "json").stdout)
    assert [(row["version"], row["present"], row["promotable"]) for row in rows] == [("v1", True, True)]


def test_apply_waits_until_the_version_is_there_and_says_what_happens(
    operator: Any, namespace: Any, cluster: Any, make_finetunejob: Callable[..., Any], tmp_path: Path
) -> None:
    manifest = tmp_path / "job.yaml"
    manifest.write_text(yaml.safe_dump(make_finetunejob()))
    with _started("apply", str(manifest), "--wait", "-n", namespace.name, cluster=cluster) as process:
        namespace.run_through()
        said, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    lines = said.splitlines()
    assert lines[0] == f"FineTuneJob reviews in {namespace.name}: applied"
    assert any("Preparing" in line for line in lines) and lines[-1].endswith("Succeeded · v1")


def test_apply_of_what_fails_ends_with_its_sentence_and_code_7(
    operator: Any, namespace: Any, cluster: Any, make_finetunejob: Callable[..., Any], tmp_path: Path, luthier: Luthier
) -> None:
    manifest = tmp_path / "job.yaml"
    manifest.write_text(yaml.safe_dump(make_finetunejob()))
    with _started("apply", str(manifest), "--wait", "-n", namespace.name, cluster=cluster) as process:
        namespace.end(namespace.await_pod("prepare"), int(PodExit.INVALID_DATA))
        _, error = process.communicate(timeout=30)
    assert process.returncode == ExitCode.STALLED
    assert error.startswith("luthier: FineTuneJob reviews: InvalidData: ")
    before = namespace.get("ftj", "reviews")["metadata"].get("annotations", {}).get("luthier.dev/retry")
    assert "Nothing was written" in luthier("retry", "reviews", "--dry-run").stdout
    assert namespace.get("ftj", "reviews")["metadata"].get("annotations", {}).get("luthier.dev/retry") == before
    luthier("retry", "reviews", "--yes")
    namespace.until("another prepare", lambda: namespace.ready_reason("ftj", "reviews") == "Preparing")
    assert "has not failed" in luthier("retry", "reviews", "--yes", code=4).stderr


def test_what_the_api_server_refuses_is_said_in_its_own_words(
    namespace: Any, luthier: Luthier, tmp_path: Path, make_finetunejob: Callable[..., Any]
) -> None:
    manifest = tmp_path / "job.yaml"
    local = {"name": "x", "uri": "file:///models"}
    manifest.write_text(yaml.safe_dump(make_finetunejob(output=local)))
    assert "must be an s3:// URI" in luthier("apply", str(manifest), code=4).stderr
    assert namespace.all("ftj") == []


@pytest.mark.parametrize(
    ("header", "row", "task"),
    [
        ("text,label", '"The parcel {n} was late and the box is torn.",{even}', "text-classification"),
        ("text,stars", '"The parcel {n} was late and the box is torn.",{n}.5', "regression"),
        ("comment,toxic,insult", '"The parcel {n} was late and the box is torn.",{even},{other}', "multi-label"),
    ],
)
def test_what_init_proposes_is_accepted(
    namespace: Any, luthier: Luthier, tmp_path: Path, header: str, row: str, task: str
) -> None:
    data, manifest = tmp_path / "data.csv", tmp_path / "manifest.yaml"
    lines = [row.format(n=n, even=n % 2, other=n // 2 % 2) for n in range(80)]
    data.write_text("\n".join([header, *lines]) + "\n")
    made = CliRunner().invoke(app, ["init", str(data), "--bucket", "team", "-w", str(manifest)])
    assert made.exit_code == 0, made.output
    assert "would be accepted" in luthier("apply", str(manifest), "--dry-run").stdout
    assert namespace.all("ftj") == []
    luthier("apply", str(manifest))
    assert namespace.get("ftj", "data")["spec"]["task"] == task


def test_a_rollout_is_promoted_skipped_and_shown(rolling: Server, namespace: Any, luthier: Luthier) -> None:
    page = luthier("status", "reviews").stdout
    assert "step 1 of 2, 10 %" in page and "luthier promote goes on" in page
    declined = luthier("promote", "reviews", code=9, stdin="n\n")
    assert "v2 has step 1 of 2, 10 % of the requests. End this step now" in declined.stdout
    assert rolling.weights == {"v1": 90, "v2": 10}
    luthier("promote", "reviews", stdin="y\n")
    namespace.until("the second step", lambda: rolling.weights == {"v1": 50, "v2": 50})
    namespace.until("its status", lambda: rollout(namespace).get("step") == 2)
    luthier("promote", "reviews", "--yes")  # a second time, and so with another value
    namespace.until("all requests", lambda: rolling.weights.get("v2") == 100)


def test_a_rollout_is_aborted_and_the_rejected_revision_tried_again(
    rolling: Server, namespace: Any, luthier: Luthier
) -> None:
    luthier("abort", "reviews", "--yes")
    namespace.until("v1 alone", lambda: rolling.weights.get("v1") == 100)
    rolling.tell()
    namespace.await_reason("mdep", "reviews", "RolledBack")
    assert "rejected v2" in luthier("status", "reviews").stdout
    assert "nothing to abort" in luthier("abort", "reviews", "--yes", code=4).stderr
    luthier("retry", "reviews", "--kind", "mdep", "--yes")
    namespace.until("the canary again", lambda: "v2" in rolling.weights)


def test_a_rollback_shows_the_edit_for_git_and_with_yes_makes_it(
    rolling: Server, namespace: Any, luthier: Luthier, tmp_path: Path
) -> None:
    luthier("skip", "reviews", "--yes")
    namespace.until("all requests", lambda: rolling.weights.get("v2") == 100)
    rolling.tell()
    namespace.until("it is loaded", lambda: rolling.weights == {"v2": 100})
    rolling.tell()
    namespace.until("the canary to go", lambda: rolling.layout.canary is None)
    rolling.tell()
    namespace.until("rest", lambda: namespace.get("mdep", "reviews")["status"].get("currentVersion") == "v2")
    shown = luthier("rollback", "reviews").stdout
    assert "        version: v1" in shown and "luthier pin FILE --version v1" in shown
    assert "version" not in namespace.get("mdep", "reviews")["spec"]["model"]["fineTuneJobRef"]
    production = tmp_path / "production.yaml"
    production.write_text(yaml.safe_dump(MODELDEPLOYMENT))
    namespace.await_reason("mdep", "reviews", "Serving")
    assert "version: v2" in luthier("pin", str(production), "--from", "reviews").stdout
    luthier("rollback", "reviews", "--yes")
    namespace.until("v1 to come back", lambda: "v1" in rolling.weights)
    assert "is pinned to v1 already" in luthier("rollback", "reviews", "--to-version", "v1", "--yes", code=4).stderr


def test_a_resource_is_suspended_and_goes_on(operator: Any, namespace: Any, luthier: Luthier) -> None:
    namespace.submit()
    namespace.await_pod("prepare")
    luthier("suspend", "reviews", "--yes")
    namespace.await_reason("ftj", "reviews", "Suspended")
    assert "Suspended" in luthier("status", "reviews").stdout
    luthier("resume", "reviews", "--yes")
    namespace.await_reason("ftj", "reviews", "Preparing")


def test_two_resources_of_a_name_are_told_apart_by_kind(
    operator: Any, server: Server, namespace: Any, luthier: Luthier
) -> None:
    namespace.apply(MODELDEPLOYMENT)
    namespace.submit()
    assert "choose one with --kind" in luthier("suspend", "reviews", "--yes", code=4).stderr
    page = luthier("status", "reviews").stdout
    assert "FineTuneJob reviews" in page and "ModelDeployment reviews" in page
    assert "FineTuneJob reviews" not in luthier("status", "reviews", "--kind", "mdep").stdout.splitlines()[0]


def test_predictions_that_fail_are_tried_again_suspended_and_followed_to_where_they_lie(
    operator: Any, namespace: Any, cluster: Any, luthier: Luthier, tmp_path: Path
) -> None:
    namespace.submit()
    namespace.run_through()
    manifest = tmp_path / "batch.yaml"
    manifest.write_text(yaml.safe_dump({**BATCHPREDICTION, "metadata": {"name": "nightly"}}))
    with _started("apply", str(manifest), "--wait", "-n", namespace.name, cluster=cluster) as process:
        said = Failure(reason=Reason.INVALID_DATA, message="reviews.csv has no column 'text'; it has 'body'.")
        message = PodResult(failure=said).to_termination_message()
        namespace.end(namespace.await_pod("predict"), int(PodExit.INVALID_DATA), message)
        _, error = process.communicate(timeout=60)
    assert process.returncode == ExitCode.STALLED
    assert error.startswith("luthier: BatchPrediction nightly: InvalidData: reviews.csv has no column 'text'")
    luthier("retry", "nightly", "--yes")
    namespace.await_reason("bp", "nightly", "Predicting")
    assert "has not failed" in luthier("retry", "nightly", "--yes", code=4).stderr
    luthier("suspend", "nightly", "--yes")
    namespace.await_reason("bp", "nightly", "Suspended")
    luthier("resume", "nightly", "--yes")
    namespace.await_reason("bp", "nightly", "Predicting")
    folder = f"{BATCHPREDICTION['spec']['output']['uri']}predictions-0123456789abcdef/"
    with _started("watch", "nightly", "--until-settled", "-n", namespace.name, cluster=cluster) as process:
        done = Predicted(output=folder, rows=100, shards=4, complete=True)
        namespace.end(namespace.await_pod("predict"), 0, PodResult(predicted=done).to_termination_message())
        lines, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert lines.splitlines()[-1] == f"BatchPrediction nightly: Succeeded · {folder}"
    page = luthier("status", "reviews", "-v").stdout
    assert "FineTuneJob reviews" in page and "BatchPrediction nightly" in page and folder in page
    path = tmp_path / "bundle.zip"
    luthier("support", "nightly", "-w", str(path))
    with zipfile.ZipFile(path) as bundle:
        assert b"predict" in bundle.read("jobs.yaml") and b"Predicted" in bundle.read("events.yaml")
        assert "batchprediction-nightly.yaml" in bundle.namelist()


def test_watch_ends_when_nothing_more_happens(operator: Any, namespace: Any, cluster: Any) -> None:
    namespace.submit()
    with _started("watch", "reviews", "--until-settled", "-n", namespace.name, cluster=cluster) as process:
        namespace.run_through()
        said, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert said.splitlines()[-1] == "FineTuneJob reviews: Succeeded · v1"


def test_a_support_bundle_holds_what_helps_and_no_secret(
    operator: Any, namespace: Any, luthier: Luthier, tmp_path: Path
) -> None:
    namespace.kubectl("create", "secret", "generic", "s3", "--from-literal=AWS_SECRET_ACCESS_KEY=hunter2hunter2")
    namespace.submit()
    namespace.run_through()
    path = tmp_path / "bundle.zip"
    luthier("support", "reviews", "-w", str(path))
    with zipfile.ZipFile(path) as bundle:
        names = bundle.namelist()
        everything = "\n".join(bundle.read(name).decode() for name in names)
    for expected in ("finetunejob-reviews.yaml", "events.yaml", "pods.yaml", "jobs.yaml", "doctor.json", "README.txt"):
        assert expected in names
    assert "eval_f1_macro" in everything and "hunter2" not in everything and "managedFields" not in everything


def test_logs_are_those_of_the_latest_stage(
    cluster: Any, namespace: Any, luthier: Luthier, tmp_path: Path, make_finetunejob: Callable[..., Any]
) -> None:
    namespace.until("its service account", lambda: namespace.all("serviceaccounts"))
    namespace.apply(make_finetunejob(suspend=True))
    with played_kubelet(cluster, tmp_path):
        for stage in ("prepare", "train"):
            namespace.apply(pod_of("reviews", f"reviews-{stage}", stage))
        answer = luthier("logs", "reviews")
        assert answer.stdout.splitlines() == [f"reviews-train main line {number}" for number in range(3)]
        assert answer.stderr == "# pod reviews-train, container main\n"
        assert luthier("logs", "reviews", "--stage", "prepare", "--tail", "1").stdout == "reviews-prepare main line 2\n"
        assert luthier("logs", "reviews", "-f").stdout == answer.stdout
        path = tmp_path / "bundle.zip"
        luthier("support", "reviews", "-w", str(path))
        with zipfile.ZipFile(path) as bundle:
            assert b"reviews-train main line 2" in bundle.read("logs/reviews-train/main.log")


def test_logs_without_a_pod_say_where_the_training_s_log_is(operator: Any, namespace: Any, luthier: Luthier) -> None:
    namespace.submit()
    namespace.run_through()
    namespace.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
    assert "luthier report --file console.log" in luthier("logs", "reviews", code=3).stderr


def test_a_wrong_context_and_a_dead_api_server_are_told(luthier: Luthier, cluster: Any, tmp_path: Path) -> None:
    assert "has no context nope; it has: " in luthier("status", "--context", "nope", code=3).stderr
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    dead = tmp_path / "kubeconfig"
    dead.write_text(yaml.safe_dump(config))
    answer = luthier("status", "--kubeconfig", str(dead), code=6)
    assert "The API server at https://127.0.0.1:1 does not answer" in answer.stderr


def _prepared() -> str:
    from support.operator.operator_process import prepared

    return prepared()


def _started(*arguments: str, cluster: Any) -> subprocess.Popen[str]:
    """Start the command as a user does, beside the test that plays the node."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "luthier", *arguments],
        env={"KUBECONFIG": str(cluster.kubeconfig), "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
