"""`python -m luthier_trainer merge ARTIFACT BASE OUT`: a plain model of an adapter and its base model.

The command line alone; what merging is lies in `adapters`. Needs no run document and no storage: folders only.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from luthier_api.exitcodes import ExitCode
from luthier_trainer.models.adapters import merge_folders
from luthier_trainer.runtime.outcome import exit_code_of, failure_result, is_known


def main(arguments: Sequence[str]) -> int:
    """Merge, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m luthier_trainer merge",
        description="Merge an artifact's adapter into the base model that it was trained on.",
    )
    parser.add_argument("artifact", type=Path, help="folder of a LoRA or QLoRA artifact, with adapter/ in it")
    parser.add_argument("base", type=Path, help="folder of the base model; another one is refused")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        merge_folders(options.artifact, options.base, options.out)
    except Exception as error:
        failure = failure_result(error).failure
        if not is_known(error) or failure is None:
            raise
        print(f"{failure.reason}: {failure.message}", file=sys.stderr)
        return exit_code_of(error)
    return ExitCode.OK
