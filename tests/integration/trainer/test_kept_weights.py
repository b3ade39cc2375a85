"""Another export or gate is made of the weights that a version has, without training; see `publish.kept_weights`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier_api.exitcodes import ExitCode
from luthier_trainer.export import exporter
from luthier_trainer.runtime.errors import ExportFailed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

GATE = {"metric": "eval_accuracy", "operator": "GTE", "threshold": "0.01"}


def changed(document: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"outputAccess": document["outputAccess"], "spec": document["spec"] | spec}


def trained(bench: Any, document: dict[str, Any], **spec: Any) -> Any:
    found = bench.run("run", changed(document, export=["safetensors"], **spec))
    assert found.code == 0, found.log
    return found.result.published


def files(bench: Any, version: str) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in bench.registry.get_manifest(version).files}


def download(bench: Any, version: str) -> Path:
    folder: Path = bench.folder / version
    bench.registry.download(version, folder)
    return folder


@pytest.mark.parametrize("method", [{"type": "Full"}, {"type": "LoRA", "lora": {"r": 4}}], ids=["Full", "LoRA"])
def test_another_export_and_gate_have_the_same_weights_history_and_metrics_without_a_step(
    bench: Any, document: dict[str, Any], method: dict[str, Any]
) -> None:
    document = changed(document, method=method, tracking={"tensorboard": True})
    first = trained(bench, document, evaluation={"gates": [GATE | {"threshold": "2"}]})
    assert not first.promotable
    other = changed(document, export=["safetensors", "onnx"], evaluation={"gates": [GATE]})
    prepared = bench.run("prepare", other)
    assert prepared.result.prepared.resolved.weights_version == first.version, prepared.log
    ended = bench.run("train", other | {"resolved": prepared.result.prepared.resolved.to_wire()})
    assert ended.code == 0, ended.log
    second = ended.result.published
    assert f"using the weights of version {first.version}; nothing is trained" in ended.log
    assert " step 1/" not in ended.log
    assert (second.promotable, second.reused, second.version != first.version) == (True, False, True)

    was, now = files(bench, first.version), files(bench, second.version)
    same = [path for path in was if path.endswith(".safetensors") or path.startswith(("adapter/", "tokenizer"))]
    assert same and {path: now[path] for path in same} == {path: was[path] for path in same}
    assert "model.onnx" in now and "model.onnx" not in was
    old, new = (json.loads((download(bench, each.version) / "metrics.json").read_text()) for each in (first, second))
    assert {**new["metrics"]} == pytest.approx(old["metrics"], abs=1e-6)
    assert (new["steps"], new["bestStep"], new["labels"]) == (old["steps"], old["bestStep"], old["labels"])
    assert (bench.folder / first.version / "log.jsonl").read_text() == (
        bench.folder / second.version / "log.jsonl"
    ).read_text()
    environments = [bench.registry.get_manifest(each.version).lineage.environment for each in (first, second)]
    assert environments[0] == environments[1]


def test_the_run_command_makes_another_export_of_kept_weights_at_once(bench: Any, document: dict[str, Any]) -> None:
    first = trained(bench, document)
    ended = bench.run("run", changed(document, export=["safetensors", "onnx"]))
    assert ended.code == 0 and f"using the weights of version {first.version}" in ended.log


def test_weights_are_trained_again_when_their_version_is_gone_and_a_run_under_way_begins_again(
    bench: Any, document: dict[str, Any]
) -> None:
    first = trained(bench, document)
    other = changed(document, evaluation={"gates": [GATE]})
    prepared = bench.run("prepare", other).result.prepared.resolved
    assert prepared.weights_version == first.version
    bench.registry.delete_version(first.version)
    ended = bench.run("train", other | {"resolved": prepared.to_wire()})
    assert ended.code == ExitCode.PREPARE_AGAIN
    assert ended.message == (f"The version {first.version}, whose weights were to be used, is gone: run prepare again.")
    assert bench.run("prepare", other).result.prepared.resolved.weights_version is None


def test_an_export_that_fails_after_training_keeps_the_weights_for_the_same_spec_with_and_without_it(
    bench: Any, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(model: Any, path: Path, *_: Any, **__: Any) -> None:
        path.write_bytes(b"half a model")
        raise ExportFailed("The model cannot be written as ONNX.")

    both = changed(document, export=["safetensors", "onnx"])
    with monkeypatch.context() as patched:
        patched.setattr(exporter, "export_onnx", fails)
        failed = bench.run("run", both)
    assert failed.code == ExitCode.EXPORT_FAILED
    (version,) = bench.registry.list_versions()
    assert failed.message == (
        f"The model cannot be written as ONNX. The trained weights are version {version}, which answers the same spec "
        "with export: [safetensors]; they are not trained again."
    )
    assert not [path for path in files(bench, version) if "onnx" in path]
    alone = bench.run("prepare", changed(document, export=["safetensors"])).result.published
    assert (alone.version, alone.reused) == (version, True)
    again = bench.run("prepare", both).result.prepared.resolved
    assert again.weights_version == version


def test_a_record_that_names_a_version_of_other_weights_is_not_believed(bench: Any, document: dict[str, Any]) -> None:
    first = trained(bench, document)
    hyperparameters = document["spec"]["hyperparameters"] | {"seed": 7}
    other = changed(document, hyperparameters=hyperparameters)
    resolved = bench.run("prepare", other).result.prepared.resolved
    assert resolved.weights_version is None
    bench.registry.record_weights(resolved.weights_key, first.version)
    assert bench.run("prepare", other).result.prepared.resolved.weights_version is None
    forged = resolved.model_copy(update={"weights_version": first.version})
    ended = bench.run("train", other | {"resolved": forged.to_wire()})
    assert ended.code == ExitCode.INTEGRITY_ERROR and "not the weights of this run" in ended.message
