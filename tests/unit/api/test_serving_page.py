"""The page about serving says of `rollout` what the resource accepts, and names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from luthier_api.modeldeployment import Analysis, Rollout, RolloutMirror, RolloutStep, Sticky
from luthier_api.observe import Drift, Observe, RequestLog, Tracing
from luthier_api.storage import CaBundle, SecretRef

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "serving.md").read_text()
MODELS: tuple[type[BaseModel], ...] = (Rollout, RolloutStep, RolloutMirror, Sticky, Analysis)


def rollouts() -> list[Any]:
    block = re.search(r"```yaml\n(rollout:.*?)```", PAGE, re.DOTALL)
    assert block
    example = yaml.safe_load((ROOT / "examples" / "canary" / "modeldeployment.yaml").read_text())
    return [yaml.safe_load(block[1])["rollout"], example["spec"]["rollout"]]


def names(node: Any) -> set[str]:
    if isinstance(node, list):
        return {name for each in node for name in names(each)}
    return set(node) | {name for each in node.values() for name in names(each)} if isinstance(node, dict) else set()


@pytest.mark.parametrize("rollout", rollouts(), ids=["page", "example"])
def test_a_rollout_with_every_field_is_shown_and_is_accepted(rollout: Any) -> None:
    Rollout.model_validate(rollout, extra="forbid")
    fields = {field.alias or name for model in MODELS for name, field in model.model_fields.items()}
    assert names(rollout) == fields


def test_all_that_may_be_observed_is_shown_and_is_accepted() -> None:
    block = re.search(r"```yaml\n(observe:.*?)```", PAGE, re.DOTALL)
    assert block
    shown = yaml.safe_load(block[1])["observe"]
    Observe.model_validate(shown, extra="forbid")
    models: tuple[type[BaseModel], ...] = (Observe, Drift, RequestLog, Tracing, SecretRef, CaBundle)
    assert names(shown) == {field.alias or name for model in models for name, field in model.model_fields.items()}


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", PAGE))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in sources} == set()
