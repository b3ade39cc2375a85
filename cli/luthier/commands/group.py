"""The application: one place where errors become a sentence on standard error, and an exit code."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from luthier.errors import ExitCode, LuthierError
from luthier.screens.console import say

HELP = (
    "Fine-tune and serve models with Luthier: from a CSV to a served version, and all that comes after.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 not found, 4 invalid, 5 not allowed, 6 no answer, 7 stalled, "
    "8 timed out, 9 declined."
)


class SentenceGroup(TyperGroup):
    """A group whose commands' errors are for people."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. A bug is no `LuthierError`, and ends with its traceback."""
        try:
            return super().invoke(ctx)
        except LuthierError as error:
            say(f"luthier: {error}", stderr=True)
            raise typer.Exit(int(error.code)) from error


def new_app() -> typer.Typer:
    """Return an application without commands."""
    app = typer.Typer(
        cls=SentenceGroup,
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def _options(
        show_version: Annotated[
            bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
        ] = False,
    ) -> None:
        pass

    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"luthier {version('luthier')}")
        raise typer.Exit(int(ExitCode.OK))
