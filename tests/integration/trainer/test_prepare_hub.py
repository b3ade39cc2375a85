"""*prepare* with a base model and a data set from a hub, which is played by a server on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import credential_env
from luthier_api.exitcodes import ExitCode
from support.trainer.hub import COMMIT, serving

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]


def test_a_hubs_revision_is_resolved_to_its_commit(
    bench: Any, document: dict[str, Any], tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(credential_env("model")["HF_TOKEN"], "hf_secret")
    with serving(**{"models/luthier/tiny": tiny_models("bert")}) as hub:
        document["modelAccess"] = {"endpoint": hub.endpoint, "credentials": "model"}
        from_storage = bench.run("prepare", document | {"modelAccess": {}}).result.prepared.resolved
        document["spec"]["model"] = {"uri": "hf://luthier/tiny", "revision": "main"}
        resolved = bench.prepared(document)["resolved"]
        document["spec"]["model"] = {"uri": "hf://luthier/other"}
        missing = bench.run("prepare", document)
    silent = bench.run("prepare", document)
    assert resolved == from_storage.to_wire() | {"modelRevision": COMMIT}
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert missing.code == ExitCode.INPUT_NOT_FOUND
    assert silent.code == ExitCode.STORAGE_UNAVAILABLE
    assert missing.message == "hf://luthier/other does not exist, or is private and HF_TOKEN gives no access to it."


def test_a_data_set_of_a_hub_is_the_same_run_as_its_file_in_storage(
    bench: Any, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_storage = bench.run("prepare", document).result.prepared.resolved
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "train.csv").write_bytes((tmp_path / "rows.csv").read_bytes())
    monkeypatch.setenv(credential_env("dataset")["HF_TOKEN"], "hf_data")
    with serving(**{"datasets/luthier/reviews": repository}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        document["spec"]["dataset"]["train"] = {"uri": "hf://datasets/luthier/reviews", "revision": "main"}
        document["datasetAccess"] = {"credentials": "dataset"}
        from_hub = bench.run("prepare", document).result.prepared.resolved
    assert from_hub == from_storage
    assert set(hub.tokens) == {"Bearer hf_data"}
