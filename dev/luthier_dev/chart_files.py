"""Files that are made of others: the chart's README and dashboards, Argo CD's settings, anchors for alerts to link to.

`make generate` writes them, and `make lint` checks that they are up to date. The README is helm-docs' work.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from luthier_dev import binaries, steps
from luthier_dev.charts import CHART
from luthier_dev.dashboards import dashboards
from luthier_dev.errors import CommandFailed, DevError
from luthier_dev.paths import REPOSITORY

ARGOCD = CHART / "files" / "argocd"
TROUBLESHOOTING = REPOSITORY / "docs" / "troubleshooting.md"
_HEADER = "# Generated from the scripts beside it by `make generate`. Do not edit.\n"
_ROW = re.compile(r"^\| (?:<a id=\"[^\"]+\"></a>)*(?P<cell>(?:Condition |Event )?`[A-Z][A-Za-z]+`.*?)(?P<rest> \|.*)$")
_NAME = re.compile(r"`([A-Z][A-Za-z]+)`")


def generated() -> dict[Path, str]:
    """Return {path: text} of every file."""
    boards = {CHART / "files" / "dashboards" / f"{name}.json": _json(board) for name, board in dashboards().items()}
    settings = argocd_settings()
    return {
        **boards,
        ARGOCD / "argocd-cm.yaml": _HEADER + _yaml({"data": settings}),
        ARGOCD / "argocd-values.yaml": _HEADER + _yaml({"configs": {"cm": settings}}),
        TROUBLESHOOTING: with_anchors(TROUBLESHOOTING.read_text()),
        CHART / "README.md": _readme(),
    }


def write(*, check: bool) -> None:
    """Write the files that are not up to date; with `check` only name them.

    Raises:
        DevError: with `check`, if there are some.
    """
    stale = {path: text for path, text in generated().items() if not path.exists() or path.read_text() != text}
    names = ", ".join(str(path.relative_to(REPOSITORY)) for path in stale)
    if check and stale:
        raise DevError(f"Not up to date, run `make generate`: {names}")
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if stale:
        steps.say(f"wrote {names}")


def argocd_settings() -> dict[str, str]:
    """Return what Argo CD's ConfigMap needs for each kind: the health check, and the actions."""
    found: dict[str, str] = {}
    for folder in sorted(path.parent for path in ARGOCD.glob("*/*/health.lua")):
        name = f"{folder.parent.name}_{folder.name}"
        scripts = sorted(folder.glob("actions/*/action.lua"))
        actions = {
            "discovery.lua": (folder / "actions" / "discovery.lua").read_text(),
            "definitions": [{"name": path.parent.name, "action.lua": path.read_text()} for path in scripts],
        }
        found[f"resource.customizations.health.{name}"] = (folder / "health.lua").read_text()
        found[f"resource.customizations.actions.{name}"] = _yaml(actions)
    return found


def with_anchors(page: str) -> str:
    """Return a page with an anchor in the row of each reason that its table names: alerts link there."""
    return "\n".join(_with_anchors(line) for line in page.split("\n"))


def _with_anchors(line: str) -> str:
    row = _ROW.match(line)
    if row is None:
        return line
    anchors = "".join(f'<a id="{name.lower()}"></a>' for name in _NAME.findall(row["cell"]))
    return f"| {anchors}{row['cell']}{row['rest']}"


def _readme() -> str:
    """Return the chart's README, from README.md.gotmpl and the comments of values.yaml.

    Raises:
        CommandFailed: helm-docs found something wrong.
    """
    if not binaries.is_built("helm-docs"):  # otherwise it would wait for whoever builds another program
        binaries.ensure(["helm-docs"])
    command = [str(binaries.path("helm-docs")), "--dry-run", "--chart-search-root", str(CHART.parent)]
    command += ["--sort-values-order", "file", "--log-level", "warning"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHART.parent)
    if result.returncode != 0 or not result.stdout:
        raise CommandFailed(command, result.returncode, None, result.stderr.strip())
    return result.stdout.rstrip() + "\n"


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


class _Dumper(yaml.SafeDumper):
    """Writes scripts as blocks, so that they can be read."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _yaml(document: Any) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=200, allow_unicode=True)
