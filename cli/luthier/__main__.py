"""The programs `luthier` and `kubectl-luthier`, which are one."""

import sys
from pathlib import Path

from luthier.commands import app


def main() -> None:
    """Run the command line; kubectl starts its plugin under the plugin's name, and people call it `kubectl luthier`."""
    name = Path(sys.argv[0]).name
    app(prog_name="kubectl luthier" if name.startswith("kubectl-") else "luthier")


if __name__ == "__main__":
    main()
