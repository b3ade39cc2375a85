"""Makes the GPU kit: a folder that a machine with a GPU and no network needs to test and measure Luthier.

    python gpu/kit.py [OUT]        the folder; by default gpu-kit, which git ignores

It holds our members and what they need as wheels, the GPU tests and benchmarks, the small real model in half precision,
real texts, and `run.sh`. README.md says how it is used.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from luthier_dev import samples, steps
from luthier_dev.errors import MachineError
from luthier_dev.paths import layout

HERE = Path(__file__).parent
ROOT = HERE.parent
MEMBERS = ("crds", "artifacts", "trainer_image", "serving", "dev")
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MOST_BYTES = 60 * 2**20
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.pyc")
PYTEST = """[pytest]
addopts = --import-mode=importlib --strict-markers -ra
pythonpath = tests
timeout = 300
markers =
    gpu: needs an NVIDIA GPU; skipped where there is none
    unit: not in the kit
    integration: not in the kit
"""


def wheels(folder: Path) -> None:
    """Build our members, and download what they need."""
    for member in MEMBERS:
        uv = layout().home / "tools" / "bin" / "uv"
        steps.run_logged([str(uv), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT / member)])
    (folder / ".gitignore").unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pinned:
        pinned.write(_pinned((HERE / "wheels.txt").read_text().split("\n")))
        pinned.flush()
        platforms = [f"--platform={name}" for name in PLATFORMS]
        target = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
        download = ["download", "--no-deps", "--require-hashes", "-r", pinned.name, "-d", str(folder)]
        steps.run_logged([*samples.pip(), *download, *target])


def _pinned(names: list[str]) -> str:
    """Return the requirements of these names in constraints.txt, with their hashes."""
    requirements = re.split(r"\n(?=\S)", (ROOT / "constraints.txt").read_text())
    by_name = {requirement.partition("==")[0].lower(): requirement for requirement in requirements}
    return "\n".join(by_name[name] for name in names if name and not name.startswith("#")) + "\n"


def model(folder: Path) -> None:
    """Copy the small real model, its weights in half precision."""
    shutil.copytree(samples.base_model(), folder)
    weights = load_file(folder / "model.safetensors")
    halves = {name: each.half() if each.is_floating_point() else each for name, each in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})


def copy(source: str, out: Path) -> None:
    """Copy a file or folder of the checkout to the same place in the kit."""
    here = ROOT / source
    if here.is_dir():
        shutil.copytree(here, out / source, ignore=NOT_COPIED)
    else:
        (out / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here, out / source)


def about() -> dict[str, str]:
    """Return which source this is."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {"commit": commit.stdout.strip(), "python": PYTHON}


def make(out: Path) -> int:
    """Make the kit anew, and return its size in bytes.

    Raises:
        MachineError: it is larger than may be.
    """
    shutil.rmtree(out, ignore_errors=True)
    (out / "wheels").mkdir(parents=True)
    wheels(out / "wheels")
    for source in ("tests/conftest.py", "tests/gpu", "tests/support/__init__.py", "tests/support/trainer"):
        copy(source, out)
    for source in ("tests/support/serving", "benchmarks/training_sides.py", "benchmarks/gpu"):
        copy(source, out)
    for name in ("run.sh", "stages.py", "README.md"):
        shutil.copy(HERE / name, out)
    (out / "pytest.ini").write_text(PYTEST)
    (out / "kit.json").write_text(json.dumps(about()) + "\n")
    model(out / "home" / "samples" / "all-MiniLM-L6-v2")
    samples.reviews_csv(out / "home" / "samples" / "reviews")
    samples.reviews_csv(out / "home" / "samples" / "reviews-and-films", films=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise MachineError(f"The kit has {size / 2**20:.1f} MiB; at most {MOST_BYTES / 2**20:.0f} may travel.")
    return size


def main() -> None:
    """Make the kit, and list what is in it."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "gpu-kit"
    size = make(out)
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size / 1024:10.1f} KiB  {path.relative_to(out)}")
    print(f"{out.name}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
