"""What the contract says of where things lie is where the registry puts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier_api.training import Output
from luthier_artifacts import Registry, open_store

pytestmark = pytest.mark.unit

RUN_KEY = "a" * 64


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_checkpoint_lies_where_the_status_says(tmp_path: Path, slash: str) -> None:
    output = Output(name="sentiment", uri=f"file://{tmp_path}/models{slash}")
    made = tmp_path / "made"
    made.mkdir()
    (made / "state.json").write_text("{}")
    Registry(open_store(output.uri), output.name).put_checkpoint(RUN_KEY, 75, made)
    folder = Path(output.checkpoint_uri(RUN_KEY, 75).removeprefix("file://"))
    assert (folder / "manifest.json").exists()
