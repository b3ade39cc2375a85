"""The command line without a cluster: what is typed, what is printed, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from luthier import local_run
from luthier.commands import app
from luthier.errors import ExitCode
from luthier_api.documents import RunDocument
from luthier_artifacts import (
    Metadata,
    PublishedVersion,
    SignatureError,
    download_version,
    open_registry,
)
from luthier_dev.paths import REPOSITORY
from support.signing_keys import KeyPair

pytestmark = pytest.mark.unit

ENGLISH = "The parcel was late and the box is torn, but they sent a new one."


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f'"{ENGLISH} {n}",{"ab"[n % 2]}\n' for n in range(300)))
    return path


def luthier(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_help_names_every_command_and_the_exit_codes() -> None:
    said = luthier("--help").stdout
    commands = (
        "init run apply pin status watch logs versions diff lineage report sign promote pause abort skip retry suspend "
    )
    for command in (commands + "resume rollback predict alias doctor support").split():
        assert command in said
    assert "7 stalled" in " ".join(said.split())
    for command in (commands + "resume rollback predict doctor support").split():
        assert luthier(command, "--help").exit_code == 0, command


def test_an_error_is_one_sentence_on_standard_error_and_a_code() -> None:
    answer = luthier("status", "reviews")
    assert answer.exit_code == ExitCode.UNREACHABLE
    assert answer.stdout == ""
    assert answer.stderr.startswith("luthier: No cluster is configured")
    assert len(answer.stderr.splitlines()) == 1


def test_init_prints_a_manifest_for_a_file(data: Path) -> None:
    answer = luthier("init", str(data), "--bucket", "team")
    assert answer.exit_code == 0, answer.stderr
    job, deployment = yaml.safe_load_all(answer.stdout)
    assert job["spec"]["dataset"]["train"]["uri"] == "s3://team/data/reviews/reviews.csv"
    assert job["spec"]["output"] == {
        "name": "reviews", "uri": "s3://team/models/", "secretRef": {"name": "s3-credentials"}
    }  # fmt: skip
    assert deployment["kind"] == "ModelDeployment"


def test_init_writes_a_file_and_says_why_and_what_is_next(data: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "reviews.yaml"
    answer = luthier("init", str(data), "--bucket", "team", "-w", str(manifest), "--name", "mine", "--gpus", "0")
    assert answer.exit_code == 0, answer.stderr
    assert "label holds the label: 2 classes" in answer.stdout
    assert f"luthier apply {manifest} --wait" in answer.stdout
    job = next(yaml.safe_load_all(manifest.read_text()))
    assert (job["metadata"]["name"], job["spec"]["gpusPerNode"]) == ("mine", 0)


def test_what_is_said_goes_before_what_is_found(data: Path) -> None:
    options = ("--model", "hf://a/b", "--max-length", "64", "--task", "multi-label", "--endpoint", "http://s3:8333")
    answer = luthier("init", str(data), "--bucket", "team", *options, "-o", "json")
    spec = json.loads(answer.stdout)["fineTuneJob"]["spec"]
    assert (spec["model"]["uri"], spec["task"]) == ("hf://a/b", "multi-label")
    assert spec["dataset"]["preprocessing"] == {"maxLength": 64}
    assert spec["output"]["endpoint"] == "http://s3:8333"


def test_init_asks_for_a_bucket_since_no_file_says_it(data: Path) -> None:
    answer = luthier("init", str(data))
    assert (answer.exit_code, answer.stdout) == (ExitCode.INVALID, "")
    assert "give --bucket" in answer.stderr


def test_a_local_manifest_becomes_a_run_document_without_the_cluster(data: Path) -> None:
    job = next(yaml.safe_load_all(luthier("init", str(data), "--local").stdout))
    document = local_run.run_document(job["spec"], "file:///tmp/elsewhere")
    again = RunDocument.from_json(document.to_json())
    assert again.spec.dataset.train.uri == data.as_uri()
    assert again.spec.output.uri == "file:///tmp/elsewhere"
    assert again.origin is None and again.output_access.credentials is None


def test_a_run_reads_inputs_as_the_cluster_does_and_the_user_s_endpoint_goes_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = yaml.safe_load((REPOSITORY / "examples" / "sentiment" / "finetunejob.yaml").read_text())["spec"]
    inside = local_run.run_document(spec)
    assert inside.model_access.endpoint == inside.output_access.endpoint == spec["output"]["endpoint"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8333")
    assert local_run.run_document(spec).dataset_access.endpoint == "http://127.0.0.1:8333"
    spec["model"] = {"uri": "hf://a/b", "secretRef": {"name": "hub"}}
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert local_run.run_document(spec).model_access.endpoint is None


def test_run_without_the_trainer_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "reviews.yaml"
    luthier("init", str(data), "--local", "-w", str(manifest))
    monkeypatch.setattr(local_run, "TRAINER", "luthier_trainer_that_is_not_there")
    monkeypatch.setattr(local_run, "is_installed", lambda: False)
    answer = luthier("run", str(manifest))
    assert answer.exit_code == ExitCode.FAILED
    assert "pip install" in answer.stderr


def test_a_trainer_that_is_not_installed_is_seen() -> None:
    assert local_run.is_installed("luthier_trainer")
    assert not local_run.is_installed("luthier_trainer_that_is_not_there")


MANIFEST = """\
apiVersion: luthier.dev/v1alpha1
kind: ModelDeployment
metadata: {name: reviews}
spec:
  model:
    fineTuneJobRef: # production
      name: reviews
