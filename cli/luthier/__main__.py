"""The programs `luthier` and `kubectl-luthier`, which are one, and what completes the latter in a shell."""

import os
import shlex
import sys
from pathlib import Path

from luthier.commands import app

# kubectl's plugins say by the last line how the shell goes on: 4 is "these words and no file names".
_NO_FILES = ":4"


def main() -> None:
    """Run the command line; kubectl starts its plugin under the plugin's name, and people call it `kubectl luthier`."""
    name = Path(sys.argv[0]).name
    app(prog_name="kubectl luthier" if name.startswith("kubectl-") else "luthier")


def complete() -> None:
    """Print what may come next, for kubectl, which runs this with the words that are typed so far."""
    words = sys.argv[1:]
    typed = {"COMP_WORDS": shlex.join(["luthier", *words]), "COMP_CWORD": str(len(words))}
    os.environ.update(typed, _LUTHIER_COMPLETE="complete_bash")
    try:
        app(prog_name="luthier")
    except SystemExit:
        print(_NO_FILES)


if __name__ == "__main__":
    main()
