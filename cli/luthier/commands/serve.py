"""predict, and the aliases of a model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from luthier.commands.options import Context, Kubeconfig, Name, Namespace, Output, cluster_of
from luthier.errors import Invalid
from luthier.prediction import predict as ask
from luthier.screens import words
from luthier.screens.console import Format, say, show, show_json
from luthier.screens.tables import aliases_table, predictions_table
from luthier.storage import told
from luthier.version_names import Versions


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(predict)
    aliases = typer.Typer(
        help="Names such as `production` that point at a version, in the registry.", no_args_is_help=True
    )
    aliases.command("list")(list_aliases)
    aliases.command("set")(set_alias)
    app.add_typer(aliases, name="alias")


def predict(
    name: Name,
    texts: Annotated[list[str], typer.Argument(help="Texts; - reads one from each line of standard input.")],
    pair: Annotated[
        list[str] | None, typer.Option(help="Second text, for a model of pairs; once for each text.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the answer may take.", min=0.1)] = 60,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Ask a served model, through the API server."""
    given = [line.rstrip("\n") for line in sys.stdin if line.strip()] if texts == ["-"] else texts
    if pair and len(pair) != len(given):
        raise Invalid(f"There are {len(given)} texts and {len(pair)} second ones: give --pair once for each text.")
    answers = ask(cluster_of(namespace, context, kubeconfig), name, given, pair or None, timeout)
    if output is Format.JSON:
        show_json(answers)
    else:
        show(predictions_table(answers))


def list_aliases(
    name: Name,
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the aliases of a FineTuneJob's model."""
    versions = Versions(cluster_of(namespace, context, kubeconfig), name)
    registry = versions.place.registry
    with told():
        aliases = registry.list_aliases()
    if output is Format.JSON:
        show_json([vars(alias) for alias in aliases])
    elif aliases:
        show(aliases_table(aliases, words.now_utc()))
    else:
        say(f"{versions.job.title} has no alias; `luthier alias set {name} production VERSION` makes one.")


def set_alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="Name of the alias.")],
    version: Annotated[str, typer.Argument(help="A version, its beginning, another alias, `current` or `previous`.")],
    output: Output = Format.TEXT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make an alias, or move it; of two people who move it at once, one is told."""
    versions = Versions(cluster_of(namespace, context, kubeconfig), name)
    registry, resolved = versions.place.registry, versions.resolve(version)
    with told():
        before = registry.get_alias(alias)
        now = registry.set_alias(alias, resolved, replacing=before)
    if output is Format.JSON:
        show_json(vars(now))
    else:
        say(f"{alias}: {before.version if before else 'new'} -> {now.version}")
