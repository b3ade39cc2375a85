"""Write the CRDs, and the reference in docs/, from the models; with --check only tell whether they are up to date.

The CRDs lie in the chart, and crds/*.yaml are links to them. Not the other way round: Flux leaves links out when it
fetches a chart from git, and the chart would install without CRDs.
Run by `make generate`; `make lint` runs the check.
"""

import sys
from pathlib import Path

import yaml

from luthier_api.reference import reference_pages
from luthier_api.schema import crds

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Generated from luthier_api by `make generate`. Do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would read as a number: PyYAML writes the text 1e-8 bare, and kubectl reads a float."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    number = value[:1].isdigit() and "e" in value.lower()
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if number else None)


_Dumper.add_representer(str, _text)


def generated() -> dict[Path, str]:
    """Return {path: text} of every generated file."""
    files = {}
    for name, document in crds().items():
        text = HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110)
        files[ROOT / "charts" / "luthier" / "files" / "crds" / name] = text
    for name, text in reference_pages().items():
        files[ROOT / "docs" / "reference" / name] = text
    return files


def main() -> int:
    """Write or check; return the exit status."""
    check = "--check" in sys.argv[1:]
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    if check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the models say; run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
