"""Drift from end to end with a small real model: trained by the trainer, asked through the server's predictor, judged
by the operator. The same kind of texts is no alarm; another topic and another language are."""

from __future__ import annotations

import csv
import itertools
import json
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luthier_api.artifact_files import REFERENCE_FILE
from luthier_api.documents import DriftReport, Published, Result, ServerReport, compare_profiles
from luthier_api.observe import Drift
from luthier_dev import samples
from luthier_operator.manifests.rayservice import Application
from luthier_operator.plan.modeldeployment.drift import Verdict, judge
from luthier_serving.answers import Answer, Text
from luthier_serving.compute.model import Model, open_model
from luthier_serving.observe.drift import DriftWindows
from luthier_serving.observe.observer import Observer
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.predictor import Predictor
from support.serving.doubles import config, targets
from support.trainer.models import read_reviews, tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SPANISH = [
    "El aparato llegó roto y nadie contesta.", "Funciona muy bien y la batería dura todo el día.",
    "No lo compraría otra vez por este precio.", "La pantalla es clara y los colores son preciosos.",
    "Después de dos semanas dejó de encenderse.", "Mi hija está encantada con el regalo.",
    "Las instrucciones no se entienden.", "Lo recomiendo a cualquiera que viaje mucho.",
    "El envío tardó casi un mes.", "La calidad del sonido me sorprendió gratamente.",
]  # fmt: skip
RUSSIAN = [
    "Пришло вовремя и работает отлично.", "Через неделю сломалась кнопка включения.", "Очень доволен покупкой.",
    "Экран тусклый, а звук хриплый.", "Не стоит своих денег.", "Подарил маме, она в восторге.",
]  # fmt: skip
REQUESTS = 400
TRAINED_ON = 700


def pairs_of(sentences: list[str]) -> list[str]:
    """Return texts of two sentences each, in every order."""
    return [f"{one} {other}" for one, other in itertools.product(sentences, repeat=2)]


@dataclass(frozen=True)
class Served:
    """A version of the trainer's, as a server opens it."""

    model: Model
    folder: Path

    async def send(self, texts: list[Text]) -> Answer:
        return Answer(self.model.predict(texts), self.model.info, "replica-1", self.model.work)

    async def report(self, texts: list[str]) -> ServerReport:
        """Answer texts as a replica does, and return what it says of them."""
        observer = Observer()
        observer.drift = DriftWindows(3600)
        predictor = Predictor(Counters(), lambda revision, texts: None, observer)
        predictor.configure(config(), targets(self.send, config(), local="rev-1"))
        for start in range(0, len(texts), 8):
            await predictor.predict(texts[start : start + 8])
        assert self.model.reference
        recent = observer.drift.profile("rev-1", self.model.reference.label_names)
        drift = {"rev-1": DriftReport(reference=self.model.reference, recent=recent)}
        return ServerReport(replica="replica-1", ready=True, drift=drift)


def train(folder: Path, base: Path, rows: Path) -> Published:
    from luthier_trainer.cli import main

    folder.mkdir()
    spec = {
        "model": {"uri": base.as_uri()},
        "dataset": {
            "train": {"uri": rows.as_uri()},
            "split": {"fraction": "0.3"},
            "preprocessing": {"maxLength": 32},
        },
        "hyperparameters": {"epochs": 2, "batchSize": 32, "learningRate": "5e-3"},
        "export": ["safetensors", "onnx"],
        "output": {"name": "reviews", "uri": (folder / "registry").as_uri()},
    }
    (folder / "run.json").write_text(json.dumps({"spec": spec}))
    log = folder / "termination-log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_TERMINATION_LOG", str(log))
        code = main(["run", str(folder / "run.json"), "--workspace", str(folder / "workspace"), "--port", "0"])
    result = Result.from_json(log.read_text())
    assert code == 0 and result.published, result
    return result.published


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("drift")
    reviews, base = read_reviews(), folder / "base"
    base.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers warn about their own insides
        tiny_model(base, "distilbert", [text for text, _ in reviews])
        rows = folder / "rows.csv"
        with rows.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *reviews[:TRAINED_ON]])
        version = train(folder / "run", base, rows)
        where = Path(version.uri.removeprefix("file://"))
        return Served(open_model(where, "onnxruntime", version=version.version), where)


def same_kind() -> list[str]:
    """Reviews of products that were never shown to the trainer."""
    with samples.reviews_csv().eval.open(newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


KINDS = {
    "the same kind: reviews of products": (same_kind, False),
    "another topic: editorials": (lambda: samples.rated_texts("nytEditorialSnippets"), True),
    "another language: Spanish": (lambda: pairs_of(SPANISH) * 4, True),
    "another alphabet: Russian": (lambda: pairs_of(RUSSIAN) * 12, True),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_kind_of_texts_is_no_alarm_and_another_topic_or_language_is(
    kind: str, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    make, alarm = KINDS[kind]
    texts = random.Random(7).sample(make(), REQUESTS)
    reports = [await served.report(texts[: REQUESTS // 2]), await served.report(texts[REQUESTS // 2 :])]
    verdict = verdict_of(reports)
    with capsys.disabled():
        show(kind, reports, verdict)
    assert verdict.drifting is alarm, verdict


def verdict_of(reports: list[ServerReport]) -> Verdict:
    return judge(Drift.model_validate({"minRequests": REQUESTS}), Application("rev-1", "v1", {}), reports)


def show(kind: str, reports: list[ServerReport], verdict: Verdict) -> None:
    one, other = (report.drift["rev-1"] for report in reports if report.drift)
    assert one.reference
    figures = compare_profiles(one.reference, one.recent.plus(other.recent))
    row = "  ".join(f"{feature} {psi:.3f} ({chance:.2f})" for feature, (psi, chance) in figures.items())
    print(f"\n{kind}: PSI (chance): {row}\n    {verdict.message}")


def test_the_reference_is_a_file_of_the_version_and_is_shown_in_its_report(served: Served) -> None:
    manifest = json.loads((served.folder / "manifest.json").read_text())
    assert REFERENCE_FILE in {entry["path"] for entry in manifest["files"]}
    assert "What drift is measured against" in (served.folder / "report.html").read_text()


def test_the_served_model_answers_the_evaluation_split_as_the_reference_says(served: Served) -> None:
    reference: Any = served.model.reference
    assert reference.label_names == ["negative", "positive"] and reference.unknown_token_id == 1
    profile = reference.profile
    assert (
        profile.texts == sum(profile.labels) == sum(profile.confidence) == sum(profile.tokens) == sum(profile.unknown)
    )
    assert min(profile.labels[:2]) > 0 and profile.labels[2] == 0
