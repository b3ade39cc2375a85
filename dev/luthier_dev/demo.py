"""The demo, step by step: train, publish, serve, ask, edit, roll out, revert.

Owns the order of the demo and what it prints. Setting the machine up is the work of `setup`; every step here is one
that a user would do, with kubectl and with HTTP.
"""

from __future__ import annotations

import csv
import difflib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from luthier_dev import addons, samples, steps
from luthier_dev.addons import S3
from luthier_dev.cluster import Cluster
from luthier_dev.errors import DevError
from luthier_dev.paths import REPOSITORY, layout
from luthier_dev.setup import make_namespace, set_up
from luthier_dev.traffic import VERSION_HEADER, Trickle
from luthier_dev.waiting import wait_until
from luthier_dev.watching import Watched, describe_serving, describe_training

NAMESPACE = "luthier-demo"
EXAMPLE = REPOSITORY / "examples" / "sentiment"
NAME = "sentiment"
EDIT = ('learningRate: "2e-4"', 'learningRate: "1e-4"')
TRAINING_S = 900.0
SERVING_S = 600.0
TEXTS = 6
QUESTION = "The battery died after two days and nobody answers my mails."


@dataclass(frozen=True)
class Scene:
    """The cluster that the demo runs on."""

    cluster: Cluster
    storage: S3
    eval_csv: Path

    @property
    def job(self) -> Watched:
        """The FineTuneJob."""
        return Watched(self.cluster.kubectl, NAMESPACE, "finetunejob", NAME)

    @property
    def deployment(self) -> Watched:
        """The ModelDeployment."""
        return Watched(self.cluster.kubectl, NAMESPACE, "modeldeployment", NAME)

    def apply(self, text: str) -> None:
        """Apply a manifest as a user would."""
        self.cluster.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=text)

    def show(self) -> None:
        """Print what `kubectl get` shows."""
        steps.say("$ kubectl get ftj,mdep")
        for line in self.cluster.kubectl("get", "ftj,mdep", "-n", NAMESPACE).splitlines():
            steps.say(f"  {line}")

    def jobs(self) -> set[str]:
        """Return the uids of all Jobs, so that a new Job is recognised even under an old name."""
        return set(
            self.cluster.kubectl("get", "jobs", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.uid}").split()
        )


def run() -> None:
    """Run the whole demo.

    Raises:
        DevError: a step failed; the step has printed why.
    """
    started = time.monotonic()
    scene = _set_scene()
    original = (EXAMPLE / "finetunejob.yaml").read_text()
    edited = original.replace(*EDIT)
    first = _train_and_serve(scene, original)
    with scene.cluster.url_for_service(NAMESPACE, f"{NAME}-serve-svc", 8000) as url:
        _ask(url, scene.eval_csv)
        second = _edit(scene, url, original, edited)
        _revert(scene, url, original, first, second)
        _finish(scene, url, first, time.monotonic() - started)


def _set_scene() -> Scene:
    """Bring up what the demo needs: a cluster with Luthier, and real weights and reviews in S3."""
    cluster, storage = set_up()
    with steps.step("Upload the base model and the labelled reviews to S3", usually_s=10):
        model, reviews = samples.base_model(), samples.reviews_csv()
        with addons.s3_url(cluster) as url:
            client = addons.s3_client(url, storage.admin)
            for file in sorted(model.iterdir()):
                client.upload_file(str(file), "models", f"base/minilm-l6/{file.name}")
            client.upload_file(str(reviews.train), "data", "reviews/train.csv")
            client.upload_file(str(reviews.eval), "data", "reviews/eval.csv")
    make_namespace(cluster, storage, NAMESPACE)
    return Scene(cluster, storage, reviews.eval)


def _train_and_serve(scene: Scene, manifest: str) -> dict[str, Any]:
    """Apply both resources; return the artifact once it is trained and served."""
    with steps.step("kubectl apply -f examples/sentiment/"):
        scene.apply(manifest)
        scene.apply((EXAMPLE / "modeldeployment.yaml").read_text())
    with steps.step("Train the first version: prepare, fine-tune, evaluate, export, publish", usually_s=70):
        job = scene.job.wait_until_ready(TRAINING_S, describe_training)
    artifact: dict[str, Any] = job["status"]["artifact"]
    _print_quality(artifact)
    with steps.step("Serve it: a Ray cluster, and the server with the first version", usually_s=25):
        scene.deployment.wait_until_ready(SERVING_S, describe_serving)
    scene.show()
    return artifact


def _print_quality(artifact: dict[str, Any]) -> None:
    metrics = artifact["metrics"]
    steps.say(f"version {artifact['version']}, {int(artifact['sizeBytes']) / 1e6:.0f} MB, {artifact['digest'][:19]}…")
    steps.say(
        f"accuracy on held-out reviews {metrics['eval_accuracy']}; before fine-tuning {metrics['untrained_accuracy']}; "
        f"always predicting the majority class {metrics['baseline_majority_accuracy']}"
    )


