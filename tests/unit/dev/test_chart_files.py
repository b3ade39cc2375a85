"""Files that are made of others: anchors for alerts to link to, and Argo CD's settings."""

from __future__ import annotations

import re

import pytest
import yaml

from luthier_api.reasons import Reason
from luthier_dev.chart_files import ARGOCD, TROUBLESHOOTING, argocd_settings, with_anchors
from luthier_dev.paths import REPOSITORY

pytestmark = pytest.mark.unit

# What is no trouble: of a run that goes on, and of Events.
FINE = {
    Reason.PREPARING, Reason.PREPARED_WITH_WARNINGS, Reason.TRAINING, Reason.PUBLISHED, Reason.REUSED, Reason.REPLACED,
    Reason.ADMITTED, Reason.PRUNED, Reason.REMOVED, Reason.ADOPTED, Reason.DEPLOYING, Reason.ROLLING_OUT,
    Reason.SERVING, Reason.PREDICTING, Reason.PREDICTED, Reason.WITHIN_LIMIT, Reason.TOO_FEW_REQUESTS,
    Reason.EXPOSED,
}  # fmt: skip


def test_an_alert_finds_the_row_of_each_reason_that_is_trouble() -> None:
    page = TROUBLESHOOTING.read_text()
    missing = [reason for reason in Reason if reason not in FINE and f'<a id="{reason.lower()}"></a>' not in page]
    assert not missing, f"give each a row in docs/troubleshooting.md, then run `make generate`: {missing}"
    anchors = re.findall(r'<a id="([^"]+)">', page)
    assert len(anchors) == len(set(anchors))


def test_anchors_are_put_before_the_reasons_of_a_row_and_only_once() -> None:
    page = "| You see | It means |\n| --- | --- |\n| `InvalidData`, `InvalidSpec` | x `Stuck` |\n"
    page += "| Event `OtherRelease` | y |\n| `in body` when you apply | z |\n| A rollout stays in `Loading` | w |\n"
    marked = with_anchors(page)
    assert marked.splitlines()[2:] == [
        '| <a id="invaliddata"></a><a id="invalidspec"></a>`InvalidData`, `InvalidSpec` | x `Stuck` |',
        '| <a id="otherrelease"></a>Event `OtherRelease` | y |',
        "| `in body` when you apply | z |",
        "| A rollout stays in `Loading` | w |",
    ]
    assert with_anchors(marked) == marked


def test_argo_cds_settings_hold_the_scripts_as_they_lie_in_the_folders() -> None:
    settings = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text())["data"]
    assert settings == argocd_settings()
    assert yaml.safe_load((ARGOCD / "argocd-values.yaml").read_text()) == {"configs": {"cm": settings}}
    for kind in ("FineTuneJob", "ModelDeployment", "BatchPrediction"):
        folder = ARGOCD / "luthier.dev" / kind
        assert settings[f"resource.customizations.health.luthier.dev_{kind}"] == (folder / "health.lua").read_text()
        actions = yaml.safe_load(settings[f"resource.customizations.actions.luthier.dev_{kind}"])
        assert actions["discovery.lua"] == (folder / "actions" / "discovery.lua").read_text()
        scripts = {each["name"]: each["action.lua"] for each in actions["definitions"]}
        assert scripts == {path.parent.name: path.read_text() for path in folder.glob("actions/*/action.lua")}


def test_the_documentation_shows_the_patch_that_exists() -> None:
    page = (REPOSITORY / "docs" / "gitops.md").read_text()
    (path,) = set(re.findall(r"--patch-file (\S+)", page))
    assert (REPOSITORY / path).exists()
