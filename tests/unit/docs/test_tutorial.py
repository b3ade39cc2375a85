"""The commands of the tutorial that need neither a cluster nor a training, run in order from the page."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from luthier_api.finetunejob import FineTuneJobSpec
from support.pages import marked_with
from support.shell import run

pytestmark = pytest.mark.unit

HERE = "tests/unit/docs/test_tutorial.py"
WORDS = "These headphones sound wonderful and the battery lasts all day long"


def test_the_blocks_of_the_tutorial_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "reader")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "reader@example.com")
    rows = [f"{WORDS} {number},{['negative', 'positive'][number % 2]}" for number in range(300)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    shown = marked_with(f"{HERE}::test_the_blocks_of_the_tutorial_run_one_after_the_other")
    assert len(shown) == 5
    for block in shown:
        run(block.text, tmp_path)
    job, deployment = yaml.safe_load_all((tmp_path / "reviews.yaml").read_text())
    spec = FineTuneJobSpec.model_validate(job["spec"])
    assert (spec.gpus_per_node, spec.hyperparameters.epochs) == (0, 3)
    assert deployment["spec"]["model"] == {"fineTuneJobRef": {"name": job["metadata"]["name"]}}
    local, _ = yaml.safe_load_all((tmp_path / "local.yaml").read_text())
    assert local["spec"]["output"]["uri"] == (tmp_path / "models").as_uri()
    log = run("git -C models log --format=%s -p", tmp_path)
    assert "+    epochs: 4" in log, "the edit changes the manifest"
    assert "Revert" in log.splitlines()[0]
    assert (tmp_path / "models" / "reviews.yaml").read_text() == (tmp_path / "reviews.yaml").read_text()
