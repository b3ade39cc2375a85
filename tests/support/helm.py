"""What helm renders of the chart, as objects."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from luthier_dev import binaries, versions
from luthier_dev.charts import CHART
from luthier_dev.errors import CommandFailed

Raw = dict[str, Any]
MONITORING = ("ServiceMonitor", "PodMonitor", "PrometheusRule")


def render(
    values: Mapping[str, Any] | None = None,
    *,
    crds: bool = False,
    kinds: Sequence[str] = (),
    release: str = "luthier",
    namespace: str = "luthier-system",
    hooks: bool = False,
) -> list[Raw]:
    """Return the objects of a release with these values.

    Args:
        values: over the chart's own.
        crds: whether the CRDs are among them, which take a second to parse.
        kinds: kinds of Prometheus' operator that the cluster has.
        release: its name.
        namespace: where it is installed.
        hooks: whether the test's objects are among them.

    Raises:
        CommandFailed: helm refuses the values; `tail` says why.
    """
    return list(
        _rendered(json.dumps({"crds": {"install": crds}, **(values or {})}), tuple(kinds), release, namespace, hooks)
    )


@functools.cache
def _rendered(values: str, kinds: tuple[str, ...], release: str, namespace: str, hooks: bool) -> tuple[Raw, ...]:
    if not binaries.is_built("helm"):  # otherwise it would wait for whoever builds another program
        binaries.ensure(["helm"])
    command = [str(binaries.path("helm")), "template", release, str(CHART), "--namespace", namespace]
    command += ["--kube-version", versions.KUBERNETES, "--values", "-", *([] if hooks else ["--no-hooks"])]
    command += [word for kind in kinds for word in ("--api-versions", f"monitoring.coreos.com/v1/{kind}")]
    result = subprocess.run(command, capture_output=True, text=True, input=values, check=False)
    if result.returncode != 0:
        raise CommandFailed(command, result.returncode, None, result.stderr.strip())
    return tuple(each for each in yaml.load_all(result.stdout, yaml.CSafeLoader) if each)


def only(objects: Sequence[Raw], kind: str, name: str = "") -> Raw:
    """Return the one object of this kind, and of this name if there are several."""
    (found,) = (each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"]))
    return found


def of_kind(objects: Sequence[Raw], kind: str) -> dict[str, Raw]:
    """Return the objects of a kind by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}