"""


def test_pin_edits_one_line_and_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text(MANIFEST)
    dry = luthier("pin", str(path), "--version", "v7", "--dry-run")
    assert "+      version: v7" in dry.stdout
    assert path.read_text() == MANIFEST
    assert luthier("pin", str(path), "--version", "v7").exit_code == 0
    assert path.read_text() == MANIFEST + "      version: v7\n"
    assert "serves v7 already" in luthier("pin", str(path), "--version", "v7").stdout


def test_pin_reads_the_digest_of_a_version_from_storage(tmp_path: Path) -> None:
    from luthier_artifacts import Metadata, open_registry

    files = tmp_path / "files"
    files.mkdir()
    (files / "config.json").write_text("{}")
    published = open_registry(f"file://{tmp_path}/store", "reviews").publish(files, "0a1b2c3d", Metadata())
    path = tmp_path / "deployment.yaml"
    path.write_text(MANIFEST.replace("fineTuneJobRef: # production\n      name: reviews", "uri: s3://old/versions/x"))
    answer = luthier("pin", str(path), "--uri", published.uri)
    assert answer.exit_code == 0, answer.stderr
    model = yaml.safe_load(path.read_text())["spec"]["model"]
    assert model == {"uri": published.uri, "digest": published.digest}


def test_lineage_of_a_version_by_its_uri_needs_no_cluster(tmp_path: Path) -> None:
    from luthier_artifacts import Lineage, Metadata, open_registry

    files = tmp_path / "files"
    files.mkdir()
    (files / "config.json").write_text("{}")
    metadata = Metadata(metrics={"eval_f1": 0.9}, lineage=Lineage(base_model_uri="hf://a/b"))
    published = open_registry(f"file://{tmp_path}/store", "reviews").publish(files, "0a1b2c3d", metadata)
    assert "base model  hf://a/b" in luthier("lineage", published.uri).stdout
    document: dict[str, Any] = json.loads(luthier("lineage", published.uri, "-o", "json").stdout)
    assert document["lineage"]["baseModelUri"] == "hf://a/b"
    gone = luthier("lineage", published.uri.replace(published.version, "20200101-000000-00000000"))
    assert gone.exit_code == ExitCode.NOT_FOUND


def test_the_program_names_itself_as_it_was_called(tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-luthier"
    plugin.write_text(f"#!{sys.executable}\nfrom luthier.__main__ import main\nmain()\n")
    plugin.chmod(0o755)
    said = subprocess.run([str(plugin), "--help"], capture_output=True, text=True, check=True).stdout
    assert "kubectl luthier" in said
    assert "Usage: luthier" in subprocess.run(
        [sys.executable, "-m", "luthier", "--help"], capture_output=True, text=True, check=True
    ).stdout.replace("python -m ", "")


def test_completion_can_be_shown_for_a_shell() -> None:
    environment = {"_LUTHIER_COMPLETE": "source_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "luthier"], env=environment, capture_output=True, text=True, check=False
    )
    assert "_LUTHIER_COMPLETE=complete_bash" in done.stdout


@pytest.fixture
def published(tmp_path: Path) -> PublishedVersion:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return open_registry(f"file://{tmp_path}/store", "reviews").publish(tmp_path / "model", "ab" * 32, Metadata())


def test_a_version_is_signed_by_its_uri_with_a_key_that_may_have_a_password(
    published: PublishedVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, key = KeyPair(password=b"secret"), tmp_path / "private.pem"
    key.write_bytes(pair.private)
    answer = luthier("sign", published.uri, "--key", str(key))
    assert (answer.exit_code, answer.stdout) == (ExitCode.INVALID, "")
    assert answer.stderr == "luthier: The private key is encrypted, and no password was given.\n"
    with pytest.raises(SignatureError):
        download_version(published.uri, tmp_path / "into", trusted_keys=pair.public)
    monkeypatch.setenv("LUTHIER_SIGNING_PASSWORD", "secret")
    answer = luthier("sign", published.uri, "--key", str(key), "-o", "json")
    assert json.loads(answer.stdout) == {
        "version": published.version, "uri": published.uri, "digest": published.digest
    }  # fmt: skip
    download_version(published.uri, tmp_path / "into", trusted_keys=pair.public)


def test_a_key_that_is_not_there_is_said_before_anything_is_asked(published: PublishedVersion) -> None:
    answer = luthier("sign", published.uri, "--key", "none.pem")
    assert answer.exit_code == ExitCode.NOT_FOUND
    assert answer.stderr == "luthier: The key none.pem cannot be read: No such file or directory.\n"