def _ask(url: str, eval_csv: Path) -> None:
    """Send held-out reviews, the same number of each label, and print each prediction beside the human label."""
    with eval_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [
        row for label in ("negative", "positive") for row in [r for r in rows if r["label"] == label][: TEXTS // 2]
    ]
    with steps.step(f"POST /predict with {len(chosen)} held-out reviews"):
        answer = httpx.post(
            f"{url}/predict", json={"texts": [row["text"] for row in chosen]}, timeout=30, trust_env=False
        )
        answer.raise_for_status()
    for row, prediction in zip(chosen, answer.json()["predictions"], strict=True):
        mark = "✓" if prediction["prediction"] == row["label"] else "✗"
        answered = f"{prediction['prediction']:8} {prediction['confidence']:.2f}"
        steps.say(f"  {mark} {answered}  people: {row['label']:8}  {row['text'][:90]}")


def _edit(scene: Scene, url: str, original: str, edited: str) -> str:
    """Apply an edited spec while requests go on; return the second version."""
    steps.say("")
    steps.say("Now edit the spec, as a commit would:")
    for line in difflib.unified_diff(original.splitlines(), edited.splitlines(), n=0, lineterm=""):
        if line[:1] in "+-" and line[:3] not in ("+++", "---"):
            steps.say(f"  {line}")
    with Trickle(url, QUESTION) as trickle:
        with steps.step("Train the second version, while the first one serves", usually_s=60):
            scene.apply(edited)
            job = scene.job.wait_until_ready(TRAINING_S, describe_training)
        second: str = job["status"]["artifact"]["version"]
        with steps.step("Roll the second version out", usually_s=6):
            _wait_for_version(scene, url, second)
    answers = trickle.answers
    shown = ", ".join(f"{count} by {version}" for version, count in sorted(answers.by_version.items()))
    steps.say(
        f"requests during the rollout: {answers.total} ({shown}), {len(answers.failures)} failed, "
        f"slowest {answers.slowest_s:.2f} s"
    )
    for failure in answers.failures[:3]:
        steps.say(f"  failed: {failure}")
    return second


def _revert(scene: Scene, url: str, original: str, first: dict[str, Any], second: str) -> None:
    """Apply the original again and time how soon the first version answers."""
    steps.say("")
    steps.say("Now revert the edit:")
    before = scene.jobs()
    started = time.monotonic()
    with steps.step(f"Serve {first['version']} again", usually_s=3):
        scene.apply(original)
        _wait_for_version(scene, url, first["version"])
    took = time.monotonic() - started
    new = scene.jobs() - before
    steps.say(f"{second} -> {first['version']} in {took:.1f} s from apply to answer; new Jobs: {len(new)}")
    if new:
        raise DevError("Reverting the edit started a new Job. It should not; see `kubectl describe ftj sentiment`.")
    scene.deployment.wait_until_ready(SERVING_S, describe_serving)


def _wait_for_version(scene: Scene, url: str, version: str) -> None:
    """Wait until this version answers at the URL."""

    def missing() -> str | None:
        answer = httpx.post(f"{url}/predict", json={"text": QUESTION}, timeout=30, trust_env=False)
        found = answer.headers.get(VERSION_HEADER, f"status {answer.status_code}")
        if (step := steps.PROGRESS.current()) is not None:
            step.note(describe_serving(scene.deployment.read().get("status", {})))
        return None if found == version else f"{found} answers"

    wait_until(missing, f"version {version} at {url}", SERVING_S, interval_s=0.25)


def _finish(scene: Scene, url: str, artifact: dict[str, Any], seconds: float) -> None:
    """Fetch the report, and print what runs, how to look at it, and how to remove it."""
    report = _fetch_report(scene, artifact)
    steps.say("")
    scene.show()
    steps.PROGRESS.console.print()
    steps.PROGRESS.console.print(steps.PROGRESS.table())
    steps.PROGRESS.save(layout().home / "demo" / "timings.json")
    for line in (
        "",
        f"Done in {seconds:.0f} s. It is still running:",
        f"  export KUBECONFIG={scene.cluster.kubeconfig}",
        f"  alias kubectl={layout().bin / 'kubectl'}",
        f"  kubectl get ftj,mdep,jobs,rayservices,pods -n {NAMESPACE}",
        f"  kubectl describe ftj {NAME} -n {NAMESPACE}",
        *scene.cluster.how_to_open(NAMESPACE, f"{NAME}-serve-svc", 8000),
        f"  curl -s {url}/predict -H 'content-type: application/json' -d '{{\"text\": \"Works perfectly.\"}}'",
        f"The first version's report: {report}",
        "To remove everything: make clean",
    ):
        steps.say(line)


def _fetch_report(scene: Scene, artifact: dict[str, Any]) -> Path:
    """Copy the version's report out of S3."""
    bucket, _, prefix = artifact["uri"].removeprefix("s3://").partition("/")
    report = layout().make(layout().home / "demo") / f"report-{artifact['version']}.html"
    with addons.s3_url(scene.cluster) as url:
        addons.s3_client(url, scene.storage.admin).download_file(bucket, f"{prefix}/report.html", str(report))
    return report
