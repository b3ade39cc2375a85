"""Tries the unit tests: each mutant is a small bug put into the source, and some test must fail because of it.

    make mutants                            all of them
    make mutants ARGS="registry keys.py"    those whose member or file contains one of these words

Each `tests/mutants/<member>.toml` holds tables like this:

    [[mutant]]
    file = "crds/luthier_api/keys.py"
    old = "if steps >= limit:"          # must occur exactly once in the file
    new = "if steps > limit:"
    tests = "tests/unit/api/test_keys.py"
    why = "one step too many"           # what a user would suffer
    equivalent = "..."                  # only where no test can tell the difference: why not

The mutants are put into copies of this working tree; the tree itself is never changed. A mutant is killed when its
tests fail or run out of time, ALIVE when they pass, and stale when it no longer fits the source or when its tests do
not pass without it. The exit status is 1 when any is stale or more than one in twenty is alive.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = ("crds", "artifacts", "operator", "trainer_image", "serving", "cli", "dev")
PYTEST = "pytest -x -q -m unit -p no:cacheprovider --hypothesis-seed=0"
LIMIT_S = 180
MAX_SHARE_ALIVE = 1 / 20
# Each thread has a copy of the tree of its own.
_here = threading.local()


@dataclass(frozen=True)
class Mutant:
    """One bug: replace `old` by `new` in `file`, then run `tests`."""

    member: str
    file: str
    old: str
    new: str
    tests: str
    why: str
    equivalent: str = ""

    def fits(self) -> bool:
        """Tell whether the text to replace occurs exactly once in the source."""
        path = ROOT / self.file
        return path.is_file() and self.old != self.new and path.read_text().count(self.old) == 1

    def place(self) -> str:
        """Return file and line, for the table."""
        before = (ROOT / self.file).read_text().partition(self.old)[0] if self.fits() else ""
        return f"{self.file}:{before.count(chr(10)) + 1}"


def load(words: list[str]) -> list[Mutant]:
    """Return the chosen mutants of all files, in order."""
    files = sorted(Path(__file__).parent.glob("*.toml"))
    mutants = [Mutant(file.stem, **table) for file in files for table in tomllib.loads(file.read_text())["mutant"]]
    return [m for m in mutants if not words or any(word in f"{m.member} {m.file}" for word in words)]


def copy_tree(folder: str) -> None:
    """Give this thread a copy of what git tracks or would track, as it is in the working tree."""
    _here.tree = Path(tempfile.mkdtemp(dir=folder))
    listed = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (_here.tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, _here.tree / name)


def passes(tests: str) -> bool:
    """Run tests on this thread's sources. No bytecode: a mutant of the same second and size would run the old one."""
    path = os.pathsep.join(str(_here.tree / member) for member in MEMBERS)
    process = subprocess.Popen(
        [sys.executable, "-m", *PYTEST.split(), *tests.split()],
        cwd=_here.tree,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(LIMIT_S) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == 0


def judge(mutant: Mutant) -> str:
    """Return what becomes of a mutant, and leave the source as before."""
    if mutant.equivalent:
        return "equivalent"
    path = _here.tree / mutant.file
    source = path.read_text()
    path.write_text(source.replace(mutant.old, mutant.new))
    try:
        return "ALIVE" if passes(mutant.tests) else "killed"
    finally:
        path.write_text(source)


def main() -> int:
    """Run the mutants and print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="make mutants", description="Put bugs into the source; tests must notice.")
    parser.add_argument("words", nargs="*", help="only mutants whose member or file contains one of these")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at once")
    options = parser.parse_args()
    mutants, counts = load(options.words), dict.fromkeys(("killed", "ALIVE", "equivalent", "stale"), 0)
    with (
        tempfile.TemporaryDirectory(prefix="luthier-mutants-") as folder,
        ThreadPoolExecutor(options.jobs, initializer=copy_tree, initargs=(folder,)) as pool,
    ):
        suites = sorted({mutant.tests for mutant in mutants})
        healthy = dict(zip(suites, pool.map(passes, suites), strict=True))
        verdicts = pool.map(lambda m: judge(m) if m.fits() and healthy[m.tests] else "stale", mutants)
        for mutant, verdict in zip(mutants, verdicts, strict=True):
            counts[verdict] += 1
            print(f"{verdict:<10} {mutant.place():<60} {mutant.why}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if counts["stale"] or counts["ALIVE"] > (counts["killed"] + counts["ALIVE"]) * MAX_SHARE_ALIVE else 0


if __name__ == "__main__":
    sys.exit(main())
