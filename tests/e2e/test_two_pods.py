"""A FineTuneJob on two nodes: its pods learn together what one process learns, and start over together."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import Access, Result, RunDocument, credential_env, read_result
from luthier_api.training import TrainingSpec
from luthier_artifacts import StorageConfig, open_registry
from luthier_dev import samples
from luthier_dev.waiting import wait_until
from support.e2e.stories import Site, Training, apply, finetunejob, upload

pytestmark = pytest.mark.e2e

NAME = "two-pods"
BASE = "base/minilm-l6-without-dropout"
DECIDING = {
    "model": {"uri": f"s3://models/{BASE}"},
    "checkpoint": {"everySteps": 4},
    "trainingArguments": {"logging_steps": "1"},
    "export": ["safetensors"],
}


@pytest.fixture
def credentials(site: Site) -> dict[str, str]:
    """The admin's keys, by the names that the trainer and its registry read."""
    names = credential_env("output")
    admin = site.storage.admin
    return {names["AWS_ACCESS_KEY_ID"]: admin.access_key, names["AWS_SECRET_ACCESS_KEY"]: admin.secret_key}


def upload_base_without_dropout(site: Site) -> None:
    """The same base model; dropout is random in each process by itself, so it would tell one from two."""
    for file in sorted(samples.base_model().iterdir()):
        site.s3.upload_file(str(file), "models", f"{BASE}/{file.name}")
    config = json.loads((samples.base_model() / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    site.s3.put_object(Bucket="models", Key=f"{BASE}/config.json", Body=json.dumps(config).encode())


def access(site: Site) -> Access:
    return Access(endpoint=site.storage_url, credentials="output")


def run_here(command: str, run: RunDocument, folder: Path, credentials: dict[str, str]) -> Result:
    """Run the trainer on this machine."""
    folder.mkdir()
    (folder / "run.json").write_text(run.to_json())
    argv = [sys.executable, "-m", "luthier_trainer", command, str(folder / "run.json")]
    done = subprocess.run(argv, env=os.environ | credentials, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return read_result(done.stdout)


def train_here(site: Site, spec: dict[str, Any], folder: Path, credentials: dict[str, str]) -> None:
    """Prepare and train in one process of this machine, to the same bucket."""
    fields = {field.alias or name for name, field in TrainingSpec.model_fields.items()}
    deciding = {name: value for name, value in spec.items() if name in fields}
    run = RunDocument(spec=TrainingSpec.model_validate(deciding), output_access=access(site))
    found = run_here("prepare", run, folder / "prepare", credentials).prepared
    assert found
    run_here("train", run.model_copy(update={"resolved": found.resolved}), folder / "train", credentials)


def losses(site: Site, spec: dict[str, Any], folder: Path, credentials: dict[str, str]) -> dict[int, float]:
    """Download the one version of a run, verified, and return {step: loss}."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in credentials.items():
            patch.setenv(name, value)
        output = spec["output"]
        registry = open_registry(output["uri"], output["name"], StorageConfig.from_access(access(site)))
        (version,) = registry.list_versions()
        registry.download(version, folder)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}


def test_two_pods_learn_what_one_process_learns(
    site: Site, namespace: str, tmp_path: Path, credentials: dict[str, str]
) -> None:
    upload(site)
    upload_base_without_dropout(site)
    together, alone = (f"e2e-{secrets.token_hex(4)}" for _ in range(2))
    document = finetunejob(site, NAME, together, numNodes=2, **DECIDING)
    apply(site, namespace, document)
    run = Training(site, namespace, NAME, together)
    run.until_published()
    ended = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in run.items("pods")]
    first, second = (read_result(state["message"]).published for state in ended)
    assert first and first == second
    assert len(run.checkpoints()) == 0

    one = finetunejob(site, NAME, alone, **DECIDING)["spec"]
    train_here(site, one, tmp_path, credentials)
    here = losses(site, one, tmp_path / "one", credentials)
    there = losses(site, document["spec"], tmp_path / "two", credentials)
    assert len(here) >= 6 and here.keys() == there.keys()
    assert max(abs(here[step] - there[step]) for step in here) < 1e-4
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_losing_one_of_two_pods_starts_both_over_from_the_checkpoint(site: Site, namespace: str) -> None:
    upload(site)
    run = Training(site, namespace, NAME, f"e2e-{secrets.token_hex(4)}")
    document = finetunejob(
        site, NAME, run.folder, numNodes=2, checkpoint={"everySteps": 100_000}, export=["safetensors"]
    )
    document["spec"]["hyperparameters"]["epochs"] = 12
    apply(site, namespace, document)
    run.until_step(4)
    before = {pod["metadata"]["uid"] for pod in run.items("pods")}
    assert len(before) == 2 and run.checkpoints() == []
    second = next(pod for pod in run.items("pods") if index_of(pod) == "1")
    site.kubectl("delete", "pod", second["metadata"]["name"], "--namespace", namespace, "--wait=false")

    def missing() -> str | None:
        after = {pod["metadata"]["uid"] for pod in run.items("pods") if pod["status"]["phase"] == "Running"}
        return None if len(after) == 2 and not after & before else f"{len(after - before)} of 2 new pods run"

    wait_until(missing, "both pods to be started over", 300, interval_s=0.5)
    (checkpoint,) = run.checkpoints()
    assert run.until_resumed(4) == checkpoint
    attempts = run.status.attempts
    assert attempts and (attempts.failed, attempts.preempted) == (0, 1), "a pod that was asked to stop is no failure"
    run.until_published()


def index_of(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
