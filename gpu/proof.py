"""Proves the GPU kit without a GPU: unpacked where neither this checkout nor a network can be reached.

The packages are those of machine.txt in an environment of their own, of Python 3.12. The kit runs with `--device cpu
--tiny`: every GPU test is collected and skipped, and every measurement yields its file. With `--older` it instead runs
the unit and integration tests of the trainer and of the server's engines on those packages. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kit import HERE, PYTHON, ROOT, make

from luthier_dev.errors import MachineError
from luthier_dev.paths import layout

MEMBERS = ("crds", "artifacts", "dev", "trainer_image[train]", "serving")
ENGINE = ("batch_plan", "engines", "entities", "loading", "model", "offsets", "tasks", "tokenization")
TESTS = (
    "tests/unit/trainer",
    *(f"tests/unit/serving/test_{name}.py" for name in ENGINE),
    "tests/integration/trainer",
    "tests/integration/serving/test_every_kind.py",
)
# What torch 2.11 cannot do: load tensors to "cpu:0", as two processes on CPUs do that resume. And it warns of
# its own torch.jit, which DeBERTa uses.
KNOWN = (
    "tests/integration/trainer/test_two_processes.py",
    "tests/integration/trainer/test_engine.py::test_what_cannot_be_packed_is_padded_in_groups_of_one_length[deberta-v2-]",
)
# A network of its own, in which only loopback is up, and nothing where the checkout was.
ISOLATED = """set -e
ip link set lo up
mount -t tmpfs none {checkout}
cd {kit}
exec ./run.sh --device cpu --tiny --minutes {minutes} --results {results}
"""


def environment(name: str, *more: str) -> Path:
    """Return the Python of an environment with the machine's packages, and others."""
    uv = str(layout().home / "tools" / "bin" / "uv")
    folder = layout().home / name
    python = folder / "bin" / "python"
    settings = os.environ | {"UV_CACHE_DIR": str(layout().home / "uv")}
    if not python.exists():
        wanted = os.environ.get("UV_PYTHON", PYTHON)
        made = subprocess.run([uv, "venv", "--quiet", "--no-python-downloads", f"--python={wanted}", str(folder)])
        if made.returncode:
            raise MachineError(f"The proof needs Python {PYTHON}: install it, or set UV_PYTHON to its path.")
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, "-r", str(HERE / "machine.txt")], env=settings, check=True, cwd=ROOT)
    if more:  # replaces what is older than our members allow
        subprocess.run([*install, *more], env=settings, check=True, cwd=ROOT)
    return python


def prove(minutes: float) -> int:
    """Make the kit and run it; return its exit code."""
    python = environment("gpu-machine")
    results = layout().home / "gpu-proof"
    with tempfile.TemporaryDirectory() as folder:
        kit = Path(folder) / "kit"
        print(f"the kit has {make(kit) / 2**20:.1f} MiB", flush=True)
        script = ISOLATED.format(checkout=ROOT, kit=kit, minutes=minutes, results=results)
        command = ["unshare", "--net", "--mount", "bash", "-c", script]
        code = subprocess.run(command, env=os.environ | {"PYTHON": str(python)}, cwd="/").returncode
    tests = json.loads((results / "gpu-tests.json").read_text())
    if tests["skipped"] != tests["tests"]:
        raise MachineError(f"Of {tests['tests']} GPU tests {tests['skipped']} were skipped; without a GPU all must be.")
    return code


def older(arguments: list[str]) -> int:
    """Run the tests of the trainer and of the server's engines on the machine's packages."""
    members = [option for member in MEMBERS for option in ("-e", member)]
    tools = ["playwright", "pytest-asyncio", "seqeval", "tensorboard"]
    python = environment("gpu-older", *members, *tools)
    command = [str(python), "-m", "pytest", "-m", "unit or integration", *(arguments or TESTS)]
    command += [f"--deselect={name}" for name in KNOWN]
    return subprocess.run(command, cwd=ROOT).returncode


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--older", nargs="*", metavar="TEST", help="run tests instead; by default all that matter")
    options = parser.parse_args()
    return prove(options.minutes) if options.older is None else older(options.older)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MachineError as error:
        sys.exit(f"{error}")
