"""Commands that take a name take each kind of resource, and tell several of one name apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from luthier import BatchPrediction
from luthier.commands import app, options
from luthier.commands.options import complete_name
from luthier.doctor import Level, cluster_rows, namespace_rows
from luthier.errors import ExitCode, Invalid, NotFound, Stalled
from luthier.kinds import FINETUNEJOB, KINDS, MODELDEPLOYMENT, Raw
from luthier.overview import overview
from luthier_api.schema import crds
from support.cli import PREDICTIONS, V1, batch, condition, deployment, job, predicted, predicting, version
from support.cli.remembered import RememberedCluster
from support.operator.least import BATCHPREDICTION

pytestmark = pytest.mark.unit

Luthier = Callable[..., Result]


@pytest.fixture
def luthier(monkeypatch: pytest.MonkeyPatch) -> Luthier:
    """The command in a namespace that is remembered."""

    def run(cluster: RememberedCluster, *arguments: str, code: int = 0) -> Result:
        monkeypatch.setattr(options, "connect", lambda *_, **__: cluster)
        answer = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert answer.exit_code == code, answer.output
        return answer

    return run


def pod(name: str, component: str, created: str = "2026-01-01T00:00:00Z", kind: str = "batchprediction") -> Raw:
    labels = {f"luthier.dev/{kind}": "reviews", "app.kubernetes.io/component": component}
    metadata = {"name": name, "labels": labels, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"containers": [{"name": "main"}]}, "status": {"phase": "Running"}}


def test_the_command_knows_every_kind_that_the_chart_installs() -> None:
    installed = [crd["spec"]["names"] for crd in crds().values()]
    assert {(kind.name, kind.plural, kind.short) for kind in KINDS} == {
        (names["kind"], names["plural"], names["shortNames"][0]) for names in installed
    }


def test_the_table_of_a_namespace_has_its_predictions_with_how_far_they_are(luthier: Luthier) -> None:
    cluster = RememberedCluster(job(), deployment(), predicting())
    rows = luthier(cluster, "status").stdout.splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["FineTuneJob", "ModelDeployment", "BatchPrediction"]
    assert "Predicting" in rows[3] and "1 of 4 shards are stored, about 1m1s left." in rows[3]


def test_predictions_are_on_the_page_of_their_own_name_and_of_the_finetunejob_that_they_follow(
    luthier: Luthier,
) -> None:
    nightly = predicted()
    nightly.raw["metadata"]["name"] = "nightly"
    cluster = RememberedCluster(job(), deployment(), predicting(), nightly)
    both = luthier(cluster, "status", "reviews").stdout
    assert "BatchPrediction reviews" in both and "BatchPrediction nightly" in both
    alone = luthier(cluster, "status", "nightly").stdout
    assert "FineTuneJob" not in alone and PREDICTIONS in alone
    document = json.loads(luthier(cluster, "status", "reviews", "-o", "json").stdout)
    assert [each["metadata"]["name"] for each in document["batchPredictions"]] == ["nightly", "reviews"]
    assert document["fineTuneJob"] and len(document["modelDeployments"]) == 1


@pytest.mark.parametrize("given", ["bp", "BatchPrediction"])
def test_kind_leaves_all_others_out(luthier: Luthier, given: str) -> None:
    cluster = RememberedCluster(job(), deployment(), predicting())
    page = luthier(cluster, "status", "reviews", "--kind", given).stdout
    assert page.startswith("BatchPrediction reviews")
    assert "FineTuneJob" not in page and "ModelDeployment" not in page


def test_of_several_resources_of_a_name_one_has_to_be_chosen(luthier: Luthier) -> None:
    cluster = RememberedCluster(job(), predicting())
    answer = luthier(cluster, "suspend", "reviews", "--yes", code=ExitCode.INVALID)
    assert "There is a FineTuneJob and a BatchPrediction reviews: choose one with --kind ftj or --kind bp." in (
        answer.stderr
    )
    assert not cluster.patches
    luthier(cluster, "suspend", "reviews", "--kind", "bp", "--yes")
    assert cluster.patches == [("batchpredictions/reviews", {"spec": {"suspend": True}})]


def test_predictions_are_suspended_resumed_and_tried_again(luthier: Luthier) -> None:
    cluster = RememberedCluster(batch(spec={"suspend": True}, phase="Failed", conditions=[condition("Stalled")]))
    luthier(cluster, "resume", "reviews", "--yes")
    luthier(cluster, "retry", "reviews", "--yes")
    (resumed, spec), (retried, metadata) = cluster.patches
    assert resumed == retried == "batchpredictions/reviews"
    assert spec == {"spec": {"suspend": False}}
    assert list(metadata["metadata"]["annotations"]) == ["luthier.dev/retry"]


@pytest.mark.parametrize("command", [("status", "nope"), ("retry", "nope", "--yes")])
def test_a_name_that_nothing_has_is_told_with_the_names_that_are_there(
    luthier: Luthier, command: tuple[str, ...]
) -> None:
    error = luthier(RememberedCluster(predicting()), *command, code=ExitCode.NOT_FOUND).stderr
    assert "There is no FineTuneJob, ModelDeployment or BatchPrediction nope in namespace team" in error
    assert "there are: reviews." in error


def test_names_of_predictions_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "connect", lambda **_: RememberedCluster(predicting()))
    assert complete_name(SimpleNamespace(params={}), "re") == ["reviews"]  # type: ignore[arg-type]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RememberedCluster, "log", lambda _, pod, container, **__: iter([f"{pod} {container} says"]))


@pytest.mark.usefixtures("said")
def test_logs_are_those_of_the_newest_worker_and_a_server_s_come_before_them(luthier: Luthier) -> None:
    workers = [pod("old", "predict"), pod("new", "predict", "2026-01-02T00:00:00Z")]
    assert luthier(RememberedCluster(predicting(), pods=workers), "logs", "reviews").stdout == "new main says\n"
    workers.append(pod("server", "worker", kind="modeldeployment"))
    both = RememberedCluster(deployment(), predicting(), pods=workers)
    assert luthier(both, "logs", "reviews").stdout == "server main says\n"
    assert luthier(both, "logs", "reviews", "--stage", "predict").stdout == "new main says\n"
    assert luthier(both, "logs", "reviews", "--kind", "bp").stdout == "new main says\n"


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    path = tmp_path / "batch.yaml"
    path.write_text(yaml.safe_dump(BATCHPREDICTION))
    return str(path)


def test_apply_waits_for_all_predictions_and_says_where_they_lie(luthier: Luthier, manifest: str) -> None:
    lines = luthier(RememberedCluster(predicted()), "apply", manifest, "--wait").stdout.splitlines()
    assert lines[0] == "BatchPrediction reviews in team: applied"
    assert lines[-1] == f"BatchPrediction reviews: Succeeded · {PREDICTIONS}"


def test_apply_of_predictions_that_fail_or_take_too_long_ends_with_the_code_of_that(
    luthier: Luthier, manifest: str
) -> None:
    conditions = [condition("Stalled", reason="InvalidData", message="reviews.csv has no column 'text'.")]
    failed = RememberedCluster(predicting(phase="Failed", conditions=conditions))
    error = luthier(failed, "apply", manifest, "--wait", code=ExitCode.STALLED).stderr
    assert "luthier: BatchPrediction reviews: InvalidData: reviews.csv has no column 'text'." in error
    slow = RememberedCluster(predicting())
    luthier(slow, "apply", manifest, "--wait", "--timeout", "0", code=ExitCode.TIMED_OUT)


def test_a_wrong_field_of_a_manifest_is_named_before_the_cluster_is_asked(luthier: Luthier, tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    wrong = {**BATCHPREDICTION, "spec": {**BATCHPREDICTION["spec"], "shardRow": 5}}
    path.write_text(yaml.safe_dump(wrong))
    error = luthier(RememberedCluster(), "apply", str(path), code=ExitCode.INVALID).stderr
    assert "BatchPrediction reviews: spec.shardRow: there is no such field" in error


def test_versions_name_the_predictions_that_need_them_until_these_end(luthier: Luthier) -> None:
    for batch_, users in ((predicting(), ["BatchPrediction reviews"]), (predicted(), [])):
        cluster = RememberedCluster(job(versions=[version(V1)]), batch_)
        (row,) = json.loads(luthier(cluster, "versions", "reviews", "-o", "json").stdout)
        assert row["served_by"] == users


def test_the_doctor_looks_at_the_secrets_queue_and_state_of_predictions() -> None:
    conditions = [condition("Stalled", reason="StorageDenied", message="Denied.")]
    secrets = {part: {"uri": "s3://x/", "secretRef": {"name": f"s3-{part}"}} for part in ("output", "model", "input")}
    cluster = RememberedCluster(batch(spec={**secrets, "queueName": "cpus"}, conditions=conditions))
    rows = {row.check: row for row in namespace_rows(cluster)}
    assert rows["BatchPrediction reviews"].message == "StorageDenied: Denied."
    assert {f"Secret s3-{part}" for part in secrets} | {"LocalQueue cpus"} < set(rows)


def test_the_doctor_proves_the_output_of_predictions_as_a_run_does(luthier: Luthier, tmp_path: Path) -> None:
    cluster = RememberedCluster(batch(spec={"output": {"uri": f"file://{tmp_path}/predictions/"}}))
    rows = {row["check"]: row for row in json.loads(luthier(cluster, "doctor", "-o", "json", code=1).stdout)}
    row = rows[f"S3 file://{tmp_path}/predictions"]
    assert (row["level"], row["message"]) == (Level.OK, "may be read and written, honours conditional writes")
    assert (tmp_path / "predictions" / "_runs" / ".probe").exists()


def test_the_doctor_misses_the_crd_and_the_rights_of_predictions() -> None:
    rows = {row.check: row for row in cluster_rows(RememberedCluster())}
    assert rows["CRD BatchPrediction"].message == "is not installed"
    assert rows["your rights"].level == Level.FAIL, "none of Luthier's kinds at all"
    for right in ("create batchpredictions (to predict files)", "patch batchpredictions (to edit, retry and suspend)"):
        assert right in rows["your rights"].message


def test_a_cluster_of_an_earlier_release_has_no_predictions_and_all_else_works(luthier: Luthier) -> None:
    earlier = RememberedCluster(job(), deployment(), kinds=(FINETUNEJOB, MODELDEPLOYMENT))
    assert "ModelDeployment" in luthier(earlier, "status").stdout
    assert overview(earlier, "reviews").to_json()["batchPredictions"] == []
    with pytest.raises(NotFound, match="does not know Luthier's resources"):
        RememberedCluster(kinds=()).every()


def test_a_notebook_has_predictions_as_an_object() -> None:
    ours = BatchPrediction("reviews", BATCHPREDICTION["spec"], cluster=RememberedCluster(predicted()))
    assert ours.manifest == BATCHPREDICTION
    assert ours.wait(quiet=True).output == PREDICTIONS
    assert (ours.version, ours.rows, ours.errors) == (V1, 100, 3)
    with pytest.raises(Invalid, match=r"BatchPrediction reviews: spec.inputs: there is no such field"):
        BatchPrediction("reviews", {**BATCHPREDICTION["spec"], "inputs": {}})


def test_a_notebook_is_told_where_predictions_are_only_when_all_are_there() -> None:
    with pytest.raises(NotFound, match=r"is not done yet; .wait\(\) waits for it"):
        _ = BatchPrediction("reviews", cluster=RememberedCluster(predicting())).output
    stalled: Any = RememberedCluster(predicting(conditions=[condition("Stalled")]))
    with pytest.raises(Stalled):
        BatchPrediction("reviews", cluster=stalled).wait(quiet=True)
