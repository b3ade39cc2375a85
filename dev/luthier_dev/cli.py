"""The verbs of `python -m luthier_dev`, as the Makefile calls them.

Owns arguments, exit codes and what is printed at the end. The work is done elsewhere.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from luthier_dev import (
    addons,
    binaries,
    cleanup,
    controlplane,
    docs_site,
    images,
    inference_clients,
    licences,
    mlflow_server,
    model_signing,
    node,
    prerequisites,
    prometheus,
    release,
    steps,
)
from luthier_dev.errors import DevError
from luthier_dev.paths import REPOSITORY
from luthier_dev.providers import NodeCluster, provider

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)


@app.command("cluster-up")
def cluster_up(
    kuberay: Annotated[bool, typer.Option(help="Install KubeRay's operator.")] = True,
    s3: Annotated[bool, typer.Option(help="Install an S3 server.")] = True,
) -> None:
    """Bring up a cluster with KubeRay and S3, and print its KUBECONFIG."""
    cluster = provider()
    kubeconfig = cluster.up()
    if kuberay:
        addons.install_kuberay(cluster)
    if s3:
        addons.install_s3(cluster)
    steps.say(f"Up: {cluster.description}. To use it:")
    print(f"export KUBECONFIG={kubeconfig}")
    print(f"export PATH={binaries.path('kubectl').parent}:$PATH")


@app.command("cluster-down")
def cluster_down() -> None:
    """Take the cluster down; images stay."""
    provider().down()


@app.command("images")
def build_images(
    names: Annotated[list[str] | None, typer.Argument(help="By default all of Luthier and the demo.")] = None,
) -> None:
    """Build images whose sources changed, and load them where a cluster runs."""
    provider().build_images(names or [*images.OWN, *images.DEMO])


@app.command("binaries")
def build_binaries(
    names: Annotated[list[str] | None, typer.Argument(help="By default those of the integration tests.")] = None,
) -> None:
    """Build the programs that are missing."""
    binaries.ensure(names or controlplane.PROGRAMS)


@app.command("test-setup")
def test_setup() -> None:
    """Build everything that the tests need, so that no test waits for a build."""
    cluster = provider()
    with ThreadPoolExecutor(1) as side:
        built = side.submit(cluster.build_images, [*images.OWN, "luthier-s3"])
        if isinstance(cluster, NodeCluster):
            prerequisites.ensure_packages(prerequisites.NODE_PACKAGES | prerequisites.BROWSER_PACKAGES)
        mlflow_server.ensure()
        prometheus.ensure()
        inference_clients.ensure()
        docs_site.ensure()
        model_signing.ensure()
        binaries.ensure([*node.PROGRAMS, "ray-operator", "kueue", "helm", "helm-docs", "kubeconform"])
        built.result()


@app.command("lint-chart")
def lint_chart() -> None:
    """Check the Helm chart with helm lint and kubeconform, and that its generated files are up to date."""
    from luthier_dev import chart_files, charts

    chart_files.write(check=True)
    charts.lint()


@app.command("chart-files")
def write_chart_files() -> None:
    """Write what is made of the chart's values and scripts: README, dashboards, Argo CD's settings, anchors."""
    from luthier_dev import chart_files

    chart_files.write(check=False)


@app.command("docs")
def build_docs(
    serve: Annotated[bool, typer.Option("--serve", help="Show it on loopback, and follow edits.")] = False,
) -> None:
    """Build the documentation as a site; a broken link or a page that is missing is an error."""
    if serve:
        docs_site.serve()
        return
    with steps.step("Build the site", usually_s=10):
        folder = docs_site.build()
    steps.say(f"To read it: python3 -m http.server --bind 127.0.0.1 --directory {folder}")


@app.command("licences")
def list_licences(
    check: Annotated[bool, typer.Option("--check", help="Only tell whether docs/licences.md is up to date.")] = False,
) -> None:
    """List the licences of the packages in the images; fail if one of them is not permitted."""
    licences.write(check=check)


@app.command("release")
def make_release(
    key: Annotated[
        Path, typer.Option(help="Private key of `cosign generate-key-pair`; $COSIGN_PASSWORD is its password.")
    ],
    folder: Annotated[Path, typer.Option(help="Where the files go.")] = REPOSITORY / "release",
    names: Annotated[list[str] | None, typer.Option("--image", help="By default Luthier's three.")] = None,
    vulnerabilities: Annotated[
        Path | None, typer.Option(help="Archive of grype's database; by default the newest is downloaded.")
    ] = None,
    scan: Annotated[bool, typer.Option(help="Fail on critical vulnerabilities that an upgrade mends.")] = True,
) -> None:
    """Write images and chart as files, with bills of materials and signatures; nothing is pushed."""
    wanted = release.Options(folder.absolute(), key, names or images.OWN, vulnerabilities, scan)
    for file in release.make(wanted):
        print(file)


@app.command("clean")
def clean() -> None:
    """Remove every process, mount, network namespace, route and image."""
    cleanup.clean()


@app.command("demo")
def run_demo() -> None:
    """Run the demo on a real cluster: train, publish, serve, edit, revert."""
    from luthier_dev import demo

    demo.run()


def main() -> None:
    """Run a verb; an expected failure prints one sentence and exits with status 1."""
    try:
        app(standalone_mode=False)
    except DevError as error:
        if not getattr(error, "reported_by_step", False):
            print(f"luthier_dev: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("luthier_dev: interrupted; run the same command again to go on.", file=sys.stderr)
        sys.exit(130)
